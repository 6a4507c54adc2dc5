"""A character model, trained by minidl and by PyTorch: the same weights at first, the same chunks.

Epochs alternate, so that both meet the same machine, and after each the held-out text is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl import datasets, optim
from minidl.bench.report import machine
from minidl.cli.characters import CharacterModel, Pair, Shape
from minidl.datasets import Characters
from minidl.training.progress import choose

SHAPE = Shape(cell="lstm", hidden=256, layers=2, embedding=64, dropout=0.0, streams=64)
STEPS, RATE, MAX_NORM, HELD_OUT = 64, 2e-3, 1.0, 0.1


def run(path: Path | None, epochs: int, threads: int) -> None:
    """Train both, and print seconds and bits per character of every epoch."""
    text = datasets.python_topics() if path is None else path.read_text(encoding="utf-8")
    characters, cut = Characters.of(text), int(len(text) * (1 - HELD_OUT))
    data = characters.chunks(text[:cut], SHAPE.streams, STEPS)
    held_out = characters.chunks(text[cut:], SHAPE.streams, STEPS)
    minidl.set_num_threads(threads)
    speaker = CharacterModel(characters, SHAPE, seed=0)
    contenders = {"minidl": iter(_ours(speaker, data, held_out))}
    contenders["PyTorch"] = iter(_pytorch(speaker, data, held_out, threads))  # before any training
    about = machine()
    print(f"{about['processor']}, {threads} of {about['cores']} cores; {SHAPE}")
    print(f"{cut:,} characters, {len(text) - cut:,} held out, {len(characters)} different ones\n")
    print(f"epoch{'':4}minidl s{'':4}bits{'':4}PyTorch s{'':4}bits{'':4}minidl / PyTorch, so far")
    spent = dict.fromkeys(contenders, 0.0)
    for epoch in range(1, epochs + 1):
        line = f"{epoch:5}"
        for name, training in contenders.items():
            seconds, bits = next(training)
            spent[name] += seconds
            line += f"{seconds:{12 if name == 'minidl' else 13}.1f}{bits:8.3f}"
        print(f"{line}{spent['minidl'] / spent['PyTorch']:12.2f}", flush=True)
    print(f"\nin all: {spent['minidl']:.1f} s and {spent['PyTorch']:.1f} s")


def _timed(epoch: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    epoch()
    return time.perf_counter() - begin


def _ours(speaker: CharacterModel, data: Pair, held_out: Pair) -> Iterator[tuple[float, float]]:
    optimizer = optim.Adam(speaker.model.parameters(), RATE, max_norm=MAX_NORM)
    epochs = speaker.train(data, optimizer, 1 << 30, choose(False))
    while True:
        seconds = _timed(lambda: next(epochs))
        yield seconds, speaker.bits_per_character(held_out, SHAPE.streams)


def _pytorch(
    speaker: CharacterModel, data: Pair, held_out: Pair, threads: int
) -> Iterator[tuple[float, float]]:
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    embedding, lstm, linear = _copied(speaker)
    parameters = [*embedding.parameters(), *lstm.parameters(), *linear.parameters()]
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=RATE, fused=True)

    def losses(pair: Pair) -> Iterator[Any]:
        x, y = map(torch.from_numpy, pair)
        state = None
        for begin in range(0, len(x), SHAPE.streams):
            rows = slice(begin, begin + SHAPE.streams)
            h, state = lstm(embedding(x[rows]), state)
            state = tuple(part.detach() for part in state)
            yield functional.cross_entropy(linear(h).flatten(0, 1), y[rows].flatten())

    def epoch() -> None:
        for loss in losses(data):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, MAX_NORM, foreach=True)
            optimizer.step()

    def bits() -> float:
        with torch.no_grad():
            return float(np.mean([float(loss) for loss in losses(held_out)]) / np.log(2))

    def train() -> Iterator[tuple[float, float]]:
        while True:
            yield _timed(epoch), bits()

    return train()


def _copied(speaker: CharacterModel) -> tuple[Any, Any, Any]:
    """PyTorch's layers, with the weights of minidl's."""
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
