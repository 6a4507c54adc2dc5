"""The parameters that all estimators share, and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from minidl.nn.checks import POSITIVE, check_choice, check_count, check_number
from minidl.training.callbacks import Callback

SOLVERS = "adam", "sgd", "lbfgs"
RATES = "constant", "invscaling", "adaptive", "cosine", "one_cycle"
# Of every number, the lowest that is allowed, and the lowest beyond that is not.
NUMBERS = {
    "alpha": (0.0, math.inf),
    "learning_rate_init": (POSITIVE, math.inf),
    "power_t": (0.0, math.inf),
    "tol": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "validation_fraction": (0.0, 1.0),
    "beta_1": (0.0, 1.0),
    "beta_2": (0.0, 1.0),
    "epsilon": (POSITIVE, math.inf),
}
FLAGS = (
    *("shuffle", "warm_start", "nesterovs_momentum", "restore_best", "scale_inputs"),
    *("scale_targets", "residual", "bidirectional"),
)


@dataclass(eq=False, repr=False)
class TrainingParameters(BaseEstimator):
    """The parameters of a training: those of scikit-learn's ``MLPClassifier``, then minidl's own.

    Parameters
    ----------
    solver
        ``"adam"``, ``"sgd"`` or ``"lbfgs"``.
    alpha
        The L2 penalty: every step minimises loss + alpha / (2 · rows of a batch) · Σ w² over the
        weights; biases are not penalised.
    batch_size
        Rows of a step; ``"auto"``: 200, or all if there are fewer. ``lbfgs`` takes all rows.
    learning_rate
        ``"constant"``; for ``sgd`` also ``"invscaling"``, rate / t^power_t after t rows, and
        ``"adaptive"``, a fifth whenever the loss stops improving; for ``sgd`` and ``adam``
        ``"cosine"``, which falls to zero in ``max_iter`` epochs, ``"one_cycle"``, which rises
        first, or a function from the number of steps to the rate, as in ``minidl.optim.schedules``.
    learning_rate_init, power_t
        The rate η and the exponent of ``"invscaling"``.
    max_iter
        Epochs at most; for ``lbfgs``, iterations.
    shuffle
        Whether every epoch takes the rows in a new order.
    random_state
        Seed of weights, order of rows, dropout and validation split; None: another one every time.
    tol, n_iter_no_change
        Training ends when the loss (or with ``early_stopping`` the score) has not improved by
        ``tol`` for more than ``n_iter_no_change`` epochs; for ``lbfgs``, when no element of the
        gradient is larger than ``tol``.
    verbose
        Whether to show the epochs: True or ``"lines"`` prints a line each, ``"bar"`` draws a bar.
    warm_start
        Whether ``fit`` goes on with the weights of the latest ``fit``.
    momentum, nesterovs_momentum
        Of ``sgd``.
    early_stopping
        Whether training ends by the score on validation data; ``"loss"``: by the loss on them.
    validation_fraction
        The share of the rows that ``early_stopping`` holds out, unless ``fit`` is given validation
        data.
    beta_1, beta_2, epsilon
        Of ``adam``.
    max_fun
        Evaluations of the loss that ``lbfgs`` may make.
    max_norm
        The norm to which gradients are clipped before every step; None: no clipping.
    ema
        Decay of a moving average of the weights, such as 0.99, with which the estimator then
        predicts; None: none.
    restore_best
        Whether early stopping goes back to the weights of the best epoch.
    callbacks
        ``minidl.training.Callback`` objects, such as a ``GradientMonitor``.
    scale_inputs
        Whether a first layer standardises the features, by mean and deviation of the data of the
        first ``fit``, in which a row counts by its weight.
    """

    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 1e-4
    batch_size: int | str = "auto"
    learning_rate: str | Callable[[int], float] = "constant"
    learning_rate_init: float = 1e-3
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool | int | str = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool | str = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    max_norm: float | None = None
    ema: float | None = None
    restore_best: bool = True
    callbacks: Sequence[Callback] = ()
    scale_inputs: bool = False

    def _check_parameters(self) -> None:
        """Raise TypeError or ValueError for the first parameter that is none of those allowed."""
        owner = type(self).__name__
        check_choice(owner, "solver", self.solver, *SOLVERS)
        if not callable(self.learning_rate):
            check_choice(owner, "learning_rate", self.learning_rate, *RATES)
        for name in ("max_iter", "max_fun"):
            check_count(owner, name, getattr(self, name))
        for name, (lowest, beyond) in NUMBERS.items():
            check_number(owner, name, getattr(self, name), lowest, beyond)
        for name in FLAGS:
            if not isinstance(value := getattr(self, name, False), (bool, np.bool_)):
                raise TypeError(f"{owner}: {name} must be True or False, got {value!r}")
        for name in ("max_norm", "ema"):
            if getattr(self, name) is not None:
                beyond = 1.0 if name == "ema" else math.inf
                check_number(owner, name, getattr(self, name), POSITIVE, beyond)
        if self.n_iter_no_change != math.inf:
            check_count(owner, "n_iter_no_change", self.n_iter_no_change)
        if isinstance(self.batch_size, str):
            check_choice(owner, "batch_size", self.batch_size, "auto")
        else:
            check_count(owner, "batch_size", self.batch_size)
        if isinstance(self.early_stopping, str):
            check_choice(owner, "early_stopping", self.early_stopping, "loss")
        if isinstance(self.verbose, str):
            check_choice(owner, "verbose", self.verbose, "lines", "bar")
        if not isinstance(self.callbacks, (list, tuple)):
            raise TypeError(f"{owner}: callbacks must be a list, got {self.callbacks!r}")
        if self.solver == "lbfgs":
            self._check_lbfgs(owner)

    def _check_lbfgs(self, owner: str) -> None:
        """Raise ValueError for what works in batches and epochs only."""
        for name, is_set in {
            "early_stopping": bool(self.early_stopping),
            "ema": self.ema is not None,
            "max_norm": self.max_norm is not None,
            "callbacks": len(self.callbacks) > 0,
        }.items():
            if is_set:
                raise ValueError(
                    f'{owner}: {name} needs a solver that goes on in epochs, "adam" or "sgd", got '
                    'solver="lbfgs"'
                )
