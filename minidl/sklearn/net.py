"""``NetClassifier`` and ``NetRegressor``: estimators around any network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.hooks import evaluating
from minidl.sklearn.classification import Classifier
from minidl.sklearn.made import made, takes_rng
from minidl.sklearn.regression import Regressor
from minidl.sklearn.tabular import TabularEstimator
from minidl.typing import Array, DType

Build = Callable[..., nn.Layer]


def one_hidden_layer(n_features: int, n_outputs: int) -> nn.Layer:
    """Build a network of 100 hidden units with ReLU."""
    return nn.Sequential(nn.Linear(n_features, 100), nn.ReLU(), nn.Linear(100, n_outputs))


@dataclass(eq=False, repr=False)
class AnyNetwork(TabularEstimator):
    """Builds the network that a function returns."""

    build: Build = one_hidden_layer

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not callable(self.build):
            raise TypeError(f"{type(self).__name__}: build must be a function, got {self.build!r}")

    def _build(self, X: Any, rng: np.random.Generator) -> nn.Layer:
        given = X.shape[1], self.n_outputs_
        owner = type(self).__name__
        network = built(owner, self.build, given, X.dtype, rng)
        if self.scale_inputs:
            network = nn.Sequential(nn.Standardize(given[0], X.dtype), network)
        check_output(f"{owner}: build{given}", network, X[:1], given[1])
        return network


def built(
    owner: str, build: Build, given: tuple[int, int], dtype: DType, rng: np.random.Generator
) -> nn.Layer:
    """Call ``build``, with a generator if it takes ``rng``; else draw undrawn weights by it.

    Raises
    ------
    TypeError, ValueError
        If it returns no layer, or one without parameters.
    """
    named = {"rng": rng} if takes_rng(build) else {}
    network = made(owner, "build", build, *given, **named)
    parameters = network.parameters()
    if not parameters:
        raise ValueError(
            f"{owner}: build{given} must return a network with weights to train, {network!r} has "
            "none"
        )
    if not (named or any(parameter.drawn for parameter in parameters)):
        network.reset(rng)
    return network.astype(dtype)


def check_output(owner: str, network: nn.Layer, row: Array, outputs: int) -> None:
    """Raise ValueError unless the network gives ``outputs`` numbers for a row."""
    with evaluating(), np.errstate(all="ignore"):
        shape = network(row).shape
    if shape != (1, outputs):
        raise ValueError(
            f"{owner} must return a network whose output for a row has shape (1, {outputs}), its "
            f"output has shape {shape}"
        )


@dataclass(eq=False, repr=False)
class NetClassifier(AnyNetwork, Classifier):
    """Classifies rows by any network.

    p(class k | x) = softmax(network(x))_k; for two classes p = σ(network(x)), of one output

    Shapes: X (rows, features); y (rows), or (rows, labels) of zeros and ones.

    Parameters
    ----------
    build
        ``build(n_features, n_outputs)`` returns a layer whose output has ``n_outputs`` columns: one
        for two classes, else one for each class. If it takes an argument ``rng``, it gets a
        generator for its weights, seeded by ``random_state``; if not, weights that it has not
        looked at are drawn anew by one. The network is copied, so that a function may return the
        same one every time. By default one hidden layer of 100 units with ReLU.

    All other parameters, and the attributes, are those of ``MLPClassifier``.

    Raises
    ------
    TypeError, ValueError
        By ``fit``, if ``build`` returns something else.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from minidl import nn
    >>> from minidl.sklearn import NetClassifier
    >>> def build(n_features, n_outputs, rng):
    ...     return nn.Sequential(
    ...         nn.Linear(n_features, 16), nn.PReLU(), nn.Linear(16, n_outputs), rng=rng
    ...     )
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = NetClassifier(build, solver="lbfgs", random_state=0)
    >>> classifier.fit(X, y).score(X, y) > 0.95
    True
    """


@dataclass(eq=False, repr=False)
class NetRegressor(AnyNetwork, Regressor):
    """Predicts numbers by any network.

    ŷ = network(x)

    Shapes: X (rows, features); y (rows) or (rows, targets).

    Parameters
    ----------
    build
        ``build(n_features, n_outputs)`` returns a layer whose output has ``n_outputs`` columns, as
        for ``NetClassifier``.

    All other parameters, and the attributes, are those of ``MLPRegressor``.

    Raises
    ------
    TypeError, ValueError
        By ``fit``, if ``build`` returns something else.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> from minidl.sklearn import NetRegressor
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> regressor = NetRegressor(nn.Linear, learning_rate_init=0.05, random_state=0)
    >>> regressor = regressor.fit(X, 3 * X[:, 0] + 1)
    >>> regressor.predict([[0.5]]).round(1)
    array([2.5])
    """
