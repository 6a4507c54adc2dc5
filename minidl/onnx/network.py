"""A loaded graph as a layer: steps in order, or where it is a chain, a ``Sequential``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from minidl import kernels, nn
from minidl.nn.layer import Layer
from minidl.onnx.adapter import Adapter
from minidl.onnx.adapters import Add
from minidl.onnx.readers import Step
from minidl.typing import Array

DEEPEST = 50  # blocks within each other: more would cost time and Python's stack


class Network(Adapter):
    """Layers that pass named values on to each other, as the nodes of an ONNX graph do.

    y_1, …, y_m = network(x_1, …, x_n)

    ``Network.backward`` takes the gradients of all outputs, and returns those of all inputs; None
    stands for zero.

    Parameters
    ----------
    steps
        Layers with the names of the values that they take and give, in order.
    inputs, outputs
        Names of the values that the network takes and gives.

    Shapes
    ------
    Those of the graph.
    """

    def __init__(
        self, steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        self.stack = tuple(step.layer for step in steps)
        self.wiring = tuple((step.inputs, step.outputs) for step in steps)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.assign_paths()

    holds = ("stack", "wiring", "inputs", "outputs")

    def check_held(self) -> None:
        super().check_held()
        known = set(self.inputs)
        for names, results in self.wiring:
            if not known.issuperset(names):
                raise ValueError(f"the network computes none of {names} before it is needed")
            known.update(results)
        if len(self.wiring) != len(self.stack) or not known.issuperset(self.outputs):
            raise ValueError(f"the network does not compute its outputs, {self.outputs}")

    @property
    def takes_indices(self) -> bool:  # type: ignore[override]
        """Whether the first input holds indices."""
        users = (
            layer
            for layer, (names, _) in zip(self.stack, self.wiring, strict=True)
            if names[:1] == self.inputs[:1]
        )
        return any(layer.takes_indices for layer in users)

    def children(self) -> Iterator[tuple[str, Layer]]:
        yield from ((str(index), layer) for index, layer in enumerate(self.stack))

    def check_input(self, *inputs: Array) -> None:
        if len(inputs) != len(self.inputs):
            raise TypeError(
                f"{self.label}: expected {len(self.inputs)} arrays, {', '.join(self.inputs)}, "
                f"got {len(inputs)}"
            )
        super().check_input(*inputs)

    def forward(self, *inputs: Array) -> Any:
        values = dict(zip(self.inputs, inputs, strict=True))
        for layer, (names, results) in zip(self.stack, self.wiring, strict=True):
            y = layer(*(values[name] for name in names))
            values.update(zip(results, y if isinstance(y, tuple) else (y,), strict=True))
        self.save(None)
        outputs = tuple(values[name] for name in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def backward(self, *gradients: Array | None) -> Any:
        self.saved(*gradients)  # type: ignore[arg-type]
        of: dict[str, Array | None] = {}
        for name, gradient in zip(self.outputs, gradients, strict=True):
            _accumulate(of, name, gradient)
        for layer, (names, results) in zip(self.stack[::-1], self.wiring[::-1], strict=True):
            dys = [of.pop(name, None) for name in results]
            if all(dy is None for dy in dys):
                layer.forget()
                continue
            dx = layer.backward(*dys)
            for name, gradient in zip(names, dx if isinstance(dx, tuple) else (dx,), strict=True):
                _accumulate(of, name, gradient)
        dxs = tuple(of.get(name) for name in self.inputs)
        return dxs[0] if len(dxs) == 1 else dxs

    def check_gradient(self, dy: Any, output: Any) -> None:
        """Check nothing: the layers inside check their gradients."""

    def __repr__(self) -> str:
        lines = [
            f"  {', '.join(results)} = {layer.short_name()}({', '.join(names)})"
            for layer, (names, results) in zip(self.stack, self.wiring, strict=True)
        ]
        return "\n".join(
            [f"Network: {', '.join(self.inputs)} -> {', '.join(self.outputs)}", *lines]
        )


def _accumulate(of: dict[str, Array | None], name: str, gradient: Array | None) -> None:
    known = of.get(name)
    if known is not None and gradient is not None:
        gradient = kernels.add(known, gradient)
    of[name] = known if gradient is None else gradient


def as_chain(steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]) -> Layer | None:
    """Return the steps as a ``Sequential`` with ``Residual`` blocks; None if they are no chain."""
    if len(steps) == 1 and (steps[0].inputs, steps[0].outputs) == (tuple(inputs), tuple(outputs)):
        return steps[0].layer
    chain = _Chain(steps, inputs)
    if len(outputs) != 1 or not chain.is_possible:
        return None
    layers = chain.between(inputs[0], outputs[0])
    if layers is None or chain.used != len(steps):
        return None
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _is_unary(steps: Sequence[Step], lengths: tuple[str, ...]) -> bool:
    """Return whether each layer takes one value, but for sums, and for lengths where all do."""
    others = [step for step in steps if type(step.layer) is not Add]
    wanted = [lengths if step.layer.takes_lengths else () for step in others]
    return (
        all(len(step.outputs) == 1 for step in steps)
        and [step.inputs[1:] for step in others] == wanted
        and len(lengths) == (1 if any(wanted) else 0)
    )


class _Chain:
    """Layers between two values of a graph whose only operators of two values are sums."""

    def __init__(self, steps: Sequence[Step], inputs: Sequence[str]) -> None:
        self.steps = {name: step for step in steps for name in step.outputs}
        self.used = 0
        self.is_possible = _is_unary(steps, tuple(inputs[1:]))
        self.nearest: dict[str, str] = {}  # the last value before, on every way to a value
        self.depth = {inputs[0]: 0}
        if self.is_possible:
            for step in steps:
                self._add(step)

    def _add(self, step: Step) -> None:
        before = self._common(*step.inputs[: 1 + (type(step.layer) is Add)])
        if before is not None:
            self.nearest[step.outputs[0]] = before
            self.depth[step.outputs[0]] = self.depth[before] + 1

    def _common(self, *names: str) -> str | None:
        """Return the last value that lies on every way to these; None if there is none."""
        if not all(name in self.depth for name in names):
            return None
        while len(set(names)) > 1:
            deepest = max(names, key=self.depth.__getitem__)
            names = tuple(self.nearest[name] if name == deepest else name for name in names)
        return names[0]

    def between(self, start: str, end: str, depth: int = 0) -> list[Layer] | None:
        """Return the layers from one value to another; None if there is another way around.

        ``depth`` says in how many blocks they are.
        """
        if depth > DEEPEST:
            return None
        layers: list[Layer] = []
        while end != start:
            step = self.steps.get(end)
            self.used += 1
            if step is None or end not in self.nearest or self.used > len(self.steps):
                return None  # from another input, or parts that several sums share
            if type(step.layer) is Add:
                block = self._residual(step, self.nearest[end], depth)
                if block is None:
                    return None
                layers.insert(0, block)
                end = self.nearest[end]
            else:
                layers.insert(0, step.layer)
                end = step.inputs[0]
        return layers

    def _residual(self, step: Step, start: str, depth: int) -> Layer | None:
        branches = [self.between(start, name, depth + 1) for name in step.inputs]
        if any(branch is None for branch in branches):
            return None
        if not branches[0]:
            branches.reverse()
        body, around = (
            branch[0] if branch and len(branch) == 1 else nn.Sequential(*(branch or ()))
            for branch in branches
        )
        body = body if branches[0] else nn.Identity()
        return nn.Residual(body, around if branches[1] else None)
