"""Checks of what a Trainer and its ``fit`` are given, before any step."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.nn import Layer, Loss
from minidl.nn.checks import check_parameters_of, check_part
from minidl.nn.multi_loss import heads_of
from minidl.optim import EMA, Optimizer
from minidl.recording.pytree import tree_leaves, tree_map
from minidl.training.interrupt import Snapshot
from minidl.typing import Array

# Of what class a part of a training is, and an example of it.
PARTS: dict[str, tuple[type, str]] = {
    "model": (Layer, "a layer such as nn.Sequential(...)"),
    "loss": (Loss, "a loss such as nn.MSELoss()"),
    "optimizer": (Optimizer, "an optimizer such as optim.SGD(model.parameters())"),
}


def split(samples: int, fraction: float) -> tuple[Array, Array]:
    """Return rows to train on, and a random fraction to validate on: the same at every call."""
    count = round(samples * fraction) if 0 < fraction < 1 else 0
    if not 0 < count < samples:
        raise ValueError(
            f"validation must be a share of the rows in (0, 1) that leaves some on both sides, got "
            f"{fraction} of {samples:,}"
        )
    order = np.random.default_rng(0).permutation(samples)
    return np.sort(order[count:]), np.sort(order[:count])


def as_validation(validation: Any) -> tuple[Any, Any, Any]:
    """Return features, targets and weights (or None) of ``validation``, a pair or a triple."""
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        X, y, *weight = validation
        return X, y, weight[0] if weight else None
    got = type(validation).__name__
    if isinstance(validation, (tuple, list)):
        got += f" of {len(validation)}"
    raise ValueError(
        "validation must be a pair (X, y) of held-out data, or (X, y, weight), or a share of the "
        f"rows such as 0.2, got {got}"
    )


def check_kind(owner: str, name: str, part: Any) -> None:
    """Raise TypeError unless a part of a training is what its name says, one of PARTS."""
    check_part(f"{owner}: {name}", part, *PARTS[name])


def check_parts(model: Any, loss: Any, optimizer: Any, ema: Any) -> None:
    """Raise unless these are a model, a loss, and an optimizer and an average of that model."""
    for name, part in ("model", model), ("loss", loss), ("optimizer", optimizer):
        check_kind("Trainer(model, loss, optimizer)", name, part)
    if loss.reduction == "none":
        raise ValueError(
            f"Trainer: {loss!r} gives a loss for each row or element, and training needs one "
            'number; write reduction="mean", and fit(..., sample_weight=...) where rows count '
            "differently"
        )
    for _, layer in model.layers():
        if getattr(layer, "stateful", None) is not None:
            raise ValueError(
                f"Trainer: it shuffles the rows, and the state of {layer.label} goes on from batch "
                "to batch; use minidl.record and step.epoch(..., shuffle=False)"
            )
    if ema is not None and not isinstance(ema, EMA):
        raise TypeError(f"Trainer: ema must be an optim.EMA, got {ema!r}")
    check_parameters_of(model, "Trainer: the optimizer", optimizer.flat.parameters)
    check_parameters_of(model, "Trainer: the ema", [] if ema is None else ema.parameters)


def check_batch_size(model: Layer, inputs: tuple[Any, ...], batch_size: int) -> None:
    """Raise ValueError if a batch would have one row and a layer, tried on one, needs more."""
    samples = len(next(tree_leaves(inputs)))
    if (samples - 1) % batch_size:
        return  # every step has more than one row
    why = f"{samples:,} rows in batches of {batch_size} leave one for the last; choose another"
    if samples == 1:
        why = "X has no more, for any"
    elif batch_size == 1:
        why = "with batch size 1 every batch has one; choose a larger"
    snapshot = Snapshot(model.state().values())
    try:
        with snapshot, np.errstate(all="ignore"):
            snapshot.take()
            model(*tree_map(inputs, lambda array: array[:1]))
            snapshot.restore()
    except ValueError as error:
        raise ValueError(f"training on one row fails ({error}), and {why} batch_size") from None


def batch_size_for(
    loss: Loss, optimizer: Optimizer, batch_size: int | str, accumulate: int, rows: int
) -> int:
    """Return the rows of a batch; of "auto" 32, or all of them if a step needs all.

    Raises
    ------
    ValueError
        For batches of fewer rows than a step of the optimizer needs, and for steps of several
        batches that would be the mean of some heads, and the sum of others.
    """
    reductions = {name: head.reduction for name, head in heads_of(loss).items()}
    if accumulate > 1 and len(set(reductions.values())) > 1:
        raise ValueError(
            "fit: accumulate > 1 averages the gradients of batches for means, and adds them up for "
            f"sums, and the heads have both: {reductions}; give them one reduction"
        )
    if not optimizer.takes_closure:
        return 32 if isinstance(batch_size, str) else batch_size
    if accumulate > 1 or not (isinstance(batch_size, str) or batch_size >= rows):
        raise ValueError(
            f"fit: {type(optimizer).__name__} takes all {rows:,} rows in one step, got batch_size="
            f"{batch_size} and accumulate={accumulate}; leave both out"
        )
    return rows
