"""What a fitted estimator shows: scikit-learn's attributes, and the table of its layers."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from minidl import nn
from minidl.optim import Optimizer
from minidl.sklearn.fitting import Fitting
from minidl.sklearn.network import linear_layers
from minidl.sklearn.parameters import TrainingParameters
from minidl.training import History, Trainer
from minidl.typing import Array


@dataclass(eq=False, repr=False)
class Results(TrainingParameters):
    """The attributes of a fitted estimator; before ``fit``, they raise AttributeError."""

    @property
    def _fitted(self) -> Fitting:
        """The training of the network."""
        found: Fitting | None = vars(self).get("_fitting")
        if found is None or found.trainer is None:
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return found

    @property
    def _trainer(self) -> Trainer:
        trainer = self._fitted.trainer
        assert trainer is not None
        return trainer

    @property
    def optimizer_(self) -> Optimizer:
        """The optimizer."""
        return self._trainer.optimizer

    @property
    def history_(self) -> History:
        """The epochs of the latest ``fit`` or ``partial_fit``, with what callbacks have added."""
        return self._trainer.history

    # --- the network ---

    @property
    def coefs_(self) -> list[Array]:
        """The weights (inputs, outputs) of every ``Linear``, first to last."""
        return [layer.weight.data for layer in linear_layers(self._fitted.network)]

    @property
    def intercepts_(self) -> list[Array]:
        """The biases (outputs) of every ``Linear`` that has one, first to last."""
        layers = linear_layers(self._fitted.network)
        return [layer.bias.data for layer in layers if layer.bias is not None]

    @property
    def n_layers_(self) -> int:
        """Number of layers, input and output counted, the work between two weights not."""
        return len(linear_layers(self._fitted.network)) + 1

    # --- what the epochs have measured ---

    @property
    def n_iter_(self) -> int:
        """Epochs of the latest ``fit`` or ``partial_fit``; with ``lbfgs``, iterations."""
        return self._fitted.curves.epochs

    @property
    def t_(self) -> int:
        """Rows that were trained on, each as often as it was."""
        return self._fitted.curves.rows

    @property
    def loss_curve_(self) -> list[float]:
        """The loss of every epoch, penalty included."""
        return self._fitted.curves.loss

    @property
    def loss_(self) -> float:
        """The loss of the latest epoch."""
        return self._losses[-1]

    @property
    def best_loss_(self) -> float | None:
        """The least loss of an epoch; None with early stopping, as in scikit-learn."""
        return None if self.early_stopping else min(self._losses)

    @property
    def _losses(self) -> list[float]:
        """The loss curve, of one epoch or more."""
        if not (found := self._fitted.curves.loss):
            raise AttributeError("the training was interrupted in its first epoch: it has no loss")
        return found

    @property
    def validation_loss_curve_(self) -> list[float] | None:
        """The loss on validation data after every epoch; None without."""
        return self._fitted.curves.validation_loss or None

    @property
    def validation_scores_(self) -> list[float] | None:
        """The score on validation data after every epoch; None without."""
        return self._fitted.curves.scores or None

    @property
    def best_validation_score_(self) -> float | None:
        """The highest score on validation data; None without."""
        scores = self._fitted.curves.scores
        return max(scores) if scores else None

    # --- in a notebook ---

    def _repr_html_inner(self) -> Any:
        return super()._repr_html_inner() + self._table()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        if "text/html" in bundle:
            bundle["text/html"] += self._table()
        return bundle

    def _table(self) -> str:
        """Return the table of the network's layers, if there is one yet."""
        network: nn.Layer | None = vars(self).get("network_")
        return "" if network is None else f"<pre>{html.escape(repr(network))}</pre>"
