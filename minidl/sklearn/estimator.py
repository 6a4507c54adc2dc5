"""What all estimators share: data to rows, ``fit`` and ``partial_fit``, and what they leave."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from minidl import nn, optim
from minidl.nn.checks import check_count
from minidl.sklearn.fitting import Fitting, Rows
from minidl.sklearn.parameters import TrainingParameters
from minidl.sklearn.results import Results
from minidl.sklearn.scaling import mean_and_deviation
from minidl.training.checks import as_validation
from minidl.typing import Array

MOST_SEED = 2**31 - 1
SPARSE_ROWS = 1024  # of a sparse matrix that predictions make dense at a time


@dataclass(eq=False, repr=False)
class NetworkEstimator(Results):
    """A network that scikit-learn can fit: what all estimators share.

    A subclass says how data become arrays (``_features``), how targets are encoded
    (``_learn_targets``, ``_encode``), and which network is built (``_build``).
    """

    # --- what a subclass says ---

    def _features(self, X: Any, reset: bool) -> Any:
        """Check X, and return what the network takes, in float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} takes no features")

    def _checked_pair(self, X: Any, y: Any, reset: bool) -> tuple[Any, Array]:
        """Check X and y together; return what the network takes, and targets as an array."""
        raise NotImplementedError(f"{type(self).__name__} takes no targets")

    def _learn_targets(self, y: Array, weight: Array | None, classes: Any) -> None:
        """Learn from y, when the network is made, how targets are encoded."""
        raise NotImplementedError(f"{type(self).__name__} encodes no targets")

    def _measure_targets(self, y: Array, weight: Array | None) -> None:
        """Measure mean and deviation of y, if targets are scaled, on the rows to train on."""

    def _check_same_targets(self, y: Array) -> None:
        """Raise ValueError if y is of another kind than when the network was made."""

    def _encode(self, y: Array, dtype: np.dtype[Any]) -> Array:
        """Return targets as the loss takes them."""
        raise NotImplementedError(f"{type(self).__name__} encodes no targets")

    def _row_weights(self, y: Array, weight: Array | None) -> Array | None:
        """Return the weight of each row in training, given that of ``sample_weight``."""
        return weight

    def _build(self, X: Any, rng: np.random.Generator) -> nn.Layer:
        """Build the network for data such as X, in their dtype."""
        raise NotImplementedError(f"{type(self).__name__} builds no network")

    def _make_loss(self) -> nn.Loss:
        """Return the loss, given what ``_learn_targets`` has learned."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        """Return the score of outputs of the network against encoded targets."""
        raise NotImplementedError(f"{type(self).__name__} has no score")

    def _strata(self, y: Array) -> Array | None:
        """Return the labels of which early stopping holds out equal shares, if there are any."""
        return None

    # --- training ---

    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X, y
            Features and targets; arrays, lists, sparse matrices, pandas and polars frames.
        sample_weight
            A weight ≥ 0 for each row in the loss; a row of weight 0 is left out.
        validation
            ``(X, y)`` or ``(X, y, weight)``, held-out rows on which every epoch computes
            ``validation_loss_curve_`` and ``validation_scores_``. With ``early_stopping`` they are
            used instead of a share of the rows.

        Raises
        ------
        ValueError
            For data and parameters that cannot be trained with; and ``DivergenceError``, which is
            one, if loss or gradient is not finite, naming epoch and layer.

        Warns
        -----
        ConvergenceWarning
            If the loss was still improving after ``max_iter`` epochs.
        """
        fresh = not (self.warm_start and self.__sklearn_is_fitted__())
        rows, held_out = self._rows(X, y, sample_weight, validation, fresh)
        if not fresh:
            self._fitting.start_again(self._make_loss())
        self._run(rows, held_out, self.max_iter, final=True)
        self._warn_unless_converged()
        return self

    def _partial_fit(
        self, X: Any, y: Any, weight: Any, classes: Any, epochs: int, validation: Any
    ) -> Self:
        """Train for some epochs, going on where the latest call ended."""
        epochs = check_count("partial_fit", "epochs", epochs)
        if self.early_stopping and validation is None:
            raise ValueError(
                "partial_fit does not support early_stopping=True without validation=(X, y): the "
                "rows held out would be others in every call"
            )
        fresh = not self.__sklearn_is_fitted__()
        rows, held_out = self._rows(X, y, weight, validation, fresh, classes, whole=False)
        self._run(rows, held_out, epochs, final=False)
        return self

    def _rows(
        self,
        X: Any,
        y: Any,
        weight: Any,
        validation: Any,
        fresh: bool,
        classes: Any = None,
        whole: bool = True,
    ) -> tuple[Rows, Rows | None]:
        """Check all data, and make the network if it is to be a fresh one.

        ``whole`` says whether y has all classes, and early stopping may hold out rows. Return what
        to train on, and what to validate on.
        """
        self._check_parameters()
        if fresh:
            self.__dict__.pop("network_", None)  # if this training fails, none is left
        X, y = self._checked_pair(X, y, fresh)
        weight = checked_weights(weight, y, dtype_of(X))
        if fresh:
            self._learn_targets(y, weight, classes)
            self._make(X)
        elif whole:
            self._check_same_targets(y)
        split = self._split(y) if self.early_stopping and whole and validation is None else None
        if fresh and split is not None:
            self._measure_targets(y[split[0]], None if weight is None else weight[split[0]])
        rows = Rows(X, self._encode(y, dtype_of(X)))
        in_training = self._row_weights(y, weight)
        held_out = None
        if split is not None:
            rows, held_out = rows.taken(split[0], in_training), rows.taken(split[1], weight)
        else:
            rows = rows.weighted(in_training)
        if validation is not None:
            held_out = self._validation_rows(*as_validation(validation))
        if fresh:
            self._adapt(rows)
        return rows, held_out

    def _validation_rows(self, X: Any, y: Any, weight: Any) -> Rows:
        """Return checked data, with their weights, as rows for the network and its loss."""
        X, y = self._checked_pair(X, y, reset=False)
        weight = checked_weights(weight, y, dtype_of(X))
        return Rows(X, self._encode(y, dtype_of(X))).weighted(weight)

    def _make(self, X: Any) -> None:
        """Make a fresh network, before its first training."""
        random = check_random_state(self.random_state)
        seed, order, self._split_seed = (int(n) for n in random.randint(MOST_SEED, size=3))
        network = self._build(X, np.random.default_rng(seed))
        self._fitting = Fitting(network, self._make_loss(), np.random.default_rng(order))

    def _adapt(self, rows: Rows) -> None:
        """Let a first layer ``Standardize`` measure the features, by the weights of the rows."""
        network = self._fitting.network
        if self.scale_inputs and isinstance(network, nn.Sequential):
            standardize = network[0]
            assert isinstance(standardize, nn.Standardize)
            features, weight = all_features(rows)
            standardize.adapt(features)
            if weight is not None:
                standardize.mean[...], standardize.std[...] = mean_and_deviation(features, weight)

    def _split(self, y: Array) -> tuple[Array, Array]:
        """Choose rows to train on, and ``validation_fraction`` to hold out, of each class as many.

        Both are given by their places.
        """
        training, held_out = train_test_split(
            np.arange(len(y)),
            test_size=self.validation_fraction,
            random_state=self._split_seed,
            stratify=self._strata(y),
        )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return training, held_out

    def _run(self, rows: Rows, held_out: Rows | None, epochs: int, final: bool) -> None:
        self._fitting.run(self, rows, held_out, self._score_outputs, epochs, final)
        self.network_ = self._fitting.network

    def _warn_unless_converged(self) -> None:
        curves = self._fitting.curves
        if self.solver == "lbfgs":
            optimizer = self.optimizer_
            assert isinstance(optimizer, optim.LBFGS)
            if optimizer.converged or optimizer.reason.startswith("plateau"):
                return
            why = f"lbfgs ended before it has converged. {optimizer.reason}".strip()
        elif curves.epochs == self.max_iter and not curves.ended:
            why = (
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet."
            )
        else:
            return
        warnings.warn(why, ConvergenceWarning, stacklevel=3)

    # --- prediction ---

    def _outputs(self, X: Any) -> Array:
        """Compute the output of the network for features as users give them."""
        check_is_fitted(self)
        features = self._features(X, reset=False)
        if not issparse(features):
            return self._fitting.outputs(features)
        parts = range(0, features.shape[0], SPARSE_ROWS)
        return np.concatenate(
            [self._fitting.outputs(features[i : i + SPARSE_ROWS].toarray()) for i in parts]
        )

    def __sklearn_is_fitted__(self) -> bool:
        return "network_" in vars(self)


