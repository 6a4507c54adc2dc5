"""Modules that pad with zeros, right before a convolution: in minidl, the convolution pads."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import torch

from minidl.nn.windows import Pairs
from minidl.torch import branch_modules
from minidl.torch.refusal import refuse

DIMENSIONS = {
    torch.nn.ConstantPad1d: 1,
    torch.nn.ZeroPad1d: 1,
    torch.nn.Conv1d: 1,
    torch.nn.ConstantPad2d: 2,
    torch.nn.ZeroPad2d: 2,
    torch.nn.Conv2d: 2,
}
PADS = frozenset(kind for kind in DIMENSIONS if "Pad" in kind.__name__)


def paddings_of(root: Any) -> dict[int, Pairs]:
    """Return the zeros before and after each dimension that convolutions add to their own.

    They are there by the ``id`` of the convolution, and by that of the module that pads.
    """
    places = Counter(id(module) for _, module in root.named_modules(remove_duplicate=False))
    found: dict[int, Pairs] = {}
    for module in root.modules():
        if not branch_modules.is_sequence(module):
            continue
        for pad, convolution in pairwise(module._modules.values()):
            if _can_be_one(pad, convolution) and places[id(pad)] == places[id(convolution)] == 1:
                befores, afters = pad.padding[::2], pad.padding[1::2]  # the last dimension first
                pairs = tuple(zip(befores, afters, strict=True))[::-1]
                found[id(pad)] = found[id(convolution)] = pairs
    return found


def _can_be_one(pad: Any, convolution: Any) -> bool:
    """Return whether a convolution can do what the module before it does."""
    return (
        type(pad) in PADS
        and type(convolution) in DIMENSIONS.keys() - PADS
        and DIMENSIONS[type(pad)] == DIMENSIONS[type(convolution)]
        and convolution.padding != "same"
        and getattr(pad, "value", 0) == 0
        and min(pad.padding) >= 0
    )


def refuse_pad(module: Any, path: str) -> None:
    """Refuse a module that pads what is no input of a convolution."""
    value = getattr(module, "value", 0)
    why = f"pads with {value:g}" if value else "pads"
    refuse(
        module,
        path,
        f"{why}; minidl pads with zeros, and within a convolution: one that comes next in a "
        "Sequential, and is used once",
    )
