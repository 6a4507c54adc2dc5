"""Synthetic tasks that need memory over many steps."""

from __future__ import annotations

import numpy as np

from minidl.datasets.optical_digits import Dataset, digits
from minidl.nn.checks import check_count
from minidl.seeds import as_generator
from minidl.typing import Array, Seed

BLANK, DELIMITER = 0, 1  # of copy_memory; the symbols follow


def adding(samples: int, steps: int, rng: Seed = None) -> tuple[Array, Array]:
    """The adding problem: the sum of two marked numbers among many.

    Each step has a number from U(0, 1) and a mark, which is 1 at one step of the first half and
    at one of the second, else 0. The constant answer 1, the
    mean, has a squared error of 1/6 = 0.167.

    Source: Hochreiter and Schmidhuber 1997, section 5.4, in the form of Arjovsky et al. 2016.

    Parameters
    ----------
    samples, steps
        How many sequences, how long, ≥ 2.
    rng
        Generator or seed.

    Returns
    -------
    x, y
        float32.

    Shapes
    ------
    x (samples, steps, 2), y (samples, 1).

    Examples
    --------
    >>> from minidl import datasets
    >>> x, y = datasets.adding(10_000, steps=50, rng=0)
    >>> x.shape, y.shape, x[:, :, 1].sum(axis=1).max()
    ((10000, 50, 2), (10000, 1), np.float32(2.0))
    >>> f"{((y - 1) ** 2).mean():.2f}"
    '0.17'
    """
    samples, steps = check_count("adding", "samples", samples), _check_steps("adding", steps)
    rng = as_generator(rng)
    x = np.zeros((samples, steps, 2), np.float32)
    x[:, :, 0] = rng.uniform(size=(samples, steps))
    rows, half = np.arange(samples), steps // 2
    marked = rng.integers(half, size=samples), rng.integers(half, steps, size=samples)
    for place in marked:
        x[rows, place, 1] = 1
    return x, x.prod(axis=2).sum(axis=1, keepdims=True)


def copy_memory(
    samples: int, delay: int, rng: Seed = None, symbols: int = 8, length: int = 10
) -> tuple[Array, Array]:
    """The copy task: repeat some symbols after a long pause.

    The input is ``length`` symbols, ``delay`` - 1 blanks (0), a delimiter (1), and ``length`` more
    blanks; the target is blanks, and the symbols again during the last ``length`` steps.
    Without memory the best cross entropy is length · log(symbols) / (delay + 2 · length).

    Source: Hochreiter and Schmidhuber 1997; in this form Arjovsky et al. 2016.

    Parameters
    ----------
    samples, delay
        How many sequences; steps between the symbols and their repetition, ≥ 1.
    rng
        Generator or seed.
    symbols, length
        How many different symbols there are (2 to symbols + 1), and how many are to be copied.

    Returns
    -------
    x, y
        int64 in [0, symbols + 2): indices for an ``Embedding``, labels of every step.

    Shapes
    ------
    x and y (samples, delay + 2 length).

    Examples
    --------
    >>> from minidl import datasets
    >>> x, y = datasets.copy_memory(1, delay=3, rng=0, length=2)
    >>> x.tolist(), y.tolist()
    ([[8, 7, 0, 0, 1, 0, 0]], [[0, 0, 0, 0, 0, 8, 7]])
    """
    owner = "copy_memory"
    samples, delay = check_count(owner, "samples", samples), check_count(owner, "delay", delay)
    symbols, length = check_count(owner, "symbols", symbols), check_count(owner, "length", length)
    drawn = as_generator(rng).integers(2, 2 + symbols, size=(samples, length))
    x = np.full((samples, delay + 2 * length), BLANK, np.int64)
    y = x.copy()
    x[:, :length] = y[:, -length:] = drawn
    x[:, length + delay - 1] = DELIMITER
    return x, y


def sequential_digits(pixels: int = 1) -> Dataset:
    """The digits of ``digits()``, a few pixels at a time: what was seen first must be kept.

    Source: Le et al. 2015, there with the 28 × 28 pixels of MNIST.

    Parameters
    ----------
    pixels
        Of one step, from left to right and from top to bottom; a divisor of 64. With 8, a step
        is a line.

    Returns
    -------
    Dataset
        With float32 features and int64 labels.

    Shapes
    ------
    x_train (1437, 64 / pixels, pixels), y_train (1437), x_test (360, 64 / pixels, pixels),
    y_test (360).

    Examples
    --------
    >>> from minidl import datasets
    >>> datasets.sequential_digits(pixels=8).x_train.shape
    (1437, 8, 8)
    """
    data = digits()
    pixels = check_count("sequential_digits", "pixels", pixels)
    if data.features % pixels:
        raise ValueError(f"sequential_digits: pixels must divide {data.features}, got {pixels}")
    x_train, x_test = (x.reshape(len(x), -1, pixels) for x in (data.x_train, data.x_test))
    name = f"{data.name}, {pixels} pixels a step"
    return Dataset(x_train, data.y_train, x_test, data.y_test, name)


def _check_steps(owner: str, steps: int) -> int:
    if check_count(owner, "steps", steps) < 2:
        raise ValueError(f"{owner}: steps must be >= 2, got {steps}")
    return steps
