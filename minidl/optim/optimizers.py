"""Optimizers: one pass over all parameters, after clipping the gradient by its norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels.reference import OPTIMIZER_STATE, Array
from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.layer import Parameter
from minidl.optim.flat import FlatParameters

# Hyper-parameters: the lowest value allowed, and the first that is not.
RANGES = {
    "learning_rate": (0, np.inf),
    "weight_decay": (0, np.inf),
    "momentum": (0, 1),
    "beta1": (0, 1),
    "beta2": (0, 1),
    "eps": (POSITIVE, np.inf),
}


# A learning rate, or a schedule: the rate after so many steps.
Rate = float | Callable[[int], float]


def _hyper_parameter(name: str) -> Any:
    """A number that lives in ``state``, where a kernel reads it at every step."""

    def get(self: Optimizer) -> float:
        self._looked_at()
        return float(self.state[name])

    def set(self: Optimizer, value: float) -> None:
        self._looked_at()
        self.state[name] = check_number(type(self).__name__, name, value, *RANGES[name])

    return property(get, set, doc=f"{name}, changeable between steps")


class Optimizer:
    """What all optimizers share: the flat vectors, the clipping, the step.

    Parameters
    ----------
    parameters
        ``model.parameters()``. They move into the optimizer's flat vectors, so a parameter
        belongs to one optimizer at a time.
    lr
        Learning rate η ≥ 0, or a schedule: a function of the number of steps taken so far that
        returns one.
    weight_decay
        λ ≥ 0: adds λ · w to the gradient (after clipping).
    max_norm
        If given, > 0: gradients are clipped by their global norm before every step.
    """

    weight_decay = _hyper_parameter("weight_decay")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: Rate,
        weight_decay: float,
        max_norm: float | None,
        **others: float,
    ) -> None:
        self.state = np.zeros((), OPTIMIZER_STATE)
        self.schedule: Callable[[int], float] | None = None
        self.lr = lr
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        for name, value in others.items():
            self.state[name] = check_number(type(self).__name__, name, value, *RANGES[name])
        # Last: a constructor that fails must not have taken the parameters from another one.
        self.flat = FlatParameters(parameters)

    @property
    def lr(self) -> float:
        """The learning rate: with a schedule, that of the latest step. Assign a number, or a
        schedule.
        """
        self._looked_at()
        return float(self.state["learning_rate"])

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._looked_at()
        schedule = value if callable(value) else None
        self.state["learning_rate"] = self._checked(value if schedule is None else schedule(0))
        if schedule is not self.schedule:
            self.schedule = schedule
            kernels.note_change()

    def _looked_at(self) -> None:
        # While a step is recorded, values are not known to Python: from now on `state` says so.
        if (recorder := kernels.recorder()) is not None and hasattr(self, "flat"):
            recorder.optimize(self)

    def _checked(self, rate: Any) -> float:
        return check_number(type(self).__name__, "learning_rate", rate, *RANGES["learning_rate"])

    def set_rate(self) -> None:
        """Set the rate of the step to come, if there is a schedule."""
        if self.schedule is not None:
            self.state["learning_rate"] = self._checked(self.schedule(self.steps))

    def rates(self, count: int) -> Array:
        """The schedule's rates for so many steps to come."""
        assert self.schedule is not None
        steps = range(self.steps, self.steps + count)
        return np.array([self._checked(self.schedule(step)) for step in steps])

    @property
    def max_norm(self) -> float | None:
        """Norm to clip to; None: no clipping."""
        self._looked_at()
        return float(self.state["max_norm"]) or None

    @max_norm.setter
    def max_norm(self, value: float | None) -> None:
        self._looked_at()
        if value is not None:
            value = check_number(type(self).__name__, "max_norm", value, POSITIVE, np.inf)
        self.state["max_norm"] = value or 0.0

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        self._looked_at()
        return int(self.state["step"])

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if (recorder := kernels.recorder()) is not None:
            recorder.optimize(self)
        kernels.clear(self.flat.grad)

    def step(self) -> float:
        """Clip, update all parameters, and return the gradient norm before clipping.

        Raises
        ------
        FloatingPointError
            If the norm is not finite; nothing is changed then.
        RuntimeError
            If a parameter was taken over by another optimizer, reset or converted.
        """
        self.flat.check()
        if (recorder := kernels.recorder()) is not None:
            recorder.step_of(self)
        else:
            self.set_rate()
        if not kernels.clip(kernels.squared_norm(self.flat.grad), self.state):
            raise FloatingPointError(
                f"{type(self).__name__}: the gradient of {self._first_not_finite()} is not finite "
                f"(norm {np.asarray(self.state['norm'])}); no parameter was changed"
            )
        self.update()
        norm: Any = self.state["norm"]
        # While a step is recorded, values are not known to Python: the array itself.
        return float(norm) if recorder is None else norm

    def update(self) -> None:
        """Change the parameters; the subclass's formula."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def _first_not_finite(self) -> str:
        # Gradients come into being from the last layer to the first.
        for parameter in reversed(self.flat.parameters):
            if not np.isfinite(np.asarray(parameter.grad)).all():  # of a recorded step as well
                return f"parameter {parameter.name!r} of shape {parameter.shape}"
        return "the parameters together"

    def __repr__(self) -> str:
        kind = type(self)
        names = [name for name in vars(kind) if isinstance(vars(kind)[name], property)]
        rate = f"{self.lr:g}" if self.schedule is None else repr(self.schedule)
        shown = [f"lr={rate}", *(f"{name}={getattr(self, name):g}" for name in names)]
        if self.weight_decay:
            shown.append(f"weight_decay={self.weight_decay:g}")
        return f"{kind.__name__}({', '.join(shown)}, max_norm={self.max_norm})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    g ← g + λ · w;  v ← μ · v + g;  w ← w - η · v  (Nesterov: w ← w - η · (g + μ · v))

    Source: Sutskever et al. 2013, in the form PyTorch uses.

    Parameters
    ----------
    parameters, weight_decay, max_norm
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
    momentum
        μ in [0, 1).
    nesterov
        Look ahead along the velocity; needs momentum.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(2.0))
    >>> optimizer = optim.SGD(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.6]], dtype=float32)
    """

    momentum = _hyper_parameter("momentum")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: Rate = 1e-2,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs momentum > 0")
        super().__init__(parameters, lr, weight_decay, max_norm, momentum=momentum)
        self.state["nesterov"] = nesterov
        self.velocity = self.flat.zeros()

    def update(self) -> None:
        kernels.sgd(self.flat.data, self.flat.grad, self.velocity, self.state)


class Adam(Optimizer):
    """Adaptive moment estimation.

    g ← g + λ · w;  m ← β₁ · m + (1 - β₁) · g;  v ← β₂ · v + (1 - β₂) · g²
    w ← w - η · m̂ / (sqrt(v̂) + ε),  m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)

    Source: Kingma and Ba 2015, algorithm 1.

    Parameters
    ----------
    parameters, weight_decay, max_norm
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
    betas
        (β₁, β₂), both in [0, 1).
    eps
        ε > 0.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(2.0))
    >>> optimizer = optim.Adam(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.9]], dtype=float32)
    """

    beta1 = _hyper_parameter("beta1")
    beta2 = _hyper_parameter("beta2")
    eps = _hyper_parameter("eps")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
    ) -> None:
        try:
            beta1, beta2 = betas
        except TypeError:
            raise TypeError(f"Adam: betas must be two numbers, got {betas!r}") from None
        super().__init__(parameters, lr, weight_decay, max_norm, beta1=beta1, beta2=beta2, eps=eps)
        self.moment1, self.moment2 = self.flat.zeros(), self.flat.zeros()

    def update(self) -> None:
        kernels.adam(self.flat.data, self.flat.grad, self.moment1, self.moment2, self.state)
