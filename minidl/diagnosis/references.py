"""References: what simple predictors, which need no training, find in the same rows.

They tell whether there is anything to learn at all. If neither a linear model, nor products of
columns, nor neighbours predict held-out targets better than they predict shuffled ones, then the
targets do not depend on the inputs in any way that a net of that size could find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl.diagnosis.task import Task
from minidl.training.data import Data
from minidl.typing import Array

ROWS = 300  # more are not looked at: the test is sharp enough, and quick
COLUMNS = 400  # of long sequences and large images, some are chosen at random
MOST_PRODUCTS = 20  # columns up to which products of two are tried as well
SHUFFLES = 19  # of the targets: the chance to beat all of them by luck is 1 in 20
RIDGE = (0.1, 10.0)  # penalties, per row
NEIGHBOURS = 7
SUREST = 0.3  # share of the rows


@dataclass(frozen=True)
class Dependence:
    """How far targets depend on inputs, as far as simple predictors see.

    Attributes
    ----------
    explained
        The largest share of the variance of held-out targets that a predictor explains.
    by_chance
        The largest that it explains of shuffled targets.
    z
        How many standard deviations the share lies above its mean for shuffled targets.
    rows
        How many rows were looked at.
    """

    explained: float
    by_chance: float
    z: float
    rows: int

    @property
    def certain(self) -> bool:
        """Whether there is more than chance: a share that no shuffling reached, far beyond."""
        return self.z > 4 and self.explained > max(self.by_chance, 0.01)


class Predictors:
    """Ridge regression, with and without squares and products, and nearest neighbours.

    All predict held-out rows from the others. They are linear in the targets, so that one
    decomposition serves the targets and all their shuffles.
    """

    def __init__(self, data: Data, task: Task, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.chosen = np.sort(rng.permutation(len(data))[:ROWS])
        some = data.take(self.chosen)
        x = features(some, rng)
        self.targets, self.task, self.all_targets = (
            as_numbers(some.targets, task),
            task,
            data.targets,
        )
        self.rng = rng
        self._smoothers = _smoothers(x)
        self.correlation = strongest_correlation(data, task)

    def explained(self, targets: Array) -> Array:
        """Return for each predictor the share of the variance of these targets that it explains."""
        centred = targets - targets.mean(axis=0)
        total = (centred**2).sum()
        if total == 0:
            return np.zeros(len(self._smoothers))
        return np.array([1 - ((centred - S @ centred) ** 2).sum() / total for S in self._smoothers])

    def explained_by_block(self, blocks: int) -> Array:
        """Return the share that the best predictor explains in each block of rows, in order."""
        best = self._smoothers[int(self.explained(self.targets).argmax())]
        centred = self.targets - self.targets.mean(axis=0)
        missed = ((centred - best @ centred) ** 2).sum(axis=1)
        total = np.maximum((centred**2).sum(axis=1), 1e-300)
        parts = np.array_split(np.arange(len(missed)), blocks)
        return np.array([1 - missed[part].sum() / total[part].sum() for part in parts])

    def wrong_by_block(self, blocks: int) -> list[tuple[int, int]]:
        """Return of each block how many answers of the best predictor are wrong, and its rows."""
        mean = self.targets.mean(axis=0)
        best = self._smoothers[int(self.explained(self.targets).argmax())]
        scores = mean + best @ (self.targets - mean)
        if self.targets.shape[1] > 1 and self.task.kind != "bits":
            wrong = scores.argmax(axis=1) != self.targets.argmax(axis=1)
        else:
            wrong = ((scores > 0.5) != (self.targets > 0.5)).any(axis=1)
        return [(int(part.sum()), len(part)) for part in np.array_split(wrong, blocks)]

    def shifted(self, shift: int) -> Dependence:
        """Compare inputs with the targets of rows so many places further on."""
        return self.dependence(
            as_numbers(np.roll(self.all_targets, -shift, axis=0)[self.chosen], self.task)
        )

    def reversed(self) -> Dependence:
        """Compare inputs with the targets in reverse order."""
        return self.dependence(as_numbers(self.all_targets[::-1][self.chosen], self.task))

    def right_answers(self) -> tuple[float, float]:
        """Return the share of labels that the best predictor tells, of all rows and of the surest.

        The surest are those rows for which its first answer is farthest above its second. Where
        classes overlap, nearly all of these labels are right.
        """
        best = self._smoothers[int(self.explained(self.targets).argmax())]
        scores = best @ self.targets
        right = scores.argmax(axis=1) == self.targets.argmax(axis=1)
        second, first = np.sort(scores, axis=1)[:, -2:].T
        surest = np.argsort(second - first)[: int(SUREST * len(right))]
        return float(right.mean()), float(right[surest].mean())

    def dependence(self, targets: Array | None = None) -> Dependence:
        """Compare the share that is explained with that of shuffled targets."""
        targets = self.targets if targets is None else targets
        real = self.explained(targets)
        null = np.array(
            [self.explained(targets[self.rng.permutation(len(targets))]) for _ in range(SHUFFLES)]
        )
        z = (real - null.mean(axis=0)) / np.maximum(null.std(axis=0), 1e-4)
        best = int(z.argmax())
        return Dependence(
            float(real[best]), float(null[:, best].max()), float(z[best]), len(targets)
        )


def features(data: Data, rng: np.random.Generator) -> Array:
    """Return the inputs as a table of standardised columns, with one-hot columns for integers.

    Of sequences, the columns of all steps stand side by side, with the products of the columns of a
    step: where one column marks the steps that count, their product is what is asked for.
    """
    parts = []
    for array in data.inputs:
        if array.dtype.kind in "iu" and array.ndim > 1:
            values = np.unique(array)[:50]
            array = (array[..., None] == values).astype(np.float64)
        if array.ndim == 3 and 1 < array.shape[-1] <= 4:
            pairs = [array[..., i] * array[..., j]
                     for i in range(array.shape[-1]) for j in range(i)]  # fmt: skip
            array = np.concatenate([array, np.stack(pairs, axis=-1)], axis=-1)
        parts.append(array.reshape(len(array), -1).astype(np.float64))
    x = np.concatenate(parts, axis=1)
    if x.shape[1] > COLUMNS:
        x = x[:, np.sort(rng.permutation(x.shape[1])[:COLUMNS])]
    deviation = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def as_numbers(targets: Array, task: Task) -> Array:
    """Return targets as columns of numbers: labels as one-hot rows. Of sequences, the last step."""
    if task.kind == "labels":
        labels = targets.reshape(len(targets), -1)[:, -1]
        return (labels[:, None] == np.unique(labels)).astype(np.float64)
    rows = targets.reshape(len(targets), -1, targets.shape[-1] if targets.ndim > 1 else 1)[:, -1]
    return rows.astype(np.float64)


def strongest_correlation(data: Data, task: Task) -> float:
    """Return the largest correlation of a column, or of its square, with a target, over all rows.

    In units of what chance allows among so many: above 1 it is no chance.
    """
    x = features(data, np.random.default_rng(0))
    x = np.hstack([x, x**2])
    y = as_numbers(data.targets, task)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norms = np.sqrt((x**2).sum(axis=0))[:, None] * np.sqrt((y**2).sum(axis=0))
    found = np.abs(x.T @ y) / np.where(norms > 0, norms, np.inf)
    limit = np.sqrt(2 * np.log(2 * found.size)) + 2
    return float(found.max() * np.sqrt(len(x)) / limit)


def _smoothers(x: Array) -> list[Array]:
    """Return matrices S with S · y = the prediction of every row from all others.

    Of ridge regression, with A = (K + λ)⁻¹ of all rows, a row's error is (A · y)ᵢ / Aᵢᵢ, computed
    without the row itself (Hastie, Tibshirani and Friedman 2009, equation 7.64).
    """
    tables = [np.hstack([x, np.ones((len(x), 1))])]
    if x.shape[1] <= MOST_PRODUCTS:
        i, j = np.triu_indices(x.shape[1])
        tables.append(np.hstack([tables[0], x[:, i] * x[:, j]]))
    found = []
    for table in tables:
        K = table @ table.T / table.shape[1]
        for penalty in RIDGE:
            A = np.linalg.inv(K + penalty * np.eye(len(K)))
            found.append(np.eye(len(K)) - A / np.diag(A)[:, None])
    squares = (x**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    count = min(NEIGHBOURS, len(x) - 1)
    nearest = np.argpartition(distance, count - 1, axis=1)[:, :count]
    S = np.zeros_like(distance)
    np.put_along_axis(S, nearest, 1 / count, axis=1)
    return [*found, S]
