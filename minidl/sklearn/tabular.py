"""``MLPClassifier`` and ``MLPRegressor``: scikit-learn's, with more parameters, and faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_regressor
from sklearn.utils import column_or_1d
from sklearn.utils.validation import validate_data

from minidl import nn
from minidl.sklearn.classification import Classifier
from minidl.sklearn.estimator import NetworkEstimator
from minidl.sklearn.network import Activation, Hidden, finished, hidden_layers, mlp
from minidl.sklearn.regression import Regressor
from minidl.typing import Array

FLOATS = (np.float64, np.float32)


@dataclass(eq=False, repr=False)
class TabularEstimator(NetworkEstimator):
    """Takes a table of features: an array, a sparse matrix, a frame of pandas or polars."""

    def _features(self, X: Any, reset: bool) -> Any:
        return validate_data(self, X, accept_sparse=["csr"], dtype=FLOATS, reset=reset)

    def _checked_pair(self, X: Any, y: Any, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr"],
            multi_output=True,
            dtype=FLOATS,
            y_numeric=is_regressor(self),
            reset=reset,
        )
        y = y.toarray() if issparse(y) else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X.toarray() if issparse(X) else X, y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags


@dataclass(eq=False, repr=False)
class FullyConnected(TabularEstimator):
    """Builds a network of fully connected layers."""

    _: KW_ONLY
    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: Activation | Sequence[Activation] = "relu"
    dropout: float | Sequence[float] = 0.0
    norm: str | Callable[[int], nn.Layer] | None = None
    residual: bool = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._hidden()

    def _hidden(self) -> list[Hidden]:
        owner, sizes = type(self).__name__, self.hidden_layer_sizes
        return hidden_layers(owner, sizes, self.activation, self.dropout, self.norm)

    def _build(self, X: Any, rng: np.random.Generator) -> nn.Layer:
        hidden = self._hidden()
        layers = mlp(X.shape[1], hidden, self.n_outputs_, self.residual, self.scale_inputs)
        return finished(layers, X.dtype, rng)


@dataclass(eq=False, repr=False)
class MLPClassifier(FullyConnected, Classifier):
    """Classifies rows by a network of fully connected layers."""

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: Activation | Sequence[Activation] = "relu"


@dataclass(eq=False, repr=False)
class MLPRegressor(FullyConnected, Regressor):
    """Predicts numbers by a network of fully connected layers."""

    loss: Any = "squared_error"
    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: Activation | Sequence[Activation] = "relu"
