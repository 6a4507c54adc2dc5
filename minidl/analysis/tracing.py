"""One forward and one backward pass, written down layer by layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.analysis.arguments import (
    as_inputs,
    as_targets,
    as_vector,
    check_loss,
    check_model,
)
from minidl.nn import Layer, Loss, Sequential
from minidl.pictures import shortened
from minidl.typing import Array

FEW = 4  # numbers that are shown one by one; of more, their norm
LONGEST_NAME = 36  # characters
COLUMNS = "layer", "shape", "forward", "backward: dL/d..."


@dataclass
class TracedStep:
    """What one layer computed, and the gradient that came back to it.

    Attributes
    ----------
    path, name
        The layer's place in the model, and the layer in one line. The first step is the input.
    value, gradient
        The output, and the gradient of the loss with respect to it (None for integers, and for an
        output that the loss does not depend on).
    parameters
        Of the layer itself, by name: values, and the gradient of the loss.
    """

    path: str
    name: str
    value: Array
    gradient: Array | None = None
    parameters: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """The Euclidean norm of the output."""
        return _norm(self.value)

    @property
    def gradient_norm(self) -> float:
        """The Euclidean norm of the gradient; NaN where there is none."""
        return np.nan if self.gradient is None else _norm(self.gradient)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the cells of the table: the output, then each parameter."""
        name = shortened(f"{self.path} {self.name}".strip(), LONGEST_NAME)
        yield name, str(self.value.shape), _shown(self.value), _shown(self.gradient)
        for parameter, (value, gradient) in self.parameters.items():
            yield f"    {parameter}", str(value.shape), _shown(value), _shown(gradient)


@dataclass
class Trace:
    """A forward and a backward pass.

    ``trace["2.body.0"]`` is the step of the layer at this path; ``print(trace)`` shows a table.

    Attributes
    ----------
    steps
        The input, and every layer in the order in which they computed.
    loss
        The loss; None where there was none.
    """

    steps: list[TracedStep]
    loss: float | None = None
    loss_name: str = ""

    def __post_init__(self) -> None:
        # Of a layer that was called twice, the first call.
        self._by_path = {step.path: step for step in reversed(self.steps)}

    def __getitem__(self, path: str) -> TracedStep:
        if path not in self._by_path:
            paths = ", ".join(repr(step.path) for step in self.steps)
            raise KeyError(f"no layer was traced at {path!r}; there are {paths}")
        return self._by_path[path]

    def __iter__(self) -> Iterator[TracedStep]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        table = [COLUMNS, *(cells for step in self.steps for cells in step.rows())]
        if self.loss is not None:
            table.append((f"loss {self.loss_name}", "", f"{self.loss:.6g}", "1"))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in table
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])

    __repr__ = __str__


def trace(
    model: Layer, x: Any, loss: Loss | None = None, y: Any = None, *, dy: Any = None
) -> Trace:
    """Run a forward and a backward pass through a copy, and keep what every layer returned.

    dL/dx = dL/dy · ∂y/∂x, layer by layer from the loss to the input

    Without a loss, the gradient begins with dy, that is L = Σ y · dy.

    Parameters
    ----------
    model
        Any layer; it keeps its mode, dtype, gradients and state. Every layer in it has a step,
        except a ``Sequential``, which computes nothing itself.
    x
        What the model takes; a tuple is several inputs.
    loss, y
        A loss, and what it takes; a tuple is targets and weights of the rows.
    dy
        Without a loss, the gradient of the output (of the first, if there are several); None for
        ones, so that L is the sum of the outputs.

    Raises
    ------
    TypeError
        For what is no model, no loss, or no numbers.
    ValueError
        For a loss without y, or y without a loss, or dy with one; for no rows, and where x and y
        differ in how many they have; for a dy that has not the shape of the output.

    Source: Rumelhart, Hinton and Williams 1986.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import analysis, nn
    >>> model = nn.Sequential(nn.Linear(2, 1, init=nn.init.constant(0.5)), nn.ReLU())
    >>> analysis.trace(model, np.array([[2.0, 3.0]]))
    layer           shape   forward  backward: dL/d...
    --------------------------------------------------
    input           (1, 2)  2 3      0.5 0.5
    0 Linear(2, 1)  (1, 1)  2.5      1
        weight      (2, 1)  0.5 0.5  2 3
        bias        (1,)    0        1
    1 ReLU()        (1, 1)  2.5      1
    """
    check_model(model)
    if (loss is None) != (y is None):
        raise ValueError("trace: a loss needs y, and y a loss")
    if loss is not None and dy is not None:
        raise ValueError("trace: the gradient begins with the loss, or with dy; give one of them")
    if loss is not None:
        check_loss(loss)
    model, loss = copy.deepcopy((model, loss))
    dtype = model.dtype or np.dtype(np.float64)
    inputs = as_inputs(model, x, dtype)
    model.zero_grad()
    with _watched(model) as steps:
        output = model(*inputs)
        if loss is None:
            value, gradients = None, _begun(output, dy)
        else:
            value = float(loss(output, *as_targets(loss, y, inputs[0], dtype)))
            gradients = [loss.backward()]
        dx = model.backward(*gradients)
    for _, layer in model.layers():
        layer.forget()
    dx = dx[0] if isinstance(dx, tuple) else dx
    gradient = np.array(dx) if inputs[0].dtype.kind == "f" else None
    first = TracedStep("", "input", np.array(inputs[0]), gradient)
    traced = {id(layer) for layer, _ in steps}
    for layer, step in steps:
        step.parameters = _own_parameters(layer, traced)
    return Trace([first, *(step for _, step in steps)], value, repr(loss) if loss else "")


