"""What a ``fit`` was asked for, and where it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minidl.training.callbacks import Callbacks
from minidl.training.data import Data
from minidl.training.transforms import Transform
from minidl.typing import Array


@dataclass
class Stop:
    """A request to end ``fit``, with its reason ``why``; None while there is no request."""

    why: str | None = None


@dataclass(frozen=True)
class Place:
    """A place within an epoch: the order of its rows, how many are done, and the sums so far."""

    order: Array
    done: int
    tally: Any
    seed: int | None = None  # of the transform


@dataclass
class Course:
    """Where a ``fit`` is: the epoch that is under way, None between two."""

    epoch: Any = None  # an Epoch, whose module imports this one


@dataclass(frozen=True)
class Plan:
    """What stays the same in all epochs of a ``fit``."""

    epochs: int
    data: Data
    batch_size: int
    accumulate: int
    shuffle: bool
    callbacks: Callbacks
    stop: Stop
    transform: Transform | None = None
    course: Course = field(default_factory=Course)

    @property
    def step_rows(self) -> int:
        """Number of rows in a step: in all batches whose gradients it accumulates."""
        return self.batch_size * self.accumulate
