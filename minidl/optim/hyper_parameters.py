"""What the hyper-parameters of optimizers are called, and which values they may have."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.nn.checks import POSITIVE, check_number

# For each hyper-parameter the lowest value allowed, and the first that is too large.
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
SHARED = ("weight_decay", "l1", "max_value")  # what the groups of every optimizer may set
MOST_STEPS = 2.0**53  # up to here a float64 can count


def check_value(owner: str, name: str, value: Any) -> float:
    """Return the value of a hyper-parameter as a float, if it is in its range."""
    return check_number(owner, name, value, *RANGES[name])


def check_limit(owner: str, name: str, value: Any) -> float:
    """Return a limit of the gradient as kernels read it: zero for None."""
    return 0.0 if value is None else check_number(owner, name, value, POSITIVE, np.inf)


def check_stored(owner: str, name: str, value: float, own: float, is_used: bool) -> None:
    """Raise ValueError for a field of an optimizer's state that no optimizer can have.

    Parameters
    ----------
    owner
        The class of the optimizer.
    name, value
        The field, and its value in a file.
    own
        Its value in the optimizer.
    is_used
        Whether the optimizer has a hyper-parameter of this name.
    """
    if name in LIMITS or (name in RANGES and not is_used):
        if value:  # zero: no limit, or not a hyper-parameter of this optimizer
            check_number(owner, name, value, *RANGES.get(name, (POSITIVE, np.inf)))
    elif name in RANGES:
        check_value(owner, name, value)
    elif name == "decoupled" and value != own:
        raise ValueError(f"{owner}: {name} must be {own:g}, got {value:g}")
    elif name in FLAGS and value not in (0, 1):
        raise ValueError(f"{owner}: {name} must be 0 or 1, got {value:g}")
    elif name == "step" and not (0 <= value < MOST_STEPS and value.is_integer()):
        raise ValueError(f"{owner}: {name} must be a whole number >= 0, got {value:g}")
    elif name in ("scale", "mu_product") and not 0 <= value <= 1:
        raise ValueError(f"{owner}: {name} must be in [0, 1], got {value:g}")
    elif name == "norm" and value < 0:  # it may be infinite or NaN: the latest step raised for it
        raise ValueError(f"{owner}: {name} must be >= 0, got {value:g}")


def with_single_betas(owner: str, settings: Any) -> dict[str, Any]:
    """Return the settings with ``betas`` as ``beta1`` and ``beta2``."""
    settings = dict(settings)
    if "betas" in settings:
        betas = settings.pop("betas")
        try:
            settings["beta1"], settings["beta2"] = betas
        except (TypeError, ValueError) as error:  # no sequence, or another number of them
            raise type(error)(f"{owner}: betas must be two numbers, got {betas!r}") from None
    return settings
