"""Where the numbers of watched steps are kept: tables of constant size, filled by kernels."""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl._kernels.twins.watching import EVERY, NEXT, RECORDS, STEPS
from minidl.nn.hooks import stand_in
from minidl.typing import Array

# Records that are kept. Twice as many columns as a picture has room for, so that what is dropped
# would not have been seen; a table of 30 numbers for each of 100 layers has 25 megabytes.
MOST_RECORDS = 1024


class Clock:
    """Says which steps are watched: the first, and from there on every so many.

    When the tables are full, every second record is dropped and every second step is watched of
    those that were, so that records stay evenly spaced over the whole training.

    Parameters
    ----------
    every
        Steps from one that is watched to the next.
    """

    def __init__(self, every: int) -> None:
        self.numbers = np.zeros(4, np.uint64)
        self.numbers[[NEXT, EVERY]] = 1, every

    @property
    def due(self) -> bool:
        """Whether the next step is to be watched."""
        return bool(self.numbers[STEPS] + np.uint64(1) >= self.numbers[NEXT])

    @property
    def steps(self) -> int:
        """Steps made so far, watched or not."""
        return int(self.numbers[STEPS])

    @property
    def every(self) -> int:
        """Steps from one record to the next, now."""
        return int(self.numbers[EVERY])

    @property
    def records(self) -> int:
        """Records in every table."""
        return int(self.numbers[RECORDS])

    def count(self, steps: int = 1) -> None:
        """Count steps that were not watched."""
        self.numbers[STEPS] += np.uint64(steps)


class Track:
    """Some numbers of every watched step: sums that kernels add to, and a row for each record.

    Parameters
    ----------
    name
        What they are of, as a listing of a recorded step names it.
    size
        How many numbers.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self._sums = np.zeros(size)
        self._table = np.zeros((MOST_RECORDS, size))

    @property
    def sums(self) -> Array:
        """The sums of the step under way, for kernels."""
        return stand_in("state", f"{self.name}: sums", self._sums)

    def store(self, clock: Array) -> None:
        """Make a record of the sums, and clear them."""
        table = stand_in("state", f"{self.name}: records", self._table)
        kernels.store_record(self.sums, table, clock)

    def clear(self) -> None:
        """Drop the sums of a step that has come to nothing."""
        self._sums[...] = 0

    def read(self, records: int) -> Array:
        """Return the records: (records, numbers)."""
        return self._table[:records].copy()


class Activity:
    """Which units were active, not zero, for a row seen in this pass or in the one before.

    Parameters
    ----------
    name
        Of the layer.
    units, dtype
        As its output has them.
    """

    def __init__(self, name: str, units: int, dtype: np.dtype[np.floating]) -> None:
        self.name = name
        self._now, self._before = np.zeros(units, dtype), np.zeros(units, dtype)

    def note(self, y: Array, sums: Array) -> None:
        """Note an output; sums[0] becomes the number of units that were never active."""
        now = stand_in("state", f"{self.name}: active", self._now)
        before = stand_in("state", f"{self.name}: active before", self._before)
        kernels.note_active(y, now)
        kernels.count_inactive(now, before, sums)

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return len(self._now)

    def begin_pass(self) -> None:
        """From now on, what counts are this pass and the one that ends here."""
        self._before[...] = self._now
        self._now[...] = 0
