"""What all regressors share: one target or several, maybe standardised."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if

from minidl import nn
from minidl.sklearn import objectives
from minidl.sklearn.estimator import NetworkEstimator, goes_on_in_epochs
from minidl.sklearn.targets import Numbers
from minidl.typing import Array


@dataclass(eq=False, repr=False)
class Regressor(RegressorMixin, NetworkEstimator):
    """Learns numbers: one for each row, or several."""

    _: KW_ONLY
    loss: Any = "squared_error"
    scale_targets: bool = False

    # --- targets ---

    def _learn_targets(self, y: Array, classes: Any = None) -> None:
        self._numbers = Numbers.of(y, self.scale_targets)

    def _encode(self, y: Array, dtype: np.dtype[Any]) -> Array:
        return self._numbers.encoded(y, dtype)

    def _make_loss(self) -> nn.Loss:
        return objectives.regression_loss(type(self).__name__, self.loss)

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        return float(r2_score(y, outputs, sample_weight=weight))

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

    def predict(self, X: Any) -> Array:
        """Predict the target of each row: (rows), or (rows, targets)."""
        outputs = self._outputs(X)
        return self._numbers.decoded(outputs)

    # --- what fit leaves ---

    @property
    def n_outputs_(self) -> int:
        """Number of outputs of the network."""
        return self._numbers.outputs

    @property
    def out_activation_(self) -> str:
        """What turns outputs into predictions: ``"identity"``."""
        return "identity"
