"""The rows to train on, those that say when to stop, and those that say how good the result is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl.typing import Array, Seed

VALIDATION, TEST = 0.15, 0.2  # shares of the rows


class Split(NamedTuple):
    """Numbers of rows, in ascending order."""

    train: Array
    validation: Array
    test: Array


def split_rows(rows: int, labels: Array | None, rng: Seed) -> Split:
    """Draw 65 % of the rows to train on, 15 % to validate on, 20 % to test on.

    With ``labels`` each class is split by itself, and has a row in each part.

    Parameters
    ----------
    rows
        How many there are, at least 3, and in each class.
    labels
        (rows), the class of each row, or None.
    rng
        Generator or seed.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.tables.splitting import split_rows
    >>> labels = np.repeat([0, 1], [60, 40])
    >>> [np.bincount(labels[part]).tolist() for part in split_rows(100, labels, rng=0)]
    [[39, 26], [9, 6], [12, 8]]
    """
    generator = np.random.default_rng(rng)
    if labels is None:
        groups = [np.arange(rows)]
    else:
        order = np.argsort(labels, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    parts: tuple[list[Array], ...] = ([], [], [])
    for group in groups:
        group = generator.permutation(group)
        test = max(1, round(TEST * len(group)))
        held = test + max(1, round(VALIDATION * len(group)))
        for part, some in zip(parts, (group[held:], group[test:held], group[:test]), strict=True):
            part.append(some)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))
