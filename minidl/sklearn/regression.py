"""What all regressors share: one target or several, maybe standardised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import d2_pinball_score, r2_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.metaestimators import available_if

from minidl import nn
from minidl.sklearn import objectives
from minidl.sklearn.estimator import NetworkEstimator, check_given, goes_on_in_epochs
from minidl.sklearn.targets import Numbers
from minidl.typing import Array


@dataclass(eq=False, repr=False)
class Regressor(RegressorMixin, NetworkEstimator):
    """Learns numbers: one for each row, or several."""

    _: KW_ONLY
    loss: Any = "squared_error"
    quantile: float | Sequence[float] = 0.5
    scale_targets: bool = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        objectives.regression_loss(type(self).__name__, self.loss, self.quantile)
        if self.scale_targets and self.loss == "poisson":
            owner = type(self).__name__
            raise ValueError(f'{owner}: loss="poisson" counts, so scale_targets must be False')

    # --- targets ---

    def _learn_targets(self, y: Array, weight: Array | None, classes: Any) -> None:
        self._measure_targets(y, weight)
        self._learn_loss()

    def _measure_targets(self, y: Array, weight: Array | None) -> None:
        self._numbers = Numbers.of(y, weight, self.scale_targets)

    def _learn_loss(self) -> None:
        """Note what outputs mean, which ``set_params`` must not change before another ``fit``."""
        self._loss = self.loss
        self._quantiles = np.ravel(self.quantile).tolist() if self.loss == "quantile" else []
        if len(self._quantiles) > 1 and self._numbers.outputs > 1:
            raise ValueError(
                f"{type(self).__name__}: {len(self._quantiles)} quantiles need one target a row, y "
                f"has {self._numbers.outputs}"
            )

    def _check_same_targets(self, y: Array) -> None:
        learned, outputs = (self._loss, self._quantiles), self.n_outputs_
        self._learn_loss()
        if (needed := self.n_outputs_) != outputs:
            self._loss, self._quantiles = learned
            raise ValueError(
                f"{type(self).__name__}: with this loss the network needs {needed} outputs and has "
                f"{outputs}; warm_start=False builds another network"
            )

    def _encode(self, y: Array, dtype: np.dtype[Any]) -> Array:
        if self._loss == "poisson" and (y < 0).any():
            row = int(np.flatnonzero((y < 0).reshape(len(y), -1).any(axis=1))[0])
            raise ValueError(f'y: loss="poisson" needs counts >= 0, row {row} holds {y[row]}')
        return self._numbers.encoded(y, dtype)

    def _means(self, outputs: Array) -> Array:
        """Return what outputs predict, in the scale in which targets are learned."""
        if self._loss == "gaussian":
            return outputs[:, : self._numbers.outputs]
        return np.exp(outputs) if self._loss == "poisson" else outputs

    def _make_loss(self) -> nn.Loss:
        return objectives.regression_loss(type(self).__name__, self.loss, self.quantile)

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        return self._score(y, self._means(outputs), weight)

    def _score(self, y: Array, prediction: Array, weight: Array | None) -> float:
        """Return R², or for quantiles the mean of their D²."""
        weights = {"sample_weight": weight}
        if not self._quantiles:
            return float(r2_score(y, prediction, **weights))
        columns = prediction.reshape(len(y), -1)
        if len(self._quantiles) == 1:
            return float(d2_pinball_score(y, columns, alpha=self._quantiles[0], **weights))
        of_quantiles = zip(self._quantiles, columns.T, strict=True)
        return float(np.mean([d2_pinball_score(y, c, alpha=q, **weights) for q, c in of_quantiles]))

    # --- what users call ---

    @available_if(goes_on_in_epochs)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        epochs: int = 1,
        validation: Any = None,
    ) -> Self:
        """Train for one epoch or several, going on where the latest call ended.

        As many calls of one epoch are ``fit`` of that many, to the last bit.

        Parameters
        ----------
        X, y, sample_weight, validation
            As for ``fit``.
        epochs
            How many, ≥ 1; with ``early_stopping`` fewer, if the score on ``validation`` no longer
            improves.
        """
        return self._partial_fit(X, y, sample_weight, None, epochs, validation)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the target of each row: (rows), or (rows, targets), or (rows, quantiles).

        With ``return_std``, which ``loss="gaussian"`` can, it is a pair: the prediction, and the
        standard deviation of the target from it.
        """
        outputs = self._outputs(X)
        prediction = self._numbers.decoded(self._means(outputs))
        if not return_std:
            return prediction
        if self._loss != "gaussian":
            raise ValueError(f'return_std needs loss="gaussian", got {self._loss!r}')
        return prediction, self._numbers.spread(np.exp(outputs[:, self._numbers.outputs :] / 2))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Compute R² of the predictions; for ``loss="quantile"``, the D² of the pinball loss."""
        check_given(self, y)
        prediction = self.predict(X)
        y = check_array(y, dtype="numeric", ensure_2d=False, input_name="y")
        check_consistent_length(y, prediction)
        return self._score(y.reshape(len(y), -1), prediction, sample_weight)

    # --- what fit leaves ---

    @property
    def n_outputs_(self) -> int:
        """Number of outputs of the network: one for each target or quantile; Gaussian: two."""
        each = 2 if self._loss == "gaussian" else max(1, len(self._quantiles))
        return self._numbers.outputs * each

    @property
    def out_activation_(self) -> str:
        """What turns outputs into predictions: ``"identity"``, or for Poisson ``"exp"``."""
        return "exp" if self._loss == "poisson" else "identity"
