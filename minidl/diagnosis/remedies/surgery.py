"""Finding and exchanging the layers of a model, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn import Layer
from minidl.nn.hooks import evaluating
from minidl.nn.layer import KEPT
from minidl.nn.recurrent.sequence import Recurrent
from minidl.nn.watching import watching
from minidl.typing import Array

# Functions of each element by itself, whose output has the shape of their input.
ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.HardSwish, nn.Softplus, nn.Sigmoid, nn.HardSigmoid, nn.Tanh, nn.Softsign,
)  # fmt: skip
HEADS = (*ACTIVATIONS, nn.Softmax, nn.LogSoftmax)
# Layers that change neither the range of what passes through them nor its number of features.
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Flatten)
NORMALIZATIONS = (nn.BatchNorm, nn.LayerNorm, nn.RMSNorm)


class NotApplicableError(ValueError):
    """A remedy that cannot be carried out on this program; the message says why."""


@dataclass(frozen=True)
class Call:
    """A layer that computed, and the shape of its output."""

    layer: Layer
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """The features of its output."""
        return self.shape[-1]


def calls(model: Layer, inputs: Sequence[Array]) -> list[Call]:
    """Return the layers that have no layers in them, in the order in which they compute.

    A recurrent layer counts as one, whatever cells are in it.
    """
    leaves: list[Layer] = []
    _collect_leaves(model, leaves)
    found: list[Call] = []

    def note(layer: Layer, result: Any) -> None:
        array = result[0] if isinstance(result, tuple) else result
        found.append(Call(layer, np.shape(array)))

    with evaluating(), np.errstate(all="ignore"), watching(leaves, "forward", note):
        model(*inputs)
    return found


def _collect_leaves(layer: Layer, found: list[Layer]) -> None:
    children = [child for _, child in layer.children()]
    if isinstance(layer, Recurrent) or not children:
        if not any(layer is other for other in found):
            found.append(layer)
        return
    for child in children:
        _collect_leaves(child, found)


def head_of(order: Sequence[Call]) -> Layer | None:
    """Return the activation that the model ends in, if it ends in one."""
    last = next((c.layer for c in reversed(order) if not isinstance(c.layer, TRANSPARENT)), None)
    return last if isinstance(last, HEADS) else None


def hidden_activations(order: Sequence[Call]) -> list[Call]:
    """Return the activations before the head, each once."""
    head = head_of(order)
    found: list[Call] = []
    for index, call in enumerate(order):
        known = any(call.layer is other.layer for other in found)
        hidden = isinstance(call.layer, ACTIVATIONS) or is_softmax_of_units(order, index)
        if hidden and call.layer is not head and not known:
            found.append(call)
    return found


def is_softmax_of_units(order: Sequence[Call], index: int) -> bool:
    """Return whether a softmax stands between two layers of weights, as an activation does.

    One over the places of an attention stands between other layers, or changes the width.
    """
    if not isinstance(order[index].layer, (nn.Softmax, nn.LogSoftmax)):
        return False
    rest = [call for call in order[index + 1 :] if not isinstance(call.layer, TRANSPARENT)]
    if index == 0 or not rest:
        return False
    before, after, width = order[index - 1], rest[0].layer, order[index].width
    both = isinstance(before.layer, nn.Linear) and isinstance(after, nn.Linear)
    return both and before.width == width == getattr(after, "in_features", None)


def preferred_inits(order: Sequence[Call]) -> Iterator[tuple[nn.Linear, Any]]:
    """Yield every ``Linear`` with the initialiser that the activation after it prefers."""
    for index, call in enumerate(order):
        if isinstance(call.layer, nn.Linear):
            after = (later.layer.preferred_init for later in order[index + 1 :])
            preferred = next((name for name in after if name != "skip"), None)
            yield call.layer, preferred or "xavier_uniform"


def substitute(model: Layer, old: Layer, *new: Layer) -> Layer:
    """Put layers in the place of another, wherever in the model it stands; return the model.

    In a ``Sequential`` none, one or several take its place; elsewhere several become a
    ``Sequential``, and none an ``Identity``.
    """
    one = new[0] if len(new) == 1 else nn.Sequential(*new) if new else nn.Identity()
    if model is old:
        return one
    for _, holder in list(model.layers()):
        if isinstance(holder, nn.Sequential) and any(layer is old for layer in holder.stack):
            parts = ((new if layer is old else (layer,)) for layer in holder.stack)
            holder.stack = tuple(layer for part in parts for layer in part)
        for name, value in list(vars(holder).items()):
            if name not in KEPT and name != "stack":
                changed = _replaced(value, lambda item: item is old, one)
                if changed is not value:
                    setattr(holder, name, changed)
    return model


def _replaced(value: Any, is_old: Callable[[Any], bool], new: Layer) -> Any:
    """Return the value, or a list, tuple or dict like it in which the layer is replaced."""
    if is_old(value):
        return new
    if type(value) in (list, tuple):
        items = [_replaced(item, is_old, new) for item in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else type(value)(items)
    if type(value) is dict:
        entries = {key: _replaced(item, is_old, new) for key, item in value.items()}
        return value if all(entries[key] is value[key] for key in value) else entries
    return value


def sequentials(model: Layer) -> list[nn.Sequential]:
    """Return the containers that compute their layers one after the other."""
    return [
        layer
        for _, layer in model.layers()
        if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward
    ]
