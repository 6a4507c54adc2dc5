"""Modules that branch, and those that join and part tensors. Several tensors are a tuple."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add, mul
from typing import Any

import torch


def unpacked(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the tensors of a call, which ``torch.nn.Sequential`` passes on as one tuple."""
    return inputs[0] if len(inputs) == 1 and isinstance(inputs[0], tuple) else inputs


class Sequential(torch.nn.Sequential):
    """``torch.nn.Sequential`` that takes several tensors."""

    def forward(self, *inputs: Any) -> Any:
        return super().forward(inputs[0] if len(inputs) == 1 else inputs)


def is_sequence(module: Any) -> bool:
    """Return whether a module calls those in it one after the other, as ``Sequential`` does."""
    forwards = torch.nn.Sequential.forward, Sequential.forward
    return isinstance(module, torch.nn.Sequential) and type(module).forward in forwards


class Residual(torch.nn.Module):
    """Sum of a body and a shortcut: y = body(x) + shortcut(x); None is the identity."""

    def __init__(self, body: torch.nn.Module, shortcut: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Any) -> Any:
        return _added(self.body(x), x if self.shortcut is None else self.shortcut(x))


def _added(a: Any, b: Any) -> Any:
    return tuple(map(_added, a, b)) if isinstance(a, tuple) else a + b


def joined(parts: tuple[Any, ...], how: str, channels_first: bool) -> Any:
    """Return one tensor made of several."""
    if how == "concat":
        return torch.cat(parts, dim=1 if channels_first else -1)
    if how == "stack":
        return torch.stack(parts, dim=-2)
    return reduce(add if how == "add" else mul, parts)


class Join(torch.nn.Module):
    """One tensor made of several: ``"concat"``, ``"add"``, ``"multiply"`` or ``"stack"``.

    Of images with the channels on axis 1, ``channels_first`` puts the channels side by side.
    """

    def __init__(self, how: str, channels_first: bool = False) -> None:
        super().__init__()
        self.how, self.channels_first = how, channels_first

    def forward(self, *inputs: Any) -> Any:
        return joined(unpacked(inputs), self.how, self.channels_first)


class Parallel(torch.nn.Module):
    """Modules side by side, and their results joined, or as a tuple for ``join=None``.

    One tensor goes to all of them, of several each module gets its own.
    """

    def __init__(
        self,
        branches: Mapping[str, torch.nn.Module],
        join: str | None,
        channels_first: bool = False,
    ) -> None:
        super().__init__()
        self.join = join
        self.names = tuple(branches)
        for name, branch in branches.items():
            if name not in self._modules and hasattr(self, name):
                raise ValueError(
                    f"to_torch: a branch cannot be called {name!r}, which is an attribute of every "
                    "module of PyTorch's"
                )
            self.add_module(name, branch)
        self.channels_first = channels_first

    def forward(self, *inputs: Any) -> Any:
        given = unpacked(inputs)
        given = given * len(self.names) if len(given) == 1 else given
        modules = map(self.get_submodule, self.names)
        results = tuple(module(x) for module, x in zip(modules, given, strict=True))
        return joined(results, self.join, self.channels_first) if self.join else results


class Split(torch.nn.Module):
    """Parts of a tensor along its last axis, or with ``channels_first`` along axis 1."""

    def __init__(self, sizes: tuple[int, ...], channels_first: bool = False) -> None:
        super().__init__()
        self.sizes, self.channels_first = sizes, channels_first

    def forward(self, x: Any) -> Any:
        return torch.split(x, self.sizes, dim=1 if self.channels_first else -1)


class Select(torch.nn.Module):
    """One of several tensors."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, *inputs: Any) -> Any:
        return unpacked(inputs)[self.index]
