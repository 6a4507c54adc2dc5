"""The range test: at which learning rate the loss begins to rise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.analysis.arguments import (
    as_inputs,
    as_targets,
    check_loss,
    check_model,
    trained_parameters,
)
from minidl.nn import Layer, Loss
from minidl.nn.checks import POSITIVE, check_count, check_number, check_parameters_of, check_part
from minidl.optim import SGD, Optimizer
from minidl.pictures import BLUE, GREEN, VERMILION, Plottable, light_grid, log_axis, new_figure
from minidl.seeds import as_generator
from minidl.typing import Array, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.9  # weight of the past in the mean of losses
TOO_HIGH = 4.0  # times the loss of the untrained model: the test ends
BELOW_BEST = 10.0  # the suggestion is so many times below the rate of the least loss


@dataclass(repr=False)
class LearningRateRange(Plottable):
    """The result of a range test.

    Attributes
    ----------
    rates
        The learning rate of every step, from low to high.
    losses
        The loss of every step's batch, before the step.
    untrained
        The loss of the same batch in the model as it was given.
    ended_early
        Whether the test ended early, because the loss was four times the untrained one or NaN.
    """

    rates: Array
    losses: Array
    untrained: Array
    ended_early: bool

    @property
    def smoothed(self) -> Array:
        """The running mean of the loss, corrected for how hard each batch is.

        mean(L⁰) + s_t,  s_t = (1 - β) Σ_k β^(t-k) (L_k - L⁰_k) / (1 - β^t),  β = 0.9
        """
        return self.untrained.mean() + running_mean(self.losses - self.untrained)

    @property
    def limit(self) -> float:
        """The first rate above ``best`` at which the smoothed loss is that of the untrained model.

        It is the last rate if the test ended early, and infinity if the loss did not rise so far.
        """
        back = (self.rates > self.best) & ~(self.smoothed < self.untrained.mean())
        if back.any():
            return float(self.rates[back.argmax()])
        return float(self.rates[-1]) if self.ended_early else math.inf

    @property
    def best(self) -> float:
        """The rate of the least smoothed loss: there the loss is about to rise."""
        return float(self.rates[np.nanargmin(self.smoothed)])

    @property
    def suggestion(self) -> float:
        """A tenth of ``best``: a rate at which the loss still falls."""
        return self.best / BELOW_BEST

    def figure(self) -> Figure:
        """Draw the loss against the learning rate."""
        figure = new_figure((6.4, 4.0))
        axes = figure.subplots()
        finite = np.isfinite(self.losses)
        shown = self.losses[finite]
        log_axis(axes.xaxis, self.rates)
        mean = np.maximum(self.smoothed[finite], 0)
        place = log_axis(axes.yaxis, [*shown, *mean])
        axes.plot(self.rates[finite], list(map(place, shown)), ".", color="0.6", label="batch")
        smoothed = list(map(place, mean))
        axes.plot(self.rates[finite], smoothed, "-", color=BLUE, label="smoothed")
        marks = [
            ("suggestion", self.suggestion, GREEN, "--"),
            ("least loss", self.best, "0.2", ":"),
        ]
        if self.limit < math.inf:
            marks.append(("back where it began", self.limit, VERMILION, "-."))
        for words, rate, color, line in marks:
            label = f"{words}: {rate:.2g}"
            axes.axvline(rate, color=color, linestyle=line, linewidth=1.4, label=label)
        axes.set(xlabel="learning rate", ylabel="loss", title="Learning rate range test")
        light_grid(axes)
        axes.legend(frameon=False)
        return figure

    def __repr__(self) -> str:
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
    """Measure the loss while the learning rate rises from step to step.

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
    TypeError
        For what is no model, no loss, no optimizer, or no numbers.
    ValueError
        For settings out of range; for no rows, and where x and y differ in how many they have; for
        an optimizer of another model; and if the loss is not finite before any step.

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
    check_model(model)
    check_loss(loss)
    model, loss, optimizer = _copies(model, loss, optimizer)
    dtype = model.dtype or np.dtype(np.float32)
    inputs = as_inputs(model, x, dtype)
    arrays = inputs, as_targets(loss, y, inputs[0], dtype)
    rates, rng = np.geomspace(low, high, steps), as_generator(rng)
    pairs, runs_away = [], False
    mean = np.zeros(2)  # of the losses in training, and of those of the untrained model
    for pair in _losses(model, loss, optimizer, arrays, batch_size, rates, rng):
        if not math.isfinite(pair[1]):
            raise ValueError(f"{owner}: the loss is {pair[1]} before any step")
        pairs.append(pair)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * np.array(pair)
        runs_away = not mean[0] <= TOO_HIGH * mean[1]
        if runs_away:
            break
    losses, untrained = np.array(pairs).T
    ended_early = runs_away or len(pairs) < steps
    return LearningRateRange(rates[: len(pairs)], losses, untrained, ended_early)


def running_mean(values: Array) -> Array:
    """Compute the exponentially weighted mean of the values so far.

    s_t = (1 - β) · Σ_k β^(t - k) x_k / (1 - β^t)

    Examples
    --------
    >>> running_mean(np.array([1.0, 1.0, 4.0])).round(2)
    array([1.  , 1.  , 2.11])
    """
    mean, means = 0.0, []
    for count, value in enumerate(values, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        means.append(mean / (1 - SMOOTHING**count))
    return np.array(means)


def _losses(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    arrays: tuple[tuple[Array, ...], tuple[Array, ...]],
    batch_size: int,
    rates: Array,
    rng: np.random.Generator,
) -> Iterator[tuple[float, float]]:
    """Yield the loss of each batch and that of the untrained model; end at a gradient of NaN."""
    (inputs, targets), untrained = arrays, copy.deepcopy(model)
    for rate, rows in zip(rates, _batches(len(targets[0]), batch_size, rng), strict=False):
        x, y = ([array[rows] for array in part] for part in (inputs, targets))
        before = float(loss(untrained(*x), *y))
        yield float(loss(model(*x), *y)), before
        optimizer.lr = float(rate)
        optimizer.zero_grad()
        model.backward(loss.backward())
        try:
            optimizer.step()
        except FloatingPointError:
            return


def _copies(model: Layer, loss: Loss, optimizer: Any) -> tuple[Layer, Loss, Optimizer]:
    """Copy what takes part; of an optimizer, one that trains the copied model."""
    owner = "learning_rate_range: the optimizer"
    trained_parameters(model)
    if isinstance(optimizer, Optimizer):
        check_parameters_of(model, owner, optimizer.flat.parameters)
        return copy.deepcopy((model, loss, optimizer))
    what = "an optimizer, or a function such as optim.Adam that makes one of parameters"
    if not callable(optimizer) or (
        isinstance(optimizer, type) and not issubclass(optimizer, Optimizer)
    ):
        raise TypeError(f"{owner} must be {what}, got {optimizer!r}")
    model, loss = copy.deepcopy((model, loss))
    made = optimizer(model.parameters())
    check_part(f"{owner} that {optimizer!r} makes", made, Optimizer, "an optimizer")
    check_parameters_of(model, owner, made.flat.parameters)
    return model, loss, made


def _batches(rows: int, batch_size: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the row numbers of one batch after another, without end."""
    while True:
        order = rng.permutation(rows)
        for begin in range(0, rows, batch_size):
            yield order[begin : begin + batch_size]
