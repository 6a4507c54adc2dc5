"""From the sums of watched steps to the numbers that are looked at: norms, means, shares."""

from __future__ import annotations

import numpy as np

from minidl.diagnosis.probes import (
    BY_MOMENTS,
    GRADIENT,
    MOMENTS,
    OF_GRADIENT,
    OF_VALUE,
    UNITS,
    WITHIN,
    cell_paths,
    gates_of,
)
from minidl.diagnosis.tracks import MOST_WIDTHS
from minidl.diagnosis.watch import (
    CLIP_FACTOR,
    LEARNING_RATE,
    LOSS_COUNT,
    LOSSES,
    NORM,
    NUMBER,
    PASSES,
    StepWatch,
    parameters_of,
)
from minidl.nn import Layer, Sigmoid
from minidl.nn.recurrent.sequence import Recurrent
from minidl.typing import Array

QUANTITIES = {
    "gradient": "norm of the gradient of the layer's output, ‖∂L/∂y‖",
    "weight_gradient": "norm of the gradient of its parameters, ‖∂L/∂w‖",
    "gradient_ratio": "gradient / gradient of the last layer",
    "weight": "norm of its parameters, ‖w‖",
    "update": "norm of what the step changed in them, ‖Δw‖",
    "update_ratio": "update / weight",
    "mean": "mean of its outputs",
    "deviation": "standard deviation of its outputs",
    "zeros": "share of its outputs that are zero",
    "saturation": "share of its derivative that is lost on the flat ends of sigmoid or tanh",
    "dead": "share of its units that were zero for all rows of the latest pass",
}

SCALARS = ("loss", "norm", "clip_factor", "learning_rate")  # numbers of whole steps