def goes_on_in_epochs(estimator: TrainingParameters) -> bool:
    """Return True if the solver can go on; raise AttributeError if not, so that hasattr knows."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic."
        )
    return True


def check_given(estimator: Any, y: Any) -> None:
    """Raise ValueError if there is no target, in the words of scikit-learn."""
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"{name} requires y to be passed, but the target y is None")


def dtype_of(X: Any) -> np.dtype[Any]:
    """Return the dtype of features, the first input where there are several."""
    dtype: np.dtype[Any] = (X[0] if isinstance(X, tuple) else X).dtype
    return dtype


def checked_weights(weight: Any, y: Array, dtype: np.dtype[Any]) -> Array | None:
    """Return a weight for each row; raise ValueError for negative ones, and if all are zero."""
    if weight is None:
        return None
    weights: Array = _check_sample_weight(weight, y, dtype=dtype)
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise ValueError(f"sample_weight: row {row} holds {weights[row]}; weights must be >= 0")
    if not weights.any():
        raise ValueError("sample_weight: all weights are zero")
    return weights


def all_features(rows: Rows) -> tuple[Array, Array | None]:
    """Return features and weights of the rows; of sequences, those of all their steps."""
    X, weight = rows.X, rows.weight
    if not isinstance(X, tuple) and X.ndim == 2:
        return X, weight
    steps, lengths = X if isinstance(X, tuple) else (X, np.full(len(X), X.shape[1]))
    counted = np.arange(steps.shape[1]) < lengths[:, None]
    return steps[counted], None if weight is None else np.repeat(weight, lengths)
