"""Where the numbers of watched steps are kept: kernels fill a journal, which becomes records."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl._kernels.twins.watching import EVERY, NEXT, RECORDS, ROOM, STEPS
from minidl.nn.hooks import stand_in
from minidl.typing import Array

# Records that are kept. Twice as many columns as a picture has room for, so that what is dropped
# would not have been seen; 30 numbers of each of 100 layers take 25 megabytes.
MOST_RECORDS = 1024
# Records that kernels write by themselves, before Python has to make room.
JOURNAL = 64
# Widths of the output of one layer, which may stand at several places, whose units are followed.
MOST_WIDTHS = 8


class Clock:
    """Says which steps are watched: the first, and from there on every so many.

    Kernels read and advance its ``numbers``, which ``twins/watching.py`` lists.

    Parameters
    ----------
    every
        Steps from one that is watched to the next.
    """

    def __init__(self, every: int) -> None:
        self.numbers = np.zeros(5, np.uint64)
        self.set(every)

    def set(self, every: int) -> None:
        """Begin anew: no step was made, and the first one is due."""
        self.numbers[...] = 0
        self.numbers[[NEXT, EVERY, ROOM]] = 1, every, JOURNAL

    @property
    def due(self) -> bool:
        """Whether the next step is to be watched."""
        return int(self.numbers[STEPS]) + 1 >= int(self.numbers[NEXT])

    @property
    def steps(self) -> int:
        """Steps made so far, watched or not."""
        return int(self.numbers[STEPS])

    @property
    def every(self) -> int:
        """Steps from one record to the next, now."""
        return int(self.numbers[EVERY])

    @property
    def written(self) -> int:
        """Records in the journals."""
        return int(self.numbers[RECORDS])

    @property
    def is_full(self) -> bool:
        """Whether the journals have no room for another record."""
        return bool(self.numbers[RECORDS] >= self.numbers[ROOM])

    @property
    def shared(self) -> Array:
        """Its numbers, for kernels."""
        return stand_in("state", "clock", self.numbers)

    def count(self, steps: int = 1) -> None:
        """Count steps that were not watched."""
        self.numbers[STEPS] += np.uint64(steps)

    def empty(self) -> None:
        """Note that the journals have been read."""
        self.numbers[RECORDS] = 0

    def slow_down(self, last: int) -> None:
        """Have half as many steps watched from now on; the last that was is given."""
        self.numbers[EVERY] *= np.uint64(2)
        self.numbers[NEXT] = last + self.every


class Track:
    """Some numbers of every watched step: sums that kernels add to, and a row for each record.

    Parameters
    ----------
    name
        What they are of, as a listing of a recorded step names it.
    size
        How many numbers.
    records
        How many records there are already, of which it knows nothing.

    Attributes
    ----------
    used
        The most numbers that were asked for, of those at its beginning.
    """

    def __init__(self, name: str, size: int, records: int = 0) -> None:
        self.name, self.size, self.used = name, size, 0
        self._sums, self._journal = np.zeros(size), np.zeros((JOURNAL, size))
        self._pieces = [np.zeros((records, size))]

    @property
    def sums(self) -> Array:
        """The sums of the step under way, for kernels."""
        return stand_in("state", f"{self.name}: sums", self._sums)

    def store(self, clock: Array) -> None:
        """Make a record of the sums, and clear them."""
        kernels.store_record(self.sums, stand_in("state", self.name, self._journal), clock)

    def clear(self) -> None:
        """Drop the sums of a step that has come to nothing."""
        self._sums[...] = 0

    def read_journal(self, written: int) -> None:
        """Add so many records of the journal to the others."""
        self._pieces.append(self._journal[:written].copy())

    def drop(self) -> None:
        """Drop all records."""
        self._pieces = [np.zeros((0, self.size))]

    def thin(self) -> None:
        """Drop every second record."""
        self._pieces = [self.records[::2].copy()]

    @property
    def records(self) -> Array:
        """All records that were read: (records, numbers)."""
        self._pieces = [np.concatenate(self._pieces)]
        return self._pieces[0]

    def __len__(self) -> int:
        """How many records were read."""
        return sum(map(len, self._pieces))


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
        self.name, self.units = name, units
        self._active = np.zeros((2, units), dtype)  # now, before

    def note(self, y: Array, sums: Array) -> None:
        """Note an output; sums become the number of units that were never active, and of all."""
        active = stand_in("state", f"{self.name}: active", self._active)
        kernels.note_active(y, active[0])
        kernels.count_inactive(active[0], active[1], sums)

    def begin_pass(self) -> None:
        """From now on, what counts are this pass and the one that ends here."""
        self._active[1] = self._active[0]
        self._active[0] = 0


class Notebook:
    """All numbers that are noted of one model.

    Kernels compute sums block by block. Those of several blocks are collected at the end of a pass,
    all at once, so that threads need not wait for one another after each.

    Parameters
    ----------
    clock
        Which steps are watched.
    layout
        (path, what, size) of all that is known beforehand. What is not, because it depends on the
        length of sequences or on the width of outputs, gets a track of its own when it first comes:
        those of 65 to 128 numbers one together, and so on, so that there are few.

    Attributes
    ----------
    rows
        Rows of the latest output that was noted.
    version
        Rises when there is a new track: recordings of watched steps know none that came later.
    """

    def __init__(self, clock: Clock, layout: list[tuple[str, str, int]]) -> None:
        self.clock, self.layout = clock, layout
        ends = np.cumsum([0, *(size for *_, size in layout)]).tolist()
        self._places = {
            key: slice(begin, end)
            for key, begin, end in zip(
                [(path, what) for path, what, _ in layout], ends, ends[1:], strict=False
            )
        }
        self._known = Track("notes of watched steps", ends[-1])
        self._others: dict[tuple[str, str, int], Track] = {}
        self._activities: dict[str, dict[Any, Activity]] = {}
        self.rows = self.version = 0
        self._pending: list[tuple[Array, Array]] = []
        self._ones: dict[Any, Array] = {}

    # --- for kernels ---

    def sums(self, path: str, what: str) -> Array:
        """The sums of something in the layout."""
        return self._known.sums[self._places[path, what]]

    def other_sums(self, path: str, what: str, size: int) -> Array:
        """The sums of something that is not in the layout."""
        key = (path, what, _power_of_two(size))
        if key not in self._others:
            self.read_journals()
            self._others[key] = Track(f"{what} of {path}", key[-1], self.records)
            self.version += 1
        track = self._others[key]
        track.used = max(track.used, size)
        return track.sums[:size]

    def note_active(self, path: str, y: Array, sums: Array) -> None:
        """Note which units of a layer are active; those of outputs of each width by themselves.

        Sums are for the first width, and other widths get their own.
        """
        known = self._activities.setdefault(path, {})
        key = y.shape[-1], y.dtype
        if key not in known:
            if len(known) == MOST_WIDTHS:
                return
            known[key] = Activity(path, *key)
        number = [*known].index(key)
        known[key].note(y, sums if number == 0 else self.other_sums(path, f"units {number}", 2))

    def ones(self, like: Array) -> Array:
        """An array of ones of this shape."""
        key = _power_of_two(like.size), like.dtype
        if key not in self._ones:
            self._ones[key] = np.ones(*key)
        return stand_in("state", "ones", self._ones[key])[: like.size].reshape(like.shape)

    def note_norm(self, x: Array, sums: Array, before: Array | None = None) -> None:
        """Have ‖x‖² added to two sums, and ‖x - before‖² if that is given."""
        self._add_later(kernels.norm_parts(x, before, sums), sums)

    def note_moments(self, x: Array, sums: Array, groups: int = 1) -> None:
        """Have the four moments of every group of columns added to the sums."""
        self._add_later(kernels.moment_parts(x, groups, sums), sums)

    def _add_later(self, parts: Array | None, sums: Array) -> None:
        """Have the partial sums of several blocks added up when the pass ends."""
        if parts is not None:
            self._pending.append((parts, sums))

    def collect(self) -> None:
        """Add up what was noted since the last time."""
        for parts, sums in self._pending:
            kernels.collect(parts, sums)
        self._pending = []

    def store(self) -> None:
        """Make a record of all sums."""
        clock = self.clock.shared
        for track in self._tracks:
            track.store(clock)
        kernels.count_record(clock)

    def clear(self) -> None:
        """Drop the notes of a step that has come to nothing."""
        self._pending = []
        for track in self._tracks:
            track.clear()

    # --- for Python ---

    def begin_anew(self, every: int) -> None:
        """Drop all records, and count steps from 1 again."""
        self.clock.set(every)
        for track in self._tracks:
            track.drop()
        self.begin_pass()
        self.begin_pass()

    def begin_pass(self) -> None:
        """From now on, what counts for activities are this pass and the one that ends here."""
        for activities in self._activities.values():
            for activity in activities.values():
                activity.begin_pass()

    @property
    def _tracks(self) -> list[Track]:
        return [self._known, *self._others.values()]

    @property
    def records(self) -> int:
        """How many records were read."""
        return len(self._known)

    def read_journals(self) -> None:
        """Read what kernels have written; drop every second record while there are too many."""
        written = self.clock.written
        if written:
            self.clock.empty()
            for track in self._tracks:
                track.read_journal(written)
        while self.records > MOST_RECORDS:
            for track in self._tracks:
                track.thin()
            self.clock.slow_down(int(self._known.records[-1, 0]))

    def read(self, path: str, what: str) -> Array:
        """Return the records of something in the layout: (records, numbers)."""
        return self._known.records[:, self._places[path, what]]

    def read_others(self, path: str, what: str) -> Array | None:
        """Return the records of something that is not: as wide as the longest of them, or None."""
        found = [
            track
            for (place, name, _), track in self._others.items()
            if (place, name) == (path, what)
        ]
        if not found:
            return None
        total = np.zeros((self.records, max(track.used for track in found)))
        for track in found:
            total[:, : track.used] += track.records[:, : track.used]
        return total


def _power_of_two(size: int) -> int:
    """The least that is not less."""
    return int(1 << (size - 1).bit_length())
