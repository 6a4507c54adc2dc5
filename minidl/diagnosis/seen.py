"""What a monitor has seen, as plain arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.diagnosis.records import QUANTITIES, Records, growth_per_step
from minidl.diagnosis.watch import StepWatch
from minidl.typing import Array


class Seen:
    """The records of a monitor: arrays by quantity, by step, by layer and over time."""

    def __init__(self) -> None:
        self._watch: StepWatch | None = None
        self._ends: list[int] = []  # of every epoch: the steps made until then

    @property
    def _records(self) -> Records:
        if self._watch is None:
            raise RuntimeError("GradientMonitor: no step was watched yet")
        return Records(self._watch)

    @property
    def layers(self) -> tuple[str, ...]:
        """The paths of the watched layers, in forward order."""
        return () if self._watch is None else tuple(path for path, _ in self._watch.layers)

    @property
    def steps(self) -> Array:
        """The numbers of the watched steps, the first is 1: (records)."""
        return np.zeros(0, np.int64) if self._watch is None else self._records.steps

    @property
    def epochs(self) -> Array:
        """The epoch of each watched step, the first is 1: (records)."""
        return 1 + np.searchsorted(self._ends, self.steps)

    def __getitem__(self, quantity: str) -> Array:
        """Return a quantity of every record and layer: (records, layers), float64."""
        if quantity not in self:
            raise KeyError(f"there is no quantity {quantity!r}; there are {', '.join(QUANTITIES)}")
        return self._records.quantity(quantity)

    def __len__(self) -> int:
        """How many records there are."""
        return 0 if self._watch is None else self._records.count

    def __bool__(self) -> bool:
        """Whether it is there: also without a record."""
        return True

    @property
    def quantities(self) -> tuple[str, ...]:
        """The names of the quantities of layers."""
        return tuple(QUANTITIES)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the quantities of layers, for ``dict(monitor)``."""
        return self.quantities

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantities)

    def __contains__(self, quantity: object) -> bool:
        return quantity in self.quantities

    @property
    def scalars(self) -> dict[str, Array]:
        """``loss``, ``norm`` (before clipping), ``clip_factor``, ``learning_rate``: (records)."""
        return self._records.scalars()

    @property
    def over_time(self) -> dict[str, Array]:
        """‖∂L/∂h_t‖ of recurrent layers, by path: (records, time).

        Of several cells, the path of the layer stands for the last that goes forward; each has a
        path of its own, such as ``"0.cells.1"``.
        """
        return self._records.over_time("state")

    @property
    def cell_gradient(self) -> dict[str, Array]:
        """‖∂L/∂c_t‖ of LSTMs, by path: (records, time)."""
        return self._records.over_time("cell")

    @property
    def growth(self) -> dict[str, Array]:
        """The factor by which ‖∂L/∂h_t‖ grows for each step back in time, by path: (records)."""
        return {path: growth_per_step(norms) for path, norms in self.over_time.items()}

    @property
    def gates(self) -> dict[str, dict[str, Array]]:
        """The mean of every gate of LSTMs and GRUs, by path and name: (records)."""
        return self._records.gates()

    @property
    def names(self) -> list[str]:
        """The watched layers as a reader knows them: path and layer."""
        layers = () if self._watch is None else self._watch.layers
        return [f"{path} {layer.short_name()}".strip() for path, layer in layers]