def _own_parameters(layer: Layer, traced: set[int]) -> dict[str, tuple[Array, Array]]:
    """Return values and gradients of the parameters that belong to no traced layer inside it."""
    inside = [inner for _, inner in layer.layers() if inner is not layer and id(inner) in traced]
    theirs = {id(parameter) for inner in inside for parameter in inner.parameters()}
    return {
        name: (parameter.data.copy(), parameter.grad.copy())
        for name, parameter in layer.named_parameters()
        if id(parameter) not in theirs
    }


def _norm(values: Array) -> float:
    """Return the Euclidean norm in float64, also where squares are beyond its range."""
    largest = float(np.abs(values).max())
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.square(values / largest, dtype=np.float64).sum()))


def _shown(values: Array | None) -> str:
    """Return a few numbers as they are, of many their norm."""
    if values is None:
        return ""
    if values.size > FEW:
        return f"norm {_norm(values):.4g}"
    return " ".join(f"{value:.5g}" for value in values.ravel())


def _begun(output: Any, dy: Any) -> list[Array]:
    """Return the gradients of the outputs: dy or ones for the first, zeros for the others."""
    first, *others = output if isinstance(output, tuple) else (output,)
    begun = np.ones_like(first) if dy is None else as_vector("dy", dy).astype(first.dtype)
    if begun.shape != first.shape:
        raise ValueError(f"dy must have the shape of the output, {first.shape}, got {begun.shape}")
    return [begun, *(np.zeros_like(other) for other in others)]


@contextmanager
def _watched(model: Layer) -> Iterator[list[tuple[Layer, TracedStep]]]:
    """Collect what layers return, and the gradients that they are given, while the block runs."""
    steps: list[tuple[Layer, TracedStep]] = []
    open_steps: dict[int, list[TracedStep]] = {}  # by layer: the calls without a gradient yet
    layers = [layer for _, layer in model.layers() if type(layer).forward is not Sequential.forward]

    def forward_of(layer: Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*inputs: Any, **options: Any) -> Any:
            output = call(*inputs, **options)
            first = output[0] if isinstance(output, tuple) else output
            step = TracedStep(layer.path, layer.short_name(), np.array(first))
            steps.append((layer, step))
            open_steps.setdefault(id(layer), []).append(step)
            return output

        return forward

    def backward_of(layer: Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def backward(*gradients: Any) -> Any:
            # Backward passes undo calls in reverse order.
            open_steps[id(layer)].pop().gradient = np.array(gradients[0])
            return call(*gradients)

        return backward

    for layer in layers:
        vars(layer)["forward"] = forward_of(layer, layer.forward)
        vars(layer)["backward"] = backward_of(layer, layer.backward)
    try:
        yield steps
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
            vars(layer).pop("backward", None)
