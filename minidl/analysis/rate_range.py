"""The range test: how large a learning rate a training bears."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.analysis.objective import as_inputs, as_targets
from minidl.nn import Layer, Loss
from minidl.nn.checks import POSITIVE, check_count, check_number
from minidl.optim import SGD, Optimizer
from minidl.pictures import finished, log_axis, new_figure
from minidl.seeds import as_generator
from minidl.typing import Array, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.9  # weight of the past in the mean of losses
TOO_HIGH = 4.0  # times the least smoothed loss: the test ends
SETTLING = 10  # the first tenth of the steps, at tiny rates, tells where the loss begins
BELOW_BEST = 10.0  # the suggestion is so many times below the rate of the least loss


@dataclass
class LearningRateRange:
    """The result of a range test.

    Attributes
    ----------
    rates
        The learning rate of every step, from low to high.
    losses
        The loss of every step's batch, before the step.
    smoothed
        Their running mean, s_t = (1 - β) Σ_k β^(t-k) L_k / (1 - β^t) with β = 0.9.
    ended_early
        Whether the test ended early, because the loss was four times its least or not finite.
    """

    rates: Array
    losses: Array
    smoothed: Array
    ended_early: bool

    @property
    def limit(self) -> float:
        """The rate, beyond the best, at which the smoothed loss is back where it began, or above.

        The last rate, if the test ended there; infinity if the loss did not rise so far.
        """
        began = self.losses[: max(1, len(self.losses) // SETTLING)].mean()
        risen = (self.rates > self.best) & ~(self.smoothed < began)
        if risen.any():
            return float(self.rates[risen.argmax()])
        return float(self.rates[-1]) if self.ended_early else math.inf

    @property
    def best(self) -> float:
        """The rate of the least smoothed loss: there the loss is about to rise."""
        return float(self.rates[np.nanargmin(self.smoothed)])

    @property
    def suggestion(self) -> float:
        """A tenth of ``best``, at which the loss still falls, with room to spare."""
        return self.best / BELOW_BEST

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the loss against the learning rate.

        Parameters
        ----------
        path
            A file to write the picture to, in the format of its suffix (.png, .pdf, .svg), if any.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        figure = new_figure((6.4, 4.0))
        axes = figure.subplots()
        finite = np.isfinite(self.losses)
        shown = self.losses[finite]
        log_axis(axes.xaxis, self.rates)
        place = log_axis(axes.yaxis, [*shown, *self.smoothed[finite]])
        axes.plot(self.rates[finite], list(map(place, shown)), ".", color="0.6", label="batch")
        smoothed = list(map(place, self.smoothed[finite]))
        axes.plot(self.rates[finite], smoothed, "-", color="#0072B2", label="running mean")
        marks = [
            ("suggestion", self.suggestion, "#009E73", "--"),
            ("least loss", self.best, "0.2", ":"),
        ]
        if self.limit < math.inf:
            marks.append(("back where it began", self.limit, "#D55E00", "-."))
        for words, rate, color, line in marks:
            label = f"{words}: {rate:.2g}"
            axes.axvline(rate, color=color, linestyle=line, linewidth=1.4, label=label)
        axes.set(xlabel="learning rate", ylabel="loss", title="Learning rate range test")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        return finished(figure, path)

    def __str__(self) -> str:
        end = f"is back at {self.limit:.2g}" if self.limit < math.inf else "does not rise again"
        return (
            f"{len(self.rates)} steps from {self.rates[0]:.2g} to {self.rates[-1]:.2g}: the loss "
            f"is least at {self.best:.2g} and {end}; try {self.suggestion:.2g}"
        )


def learning_rate_range(
    model: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    *,
    optimizer: Optimizer | Callable[[Any], Optimizer] = SGD,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    rng: Seed = 0,
) -> LearningRateRange:
    """Train for some steps while the learning rate rises, and watch when the loss runs away.

    η_t = low · (high / low)^(t / (steps - 1))

    The loss first hardly moves, then falls, then rises: good rates lie where it falls. The test
    trains a copy.

    Parameters
    ----------
    model, loss
        Layers keep their modes.
    x, y
        The training data; a tuple x is several inputs, a tuple y targets and weights of the rows.
    optimizer
        An optimizer of this model, which is copied with its settings, or a function that makes one
        of parameters, such as ``optim.Adam``.
    low, high, steps
        The rates, 0 < low < high, and how many there are, ≥ 2.
    batch_size
        Rows of a step. The data are shuffled, and again whenever they are used up.
    rng
        Generator or seed of the order.

    Raises
    ------
    ValueError
        For settings out of range.

    Source: Smith 2017, section 3.3; the suggestion: Howard and Gugger 2020.

    Examples
    --------
    >>> from minidl import analysis, datasets, nn
    >>> data = datasets.digits()
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), rng=0)
    >>> found = analysis.learning_rate_range(
    ...     model, nn.CrossEntropyLoss(), data.x_train, data.y_train
    ... )
    >>> 0.01 < found.suggestion < found.best <= found.limit
    True
    """
    owner = "learning_rate_range"
    low = check_number(owner, "low", low, POSITIVE, math.inf)
    high = check_number(owner, "high", high, POSITIVE, math.inf)
    if not low < high:
        raise ValueError(f"{owner} needs low < high, got {low} and {high}")
    steps = check_count(owner, "steps", steps, 2)
    batch_size = check_count(owner, "batch_size", batch_size)
    model, loss, optimizer = _copies(model, loss, optimizer)
    dtype = model.dtype or np.dtype(np.float32)
    arrays = as_inputs(model, x, dtype), as_targets(loss, y, dtype)
    rates = np.geomspace(low, high, steps)
    losses: list[float] = []
    for value in _losses(model, loss, optimizer, arrays, rates, batch_size, as_generator(rng)):
        losses.append(value)
        smoothed = running_mean(losses)
        runs_away = not smoothed[-1] <= TOO_HIGH * smoothed.min()
        if runs_away:
            break
    done = len(losses)
    if not math.isfinite(losses[0]):
        raise ValueError(f"{owner}: the loss is {losses[0]} before the first step")
    ended_early = runs_away or done < steps
    return LearningRateRange(rates[:done], np.array(losses), smoothed, ended_early)


def running_mean(losses: list[float]) -> Array:
    """Return the mean of the losses so far, in which the past fades.

    s_t = (1 - β) · Σ_k β^(t - k) L_k / (1 - β^t)

    Examples
    --------
    >>> running_mean([1.0, 1.0, 4.0]).round(2)
    array([1.  , 1.  , 2.11])
    """
    mean, means = 0.0, []
    for count, value in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        means.append(mean / (1 - SMOOTHING**count))
    return np.array(means)


def _losses(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    arrays: tuple[tuple[Array, ...], tuple[Array, ...]],
    rates: Array,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[float]:
    """Yield the loss before each step at these rates; end where a gradient is not finite."""
    inputs, targets = arrays
    for rate, rows in zip(rates, _batches(len(targets[0]), batch_size, rng), strict=False):
        prediction = model(*(array[rows] for array in inputs))
        yield float(loss(prediction, *(array[rows] for array in targets)))
        optimizer.lr = float(rate)
        optimizer.zero_grad()
        model.backward(loss.backward())
        try:
            optimizer.step()
        except FloatingPointError:
            return


def _copies(model: Layer, loss: Loss, optimizer: Any) -> tuple[Layer, Loss, Optimizer]:
    """Copy what takes part; of an optimizer, one that trains the copied model."""
    if isinstance(optimizer, Optimizer):
        return copy.deepcopy((model, loss, optimizer))
    model, loss = copy.deepcopy((model, loss))
    return model, loss, optimizer(model.parameters())


def _batches(rows: int, batch_size: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the numbers of the rows of batch after batch, without end."""
    while True:
        order = rng.permutation(rows)
        for begin in range(0, rows, batch_size):
            yield order[begin : begin + batch_size]
