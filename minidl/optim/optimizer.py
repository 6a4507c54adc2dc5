"""What all optimizers share: groups of parameters, clipping, and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from minidl import _kernels, kernels
from minidl._kernels.twins import OPTIMIZER_STATE
from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.layer import Parameter
from minidl.nn.nonfinite import first_not_finite
from minidl.optim.flat_parameters import FlatParameters
from minidl.typing import Array

# Hyper-parameters: the lowest value allowed, and the first that is not.
RANGES = {
    "learning_rate": (0, np.inf),
    "weight_decay": (0, np.inf),
    "l1": (0, np.inf),
    "momentum": (0, 1),
    "momentum_decay": (0, np.inf),
    "alpha": (0, 1),
    "beta1": (0, 1),
    "beta2": (0, 1),
    "eps": (POSITIVE, np.inf),
}
LIMITS = ("max_norm", "max_value")  # of the gradient: greater than zero, or None
FLAGS = ("nesterov", "centered", "decoupled")
MOST_STEPS = 2.0**53  # up to here a float64 can count
SHARED = ("weight_decay", "l1", "max_value")  # what every optimizer's groups may set

# A learning rate, or a schedule: the rate after so many steps.
Rate = float | Callable[[int], float]
Parameters = Iterable[Parameter] | Iterable[Mapping[str, Any]]


class Group:
    """Some of an optimizer's parameters, and their hyper-parameters, by name.

    ``group["lr"]``, ``group["weight_decay"]`` and so on are read, and changed between steps,
    like those of a dict.
    """

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        self.optimizer, self.index = optimizer, index

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters that are trained: without the frozen ones."""
        return self.optimizer.flat.groups[self.index]

    @property
    def part(self) -> slice:
        """Where in the flat vectors they are."""
        return self.optimizer.flat.parts[self.index]

    @property
    def state(self) -> Array:
        """The group's own struct of what kernels read at every step."""
        self.optimizer.looked_at()
        return self.optimizer.states[self.index : self.index + 1].reshape(())

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The schedule of the learning rate, if it has one."""
        return self.optimizer.schedules[self.index]

    def __getitem__(self, name: str) -> Any:
        self._check_name(name)
        value = float(self.state["learning_rate" if name == "lr" else name])
        return (value or None) if name in LIMITS else value

    def __setitem__(self, name: str, value: Any) -> None:
        self._check_name(name)
        if name == "max_norm":
            raise ValueError(
                "max_norm is one for all groups, whose gradients have one norm: write "
                "optimizer.max_norm = ..."
            )
        self.set(name, value)

    def _check_name(self, name: str) -> None:
        known = ("lr", *SHARED, *self.optimizer.names)
        if name not in (*known, "max_norm"):
            owner = type(self.optimizer).__name__
            raise ValueError(
                f"{owner} has no hyper-parameter {name!r}; it has {', '.join(known)}, max_norm"
            )

    def set(self, name: str, value: Any) -> None:
        """Set a hyper-parameter, of which it is known that the optimizer has it."""
        owner = type(self.optimizer).__name__
        if name == "lr":
            self._set_lr(value)
        elif name in LIMITS:
            if value is not None:
                value = check_number(owner, name, value, POSITIVE, np.inf)
            self.state[name] = value or 0.0
        else:
            self.state[name] = check_number(owner, name, value, *RANGES[name])

    def _set_lr(self, value: Rate) -> None:
        schedule = value if callable(value) else None
        rate = self._checked(value) if schedule is None else self._rate(schedule, 0)
        self.state["learning_rate"] = rate
        if schedule is not self.schedule:
            self.optimizer.schedules[self.index] = schedule
            _kernels.note_change()

    def _checked(self, rate: Any) -> float:
        owner = type(self.optimizer).__name__
        return check_number(owner, "learning_rate", rate, *RANGES["learning_rate"])

    def _rate(self, schedule: Callable[[int], float], step: int) -> float:
        rate = schedule(step)
        try:
            return self._checked(rate)
        except (TypeError, ValueError) as error:
            where = f"the schedule {schedule!r} after {step} steps"
            raise type(error)(f"{error}, by {where}") from None

    def set_rate(self) -> None:
        """Set the rate of the step to come, if there is a schedule."""
        if self.schedule is not None:
            self.state["learning_rate"] = self._rate(self.schedule, self.optimizer.steps)

    def rates(self, count: int) -> Array:
        """The schedule's rates for so many steps to come, at least one.

        Only those before the first that is none: the steps until then are still to be made.
        """
        assert self.schedule is not None
        found: list[float] = []
        for step in range(self.optimizer.steps, self.optimizer.steps + count):
            try:
                found.append(self._rate(self.schedule, step))
            except Exception:  # whatever a function of the user raises
                if not found:
                    raise
                break
        return np.array(found)


def hyper_parameter(name: str, meaning: str = "") -> Any:
    """An attribute of an optimizer: read from its first group, assigned to all of them."""

    def get(self: Optimizer) -> Any:
        return self.groups[0][name]

    def set(self: Optimizer, value: Any) -> None:
        for group in self.groups:
            group.set(name, value)

    return property(get, set, doc=meaning or f"{name}, changeable between steps")


class Optimizer:
    """What all optimizers share: the flat vectors, the clipping, the step.

    In this order: gradients are scaled by ``max_norm``, cut off at ``max_value``, and the penalties
    on the weights are added: g ← g + λ · w + λ₁ · sign(w).

    Subnormal numbers, below 1.2e-38 in float32, count as zero. Where a gradient is zero for good,
    as behind a dead unit, moments would decay to such numbers and stay there, and a CPU computes
    with those many times slower: training would be three times slower after 800 steps.

    Parameters
    ----------
    parameters
        ``model.parameters()``. They move into the optimizer's flat vectors, so a parameter
        belongs to one optimizer at a time. Those that are ``frozen`` are left alone.
        Or a list of groups, as in PyTorch: ``{"params": [...], "lr": 1e-3, "weight_decay": 0.0}``;
        what a group does not set is as for the whole optimizer. All but ``max_norm`` can be set.
    lr
        Learning rate η ≥ 0, or a schedule: a function of the number of steps taken so far that
        returns one (``optim.schedules`` has the usual ones).
    weight_decay
        λ ≥ 0, of the penalty λ/2 · ‖w‖² (L2).
    l1
        λ₁ ≥ 0, of the penalty λ₁ · Σ|w| (L1).
    max_norm
        If given, > 0: gradients are clipped by their global norm, over all groups, before every
        step. Pascanu et al. 2013, algorithm 1.
    max_value
        If given, > 0: after that, every gradient is clipped to [-max_value, max_value].
    """

    registry: ClassVar[list[type[Optimizer]]] = []

    # Hyper-parameters that a group may set beside those of all optimizers.
    names: tuple[str, ...] = ()
    # Vectors of squares: a model file with less than zero in one of them is refused.
    never_negative: tuple[str, ...] = ()

    lr = hyper_parameter("lr", "The learning rate: with a schedule, that of the latest step.")
    weight_decay = hyper_parameter("weight_decay")
    l1 = hyper_parameter("l1")
    max_norm = hyper_parameter("max_norm", "Norm to clip to; None: no clipping.")
    max_value = hyper_parameter("max_value", "Largest gradient; None: any.")

    def __init__(
        self, parameters: Parameters, lr: Rate, max_norm: float | None, **hyper: Any
    ) -> None:
        groups = self._split(parameters)
        self.states = np.zeros(len(groups), OPTIMIZER_STATE)
        self.schedules: list[Callable[[int], float] | None] = [None] * len(groups)
        self.lr, self.max_norm = lr, max_norm
        for name, value in hyper.items():
            for group, settings in zip(self.groups, groups, strict=True):
                group[name] = settings.get(name, value)
        for group, settings in zip(self.groups, groups, strict=True):
            if "lr" in settings:
                group["lr"] = settings["lr"]
        # Last: a constructor that fails must not have taken the parameters from another one.
        self.flat = FlatParameters(*(settings["params"] for settings in groups))

    def __setattr__(self, name: str, value: Any) -> None:
        # A number under a name that none of minidl's optimizers reads would do nothing.
        known = name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if not known and "flat" in vars(self) and isinstance(value, (int, float, tuple, str)):
            owner = type(self)
            if owner.__module__.startswith("minidl."):
                names = ", ".join(("lr", *SHARED, "max_norm", *self.names))
                raise AttributeError(f"{owner.__name__} has no {name}; it has {names}")
        object.__setattr__(self, name, value)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "examples" in cls.__dict__:
            Optimizer.registry.append(cls)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        """Settings, as keywords: from these the tests verify the optimizer."""
        return iter(())

    def _split(self, parameters: Parameters) -> list[dict[str, Any]]:
        """The groups as dicts, their settings known to this optimizer."""
        owner = type(self).__name__
        if not isinstance(parameters, (Parameter, Mapping)) and isinstance(parameters, Iterable):
            parameters = given = list(parameters)  # type: ignore[assignment]
            if given and all(isinstance(group, Mapping) for group in given):
                groups = [unfolded(owner, group) for group in given]
                for group in groups:
                    unknown = group.keys() - {"params", "lr", *SHARED, *self.names}
                    if unknown or "params" not in group:
                        raise ValueError(
                            f"{owner}: a group has 'params', and may have lr, "
                            f"{', '.join((*SHARED, *self.names))}; got {', '.join(sorted(group))}"
                        )
                return groups
        return [{"params": parameters}]

    @property
    def learning_rate(self) -> float:
        """Not its name here: an attribute of this name would set nothing."""
        raise AttributeError(f"{type(self).__name__} has no learning_rate: write optimizer.lr")

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} has no learning_rate: write optimizer.lr")

    @property
    def groups(self) -> list[Group]:
        """The groups of parameters, each with its hyper-parameters."""
        return [Group(self, index) for index in range(len(self.states))]

    @property
    def state(self) -> Array:
        """The state of the first group."""
        self.looked_at()
        return self.states[:1].reshape(())

    def looked_at(self) -> None:
        """Tell a recorder, if there is one: values are then not known to Python any more."""
        if (recorder := _kernels.recorder()) is not None and hasattr(self, "flat"):
            recorder.optimize(self)

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The schedule of the first group that has one."""
        return next((schedule for schedule in self.schedules if schedule is not None), None)

    def scheduled(self) -> list[Group]:
        """The groups whose learning rate follows a schedule."""
        return [group for group in self.groups if group.schedule is not None]

    def set_rate(self) -> None:
        """Set the rates of the step to come, where there are schedules."""
        if self.schedule is not None:
            for group in self.groups:
                group.set_rate()

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return int(self.state["step"])

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if (recorder := _kernels.recorder()) is not None:
            recorder.optimize(self)
        kernels.clear(self.flat.grad)
        for parameter in self.flat.frozen:
            kernels.clear(parameter.grad)

    def scale_grad(self, factor: float) -> None:
        """Multiply all gradients: by 1/k for the mean of k batches whose gradients were added."""
        self.looked_at()
        kernels.scale(self.flat.grad, factor)

    def step(self) -> float:
        """Clip, update all parameters, and return the gradient norm before clipping.

        Raises
        ------
        FloatingPointError
            If the norm is not finite; nothing is changed then.
        RuntimeError
            If a parameter was taken over by another optimizer, reset, converted or frozen.
        """
        self.flat.check()
        if (recorder := _kernels.recorder()) is not None:
            recorder.step_of(self)
        else:
            self.set_rate()
        grad = self.flat.grad
        if not kernels.clip(kernels.squared_norm(grad), self.states, grad):
            raise FloatingPointError(
                f"{type(self).__name__}: the gradient of {self._first_not_finite()} is not finite "
                f"(norm {np.asarray(self.state['norm'])}); no parameter was changed"
            )
        self.update()
        norm: Any = self.state["norm"]
        # While a step is recorded, values are not known to Python: the array itself.
        return float(norm) if recorder is None else norm

    def update(self) -> None:
        """Change the parameters of all groups."""
        for group in self.groups:
            part = group.part
            self.update_part(self.flat.data[part], self.flat.grad[part], part, group.state)

    def update_part(self, data: Array, grad: Array, part: slice, state: Array) -> None:
        """Change the parameters of one group; the subclass's formula."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def penalty(self) -> float:
        """Σ λ/2 · ‖w‖² + λ₁ · Σ|w| over all groups: what the step adds to the loss, to report it.

        A decoupled decay (``AdamW``) is not the gradient of a penalty, and does not count.
        """
        total = 0.0
        for group in self.groups:
            w = self.flat.data[group.part].astype(np.float64)
            if not group.state["decoupled"]:
                total += group["weight_decay"] / 2 * float(w @ w)
            total += group["l1"] * float(np.abs(w).sum())
        return total

    def check_states(self, states: Array) -> None:
        """Raise ValueError for states, as of a file, that this optimizer can never come to."""
        for name in ("max_norm", "step"):
            if (states[name] != states[name][0]).any():
                raise ValueError(f"{type(self).__name__}: {name} must be the same for all groups")
        for state, own in zip(states, self.states, strict=True):
            for name in OPTIMIZER_STATE.names or ():
                self._check_field(name, float(state[name]), float(own[name]))

    def _check_field(self, name: str, value: float, own: float) -> None:
        owner = type(self).__name__
        set_here = name in ("learning_rate", *SHARED, *self.names)
        if name in LIMITS or (name in RANGES and not set_here):
            if value:  # zero: no limit, or of no use in this optimizer
                check_number(owner, name, value, *RANGES.get(name, (POSITIVE, np.inf)))
        elif name in RANGES:
            check_number(owner, name, value, *RANGES[name])
        elif name == "decoupled" and value != own:
            raise ValueError(f"{owner}: {name} must be {own:g}, got {value:g}")
        elif name in FLAGS and value not in (0, 1):
            raise ValueError(f"{owner}: {name} must be 0 or 1, got {value:g}")
        elif name == "step" and not (0 <= value < MOST_STEPS and value.is_integer()):
            raise ValueError(f"{owner}: {name} must be a whole number >= 0, got {value:g}")
        elif name in ("scale", "mu_product") and not 0 <= value <= 1:
            raise ValueError(f"{owner}: {name} must be in [0, 1], got {value:g}")
        elif name == "norm" and value < 0:  # not finite, where the latest step raised for it
            raise ValueError(f"{owner}: {name} must be >= 0, got {value:g}")

    def _first_not_finite(self) -> str:
        # Gradients come into being from the last layer to the first.
        found = first_not_finite(
            (f"parameter {parameter.name!r} of shape {parameter.shape}", parameter.grad)
            for parameter in reversed(self.flat.parameters)
        )
        return found or "the parameters together"

    def __repr__(self) -> str:
        rate = f"{self.lr:g}" if self.schedule is None else repr(self.schedule)
        shown = [f"lr={rate}", *(f"{name}={getattr(self, name):g}" for name in self.names)]
        shown += [f"{flag}=True" for flag in ("nesterov", "centered") if self.states[flag].any()]
        shown += [f"{n}={getattr(self, n):g}" for n in SHARED if getattr(self, n)]
        if len(self.states) > 1:
            shown.append(f"groups={len(self.states)}")
        return f"{type(self).__name__}({', '.join(shown)}, max_norm={self.max_norm})"


def unfolded(owner: str, settings: Any) -> dict[str, Any]:
    """The settings, with ``betas`` as ``beta1`` and ``beta2``."""
    settings = dict(settings)
    if "betas" in settings:
        betas = settings.pop("betas")
        try:
            settings["beta1"], settings["beta2"] = betas
        except (TypeError, ValueError) as error:  # no sequence, or another number of them
            raise type(error)(f"{owner}: betas must be two numbers, got {betas!r}") from None
    return settings
