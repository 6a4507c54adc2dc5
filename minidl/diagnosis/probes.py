"""What is noted of each kind of layer, by kernels, while a watched step runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import numpy as np

from minidl import kernels
from minidl.diagnosis.tracks import Notebook
from minidl.nn import Layer, Parameter, PReLU, Sigmoid, Tanh
from minidl.nn.hooks import kept_by
from minidl.nn.recurrent.sequence import Recurrent, Run
from minidl.typing import Array

# What stands where among the numbers of a layer: ‖∂L/∂y‖² and a number that is not used, four
# moments of y, the units that are not active and all units, the padded sequences and their steps.
GRADIENT, MOMENTS, UNITS, WITHIN, LAYER_SIZE = 0, slice(2, 6), slice(6, 8), slice(8, 10), 10
# And among those of a parameter: ‖∂L/∂w‖² and nothing, ‖w‖² and ‖Δw‖², of what the step changed.
OF_GRADIENT, OF_VALUE, PARAMETER_SIZE = slice(0, 2), slice(2, 4), 4

BY_MOMENTS = (Sigmoid, Tanh)  # activations whose mean derivative follows from the moments of y


class LayerProbe:
    """Notes the gradient of a layer's output, and the output itself.

    Parameters
    ----------
    layer, path
        The layer, and its place in the model.

    Attributes
    ----------
    notes
        Where to note.
    """

    notes: Notebook

    def __init__(self, layer: Layer, path: str) -> None:
        self.layer, self.path = layer, path
        self.is_activation = not layer.own_parameters() or isinstance(layer, PReLU)
        self.has_slope = layer.largest_slope is not None and type(layer) not in BY_MOMENTS

    def layout(self) -> Iterator[tuple[str, str, int]]:
        """Yield (path, what, size) of what is noted."""
        yield self.path, "layer", LAYER_SIZE
        if self.has_slope:
            yield self.path, "slope", 4

    def backward(self, original: Callable[..., Any], *gradients: Array, **options: Any) -> Any:
        """Run the layer's own backward pass, and note what goes in."""
        kept = kept_by(self.layer)
        output = kept.get("_output")
        sums = self.notes.sums(self.path, "layer")
        for dy in gradients:
            if is_noted(dy):
                self.notes.note_norm(dy, sums[GRADIENT : GRADIENT + 2])
        y = output[0] if isinstance(output, tuple) else output
        if is_noted(y):
            self.note_output(y, sums)
        if y is not None and self.has_slope:
            self.note_slope(original, gradients[0])
        return original(*gradients, **options)

    def note_output(self, y: Array, sums: Array) -> None:
        """Note the moments of an output, and which units are active."""
        self.notes.note_moments(y, sums[MOMENTS])
        if self.is_activation:
            self.notes.rows = y.size // y.shape[-1]
            self.notes.note_active(self.path, y, sums[UNITS])

    def note_slope(self, original: Callable[..., Any], dy: Array) -> None:
        """Note the derivative of an activation: what its backward pass makes of ones."""
        kept = kept_by(self.layer)
        before = {name: kept.get(name) for name in ("_saved", "_output", "_forward_pass")}
        earlier = list(kept.get("_earlier", ()))
        slope = original(self.notes.ones(dy))
        kept.update(before)
        if earlier:
            kept["_earlier"] = earlier
        self.notes.note_moments(slope, self.notes.sums(self.path, "slope"))


class RecurrentProbe(LayerProbe):
    """Notes, besides, the gradient of the state at every step of time, and the gates."""

    layer: Recurrent

    def __init__(self, layer: Recurrent, path: str) -> None:
        super().__init__(layer, path)
        self.is_activation = True

    def layout(self) -> Iterator[tuple[str, str, int]]:
        """Yield (path, what, size) of what is noted, whatever the length of sequences."""
        yield from super().layout()
        for cell in cell_paths(self.layer, self.path):
            yield cell, "gates", 4 * len(gates_of(self.layer))

    def backward(self, original: Callable[..., Any], *gradients: Array, **options: Any) -> Any:
        """Run the backward pass, with the gradients of LSTM's cells."""
        levels, lengths, _ = kept_by(self.layer).get("_saved") or ((), None, False)
        runs = [run for level in levels for run in level]
        for path, run in zip(cell_paths(self.layer, self.path), runs, strict=False):
            self._note_gates(path, run)
        vars(self.layer)["_watched"] = True
        try:
            result = super().backward(original, *gradients, **options)
        finally:
            del vars(self.layer)["_watched"]
        if lengths is not None:
            kernels.note_lengths(lengths, self.notes.sums(self.path, "layer")[WITHIN])
        for path, run in zip(cell_paths(self.layer, self.path), runs, strict=False):
            for what, squares in (("state", run.squares), ("cell", run.cell_squares)):
                if squares is not None:
                    kernels.note_rows(squares, self.notes.other_sums(path, what, len(squares)))
        return result

    def _note_gates(self, path: str, run: Run) -> None:
        """Note the moments of every gate, over all steps; of the state where there is none."""
        # What lies beyond the lengths of sequences is zero.
        gates = run.kept[0] if run.kept else kernels.batch_first(run.outputs, run.lengths)
        self.notes.note_moments(gates, self.notes.sums(path, "gates"), len(gates_of(self.layer)))


def gates_of(layer: Recurrent) -> tuple[str, ...]:
    """Return the names of the gates of a recurrent layer; RNN has its state in their place."""
    return layer.cell_type.gate_names or ("h",)


def cell_paths(layer: Recurrent, path: str) -> list[str]:
    """Return the paths of the cells of a recurrent layer, which has the path given."""
    return [f"{path}.cells.{number}".lstrip(".") for number in range(len(layer.cells))]


def is_noted(x: Any) -> TypeGuard[Array]:
    """Whether kernels can sum up something."""
    return isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64) and x.size > 0


class ParameterProbe:
    """Notes gradient, value and change of one parameter of an optimizer, or the value alone.

    Parameters
    ----------
    parameter, path
        The parameter, and its place in the model.
    place
        Its place in the optimizer's vectors; None where it is not trained.

    Attributes
    ----------
    notes
        Where to note.
    """

    notes: Notebook

    def __init__(self, parameter: Parameter, path: str, place: slice | None) -> None:
        self.parameter, self.path, self.place = parameter, path, place

    def layout(self) -> Iterator[tuple[str, str, int]]:
        """Yield (path, what, size) of what is noted."""
        yield self.path, "parameter", PARAMETER_SIZE

    @property
    def _sums(self) -> Array:
        return self.notes.sums(self.path, "parameter")

    def note_gradient(self) -> None:
        """Note the gradient with which the step is about to be made."""
        if self.place is not None:
            self.notes.note_norm(self.parameter.grad, self._sums[OF_GRADIENT])

    def note_change(self, before: Array) -> None:
        """Note the value, and its distance to that before the step, in a copy of the vector."""
        value = self.parameter.data
        old = None if self.place is None else before[self.place].reshape(value.shape)
        self.notes.note_norm(value, self._sums[OF_VALUE], old)
