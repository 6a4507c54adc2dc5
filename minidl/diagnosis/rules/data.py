"""Rules of the data: do the targets depend on the inputs at all, and do they belong to their rows?

Both are asked of simple predictors (``references.py``), and of the trainings that were tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from minidl.diagnosis.references import Predictors
from minidl.diagnosis.task import Task
from minidl.diagnosis.verdict import Verdict
from minidl.typing import Array

SHIFTS = (1, -1, 2, -2, 3, -3)  # rows that targets may have slipped by
BLOCKS, LEAST_IN_BLOCK = 10, 20
# A block whose targets belong to other rows is predicted with twice the variance: explained, -1.
WRONG_BLOCK, RIGHT_BLOCK = -0.3, 0.5
BY_LUCK = 1e-4  # probability of so many wrong answers in a block, up to which it is no luck
# Where labels are drawn anew with a probability of a half or more, even the surest are no surer,
# and of two classes at most three of four are right; and how many rows are needed to tell.
UNSURE, LEAST_LABELS = 0.8, 150
# Deviations beyond chance from which on a dependence on shifted targets is no chance.
CERTAIN = 8.0


def targets_of_other_rows(predictors: Predictors) -> Iterator[Verdict]:
    """Targets that have slipped by some rows, or stand in reverse order."""
    for shift in SHIFTS:
        found = predictors.shifted(shift)
        if found.certain and found.z > CERTAIN:
            yield Verdict(
                "data_error",
                "",
                {"shift": shift, "explained": found.explained, "z": found.z},
                statement=f"the targets belong to other rows: those {abs(shift)} rows "
                f"{'further on' if shift > 0 else 'before'} depend on the inputs "
                f"({found.explained:.0%} of their variance), their own do not",
                remedy=f"shift y back by {abs(shift)} row{'s' * (abs(shift) > 1)}: y = np.roll(y, "
                f"{-shift}, axis=0), and look for where it slipped",
            )
            return
    found = predictors.reversed()
    if found.certain and found.z > CERTAIN:
        yield Verdict(
            "data_error",
            "",
            {"explained": found.explained, "z": found.z},
            statement=f"the targets stand in reverse order: read backwards, {found.explained:.0%} "
            "of their variance depends on the inputs",
            remedy="write y = y[::-1], so that row 0 gets the last target",
        )


def block_of_other_rows(predictors: Predictors) -> Iterator[Verdict]:
    """A stretch of rows whose targets are not theirs, among others whose targets are."""
    if len(predictors.targets) < BLOCKS * LEAST_IN_BLOCK:
        return
    explained = predictors.explained_by_block(BLOCKS)
    wrong = explained < WRONG_BLOCK
    if predictors.task.counts:
        wrong &= unlikely_blocks(predictors.wrong_by_block(BLOCKS), ~wrong)
    if wrong.any() and np.median(explained[~wrong]) > RIGHT_BLOCK and wrong.mean() < 0.6:
        rows = len(predictors.all_targets)
        first, last = np.flatnonzero(explained < RIGHT_BLOCK / 2)[[0, -1]]
        begin, end = int(first * rows / BLOCKS), int((last + 1) * rows / BLOCKS)
        yield Verdict(
            "data_error",
            "",
            {
                "first_row": begin,
                "last_row": end - 1,
                "explained_there": float(explained[wrong].mean()),
                "explained_elsewhere": float(np.median(explained[~wrong])),
            },
            statement=f"the targets of rows {begin} to {end - 1} do not belong to their inputs, "
            f"unlike those of the other rows, {np.median(explained[~wrong]):.0%} of whose variance "
            "depends on them",
            remedy=f"look at rows {begin} to {end - 1}, or leave these {end - begin} out",
        )  # fmt: skip


def unlikely_blocks(counts: Sequence[tuple[int, int]], others: Array) -> Array:
    """Return which blocks have more wrong answers than luck gives, at the share of the others.

    Of a rare class some blocks have more rows than others, and so more wrong answers.
    """
    wrong, rows = np.array(counts).T
    share = (wrong[others].sum() + 1) / (rows[others].sum() + 2)
    return np.array([at_least(k, n, share) < BY_LUCK / len(rows) for k, n in counts])


def at_least(count: int, of: int, share: float) -> float:
    """Return the binomial probability of so many, or more, of some rows."""
    terms = (math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(count, of + 1))
    return float(sum(terms))


def labels_drawn_anew(predictors: Predictors, task: Task) -> Iterator[Verdict]:
    """Labels that are wrong with the same probability wherever a row lies.

    Where classes overlap, labels are sure inside of each class, and unsure between two.
    """
    if task.kind not in ("labels", "onehot") or len(predictors.targets) < LEAST_LABELS:
        return
    right, surest = predictors.right_answers()
    most_frequent = float(predictors.targets.mean(axis=0).max())
    unsure = max(right, surest) < UNSURE and surest < right + 0.1
    if right > 1.4 * most_frequent and unsure:
        wrong = 1 - right
        yield Verdict(
            "data_error",
            "",
            {"right": right, "right_of_surest": surest, "classes": task.classes},
            statement=f"some {wrong:.0%} of the labels differ from those of the rows around them, "
            "and no less so in the middle of a class: they do not belong to their rows",
            remedy=f"look at how y was made: about {wrong:.0%} of its labels are those of other "
            "rows",
        )


def no_dependence(predictors: Predictors, held: float, rows: int) -> Iterator[Verdict]:
    """Targets that neither simple predictors nor any training can tell from shuffled ones."""
    found = predictors.dependence()
    yield Verdict(
        "nothing_to_learn",
        "",
        {"explained": found.explained, "by_chance": found.by_chance, "z": found.z,
         "error_held_out": held},
        statement=f"the targets do not depend on the inputs: of {rows:,} rows, nothing that was "
        f"tried predicts those held out better than one answer for all (error {held:.2f}, where 1 "
        "is that)",
        remedy=f"look at how X and y were made: {max(found.explained, 0):.1%} of the variance of y "
        f"is explained, {max(found.by_chance, 0):.1%} if y is shuffled",
    )  # fmt: skip
