"""Traits of layers, losses and optimizers that Python code may read: modes, attributes ...

A program is valid for the traits with which it was recorded. The traced function may read them and
may switch modes, but must leave attributes as they are.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from minidl.nn.layer import Layer
from minidl.recording.guards import RecordingError


def parts_of(root: Any) -> list[Any]:
    """List a layer and all layers in it, a loss and those of its heads, or an optimizer."""
    if hasattr(root, "layers"):
        return [layer for _, layer in root.layers()]
    return [root, *getattr(root, "heads", {}).values()]


def plain_attributes(part: Any) -> dict[str, Any]:
    """Return the public attributes that are numbers, flags, strings or tuples of them."""
    return {
        name: value
        for name, value in vars(part).items()
        if not name.startswith("_") and is_plain(value)
    }


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a flag, a string, None, or a tuple of them."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return isinstance(value, (bool, int, float, str, np.generic, type(None)))


def traits(root: Any) -> Hashable:
    """Collect type, mode, frozen parameters and plain attributes of every part."""
    return tuple(
        (
            type(part),
            getattr(part, "training", None),
            tuple(parameter.frozen for parameter in part.own_parameters())
            if isinstance(part, Layer)
            else (),
            tuple(plain_attributes(part).items()),
        )
        for part in parts_of(root)
    )


class Rewind:
    """Puts modes and attributes of layers back to what they were before the function ran."""

    def __init__(self) -> None:
        self._attributes: list[tuple[Any, dict[str, Any]]] = []
        self._modes: dict[int, tuple[Any, bool]] = {}  # of layers that the function has switched

    def note_attributes(self, root: Any) -> None:
        """Remember the plain attributes of all parts."""
        self._attributes += [(part, plain_attributes(part)) for part in parts_of(root)]

    def note_mode(self, layer: Any) -> None:
        """Remember the mode of a layer that is about to be switched."""
        self._modes.setdefault(id(layer), (layer, layer._training))

    def put_back(self) -> None:
        """Put modes and attributes back."""
        for part, attributes in self._attributes:
            for name in plain_attributes(part).keys() - attributes.keys():
                del vars(part)[name]
            vars(part).update(attributes)
        self.put_modes_back()

    def put_modes_back(self) -> None:
        """Put modes back, but not attributes."""
        for layer, training in self._modes.values():
            layer.training = training

    def check_attributes(self) -> None:
        """Raise RecordingError, naming layer and attribute, if the function has set one."""
        for part, before in self._attributes:
            for name, value in plain_attributes(part).items():
                if name not in before or not _same(before[name], value):
                    raise RecordingError(
                        f"{getattr(part, 'label', None) or repr(part)} sets its attribute {name!r} "
                        "as it runs, which a replay would not. Keep what changes from step to "
                        "step in an array of state_names that kernels change; or run without "
                        "minidl.record."
                    )


def _same(old: Any, new: Any) -> bool:
    return old is new or (type(old) is type(new) and old == new)
