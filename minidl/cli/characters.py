"""A model that predicts the next character: building, training, sampling, saving."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl import nn, optim, saving
from minidl.cli.gradients import in_evaluation
from minidl.datasets import Characters
from minidl.nn.recurrent.sequence import Recurrent
from minidl.recording.step import Step
from minidl.training.progress import Progress
from minidl.typing import Array

CELLS: dict[str, type[Recurrent]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
Pair = tuple[Array, Array]  # x and y of ``Characters.chunks``
REPORTS = 50  # of progress, in an epoch


@dataclass(frozen=True)
class Shape:
    """The sizes of the model: with the characters, all that is needed to build it."""

    cell: str
    hidden: int
    layers: int
    embedding: int
    dropout: float
    streams: int

    def model(self, characters: int, seed: int = 0, trains: bool = True) -> nn.Sequential:
        """Build embedding, recurrent layers and logits; with ``trains``, stateful in training."""
        layer = CELLS[self.cell](
            *(self.embedding, self.hidden, self.layers),
            dropout=self.dropout,
            stateful=self.streams if trains else None,
        )
        embedding = nn.Embedding(characters, self.embedding)
        return nn.Sequential(embedding, layer, nn.Linear(self.hidden, characters), rng=seed)


class CharacterModel:
    """The model and its characters."""

    def __init__(
        self, characters: Characters, shape: Shape, seed: int = 0, trains: bool = True
    ) -> None:
        self.characters, self.shape = characters, shape
        self.model = shape.model(len(characters), seed, trains)
        self.loss = nn.CrossEntropyLoss()

    @property
    def recurrent(self) -> Recurrent:
        """The recurrent layer."""
        layer = self.model[1]
        assert isinstance(layer, Recurrent)
        return layer

    # --- training ---

    def step(self, optimizer: optim.Optimizer) -> Step:
        """Record a training step on one batch of chunks."""

        @minidl.record
        def step(x: Array, y: Array) -> Array:
            value = self.loss(self.model(x), y)
            optimizer.zero_grad()
            self.model.backward(self.loss.backward())
            optimizer.step()
            return value

        return step

    def train(
        self, data: Pair, optimizer: optim.Optimizer, epochs: int, progress: Progress
    ) -> Iterator[float]:
        """Train by truncated backpropagation through time; yield the bits of every epoch.

        The state goes on from chunk to chunk, the gradient does not. Bits are per character.
        """
        step = self.step(optimizer)
        (x, y), batch = data, self.shape.streams
        some = batch * max(1, len(x) // batch // REPORTS)
        for _ in range(epochs):
            self.recurrent.reset_state()
            total = done = 0.0
            for rows in (slice(begin, begin + some) for begin in range(0, len(x), some)):
                count = len(x[rows])
                total += count * step.epoch(x[rows], y[rows], batch, shuffle=False)
                done += count
                bits = total / done / math.log(2)
                progress.step(count * x.shape[1], lambda bits=bits: {"bits": bits})  # type: ignore[misc]
            yield bits

    # --- evaluation and sampling, with the state passed explicitly ---

    def logits(self, x: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Compute the logits of the next character at every step, and the state at the end."""
        embedding, recurrent, linear = self.model.stack
        h, *state_after = recurrent(embedding(x), *state)
        return linear(h), tuple(state_after)

    def bits_per_character(self, data: Pair, batch: int) -> float:
        """Measure the cross entropy in bits, of chunks in the order of ``Characters.chunks``."""
        (x, y), state, losses = data, self.recurrent.zero_state(batch), []
        with nn.evaluating():
            for begin in range(0, len(x), batch):
                rows = slice(begin, begin + batch)
                z, state = self.logits(x[rows], state)
                losses.append(float(self.loss(z, y[rows])))
        return float(np.mean(losses)) / math.log(2)

    def sample(self, length: int, temperature: float, seed: int, prime: str = "") -> str:
        """Continue ``prime``, or the first of all characters, by characters that are drawn.

        Each is drawn from softmax(z / temperature); at temperature 0 it is the likeliest one.
        """
        rng, state = np.random.default_rng(seed), self.recurrent.zero_state(1)
        given = self.characters.encode(prime or self.characters.characters[0])
        said: list[int] = []
        with nn.evaluating():
            z, state = self.logits(given[None], state)
            while len(said) < length:
                said.append(_draw(z[0, -1], temperature, rng))
                z, state = self.logits(np.array([said[-1:]]), state)
        return prime + self.characters.decode(said)

    def state_gradient_norms(self, data: Pair) -> Array:
        """Measure ‖∂L/∂h_t‖ of the last layer over one batch of chunks.

        L is the loss of the last step alone: the norms show how far back its gradient reaches.
        """
        x, y = data
        last = np.zeros(y.shape, np.float32)
        last[:, -1] = 1
        with in_evaluation(self.model):
            self.loss(self.model(x), y, last)
            self.model.backward(self.loss.backward())
        self.model.zero_grad()
        return self.recurrent.state_gradient_norms()

    # --- files ---

    def save(self, path: Path) -> None:
        """Write parameters, characters and shape into one file."""
        words = {name: str(value) for name, value in asdict(self.shape).items()}
        saving.save(self.model, path, metadata={"characters": self.characters.characters, **words})

    @classmethod
    def load(cls, path: Path) -> CharacterModel:
        """Load the model of a file that ``save`` wrote, to sample from.

        Raises
        ------
        ModelFileError
            If it holds no such model.
        """
        words, tensors = saving.description(path)
        try:
            characters, shape = Characters(words["characters"]), _shape_of(words)
            _check_sizes(shape, len(characters), tensors)
            loaded = cls(characters, shape, trains=False)
        except (KeyError, ValueError) as error:
            raise saving.ModelFileError(
                f"{path}: not a character model of minidl train text --save ({error})"
            ) from None
        saving.load(path, into=loaded.model)
        return loaded


def _shape_of(words: Mapping[str, str]) -> Shape:
    if (cell := words["cell"]) not in CELLS:
        raise ValueError(f"no cell {reprlib.repr(cell)}")
    kinds: dict[str, Any] = {"cell": str, "dropout": float}
    values = {name: kinds.get(name, _number)(words[name]) for name in Shape.__dataclass_fields__}
    return Shape(**values)


def _number(word: str) -> int:
    """Parse a whole number above zero."""
    if not (word.isascii() and word.isdigit() and len(word) < 20 and int(word)):
        raise ValueError(f"{reprlib.repr(word)} is no size")
    return int(word)


def _check_sizes(shape: Shape, characters: int, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError before a model is built that the tensors could not fill."""
    expected = {"0.weight": (characters, shape.embedding), "2.weight": (shape.hidden, characters)}
    for name, sizes in expected.items():
        if tensors.get(name) != sizes:
            raise ValueError(f"{name} should have the shape {sizes}")
    if shape.layers > len(tensors):
        raise ValueError(f"{shape.layers} layers, and {len(tensors)} tensors")


def _draw(z: Array, temperature: float, rng: np.random.Generator) -> int:
    if not np.isfinite(z).all():
        raise ValueError("the model's logits are not finite: it holds numbers that training cannot")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scaled = z.astype(np.float64) / temperature
    if not np.isfinite(scaled).all():  # a temperature of zero, or as good as that
        return int(z.argmax())
    p = np.exp(scaled - scaled.max())
    return int(rng.choice(len(p), p=p / p.sum()))
