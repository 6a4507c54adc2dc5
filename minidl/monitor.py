"""Whether a monitored loss or metric is to be small or large."""

from __future__ import annotations

import re

LARGE = re.compile("(accuracy|balanced_accuracy|r2|top_.*|(roc_auc|precision|recall|f1)(_[a-z]+)?)")
SMALL = ("loss", "mse", "mae", "mape", "log_loss")


def good_mode(owner: str, monitor: str, mode: str | None) -> str:
    """Return ``"min"`` or ``"max"``: the mode, or what the name of the monitored value says.

    Raises
    ------
    TypeError
        For a monitored value that is not given by its name.
    ValueError
        For another mode, and for a name that does not say which values are good: names other than
        those of the loss and of the metrics known by name.

    Examples
    --------
    >>> good_mode("EarlyStopping", "val_accuracy", None)
    'max'
    """
    if not isinstance(monitor, str):
        raise TypeError(
            f'{owner}: the value to watch is given by its name, such as "val_loss", got {monitor!r}'
        )
    if mode not in ("min", "max", None):
        raise ValueError(f'{owner}: mode must be "min" or "max", got {mode!r}')
    name = monitor.removeprefix("val_").rpartition(".")[2]  # behind the name of a head, if any
    name = name.removeprefix("weighted_")
    if mode is None and LARGE.fullmatch(name):
        return "max"
    if mode is None and name not in SMALL:
        head, _, last = re.sub("[ /]", "_", monitor).rpartition("_")
        dotted = f'; a value of a head is called "{head}.{last}"' * bool(head and last in SMALL)
        raise ValueError(
            f'{owner}: is a large {monitor!r} good? Give mode="max" or mode="min"{dotted}'
        )
    return mode or "min"
