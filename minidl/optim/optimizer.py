"""What all optimizers share: groups of parameters, clipping, and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from minidl import kernels
from minidl._kernels.twins import OPTIMIZER_STATE
from minidl.nn.foreign_names import RENAMED_OF_OPTIMIZERS, refuse_renamed
from minidl.nn.hooks import note_change, register_optimizer, register_step
from minidl.nn.nonfinite import first_not_finite
from minidl.nn.parameter import Parameter
from minidl.optim.flat_parameters import FlatParameters
from minidl.optim.hyper_parameters import (
    LIMITS,
    SHARED,
    check_limit,
    check_stored,
    check_value,
    with_single_betas,
)
from minidl.typing import Array

# A learning rate, or a schedule: a function from the number of steps taken to the rate.
Rate = float | Callable[[int], float]
Closure = Callable[[], Any]  # computes the gradients, and returns the loss
Parameters = Iterable[Parameter] | Iterable[Mapping[str, Any]]


class Group:
    """Some of an optimizer's parameters, with hyper-parameters of their own.

    ``group["lr"]``, ``group["weight_decay"]`` and so on can be read, and set between steps.
    """

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        self.optimizer, self.index = optimizer, index

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters of the group that are trained, without the frozen ones."""
        return self.optimizer.flat.groups[self.index]

    @property
    def part(self) -> slice:
        """The slice of the flat vectors that holds the parameters of the group."""
        return self.optimizer.flat.parts[self.index]

    @property
    def state(self) -> Array:
        """The struct of hyper-parameters and counters that kernels read at every step."""
        self.optimizer.register_with_recorder()
        return self.optimizer.states[self.index : self.index + 1].reshape(())

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The schedule of the group's learning rate, or None."""
        return self.optimizer.schedules[self.index]

    def __getitem__(self, name: str) -> Any:
        self._check_name(name)
        value = float(self.state["learning_rate" if name == "lr" else name])
        return (value or None) if name in LIMITS else value

    def __setitem__(self, name: str, value: Any) -> None:
        self._check_name(name)
        if why := self.optimizer.one_for_all.get(name):
            raise ValueError(f"{name} is one for all groups, {why}: write optimizer.{name} = ...")
        self.set(name, value)

    def _check_name(self, name: str) -> None:
        known = ("lr", *SHARED, *self.optimizer.names)
        if name not in (*known, "max_norm"):
            owner = type(self.optimizer).__name__
            raise ValueError(
                f"{owner} has no hyper-parameter {name!r}; it has {', '.join(known)}, max_norm"
            )

    def set(self, name: str, value: Any) -> None:
        """Set a hyper-parameter that the optimizer is known to have."""
        if value and (why := self.optimizer.refused.get(name)):
            raise ValueError(f"{type(self.optimizer).__name__} takes no {name}: {why}")
        if name == "lr":
            self._set_lr(value)
        else:
            check = check_limit if name in LIMITS else check_value
            self.state[name] = check(type(self.optimizer).__name__, name, value)

    def _set_lr(self, value: Rate) -> None:
        schedule = value if callable(value) else None
        rate = self._checked_rate(value) if schedule is None else self._rate_after(schedule, 0)
        self.state["learning_rate"] = rate
        if schedule is not self.schedule:
            self.optimizer.schedules[self.index] = schedule
            note_change()

    def _checked_rate(self, rate: Any) -> float:
        return check_value(type(self.optimizer).__name__, "learning_rate", rate)

    def _rate_after(self, schedule: Callable[[int], float], steps: int) -> float:
        rate = schedule(steps)
        try:
            return self._checked_rate(rate)
        except (TypeError, ValueError) as error:
            where = f"the schedule {schedule!r} after {steps} steps"
            raise type(error)(f"{error}, by {where}") from None

    def set_rate(self) -> None:
        """Set the learning rate of the next step, if there is a schedule."""
        if self.schedule is not None:
            self.state["learning_rate"] = self._rate_after(self.schedule, self.optimizer.steps)

    def rates(self, count: int) -> Array:
        """Return the schedule's rates for the next ``count`` steps.

        If the schedule fails for one of them, the result ends before it, as the steps up to there
        can still be made. If it fails for the first one, its error is raised.
        """
        assert self.schedule is not None
        found: list[float] = []
        for step in range(self.optimizer.steps, self.optimizer.steps + count):
            try:
                found.append(self._rate_after(self.schedule, step))
            except Exception:  # whatever a function of the user raises
                if not found:
                    raise
                break
        return np.array(found)


