"""``MLPClassifier`` and ``MLPRegressor``: scikit-learn's, with more parameters, and faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_regressor
from sklearn.utils import check_array, column_or_1d
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
        if is_regressor(self):
            y = check_array(y, dtype="numeric", ensure_2d=False, input_name="y")
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
    """Classifies rows by a network of fully connected layers.

    p(class k | x) = softmax(z)_k with z = W_L · φ(... φ(W_1 · x + b_1) ...) + b_L; for two classes,
    and for each of several labels a row, p = σ(z)

    It stands in for scikit-learn's class of that name: parameters, their defaults and fitted
    attributes are the same, and there are more. The network computes in float32 if X is float32,
    else in float64.

    Shapes: X (rows, features); y (rows), or (rows, labels) of zeros and ones.

    Parameters
    ----------
    hidden_layer_sizes
        The width of each hidden layer; ``()``: none.
    activation
        ``"relu"``, ``"tanh"``, ``"logistic"``, ``"identity"``, or one of minidl's others such as
        ``"gelu"`` and ``"leaky_relu"``; a class of layers, or a function that makes one; or a list
        with one for each hidden layer.
    dropout
        Probability with which an output of a hidden layer is set to zero; or a list.
    norm
        ``"batch"``, ``"layer"`` or ``"rms"``: a normalization before each activation; or a function
        from a width to a layer.
    residual
        Whether each hidden layer is added to what comes in.
    loss
        ``"log_loss"``; a ``Loss``, such as ``nn.BCEWithLogitsLoss(pos_weight=3.0)``; or a function
        ``(outputs, targets) -> (loss of every row, gradient of their sum)`` of arrays.
    class_weight
        ``{label: weight}``, or ``"balanced"``: each class has the same total weight. They count in
        the training loss, and neither in losses nor in scores on held-out rows.

    All others are those of every estimator: see ``TrainingParameters``.

    Attributes
    ----------
    classes_
        The classes, sorted.
    network_, optimizer_, history_
        The layer, the optimizer and the epochs of the latest ``fit``, as ``Trainer`` has them.
    coefs_, intercepts_
        Weights (inputs, outputs) and biases of every ``Linear``; a change changes the network.
    loss_curve_, validation_loss_curve_, validation_scores_
        A value for every epoch: loss with penalty, and on validation data loss and accuracy.

    ``loss_``, ``best_loss_``, ``best_validation_score_``, ``n_iter_``, ``t_``, ``n_layers_``,
    ``n_outputs_``, ``out_activation_``, ``n_features_in_`` and ``feature_names_in_`` are those of
    scikit-learn.

    Raises
    ------
    TypeError, ValueError
        By ``fit``, for parameters outside their ranges, and for data that are no numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from minidl.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier(
    ...     (32, 32), "gelu", dropout=0.1, scale_inputs=True, batch_size=32, random_state=0
    ... )
    >>> classifier.fit(X, y).score(X, y) > 0.95
    True
    """

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: Activation | Sequence[Activation] = "relu"


@dataclass(eq=False, repr=False)
class MLPRegressor(FullyConnected, Regressor):
    """Predicts numbers by a network of fully connected layers.

    ŷ = W_L · φ(... φ(W_1 · x + b_1) ...) + b_L; for ``loss="poisson"`` its exponential

    It stands in for scikit-learn's class of that name, as ``MLPClassifier`` does.

    Shapes: X (rows, features); y (rows) or (rows, targets).

    Parameters
    ----------
    loss
        ``"squared_error"`` (half of it), ``"absolute_error"``, ``"huber"``, ``"poisson"`` (counts,
        whose rate is predicted), ``"quantile"``, ``"gaussian"`` (mean and variance, for
        ``predict(X, return_std=True)``); a ``Loss``, such as ``nn.HuberLoss(0.5)``; or a
        function ``(outputs, targets) -> (loss of every row, gradient of their sum)`` of arrays. The
        loss of a row is the sum over its targets.
    hidden_layer_sizes, activation, dropout, norm, residual
        As of ``MLPClassifier``.
    quantile
        Of ``loss="quantile"``: q in (0, 1), or several, each of which has a column of predictions.
    scale_targets
        Whether the network learns (y - mean) / deviation, in which a row counts by its weight;
        predictions are in the units of y.

    All others are those of every estimator: see ``TrainingParameters``.

    Attributes are those of ``MLPClassifier`` but ``classes_``; the score is R².

    Raises
    ------
    TypeError, ValueError
        By ``fit``, for parameters outside their ranges, and for data that are no numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.sklearn import MLPRegressor
    >>> X = np.linspace(-3, 3, 200)[:, None]
    >>> y = np.sin(X[:, 0])
    >>> regressor = MLPRegressor(
    ...     hidden_layer_sizes=(20, 20), activation="tanh", solver="lbfgs", random_state=0
    ... )
    >>> regressor.fit(X, y).score(X, y) > 0.99
    True
    """

    loss: Any = "squared_error"
    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: Activation | Sequence[Activation] = "relu"
