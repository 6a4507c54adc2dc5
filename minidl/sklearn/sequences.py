"""``SequenceClassifier`` and ``SequenceRegressor``: recurrent networks over whole sequences."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_regressor
from sklearn.utils import check_array, column_or_1d

from minidl import nn
from minidl.nn.checks import check_choice, check_count, check_number
from minidl.sklearn.classification import Classifier
from minidl.sklearn.estimator import NetworkEstimator, check_given
from minidl.sklearn.network import finished, linear
from minidl.sklearn.regression import Regressor
from minidl.training.inputs import check_finite, check_range, is_ragged, padded
from minidl.typing import Array

CELLS: dict[str, type[nn.RNN | nn.LSTM | nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(eq=False, repr=False)
class SequenceEstimator(NetworkEstimator):
    """Takes sequences of equal or unequal length, and predicts from the last state."""

    _: KW_ONLY
    cell: str = "gru"
    hidden_size: int = 64
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        owner = type(self).__name__
        check_choice(owner, "cell", self.cell, *CELLS)
        check_count(owner, "hidden_size", self.hidden_size)
        check_count(owner, "num_layers", self.num_layers)
        check_number(owner, "dropout", self.dropout, 0, 1)

    def _features(self, X: Any, reset: bool) -> Any:
        steps, lengths = as_sequences(as_list(X))
        features = steps.shape[-1]
        if reset:
            self.n_features_in_ = features
        elif features != self.n_features_in_:
            raise ValueError(
                f"X has {features} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return steps if lengths is None else (steps, lengths)

    def _checked_pair(self, X: Any, y: Any, reset: bool) -> tuple[Any, Array]:
        features = self._features(X, reset)
        check_given(self, y)
        dtype = "numeric" if is_regressor(self) else None
        y = check_array(y, dtype=dtype, ensure_2d=False, input_name="y")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        rows = len(features[0] if isinstance(features, tuple) else features)
        if len(y) != rows:
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: {[rows, len(y)]}"
            )
        return features, y

    def _build(self, X: Any, rng: np.random.Generator) -> nn.Layer:
        steps = X[0] if isinstance(X, tuple) else X
        between = self.dropout if self.num_layers > 1 else 0.0
        width = self.hidden_size * (1 + self.bidirectional)
        layers: list[nn.Layer] = [nn.Standardize(self.n_features_in_)] if self.scale_inputs else []
        layers.append(
            CELLS[self.cell](
                self.n_features_in_,
                self.hidden_size,
                self.num_layers,
                self.bidirectional,
                between,
                return_sequences=False,
            )
        )
        layers += [nn.Dropout(self.dropout)] if self.dropout else []
        return finished([*layers, linear(width, self.n_outputs_, 6.0)], steps.dtype, rng)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.multi_output = True
        return tags


def as_list(X: Any) -> Any:
    """Return X, or a list if it is a Series of sequences, or an array of them; so are its rows.

    Raises
    ------
    TypeError
        For sparse matrices.
    """
    if hasattr(X, "to_list"):  # a Series of pandas or polars
        X = X.to_list()
    elif isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = X.tolist()
    rows = X if isinstance(X, list) else []
    parts = X if isinstance(X, tuple) else ()
    for place, given in [
        ("X", X),
        *((f"X[{number}]", part) for number, part in enumerate(parts)),
        *((f"row {number} of X", row) for number, row in enumerate(rows)),
    ]:
        if issparse(given):
            raise TypeError(
                f"{place} is a sparse matrix of shape {given.shape}; sequences are dense arrays of "
                "shape (time, features)"
            )
    if rows:
        X = [row.to_numpy() if hasattr(row, "to_numpy") else row for row in rows]
    return X


def as_sequences(X: Any) -> tuple[Array, Array | None]:
    """Return sequences as an array (rows, time, features), and their lengths if they differ.

    float32 stays float32; all other numbers become float64.

    Parameters
    ----------
    X
        A list of arrays (time, features), or (time) for one feature; an array (rows, time,
        features); or a tuple of such an array and the lengths of its sequences.

    Raises
    ------
    TypeError, ValueError
        For anything else, naming the row.
    """
    lengths = None
    if isinstance(X, tuple):
        if len(X) != 2:
            raise ValueError(f"X is a tuple of {len(X)}; expected (sequences, lengths)")
        X, lengths = X[0], np.asarray(X[1])
    elif is_ragged(X):
        X, lengths = padded("X", X)
    steps = np.asarray(X)
    if steps.ndim == 2 and steps.dtype.kind in "buif":
        steps = steps[:, :, None]
    steps = check_array(
        steps,
        dtype=(np.float64, np.float32),
        allow_nd=True,
        ensure_2d=False,
        input_name="X",
        ensure_all_finite=lengths is None,
    )
    if steps.ndim != 3:
        raise ValueError(
            f"X: expected sequences of shape (rows, time, features), got an array of shape "
            f"{steps.shape}"
        )
    if lengths is None:
        return steps, None
    if lengths.shape != steps.shape[:1] or lengths.dtype.kind not in "iu":
        raise ValueError(
            f"X: expected {len(steps)} whole numbers as lengths, got {lengths.dtype} of shape "
            f"{lengths.shape}"
        )
    check_range("length", "lengths of X", lengths, steps.shape[1])
    counted = np.arange(steps.shape[1]) < lengths[:, None]
    steps = np.where(counted[:, :, None], steps, 0).astype(steps.dtype)
    check_finite("X", steps)
    return steps, lengths.astype(np.intp)


@dataclass(eq=False, repr=False)
class SequenceClassifier(SequenceEstimator, Classifier):
    """Classifies sequences by a recurrent network.

    p(class k | x_1, ..., x_T) = softmax(W · h_T + b)_k, with the last state h_T

    Shapes: X is a list (or a Series) of arrays (time, features) of unequal length, an array (rows,
    time, features), or a tuple of such an array and the lengths of its sequences (rows); arrays
    (time) have one feature. y (rows), or (rows, labels) of zeros and ones.

    Parameters
    ----------
    cell
        ``"gru"``, ``"lstm"`` or ``"rnn"``.
    hidden_size, num_layers, bidirectional
        Width of the state, layers one above the other, and whether a second cell of each reads the
        sequence in reverse.
    dropout
        Probability with which an element between two layers, and of the last state, is set to zero.

    All other parameters, and the attributes, are those of ``MLPClassifier``.

    Raises
    ------
    TypeError, ValueError
        By ``fit`` and ``predict``, for sequences that are none, naming the row.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.sklearn import SequenceClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(rng.integers(3, 9), 2)) for _ in range(200)]
    >>> y = ["up" if x[:, 0].sum() > 0 else "down" for x in X]
    >>> classifier = SequenceClassifier(hidden_size=16, learning_rate_init=0.01, random_state=0)
    >>> classifier.fit(X, y).score(X, y) > 0.95
    True
    """


@dataclass(eq=False, repr=False)
class SequenceRegressor(SequenceEstimator, Regressor):
    """Predicts numbers from sequences by a recurrent network.

    ŷ = W · h_T + b, with the last state h_T

    Shapes: X as for ``SequenceClassifier``; y (rows) or (rows, targets).

    Parameters
    ----------
    cell, hidden_size, num_layers, bidirectional, dropout
        As of ``SequenceClassifier``.

    All other parameters, and the attributes, are those of ``MLPRegressor``.

    Raises
    ------
    TypeError, ValueError
        By ``fit`` and ``predict``, for sequences that are none, naming the row.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.sklearn import SequenceRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 5, 1))
    >>> y = X.sum(axis=(1, 2))
    >>> regressor = SequenceRegressor(hidden_size=16, learning_rate_init=0.01, random_state=0)
    >>> regressor.fit(X, y).score(X, y) > 0.95
    True
    """