def hyper_parameter(name: str, meaning: str = "") -> Any:
    """Make an attribute of an optimizer that is read from the first group and set in all."""

    def get(self: Optimizer) -> Any:
        return self.groups[0][name]

    def set(self: Optimizer, value: Any) -> None:
        for group in self.groups:
            group.set(name, value)

    return property(get, set, doc=meaning or f"{name}, changeable between steps")


class Optimizer:
    """What all optimizers share: the flat vectors, the clipping, the step.

    A step first scales the gradients down to a norm of ``max_norm``, then clips them to
    ``max_value``, then adds the gradient of the penalties: g ← g + λ · w + λ₁ · sign(w). ``AdamW``
    shrinks w by the factor 1 - η · λ instead of adding λ · w.

    Moments that become subnormal, below 1.2e-38 in float32, are set to zero. Where a gradient stays
    zero, as behind a dead unit, moments would decay to such numbers and stay there. CPUs compute
    with them many times slower: training would be three times slower after 800 steps.

    Parameters
    ----------
    parameters
        ``model.parameters()``. They move into the optimizer's flat vectors, so a parameter
        belongs to one optimizer at a time. Parameters that are ``frozen`` are left alone.
        Or a list of groups, as in PyTorch: ``{"params": [...], "lr": 1e-3, "weight_decay": 0.0}``.
        A group may set all hyper-parameters but ``max_norm``; those that it does not set are the
        optimizer's.
    lr
        Learning rate η ≥ 0, or a schedule: a function that returns the rate for a number of steps
        taken so far (``optim.schedules`` has the usual ones).
    weight_decay
        λ ≥ 0, the factor of the penalty λ/2 · ‖w‖² (L2).
    l1
        λ₁ ≥ 0, the factor of the penalty λ₁ · Σ|w| (L1).
    max_norm
        A number > 0 to which the global norm of the gradients, over all groups, is clipped before
        every step (Pascanu et al. 2013, algorithm 1); None: no clipping.
    max_value
        A number > 0: every element of a gradient is then clipped to [-max_value, max_value], after
        clipping by norm. None: no clipping.
    """

    registry: ClassVar[list[type[Optimizer]]] = []

    # --- what a subclass may declare ---

    # Its hyper-parameters, beside those of all optimizers.
    names: tuple[str, ...] = ()
    # Its vectors of squares: a model file with a negative number in one of them is refused.
    never_negative: tuple[str, ...] = ()
    # Whether ``step`` takes a closure, which it calls as often as it needs.
    takes_closure: ClassVar[bool] = False
    reason = ""  # why the latest step ended, where that is a question
    # Hyper-parameters that no group has for itself, and those that it cannot have, with the reason.
    one_for_all: ClassVar[Mapping[str, str]] = {"max_norm": "whose gradients have one norm"}
    refused: ClassVar[Mapping[str, str]] = {}

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
        # Last, so that a constructor that fails takes no parameters from another optimizer.
        self.flat = FlatParameters(*(settings["params"] for settings in groups))

    def __setattr__(self, name: str, value: Any) -> None:
        # A value under a name that none of minidl's optimizers reads would do nothing.
        known = name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if not known and "flat" in vars(self) and isinstance(value, (int, float, tuple, str)):
            owner = type(self)
            if owner.__module__.startswith("minidl."):
                names = ", ".join(("lr", *SHARED, "max_norm", *self.names))
                raise AttributeError(f"{owner.__name__} has no {name}; it has {names}")
        object.__setattr__(self, name, value)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_renamed(cls, RENAMED_OF_OPTIMIZERS)
        if "examples" in cls.__dict__:
            Optimizer.registry.append(cls)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        """Yield settings, as keywords, from which the tests verify the optimizer."""
        return iter(())

    def _split(self, parameters: Parameters) -> list[dict[str, Any]]:
        """Return the groups as dicts, after checking that the optimizer knows their settings."""
        owner = type(self).__name__
        if not isinstance(parameters, (Parameter, Mapping)) and isinstance(parameters, Iterable):
            parameters = given = list(parameters)  # type: ignore[assignment]
            if given and all(isinstance(group, Mapping) for group in given):
                groups = [with_single_betas(owner, group) for group in given]
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
        """Raise AttributeError: the learning rate is called ``lr``."""
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
        self.register_with_recorder()
        return self.states[:1].reshape(())

    def register_with_recorder(self) -> None:
        """Register with the active recorder: from now on kernels read the hyper-parameters."""
        if hasattr(self, "flat"):  # not inside the constructor
            register_optimizer(self)

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The schedule of the first group that has one."""
        return next((schedule for schedule in self.schedules if schedule is not None), None)

    def scheduled(self) -> list[Group]:
        """Return the groups whose learning rate follows a schedule."""
        return [group for group in self.groups if group.schedule is not None]

    def set_rate(self) -> None:
        """Set the learning rates of the next step, where there are schedules."""
        if self.schedule is not None:
            for group in self.groups:
                group.set_rate()

    @property
    def finished(self) -> bool:
        """Whether another step on the same data would do no more, as ``reason`` says."""
        return False

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return int(self.state["step"])

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        register_optimizer(self)
        kernels.clear(self.flat.grad)
        for parameter in self.flat.frozen:
            kernels.clear(parameter.grad)

    def scale_grad(self, factor: float) -> None:
        """Multiply all gradients by a factor, such as 1/k after the gradients of k batches."""
        self.register_with_recorder()
        kernels.scale(self.flat.grad, factor)

    def step(self, closure: Closure | None = None) -> float:
        """Clip, update all parameters, and return the gradient norm before clipping.

        Raises
        ------
        FloatingPointError
            If the norm is not finite; nothing is changed then.
        RuntimeError
            If a parameter was handed to another optimizer, reset, converted or frozen.
        TypeError
            For a closure, which only ``LBFGS`` takes.
        """
        if closure is not None:
            raise TypeError(f"{type(self).__name__}.step takes no closure, only LBFGS's does")
        self.flat.check()
        is_recorded = register_step(self)
        if not is_recorded:
            self.set_rate()
        self.count_step()
        self.update()
        norm: Any = self.state["norm"]
        # A step that is being recorded has no values yet: its norm is the array itself.
        return norm if is_recorded else float(norm)

    def count_step(self) -> None:
        """Count the step and compute the gradient norm, and the factor that clips it.

        Raises
        ------
        FloatingPointError
            If the norm is not finite; nothing is changed then.
        """
        grad = self.flat.grad
        if not kernels.clip(kernels.squared_norm(grad), self.states, grad):
            raise FloatingPointError(
                f"{type(self).__name__}: the gradient of {self._first_not_finite()} is not finite "
                f"(norm {np.asarray(self.state['norm'])}); no parameter was changed"
            )

    def update(self) -> None:
        """Change the parameters of all groups."""
        for group in self.groups:
            part = group.part
            self.update_part(self.flat.data[part], self.flat.grad[part], part, group.state)

    def update_part(self, data: Array, grad: Array, part: slice, state: Array) -> None:
        """Change the parameters of one group, by the subclass's formula."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def vectors(self) -> dict[str, Array]:
        """Return what is kept from step to step for every element of the parameters, by name."""
        return {
            name: vector
            for name, vector in vars(self).items()
            if isinstance(vector, np.ndarray) and vector.shape == (self.flat.size,)
        }

    def penalty(self) -> float:
        """Return Σ λ/2 · ‖w‖² + λ₁ · Σ|w| over all groups: what steps minimise beside the loss.

        The decoupled decay of ``AdamW`` is not the gradient of a penalty, and is left out.
        """
        total = 0.0
        for part, state in zip(self.flat.parts, self.states, strict=True):
            w, l1 = self.flat.data[part], state["l1"]
            if (decay := state["weight_decay"]) and not state["decoupled"]:
                total += float(decay / 2 * kernels.squared_norm(w))
            if l1:
                total += float(l1 * np.abs(w).sum(dtype=np.float64))
        return total

    def check_states(self, states: Array) -> None:
        """Raise ValueError for states, read from a file, that this optimizer can never reach."""
        for name in ("max_norm", "step"):
            if (states[name] != states[name][0]).any():
                raise ValueError(f"{type(self).__name__}: {name} must be the same for all groups")
        for state, own in zip(states, self.states, strict=True):
            for name in OPTIMIZER_STATE.names or ():
                is_used = name in ("learning_rate", *SHARED, *self.names)
                check_stored(
                    type(self).__name__, name, float(state[name]), float(own[name]), is_used
                )

    def _first_not_finite(self) -> str:
        """Name the first parameter whose gradient is not finite."""
        # In the order in which gradients are computed: from the last layer to the first.
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
