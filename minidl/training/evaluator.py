"""What a ``Trainer`` does with its model without training it: predict, and evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np

from minidl.nn import Layer, Loss, MultiLoss
from minidl.nn.checks import check_count
from minidl.nn.frames import Columns
from minidl.nn.hooks import evaluating
from minidl.optim import EMA, Optimizer
from minidl.recording.pytree import tree_leaves
from minidl.training.data import Batch, Data, Source
from minidl.training.inputs import as_inputs
from minidl.training.interrupt import deferred_to_step_end
from minidl.training.metrics import Start
from minidl.training.prediction import Predictor, joined
from minidl.training.preparation import for_evaluation
from minidl.training.tally import tally_of
from minidl.typing import Array

EVALUATION_BATCH = 1024
STATISTICS_ROWS = 8192  # on which BatchNorm's statistics are measured for the averages of an EMA


class Evaluator:
    """Predicts and evaluates, with the parts that a ``Trainer`` has."""

    model: Layer
    loss: Loss
    optimizer: Optimizer
    ema: EMA | None
    report_penalty: bool
    metrics: dict[str, Start]
    columns: tuple[Columns, ...]
    _predictor: Predictor

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype to which data are cast: that of the parameters."""
        return self.optimizer.flat.dtype

    def predict(self, X: Any, batch_size: int = EVALUATION_BATCH) -> Any:
        """Compute the model's output for every row, with all layers in evaluation.

        Any number of threads may call it. The modes of the layers and their state do not change.

        Parameters
        ----------
        X
            As for ``fit``; NaN, infinity and numbers beyond the model's dtype are refused.
        batch_size
            Number of rows at a time. It bounds the memory, and changes results by rounding only.

        Returns
        -------
        ndarray or tuple of ndarray
            The outputs (samples, ...). For a classifier they are the logits, and
            ``predict(X).argmax(axis=1)`` the labels. For a list of sequences they are
            (samples, longest, ...), and values after the end of a sequence have no meaning. Of a
            model with several outputs, a tuple of them.

        Raises
        ------
        TypeError, ValueError
            For data that the model cannot take, naming the first bad row.
        """
        predictor = self._predictor_of_model()
        if (quick := predictor.quick(X, batch_size)) is not None:
            return quick
        check_count("predict", "batch_size", batch_size)
        inputs = as_inputs("X", X, self.model, self.dtype)
        inputs.check_columns(self.columns)
        batches = (slice(i, i + batch_size) for i in range(0, len(inputs), batch_size))
        outputs = [predictor(*inputs.cast(rows)) for rows in batches]
        return joined(outputs)  # copies: a layer may return its very input

    def evaluate(
        self, X: Any, y: Any, batch_size: int = EVALUATION_BATCH, sample_weight: Any = None
    ) -> dict[str, float]:
        """Compute loss and metrics of the model in evaluation mode.

        Parameters
        ----------
        X, y
            Features and targets, as for ``fit``.
        batch_size
            Number of rows at a time.
        sample_weight
            A weight for each row in the loss and in ``weighted_metrics``, as for ``fit``.

        Returns
        -------
        dict
            ``{"loss": ..., "accuracy": ...}``
        """
        check_count("evaluate", "batch_size", batch_size)
        with np.errstate(all="ignore"):
            source = self._source(X, y)
            batches = for_evaluation(source, sample_weight, self.metrics, batch_size)
            return self._evaluate(batches, batch_size)

    def lasting(self) -> list[Array]:
        """Return what a checkpoint needs: parameters, the layers' state, averages of an ``ema``."""
        averages = [*self.ema.averages, *self.ema.state_averages] if self.ema is not None else []
        arrays = [parameter.data for parameter in self.model.parameters()]
        return [*arrays, *self.model.state().values(), *averages]

    # --- in parts ---

    def _predictor_of_model(self) -> Predictor:
        """Return the predictor of the current model."""
        if self._predictor.model is not self.model:
            self._predictor = Predictor(self.model, self.dtype, self._predictor.record)
        return self._predictor

    def _source(self, X: Any, y: Any) -> Source:
        source = Source("", X, y, self.model, self.loss, self.dtype)
        source.inputs.check_columns(self.columns)
        return source

    def _penalty(self) -> float:
        return self.optimizer.penalty() if self.report_penalty else 0.0

    def _take_statistics(self, data: Data) -> None:
        """Measure the statistics that the averages need, on some rows of the training data."""
        if self.ema is None or not self.ema.has_statistics:
            return
        rows = np.random.default_rng(0).permutation(len(data))[:STATISTICS_ROWS]
        parts = np.array_split(rows, -(-len(rows) // EVALUATION_BATCH))
        with deferred_to_step_end(), np.errstate(all="ignore"):
            self.ema.take_statistics(data.take(part).inputs for part in parts)

    def _validate(self, data: Data) -> dict[str, float]:
        """Compute loss and metrics, with the averages if there are any."""
        # Ctrl-C waits: within EMA.swap, which average() calls, it would leave some parameters
        # swapped with their averages and others not.
        with (
            deferred_to_step_end() as signals,
            self.ema.average() if self.ema is not None else nullcontext(),
        ):
            batches = data.batches(EVALUATION_BATCH)
            return self._evaluate(batches, EVALUATION_BATCH, signals.deliver)

    def _evaluate(
        self,
        batches: Iterable[Batch],
        batch_size: int,
        between: Callable[[], object] = lambda: None,
    ) -> dict[str, float]:
        """Compute loss and metrics over these batches; call ``between`` after each."""
        tally, predictor = tally_of(self.loss, self.metrics), self._predictor_of_model()
        with evaluating():
            for inputs, (y, *weight) in batches:
                prediction = predictor(*inputs)
                value: Any = float(self.loss(prediction, y, *weight))
                if isinstance(self.loss, MultiLoss):
                    value = tuple(map(float, self.loss.values.values()))
                loss_weight = self.loss.row_weights(y, *weight)
                rows = len(next(tree_leaves(y)))
                tally.add([value], batch_size, rows, loss_weight)
                tally.add_predictions(prediction, y, weight[0] if weight else None, loss_weight)
                between()
        values = tally.read()
        values["loss"] += self._penalty()
        return values
