"""Schedules: the learning rate as a function of the number of steps taken so far.

An optimizer's ``lr`` may be any function of a step count; these are the usual ones. They count
steps, not epochs: an epoch has ``ceil(samples / batch_size)`` steps. A recorded step uses the same
rates as an eager one, to the last bit.

==================  ======================================================  ==================
schedule            rate after t steps                                      source
==================  ======================================================  ==================
``step_decay``      η · factor^⌊t / every⌋
``exponential``     η · factor^t
``cosine``          final + (η - final) · (1 + cos(π t / steps)) / 2        Loshchilov & Hutter
                                                                            2017, eq. 5
``warmup``          a linear rise to η, or to a schedule, which follows     Goyal et al. 2017
``one_cycle``       a rise to η, then a fall far below the start, cosines   Smith & Topin 2018
==================  ======================================================  ==================

``ReduceOnPlateau`` is not a function of time: it observes a loss, and lowers the rate when the loss
has stopped falling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.monitor import good_mode
from minidl.nn.checks import POSITIVE, check_count, check_number
from minidl.optim.optimizer import Optimizer, Rate

BEYOND_ONE = math.nextafter(1.0, 2.0)  # for ranges that include 1


@dataclass(frozen=True, repr=False)
class Schedule:
    """A learning rate over time: a formula by name, and its arguments.

    ``schedule(t)`` is the rate after t steps.
    """

    name: str
    formula: Callable[..., float]
    arguments: tuple[Any, ...]

    def __call__(self, step: int) -> float:
        return self.formula(step, *self.arguments)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))})"


def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """η · factor^⌊t / every⌋: the rate is multiplied by ``factor`` after every ``every`` steps.

    Parameters
    ----------
    lr
        η ≥ 0, the rate at the beginning.
    every
        Number of steps between two reductions, ≥ 1.
    factor
        In (0, 1].

    Raises
    ------
    ValueError
        For values outside these ranges.

    Examples
    --------
    >>> from minidl.optim import schedules
    >>> rate = schedules.step_decay(1.0, every=2, factor=0.5)
    >>> rate
    step_decay(1.0, 2, 0.5)
    >>> [rate(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    arguments = _lr("step_decay", lr), check_count("step_decay", "every", every)
    return Schedule("step_decay", _step_decay, (*arguments, _factor("step_decay", factor)))


def exponential(lr: float, factor: float) -> Schedule:
    """η · factor^t: the rate is multiplied by ``factor`` after every step.

    Parameters
    ----------
    lr
        η ≥ 0, the rate at the beginning.
    factor
        In (0, 1]; ``0.5 ** (1 / n)`` halves the rate every n steps.

    Raises
    ------
    ValueError
        For values outside these ranges.

    Examples
    --------
    >>> from minidl.optim import schedules
    >>> [schedules.exponential(1.0, factor=0.5)(step) for step in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    arguments = _lr("exponential", lr), _factor("exponential", factor)
    return Schedule("exponential", _exponential, arguments)


def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """final + (η - final) · (1 + cos(π t / steps)) / 2, and ``final`` from ``steps`` on.

    Source: Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.

    Parameters
    ----------
    lr
        η ≥ 0, the rate at the beginning.
    steps
        Number of steps of the whole training, ≥ 1.
    final
        The rate at its end, ≥ 0.

    Raises
    ------
    ValueError
        For values outside these ranges.

    Examples
    --------
    >>> from minidl import nn, optim
    >>> from minidl.optim import schedules
    >>> model = nn.Linear(3, 2)
    >>> optim.Adam(model.parameters(), lr=schedules.cosine(0.01, steps=1000)).lr
    0.01
    >>> f"{schedules.cosine(0.01, steps=1000)(500):.3f}"
    '0.005'
    """
    arguments = (
        _lr("cosine", lr),
        check_count("cosine", "steps", steps),
        _lr("cosine", final, "final"),
    )
    return Schedule("cosine", _cosine, arguments)


def warmup(rate: Rate, steps: int, start: float = 0.01) -> Schedule:
    """η · (start + (1 - start) · t / steps) for t < steps, then η or a schedule.

    Large steps at the beginning, before moments and running statistics have settled, can ruin a
    network for good. Source: Goyal et al. 2017, section 2.2.

    Parameters
    ----------
    rate
        η ≥ 0; or a schedule, which begins after the rise, and whose first rate is η.
    steps
        Number of steps of the rise, ≥ 1.
    start
        The first rate as a fraction of η, in [0, 1].

    Raises
    ------
    ValueError
        For values outside these ranges.

    Examples
    --------
    >>> from minidl.optim import schedules
    >>> rate = schedules.warmup(schedules.exponential(1.0, 0.5), steps=4, start=0.0)
    >>> [rate(step) for step in range(7)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.25]
    """
    rate = rate if callable(rate) else _lr("warmup", rate)
    start = check_number("warmup", "start", start, 0, BEYOND_ONE)
    return Schedule("warmup", _warmup, (rate, check_count("warmup", "steps", steps), start))


def one_cycle(
    max_lr: float, steps: int, rise: float = 0.3, divide: float = 25.0, final_divide: float = 1e4
) -> Schedule:
    """A rise to ``max_lr`` in the first part of the training, then a fall to almost zero.

    From max_lr / divide to max_lr in ``rise`` · steps - 1 steps, then to max_lr / divide /
    final_divide at the last step, where the rate stays; both along half a cosine.

    Source: Smith and Topin 2018, in the form and with the defaults of PyTorch's OneCycleLR
    (two phases; the momentum stays as it is).

    Parameters
    ----------
    max_lr
        The highest rate, ≥ 0.
    steps
        Number of steps of the whole training, ≥ 1.
    rise
        The fraction of steps until the highest rate, in (0, 1).
    divide, final_divide
        The first rate is ``max_lr / divide``, the last ``max_lr / divide / final_divide``; > 0.

    Raises
    ------
    ValueError
        For values outside these ranges.

    Examples
    --------
    >>> from minidl.optim import schedules
    >>> rate = schedules.one_cycle(1.0, steps=11, rise=0.5, divide=10, final_divide=100)
    >>> [f"{rate(step):.3f}" for step in (0, 2, 4, 5, 10, 99)]
    ['0.100', '0.472', '0.973', '0.980', '0.001', '0.001']
    """
    rise = check_number("one_cycle", "rise", rise, POSITIVE, 1)
    divide = check_number("one_cycle", "divide", divide, POSITIVE, np.inf)
    final_divide = check_number("one_cycle", "final_divide", final_divide, POSITIVE, np.inf)
    top, steps = _lr("one_cycle", max_lr, "max_lr"), check_count("one_cycle", "steps", steps)
    return Schedule("one_cycle", _one_cycle, (top, steps, rise, divide, final_divide))


class ReduceOnPlateau:
    """Lower the learning rate when a loss has stopped falling.

    η ← max(η · factor, smallest) after more than ``patience`` observations in a row that were no
    better than the best one. Then ``cooldown`` observations pass before counting begins again.

    Parameters
    ----------
    optimizer
        Its learning rate is lowered, in each group; it must be a number, not a schedule.
    factor
        In (0, 1).
    patience
        Number of observations without improvement that change nothing, ≥ 0.
    threshold
        The smallest change that counts as an improvement, as a fraction of the best value, in
        [0, 1).
    cooldown
        Number of observations after a reduction that do not count, ≥ 0.
    smallest
        Lower limit of the rate, ≥ 0; a rate that is already smaller stays as it is.
    mode
        ``"min"`` if small values are good, as of a loss, ``"max"`` if large ones are, as of an
        accuracy. None: follows from ``monitor`` for the loss and the metrics known by name.
    monitor
        The value that it observes after every epoch as one of the callbacks of ``Trainer.fit``.

    Raises
    ------
    ValueError
        For values outside these ranges, if the optimizer has a schedule, and for ``mode`` None with
        a metric that is not known.

    Examples
    --------
    >>> from minidl import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0)
    >>> plateau = optim.schedules.ReduceOnPlateau(optimizer, factor=0.5, patience=1)
    >>> [plateau.observe(loss) for loss in (3.0, 2.0, 2.0, 2.0, 1.0)]
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        smallest: float = 0.0,
        mode: str | None = None,
        monitor: str = "val_loss",
    ) -> None:
        name = "ReduceOnPlateau"
        self.optimizer, self.monitor = optimizer, monitor
        self.mode = good_mode(name, monitor, mode)
        self.factor = check_number(name, "factor", factor, POSITIVE, 1)
        self.patience = check_count(name, "patience", patience, least=0)
        self.threshold = check_number(name, "threshold", threshold, 0, 1)
        self.cooldown = check_count(name, "cooldown", cooldown, least=0)
        self.smallest = _lr(name, smallest, "smallest")
        self.best = math.inf if self.mode == "min" else -math.inf
        self.waited = self.cooling = 0
        self._check_rate()

    def _check_rate(self) -> None:
        if self.optimizer.schedule is not None:
            raise ValueError(
                f"ReduceOnPlateau: the learning rate of {self.optimizer!r} is a schedule, "
                "which would overwrite it at every step"
            )

    def observe(self, value: float) -> float:
        """Count an observation, such as the loss of an epoch; return the learning rate after it.

        With several groups it is the rate of the first. NaN is no improvement.
        """
        self._check_rate()
        value = float(value)
        if self._is_better(value):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.waited = 0
        if self.waited > self.patience:
            self._reduce()
            self.waited, self.cooling = 0, self.cooldown
        return self.optimizer.lr

    def _is_better(self, value: float) -> bool:
        # Relative to the size of the best, whatever its sign: log likelihoods are negative.
        margin = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > margin

    def _reduce(self) -> None:
        for group in self.optimizer.groups:
            rate = group["lr"]
            group["lr"] = min(rate, max(rate * self.factor, self.smallest))

    def __repr__(self) -> str:
        return (
            f"ReduceOnPlateau(factor={self.factor:g}, patience={self.patience}, "
            f"threshold={self.threshold:g}, cooldown={self.cooldown}, "
            f"smallest={self.smallest:g}, mode={self.mode!r})"
        )


