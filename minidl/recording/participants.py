"""The layers, losses and optimizers that take part in a recorded program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl.recording.guards import RecordedArray, RecordingError
from minidl.typing import Array


class Participants:
    """Layers, losses and optimizers of a program; they must keep the arrays that it uses.

    Parameters
    ----------
    watched
        All of them, outermost only.
    optimizers
        The optimizers among them.
    """

    def __init__(self, watched: list[Any], optimizers: list[Any]) -> None:
        self.watched, self.optimizers = watched, optimizers
        self.mode = _mode(watched)
        self.scheduled: list[Any] = []  # groups of parameters whose learning rate has a schedule
        self._held: list[tuple[str, Array]] = []

    def accept(self) -> None:
        """Note the arrays at the first call, and the present schedules at every call."""
        if not self._held:
            self._held = list(_held(self.watched))
        self.scheduled = [group for o in self.optimizers for group in o.scheduled()]

    def scheduled_rates(self, steps: int) -> list[tuple[Array, Array]]:
        """Return the place of each scheduled learning rate, and its values in the next steps.

        They reach as far as all schedules have a rate, at least one step.
        """
        rates = [group.rates(steps) for group in self.scheduled]
        least = min(map(len, rates), default=0)
        places = (group.state["learning_rate"] for group in self.scheduled)
        return [(place, values[:least]) for place, values in zip(places, rates, strict=True)]

    def check(self) -> None:
        """Raise RecordingError if a parameter or another array was replaced; it names the array."""
        now = list(_held(self.watched))
        for (name, array), (_, new_array) in zip(self._held, now, strict=False):
            if array is not new_array:
                raise RecordingError(
                    f"{name} was replaced or moved since the step was recorded (by an optimizer "
                    "built later, reset() or astype(), or another layer in its place); call "
                    ".forget() on the step to record it anew"
                )
        if len(now) != len(self._held):
            raise RecordingError(
                f"there were {len(self._held)} arrays of parameters and state when the step was "
                f"recorded, now there are {len(now)}; call .forget() on the step to record anew"
            )
        for optimizer in self.optimizers:
            optimizer.flat.check()  # is a parameter frozen by now?


def _mode(watched: list[Any]) -> str:
    """Describe whether the layers train; empty where there are none."""
    modes = {
        layer.training for root in watched if hasattr(root, "layers") for _, layer in root.layers()
    }
    return "" if not modes else "training" if all(modes) else "in part " * any(modes) + "evaluating"


def _held(watched: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, array) of all arrays that layers and optimizers hold between steps."""
    for root in watched:
        for path, layer in root.layers() if hasattr(root, "layers") else ():
            label = f"{type(layer).__name__} {path}".rstrip()
            for parameter in layer.own_parameters():
                yield f"{label}: parameter {parameter.name}", parameter.data
                yield f"{label}: gradient of {parameter.name}", parameter.grad
            for name in layer.state_names:
                yield f"{label}: {name}", getattr(layer, name)
        if hasattr(root, "flat"):
            kind = type(root).__name__
            yield f"{kind}: vector of parameters", root.flat.data
            yield f"{kind}: vector of gradients", root.flat.grad
            for name, array in vars(root).items():
                if isinstance(array, np.ndarray) and not isinstance(array, RecordedArray):
                    yield f"{kind}: {name}", array
