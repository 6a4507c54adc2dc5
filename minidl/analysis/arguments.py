"""What the tools of analysis are given, as a model and a loss take it, or a clear refusal."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.nn import Layer, Loss, MultiLoss, Parameter
from minidl.nn.checks import check_part
from minidl.nn.data_checks import (
    INDEX,
    as_array,
    check_kind,
    check_same_rows,
)
from minidl.nn.entrances import check_number_of_inputs
from minidl.typing import Array, DType


def check_model(model: Any) -> None:
    """Raise TypeError unless this is a layer."""
    check_part("model", model, Layer, "a layer such as nn.Sequential(...)")


def check_loss(loss: Any) -> None:
    """Raise unless this is a loss that gives one number."""
    check_part("loss", loss, Loss, "a loss such as nn.MSELoss()")
    if loss.reduction == "none":
        raise ValueError(f"{loss!r} gives a loss for each row; here one number is needed")


def trained_parameters(model: Layer) -> list[Parameter]:
    """Return the parameters that are not frozen; raise ValueError if there are none."""
    parameters = [p for p in model.parameters() if not p.frozen]
    if not parameters:
        raise ValueError(f"{model.short_name()} has no parameters that are not frozen")
    return parameters


def as_inputs(model: Layer, x: Any, dtype: DType) -> tuple[Array, ...]:
    """Return the inputs of a model as it takes them: a tuple is several, reals become ``dtype``.

    The first input stays as it is if the model takes indices, further ones if they are integers,
    such as the lengths of sequences.

    Raises
    ------
    TypeError
        For anything but numbers, and for more inputs than the model takes.
    ValueError
        For no rows, and for inputs that differ in how many they have.
    """
    parts = x if isinstance(x, tuple) else (x,)
    if not parts:
        raise ValueError("x is an empty tuple; a tuple holds the inputs of a model")
    check_number_of_inputs("x", len(parts), model)
    names = [f"x[{i}]" if isinstance(x, tuple) else "x" for i in range(len(parts))]
    arrays = [as_array(name, part) for name, part in zip(names, parts, strict=True)]
    check_same_rows(zip(names, arrays, strict=True))
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        whole = array.dtype.kind in "iu" if i else model.takes_indices
        check_kind(name, array, INDEX if whole else np.dtype(dtype))
        arrays[i] = array if whole else np.ascontiguousarray(array, dtype)
    return tuple(arrays)


def as_targets(loss: Loss, y: Any, x: Array, dtype: DType) -> tuple[Array, ...]:
    """Return the targets of the rows x as a loss takes them, and the weights of the rows, if any.

    Raises
    ------
    TypeError
        For anything but numbers, and for a ``MultiLoss``.
    ValueError
        For another number of rows than x has, and for a tuple that is not targets and weights.
    """
    if isinstance(loss, MultiLoss):
        raise TypeError(
            f"analyses look at the loss of one output, and {loss!r} has {len(loss.heads)} heads"
        )
    parts = y if isinstance(y, tuple) else (y,)
    if len(parts) not in (1, 2):
        raise ValueError(
            f"y is a tuple of {len(parts)}; a tuple holds targets, or targets and weights of rows"
        )
    names = ["y"] if len(parts) == 1 else ["y[0]", "y[1]"]
    arrays = [as_array(name, part) for name, part in zip(names, parts, strict=True)]
    check_same_rows([("x", x), *zip(names, arrays, strict=True)])
    for i, array in enumerate(arrays):
        if i or not loss.takes_labels:  # the loss itself checks labels
            check_kind(names[i], array, np.dtype(dtype))
            arrays[i] = np.ascontiguousarray(array, dtype)
    return tuple(arrays)


def as_vector(name: str, vector: Any) -> Array:
    """Return finite real numbers in float64, in the shape that they have.

    Raises
    ------
    TypeError
        For anything but numbers.
    ValueError
        For NaN and infinity.
    """
    array = as_array(name, vector)
    check_kind(name, array, np.dtype(np.float64))
    if len(wrong := np.argwhere(~np.isfinite(array))):
        place = tuple(wrong[0].tolist())
        raise ValueError(f"{name} is not finite: at {place} it holds {array[place]}")
    return array.astype(np.float64)