def schedule_words(schedule: Any) -> dict[str, Any] | None:
    """Describe a schedule in numbers and words; of a function of the user's, only that it is one.

    Examples
    --------
    >>> from minidl.optim import schedules
    >>> schedules.schedule_words(schedules.exponential(0.5, 0.75))
    {'name': 'exponential', 'arguments': [0.5, 0.75]}
    """
    if schedule is None:
        return None
    if not isinstance(schedule, Schedule) or FORMULAS.get(schedule.name) is not schedule.formula:
        return {"function": True}
    arguments = [schedule_words(a) if callable(a) else a for a in schedule.arguments]
    return {"name": schedule.name, "arguments": arguments}


def schedule_from(words: Mapping[str, Any] | None, present: Any) -> Any:
    """Return the schedule that ``schedule_words`` has described; ``present`` for a function.

    Raises
    ------
    ValueError
        If it was a function of the user's, and there is none at present; for an unknown name.
    """
    if words is None:
        return None
    if "function" in words:
        if present is None:
            raise ValueError("its learning rate is a function: give the optimizer the same, as lr=")
        return present
    name = words["name"]
    if name not in FORMULAS:
        raise ValueError(f"there is no schedule {name!r}")
    arguments = tuple(
        schedule_from(a, None) if isinstance(a, Mapping) else a for a in words["arguments"]
    )
    schedule = Schedule(name, FORMULAS[name], arguments)
    schedule(0)  # an error here, not at the first step
    return schedule


