"""Building an optimizer anew, after the parameters of its model have changed."""

from __future__ import annotations

import inspect
from typing import Any

from minidl import optim
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.nn import Layer
from minidl.optim import Optimizer
from minidl.optim.hyper_parameters import FLAGS, SHARED


def rebuilt(optimizer: Optimizer, model: Layer) -> Optimizer:
    """Build an optimizer of the same class and settings for the parameters that a model has now.

    Groups are kept: parameters that none of them has join the first.

    Raises
    ------
    NotApplicableError
        For a class of the user's own whose constructor takes other arguments.
    """
    known = [{id(p) for p in [*group.parameters]} for group in optimizer.groups]
    members: list[list[Any]] = [[] for _ in known]
    for parameter in model.parameters():
        place = next((i for i, ids in enumerate(known) if id(parameter) in ids), 0)
        members[place].append(parameter)
    cls, settings = type(optimizer), settings_of(optimizer)
    parameters: list[Any] = members[0]
    if len(members) > 1:
        names = ("lr", *SHARED, *optimizer.names)
        parameters = [
            {"params": own, **{name: group[name] for name in names}}
            for own, group in zip(members, optimizer.groups, strict=True)
            if own
        ]
    try:
        new = cls(parameters, **settings)
    except TypeError as error:
        raise NotApplicableError(
            f"{cls.__name__} cannot be built anew for a changed model: {error}"
        ) from error
    for group, old in zip(new.groups, optimizer.groups, strict=False):
        if old.schedule is not None:
            group["lr"] = old.schedule
    return new


def settings_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return the arguments of the constructor that give the settings of the first group."""
    accepted = inspect.signature(type(optimizer).__init__).parameters
    names = ("lr", *SHARED, "max_norm", *optimizer.names)
    found = {name: getattr(optimizer, name) for name in names if name in accepted}
    found |= {flag: bool(optimizer.states[flag][0]) for flag in FLAGS if flag in accepted}
    if "betas" in accepted and "beta1" in optimizer.names:
        found["betas"] = (optimizer.beta1, optimizer.beta2)  # type: ignore[attr-defined]
    return found


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of the first group; those of others, and schedules, in proportion."""
    old = optimizer.lr
    for group in optimizer.groups:
        factor = rate / old if old else 0.0
        schedule = group.schedule
        if schedule is not None and factor:
            group["lr"] = _Scaled(schedule, factor)
        else:
            group["lr"] = group["lr"] * factor if factor else rate


class _Scaled:
    """A schedule with all its rates multiplied by a number."""

    def __init__(self, schedule: Any, factor: float) -> None:
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: int) -> float:
        return float(self.factor * self.schedule(step))


def of_name(name: str, model: Layer, like: Optimizer, **settings: Any) -> Optimizer:
    """Build an optimizer by its name, with the clipping and the weight decay of another."""
    cls = getattr(optim, name)
    kept = {"max_norm": like.max_norm, "weight_decay": like.weight_decay}
    return cls(model.parameters(), **(kept | settings))