class Records:
    """The numbers of the steps that one model's watch has noted.

    Parameters
    ----------
    watch
        Has noted them.
    """

    def __init__(self, watch: StepWatch) -> None:
        self.watch, self.notes = watch, watch.notes
        self.notes.read_journals()
        self.count = self.notes.records
        self.names = {id(p): path for path, p in watch.model.named_parameters()}

    # --- of a step ---

    def of_step(self, number: int) -> Array:
        """Return a number of each step: its place in the track of steps."""
        return self.notes.read("", "step")[:, number]

    @property
    def steps(self) -> Array:
        """The numbers of the watched steps, the first is 1."""
        return self.of_step(NUMBER).astype(np.int64)

    def scalars(self) -> dict[str, Array]:
        """Return the numbers of whole steps, by name."""
        loss = self.of_step(LOSSES) / self._passes()
        loss[self.of_step(LOSS_COUNT) == 0] = np.nan
        others = (self.of_step(number) for number in (NORM, CLIP_FACTOR, LEARNING_RATE))
        return dict(zip(SCALARS, (loss, *others), strict=True))

    def _passes(self) -> Array:
        """What the numbers of all passes of a step are divided by: batches that it averages."""
        return np.maximum(self.of_step(PASSES), 1)

    # --- of a layer ---

    def quantity(self, name: str) -> Array:
        """Return one of QUANTITIES for all records and layers."""
        if name == "gradient_ratio":
            gradient = self.quantity("gradient")
            return _quotient(gradient, gradient[:, -1:])
        if name == "update_ratio":
            return _quotient(self.quantity("update"), self.quantity("weight"))
        compute = getattr(self, f"_{name}")
        found = [compute(path, layer) for path, layer in self.watch.layers]
        return np.array(found).reshape(len(found), self.count).T

    def _gradient(self, path: str, layer: Layer) -> Array:
        track = self._layer(path)
        seen = (track[:, MOMENTS][:, 0] > 0) | (track[:, GRADIENT] > 0)
        return np.where(seen, np.sqrt(track[:, GRADIENT]), np.nan) / self._passes()

    def _weight_gradient(self, path: str, layer: Layer) -> Array:
        return self._of_parameters(layer, OF_GRADIENT.start, trained=True)

    def _weight(self, path: str, layer: Layer) -> Array:
        return self._of_parameters(layer, OF_VALUE.start, trained=False)

    def _update(self, path: str, layer: Layer) -> Array:
        return self._of_parameters(layer, OF_VALUE.start + 1, trained=True)

    def _of_parameters(self, layer: Layer, place: int, trained: bool) -> Array:
        held = {id(p) for p in self.watch.optimizer.flat.parameters}
        tracks = [
            self.notes.read(self.names[id(p)], "parameter")[:, place]
            for p in parameters_of(layer)
            if not trained or id(p) in held
        ]
        return np.sqrt(np.sum(tracks, axis=0)) if tracks else np.full(self.count, np.nan)

    def _mean(self, path: str, layer: Layer) -> Array:
        return self._moments(path)[0]

    def _deviation(self, path: str, layer: Layer) -> Array:
        mean, square, _ = self._moments(path)
        return np.sqrt(np.maximum(square - mean * mean, 0))

    def _zeros(self, path: str, layer: Layer) -> Array:
        return self._moments(path)[2]

    def _dead(self, path: str, layer: Layer) -> Array:
        return _quotient(*self._units(path).T)

    def _units(self, path: str) -> Array:
        """How many units are not active, and how many there are, of outputs of all widths."""
        units = self._layer(path)[:, UNITS]
        for number in range(1, MOST_WIDTHS):
            if (others := self.notes.read_others(path, f"units {number}")) is not None:
                units = units + others
        return units

    def _saturation(self, path: str, layer: Layer) -> Array:
        if isinstance(layer, Recurrent):
            return self._saturation_over_time(path, layer)
        if layer.largest_slope is None:
            return np.full(self.count, np.nan)
        mean, square, _ = self._moments(path)
        if type(layer) not in BY_MOMENTS:
            slope = self.notes.read(path, "slope")
            return 1 - _quotient(slope[:, 1], slope[:, 0]) / layer.largest_slope
        return lost_by_sigmoid(mean, square) if type(layer) is Sigmoid else square

    def _saturation_over_time(self, path: str, layer: Recurrent) -> Array:
        """The mean over all gates and cells; tanh loses as much of its slope as h² says."""
        lost = []
        for cell in cell_paths(layer, path):
            for name in gates_of(layer):
                mean, square = self._gate(path, layer, cell, name)
                by_tanh = name in ("candidate", "h")
                lost.append(square if by_tanh else lost_by_sigmoid(mean, square))
        bounded = getattr(layer.cells[0], "nonlinearity", "tanh") == "tanh"
        return np.mean(lost, axis=0) if bounded else np.full(self.count, np.nan)

    def _layer(self, path: str) -> Array:
        return self.notes.read(path, "layer")

    def _moments(self, path: str) -> tuple[Array, Array, Array]:
        """Mean and mean square of a layer's outputs, and the share of zeros, without padding."""
        track = self._layer(path)
        count, total, squares, zeros = track[:, MOMENTS].T
        within = track[:, WITHIN][:, 1] * self._units(path)[:, 1]
        known = (within > 0) & (within < count)
        zeros = np.where(known, zeros - (count - within), zeros)
        count = np.where(known, within, count)
        return _quotient(total, count), _quotient(squares, count), _quotient(zeros, count)

    # --- over time ---

    def recurrent(self) -> list[tuple[str, Recurrent]]:
        """List (path, layer) of the recurrent layers."""
        return [(path, x) for path, x in self.watch.layers if isinstance(x, Recurrent)]

    def over_time(self, what: str) -> dict[str, Array]:
        """Return ‖∂L/∂h_t‖ (``"state"``) or ‖∂L/∂c_t‖ (``"cell"``) of every step of time.

        By the path of each cell; that of the layer stands for its last cell that goes forward.
        """
        found = {}
        for path, layer in self.recurrent():
            cells = cell_paths(layer, path)
            for cell in cells:
                if (squares := self.notes.read_others(cell, what)) is not None:
                    found[cell] = np.sqrt(squares) / self._passes()[:, None]
            last = cells[-1 - layer.bidirectional]
            if last in found:
                found[path] = found[last]
        return found

    def gates(self) -> dict[str, dict[str, Array]]:
        """Return the mean of every gate, by the path of the cell and by name."""
        found = {}
        for path, layer in self.recurrent():
            names, cells = layer.cell_type.gate_names, cell_paths(layer, path)
            for cell in cells if names else ():
                found[cell] = {n: self._gate(path, layer, cell, n)[0] for n in names}
            if names:
                found[path] = found[cells[-1 - layer.bidirectional]]
        return found

    def _gate(self, path: str, layer: Recurrent, cell: str, name: str) -> tuple[Array, Array]:
        """Mean and mean square of a gate, without padded steps."""
        place = 4 * gates_of(layer).index(name)
        count, total, squares = self.notes.read(cell, "gates")[:, place : place + 3].T
        within = self._layer(path)[:, WITHIN][:, 1] * layer.hidden_size
        count = np.where(within > 0, within, count)
        return _quotient(total, count), _quotient(squares, count)


def lost_by_sigmoid(mean: Array, square: Array) -> Array:
    """Return 1 - mean of y (1 - y) / (1/4), from the mean of y and of y²."""
    return 1 - 4 * (mean - square)


def growth_per_step(norms: Array) -> Array:
    """Return the factor by which a norm grows for each step back in time, for each record.

    The slope of a straight line through log ‖∂L/∂h_t‖, least squares, over the steps whose norm
    is not zero; NaN where there are less than two of them.

    Parameters
    ----------
    norms
        (records, time).
    """
    back = np.arange(norms.shape[1])[::-1].astype(np.float64)
    found = np.full(len(norms), np.nan)
    for record, row in enumerate(norms):
        known = np.isfinite(row) & (row > 0)
        if known.sum() > 1:
            slope = np.polyfit(back[known], np.log(row[known]), 1)[0]
            found[record] = np.exp(slope)
    return found


def _quotient(a: Array, b: Array) -> Array:
    """a / b, NaN where b is zero."""
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)