# --- formulas: functions with names, so that schedules can be pickled -----------------------


def _step_decay(step: int, lr: float, every: int, factor: float) -> float:
    return lr * factor ** (step // every)


def _exponential(step: int, lr: float, factor: float) -> float:
    return lr * factor**step


def _cosine(step: int, lr: float, steps: int, final: float) -> float:
    return _half_cosine(lr, final, min(step, steps) / steps)


def _warmup(step: int, rate: Rate, steps: int, start: float) -> float:
    target = rate(max(step - steps, 0)) if callable(rate) else rate
    return target * (start + (1 - start) * step / steps) if step < steps else target


def _one_cycle(
    step: int, max_lr: float, steps: int, rise: float, divide: float, final_divide: float
) -> float:
    first, top, last = max_lr / divide, rise * steps - 1, steps - 1
    if step <= top:
        return _half_cosine(first, max_lr, step / top if top else 1.0)
    done = min(1.0, (step - top) / (last - top)) if last > top else 1.0
    return _half_cosine(max_lr, first / final_divide, done)


def _half_cosine(begin: float, end: float, done: float) -> float:
    """Go from one rate to another along half a cosine; ``done`` from 0 to 1."""
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * done))


def _lr(owner: str, value: Any, name: str = "lr") -> float:
    return check_number(owner, name, value, 0, np.inf)


def _factor(owner: str, value: Any) -> float:
    return check_number(owner, "factor", value, POSITIVE, BEYOND_ONE)


FORMULAS: dict[str, Callable[..., float]] = {
    "step_decay": _step_decay,
    "exponential": _exponential,
    "cosine": _cosine,
    "warmup": _warmup,
    "one_cycle": _one_cycle,
}

# From these the tests verify the schedules: at least one of each.
EXAMPLES = (
    step_decay(0.1, 30, 0.5),
    exponential(0.1, 0.97),
    cosine(0.1, 130, 1e-3),
    warmup(0.1, 40, start=0.25),
    warmup(cosine(0.1, 90), 40),
    one_cycle(0.1, 130),
    one_cycle(0.1, 130, 0.47, 7.0, 30.0),
)
