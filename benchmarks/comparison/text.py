"""Train a character model by minidl and by PyTorch, from the same weights on the same chunks.

They alternate in rounds of a few steps, so that both run under the same load; after every epoch the
validation text is read. Reported are the median over the rounds of the time of minidl / the time of
PyTorch, and the seconds of both in all, in which interrupted steps count in full.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np

import minidl
from minidl import datasets, optim
from minidl.cli.characters import CharacterModel, Pair, Shape
from minidl.datasets import Characters
from minidl.profiling.kernel_report import machine

SHAPE = Shape(cell="lstm", hidden=256, layers=2, embedding=64, dropout=0.0, streams=64)
STEPS, RATE, MAX_NORM, VALIDATION = 64, 2e-3, 1.0, 0.1
ROUND = 10  # steps of one library before the other continues
PAUSE = 0.05  # seconds, in which threads that wait for more work in a busy loop go to sleep


class Contender(Protocol):
    """A library that trains the model."""

    def begin(self) -> None:
        """Begin an epoch at the beginning of the text, with state zero."""

    def train(self, x: Any, y: Any) -> None:
        """Make a step for each batch of chunks, from the state that the batch before has left."""

    def bits(self, x: Any, y: Any) -> float:
        """Return the bits per character of a text."""


def run(path: Path | None, epochs: int, threads: int) -> None:
    """Train both, and print seconds and bits per character of every epoch."""
    text = datasets.python_topics() if path is None else path.read_text(encoding="utf-8")
    characters, cut = Characters.of(text), int(len(text) * (1 - VALIDATION))
    data = characters.chunks(text[:cut], SHAPE.streams, STEPS)
    validation = characters.chunks(text[cut:], SHAPE.streams, STEPS)
    minidl.set_num_threads(threads)
    ours = Ours(CharacterModel(characters, SHAPE, seed=0))
    both: list[Contender] = [ours, PyTorch(ours.speaker, threads)]
    about = machine()
    print(f"{about['processor']}, {threads} of {about['cores']} cores; {SHAPE}")
    sizes = f"{cut:,} characters, {len(text) - cut:,} for validation"
    print(f"{sizes}, {len(characters)} different ones\n")
    print(f"epoch{'':4}minidl s{'':4}bits{'':4}PyTorch s{'':4}bits{'':4}minidl / PyTorch, so far")
    rounds: list[tuple[float, float]] = []
    for epoch in range(1, epochs + 1):
        before = len(rounds)
        rounds += _epoch(both, data)
        seconds = np.sum(rounds[before:], axis=0)
        bits = [contender.bits(*validation) for contender in both]
        print(
            f"{epoch:5}{seconds[0]:12.1f}{bits[0]:8.3f}{seconds[1]:13.1f}{bits[1]:8.3f}"
            f"{median(a / b for a, b in rounds):12.2f}",
            flush=True,
        )
    spent = np.sum(rounds, axis=0)
    print(f"\nin all: {spent[0]:.1f} s and {spent[1]:.1f} s, {spent[0] / spent[1]:.2f}; ", end="")
    print(f"median of {len(rounds)} rounds: {median(a / b for a, b in rounds):.2f}")


def _epoch(both: list[Contender], data: Pair) -> Iterator[tuple[float, float]]:
    """Yield the seconds of both in each round of an epoch; they alternate in going first."""
    x, y = data
    for contender in both:
        contender.begin()
    some = ROUND * SHAPE.streams
    for number, begin in enumerate(range(0, len(x), some)):
        seconds = [0.0, 0.0]
        for place in (number % 2, 1 - number % 2):
            time.sleep(PAUSE)
            start = time.perf_counter()
            both[place].train(x[begin : begin + some], y[begin : begin + some])
            seconds[place] = time.perf_counter() - start
        yield seconds[0], seconds[1]


class Ours:
    """minidl, as ``minidl train text`` does it."""

    def __init__(self, speaker: CharacterModel) -> None:
        self.speaker = speaker
        parameters = speaker.model.parameters()
        self._step = speaker.step(optim.Adam(parameters, RATE, max_norm=MAX_NORM))

    def begin(self) -> None:
        self.speaker.recurrent.reset_state()

    def train(self, x: Any, y: Any) -> None:
        self._step.epoch(x, y, SHAPE.streams, shuffle=False)

    def bits(self, x: Any, y: Any) -> float:
        return self.speaker.bits_per_character((x, y), SHAPE.streams)


class PyTorch:
    """PyTorch, with the initial weights of minidl."""

    def __init__(self, speaker: CharacterModel, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._layers = _copied(speaker)
        parameters = [p for layer in self._layers for p in layer.parameters()]
        self._trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(self._trained, lr=RATE, fused=True)
        self._state: Any = None

    def begin(self) -> None:
        self._state = None

    def train(self, x: Any, y: Any) -> None:
        for loss in self._losses(x, y):
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._torch.nn.utils.clip_grad_norm_(self._trained, MAX_NORM, foreach=True)
            self._optimizer.step()

    def bits(self, x: Any, y: Any) -> float:
        self.begin()
        with self._torch.no_grad():
            return float(np.mean([float(loss) for loss in self._losses(x, y)]) / np.log(2))

    def _losses(self, x: Any, y: Any) -> Iterator[Any]:
        embedding, lstm, linear = self._layers
        x, y = self._torch.from_numpy(x), self._torch.from_numpy(y)
        for begin in range(0, len(x), SHAPE.streams):
            rows = slice(begin, begin + SHAPE.streams)
            h, state = lstm(embedding(x[rows]), self._state)
            self._state = tuple(part.detach() for part in state)
            logits = linear(h).flatten(0, 1)
            yield self._torch.nn.functional.cross_entropy(logits, y[rows].flatten())


def _copied(speaker: CharacterModel) -> tuple[Any, Any, Any]:
    """Make PyTorch's layers, with the weights of minidl's."""
    import torch

    def tensor(parameter: Any) -> Any:
        return torch.from_numpy(parameter.data.copy())

    ours = speaker.model.stack
    embedding = torch.nn.Embedding(len(speaker.characters), SHAPE.embedding)
    lstm = torch.nn.LSTM(SHAPE.embedding, SHAPE.hidden, SHAPE.layers, batch_first=True)
    linear = torch.nn.Linear(SHAPE.hidden, len(speaker.characters))
    embedding.weight.data = tensor(ours[0].weight)
    for layer, cell in enumerate(speaker.recurrent.cells):
        getattr(lstm, f"weight_ih_l{layer}").data = tensor(cell.input_weight).T.contiguous()
        getattr(lstm, f"weight_hh_l{layer}").data = tensor(cell.recurrent_weight).T.contiguous()
        getattr(lstm, f"bias_ih_l{layer}").data = tensor(cell.bias)
        second = getattr(lstm, f"bias_hh_l{layer}")  # of which minidl has none
        second.data.zero_()
        second.requires_grad_(False)
    linear.weight.data, linear.bias.data = (
        tensor(ours[2].weight).T.contiguous(),
        tensor(ours[2].bias),
    )
    return embedding, lstm, linear
