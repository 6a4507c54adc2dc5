"""Moving averages of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from minidl import _kernels as kernels
from minidl.nn.checks import check_number
from minidl.nn.layer import Noticed, Parameter


class EMA(Noticed):
    """Exponential moving average of weights, which often predicts better than the latest ones.

    a ← d · a + (1 - d) · w after every step; a begins as w.

    Source: Polyak and Juditsky 1992, with the exponential weights of Tarvainen and Valpola 2017.

    Parameters
    ----------
    parameters
        ``model.parameters()``.
    decay
        d in [0, 1): about the last 1 / (1 - d) steps count.

    Raises
    ------
    ValueError
        If ``decay`` is outside its range, or no parameters are given.

    Notes
    -----
    ``update()`` can be part of a recorded step, after ``optimizer.step()``; build the optimizer
    first.

    Examples
    --------
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, bias=False, init=nn.init.constant(1.0))
    >>> ema = optim.EMA(layer.parameters(), decay=0.75)
    >>> layer.weight.data = [[5.0]]
    >>> ema.update()
    >>> with ema.average():
    ...     print(layer.weight.data)
    [[2.]]
    >>> layer.weight.data
    array([[5.]], dtype=float32)
    """

    def __init__(self, parameters: Iterable[Parameter], decay: float = 0.999) -> None:
        self.decay = check_number("EMA", "decay", decay, 0, 1)
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("EMA: no parameters given")
        self.averages = [parameter.data.copy() for parameter in self.parameters]

    def update(self) -> None:
        """Let the averages follow the weights."""
        if (recorder := kernels.recorder()) is not None:
            recorder.watch(self)
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                recorder.adopt("state", f"average of {parameter.name}", average)
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            kernels.follow(average, parameter.data, 1 - self.decay)

    def swap(self) -> None:
        """Exchange weights and averages; a second call exchanges them back."""
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            weights = np.array(parameter.data)
            parameter.data = average
            average[...] = weights

    @contextmanager
    def average(self) -> Iterator[None]:
        """``with ema.average():`` the model has the averages as weights, then its own again."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay:g})"
