"""Moving averages of the weights."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl import kernels
from minidl.nn.checks import check_number
from minidl.nn.hooks import InvalidatesRecordings, is_recording, register, stand_in
from minidl.nn.layer import Layer
from minidl.nn.parameter import Parameter
from minidl.signals import deferred
from minidl.typing import Array


class EMA(InvalidatesRecordings):
    """Exponential moving average of weights, which often predicts better than the latest weights.

    a ← d · a + (1 - d) · w after every step; a begins as w.

    The running statistics of ``BatchNorm`` belong to the weights with which they were computed.
    Given a model, or in a ``Trainer``, they are averaged too; this average is right after more than
    1 / (1 - d) steps. ``take_statistics`` computes them anew, from data and the averaged weights,
    which is right at any time; ``Trainer.fit`` calls it by itself.

    Source: Polyak and Juditsky 1992, with the exponential weights of Tarvainen and Valpola 2017.

    Parameters
    ----------
    parameters
        The model, or ``model.parameters()``.
    decay
        d in [0, 1): the average is over about the last 1 / (1 - d) steps.

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
    >>> ema = optim.EMA(layer, decay=0.75)
    >>> layer.weight.data = [[5.0]]
    >>> ema.update()
    >>> with ema.average():
    ...     print(layer.weight.data)
    [[2.]]
    >>> layer.weight.data
    array([[5.]], dtype=float32)
    """

    def __init__(self, parameters: Layer | Iterable[Parameter], decay: float = 0.999) -> None:
        self.decay = check_number("EMA", "decay", decay, 0, 1)
        model = parameters if isinstance(parameters, Layer) else None
        given = parameters.parameters() if isinstance(parameters, Layer) else parameters
        self.parameters = list(given)
        if not self.parameters:
            raise ValueError("EMA: no parameters given")
        self.averages = [parameter.data.copy() for parameter in self.parameters]
        self.state: list[tuple[Layer, str]] = []  # (layer, name) of the statistics averaged
        self.state_averages: list[Array] = []
        self.entered = 0  # open contexts of `average`; public, so that setting it notes a change
        self._lock = threading.RLock()
        self._model: Layer | None = None
        if model is not None:
            self.follow_state(model)

    def follow_state(self, model: Layer) -> None:
        """Average the running statistics of the model's layers, too, from now on."""
        self._model = model
        known = {(id(layer), name) for layer, name in self.state}
        for _, layer in model.layers():
            for name in layer.state_names:
                fixed = name in layer.transient_state_names or name in layer.constant_names
                array = getattr(layer, name)
                if array.dtype.kind == "f" and not fixed and (id(layer), name) not in known:
                    self.state.append((layer, name))
                    self.state_averages.append(array.copy())

    def update(self) -> None:
        """Move the averages towards the weights: a ← d · a + (1 - d) · w.

        Raises
        ------
        RuntimeError
            Inside ``with ema.average():``, where the weights are the averages.
        """
        if self.entered:
            raise RuntimeError("EMA: update inside average(), where the weights are the averages")
        averages = [*self.averages, *self.state_averages]
        if is_recording():
            averages = self._registered(averages)
        arrays = [parameter.data for parameter in self.parameters]
        arrays += [getattr(layer, name) for layer, name in self.state]
        for average, array in zip(averages, arrays, strict=True):
            kernels.lerp(average, array, 1 - self.decay)

    def _registered(self, averages: list[Array]) -> list[Array]:
        """Register with the recorder, and return the arrays that stand in for the averages."""
        for owner in (self, *(layer for layer, _ in self.state)):
            register(owner)
        names = [parameter.name for parameter in self.parameters]
        names += [f"{layer.path}.{name}" for layer, name in self.state]
        return [
            stand_in("state", f"average of {name}", average)
            for name, average in zip(names, averages, strict=True)
        ]

    def take_statistics(self, batches: Iterable[tuple[Array, ...]]) -> None:
        """Compute the running statistics of the averages anew, as the mean over these batches.

        The inputs pass through the layers as in training; the model itself does not change.

        Parameters
        ----------
        batches
            Tuples of the model's inputs, each of two rows or more.

        Raises
        ------
        RuntimeError
            If the model is not known, or all layers with statistics are in evaluation.
        """
        if self._model is None:
            raise RuntimeError("EMA: take_statistics needs the model: EMA(model, decay)")
        if not self.has_statistics:
            raise RuntimeError("EMA: take_statistics: no layer takes statistics in its mode")
        momenta = [(layer, layer.momentum) for layer, _ in self.state if hasattr(layer, "momentum")]
        state = list(self._model.state().values())
        totals, count = [np.zeros(average.shape) for average in self.state_averages], 0
        with self.average():
            averages = [(array, array.copy()) for array in state]
            try:
                for layer, _ in momenta:
                    layer.momentum = 1.0  # the statistics of the batch alone
                for inputs in batches:
                    count += 1
                    self._model(*inputs)
                    for total, (layer, name) in zip(totals, self.state, strict=True):
                        total += getattr(layer, name)
            finally:
                for layer, momentum in momenta:
                    layer.momentum = momentum
                for array, values in averages:
                    array[...] = values
                for _, layer in self._model.layers():
                    layer.forget()
        for average, total in zip(self.state_averages, totals, strict=True):
            average[...] = total / count

    @property
    def has_statistics(self) -> bool:
        """Whether any layer whose statistics are averaged updates them in its present mode."""
        return any(layer.training for layer, _ in self.state)

    def swap(self) -> None:
        """Exchange the model's weights and statistics with the averages; a second call, back."""
        with deferred():  # an interrupt would leave weights and averages mixed
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                weights = np.array(parameter.data)
                parameter.data = average
                average[...] = weights
            for (layer, name), average in zip(self.state, self.state_averages, strict=True):
                array = getattr(layer, name)
                statistics = array.copy()
                array[...] = average
                average[...] = statistics

    @contextmanager
    def average(self) -> Iterator[None]:
        """Give the model the averages as weights inside ``with ema.average():``.

        Contexts may be nested, also in several threads: the last one to end restores the weights.
        """
        self._enter(1)
        try:
            yield
        finally:
            self._enter(-1)

    def _enter(self, change: int) -> None:
        """Count open contexts; exchange weights and averages at the first and the last."""
        with deferred(), self._lock:
            if self.entered + min(change, 0) == 0:
                self.swap()
            self.entered += change

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay:g})"
