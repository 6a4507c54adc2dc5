"""Loaded layers with the channels last throughout, though the graph has them on axis 1.

Each value may be known in two ways: as the graph has it, and with its axis 1 at the end. A layer
that takes the channels last gets the second one, and so does one that works on any layout. Only
where a layer or an output of the graph needs a value as it is there, a transpose is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx import adapters, more_adapters
from minidl.onnx.graph_file import Graph
from minidl.onnx.layout import channels_first, channels_last, is_anywhere
from minidl.onnx.readers import Step


def with_channels_last(steps: Sequence[Step], graph: Graph) -> list[Step]:
    """Return the steps of a graph, without transposes between layers that have channels last."""
    layout = _Layout(graph)
    for step in steps:
        layout.add(step)
    return layout.finished()


class _Layout:
    """Steps in order, and the names of values in either layout."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[Step] = []
        self.ranks = dict(graph.ranks)
        self.here = set(graph.inputs)  # the values that are there as the graph has them
        self.last: dict[str, str] = {}  # values, and what they are called with the channels last
        self.same: dict[str, str] = {}  # values of the graph that are another one

    def add(self, step: Step) -> None:
        """Add a step, in the layout that its inputs have."""
        names = tuple(self.same.get(name, name) for name in step.inputs)
        step = replace(step, inputs=names)
        if isinstance(step.layer, adapters.Transpose) and self._transpose(step):
            return
        if isinstance(step.layer, adapters.OnAxis) and self._on_axis_1(step):
            return
        if all(name in self.last for name in names) and (inner := self._turned(step)) is not None:
            self._add_last(step, inner)
            return
        for name in names:
            self._need(name)
        self._append(step)

    def _append(self, step: Step) -> None:
        self.steps.append(step)
        self.here.update(step.outputs)

    def _transpose(self, step: Step) -> bool:
        """Take a transpose for another name of a value; return whether it was one."""
        (x,), (y,) = step.inputs, step.outputs
        order = list(getattr(step.layer, "order", ()))
        rank = len(order)
        if rank < 3:
            return False
        if order == channels_first(rank):
            self._need(x)
            self.last[y], self.ranks[y] = x, rank
            return True
        if order == channels_last(rank) and x in self.last:
            self.same[y] = self.last[x]
            return True
        if order == channels_last(rank):
            self._need(x)
            self._append(step)
            self.last[x], self.ranks[x] = y, rank
            return True
        return False

    def _on_axis_1(self, step: Step) -> bool:
        """Add a layer on axis 1, which it takes last; return whether it was one."""
        around: Any = step.layer
        x = step.inputs[0]
        rank = self.ranks.get(x)
        if rank is None or rank < 3 or around.axis % rank != 1:
            return False
        if x not in self.last:
            self._need(x)
            self.last[x] = self._name(x)
            turn = adapters.Transpose(channels_last(rank))
            self._append(Step(turn, (x,), (self.last[x],), ()))
        self._add_last(step, around.inner)
        return True

    def _add_last(self, step: Step, layer: Layer) -> None:
        """Add a layer on inputs with the channels last."""
        rank = _rank_after(layer, self.ranks.get(step.inputs[0], 0))
        inputs = tuple(self.last[name] for name in step.inputs)
        if rank < 3:
            self._append(Step(layer, inputs, step.outputs, step.nodes))
            return
        for y in step.outputs:
            self.last[y], self.ranks[y] = self._name(y), rank
        outputs = tuple(self.last[y] for y in step.outputs)
        self._append(Step(layer, inputs, outputs, step.nodes))

    def _turned(self, step: Step) -> Layer | None:
        """Return the layer that does with the channels last what this one does; None if none."""
        layer, rank = step.layer, self.ranks.get(step.inputs[0], 0)
        if is_anywhere(layer):
            return layer
        match layer:
            case more_adapters.Pad() if len(layer.sizes) == 2 * rank:
                order = np.array(channels_last(rank))
                sizes = np.reshape(layer.sizes, (2, -1))[:, order].ravel().tolist()
                return more_adapters.Pad(sizes, layer.number)
            case adapters.Affine():
                scale, shift = (_turned(array, rank) for array in (layer.scale, layer.shift))
                return adapters.Affine(scale, shift)
            case adapters.Concat() | adapters.Split() if layer.axis in (1, 1 - rank):
                parts = layer.axis, getattr(layer, "sizes", None), getattr(layer, "count", 0)
                kind = adapters.Concat
                return kind(-1) if isinstance(layer, kind) else adapters.Split(-1, *parts[1:])
            case nn.Flatten(start_dim=1, end_dim=-1):
                return nn.Flatten(channels_first=True)
            case adapters.Reshape() if self._flattens(step, layer.sizes):
                return nn.Flatten(channels_first=True)
            case adapters.Squeeze() | adapters.Unsqueeze() if layer.axes is not None:
                whole = rank + len(layer.axes) * isinstance(layer, adapters.Unsqueeze)
                axes = [axis % whole - 1 for axis in layer.axes]  # without that of the channels
                return type(layer)(axes) if min(axes, default=0) > 0 else None
        return None

    def _flattens(self, step: Step, sizes: tuple[int, ...]) -> bool:
        """Return whether a reshape to these sizes puts each sample into a row."""
        known = self.graph.shapes.get(step.inputs[0], ())
        return sizes == (0, -1) or (
            len(sizes) == 2
            and sizes[0] in (-1, 0, *known[:1])
            and min(known[1:], default=-1) > 0
            and sizes[1] in (-1, int(np.prod(known[1:])))
            and (sizes[1] > 0 or sizes[0] in (0, *(size for size in known[:1] if size > 0)))
        )

    def _need(self, name: str) -> None:
        """Make sure that a value is there as the graph has it."""
        if name not in self.here and name in self.last:
            turn = adapters.Transpose(channels_first(self.ranks[name]))
            self._append(Step(turn, (self.last[name],), (name,), ()))

    def _name(self, name: str) -> str:
        """Return a new name for a value with the channels last."""
        name = f"{name}, channels last"
        taken = {*self.here, *self.last, *self.graph.ranks}
        while name in taken:
            name += "_"
        return name

    def finished(self) -> list[Step]:
        """Return the steps, which give the outputs of the graph by their names."""
        new_names: dict[str, str] = {}
        for output in self.graph.outputs:
            self._need(output)
            inner = self.same.get(output)
            if inner is None:
                continue
            taken = {*self.graph.inputs, *self.graph.outputs, *new_names}
            if inner in taken:
                self._append(Step(nn.Identity(), (inner,), (output,), ()))
            else:
                new_names[inner] = output
        return [
            replace(
                step,
                inputs=tuple(new_names.get(name, name) for name in step.inputs),
                outputs=tuple(new_names.get(name, name) for name in step.outputs),
            )
            for step in self.steps
        ]


def _rank_after(layer: Layer, rank: int) -> int:
    """Return how many axes the output of a layer has, for an input that has so many."""
    match layer:
        case adapters.Unsqueeze():
            return rank + len(layer.axes)
        case adapters.Squeeze() if layer.axes is not None:
            return rank - len(layer.axes)
        case nn.Flatten() if layer.end_dim == -1:
            return 2
        case nn.GlobalAvgPool() | nn.GlobalMaxPool() if not layer.keepdims:
            return 2
    return rank


def _turned(array: Any, rank: int) -> Any:
    """Return a constant for an array of this rank with its axis 1 at the end."""
    whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
    return np.ascontiguousarray(np.moveaxis(whole, 1, -1))
