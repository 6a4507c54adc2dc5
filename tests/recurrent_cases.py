"""The cases of kernel_cases.py that belong to recurrent networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kernel_cases import Draw

Args = dict[str, Any]


def lengths(draw: Draw, batch: int, steps: int) -> np.ndarray | None:
    return draw.rng.integers(1, steps + 1, size=batch) if draw.flag() else None


def extent(draw: Draw) -> tuple[int, int, int]:
    """Steps, batch, hidden size."""
    return int(draw.rng.integers(1, 6)), draw.size(), draw.size()


def states(draw: Draw, *shape: int) -> np.ndarray:
    return np.tanh(draw.array(*shape))


def gates_of(draw: Draw, *shape: int) -> np.ndarray:
    return 1 / (1 + np.exp(-draw.array(*shape)))


def weight(draw: Draw, hidden: int, gates: int) -> np.ndarray:
    return draw.array(hidden, gates * hidden) / hidden**0.5


def activation(draw: Draw) -> str:
    return str(draw.rng.choice(["tanh", "relu"]))


def rnn_sequence(draw: Draw) -> Args:
    steps, batch, hidden = extent(draw)
    return {
        "z": draw.array(steps, batch, hidden),
        "weight": weight(draw, hidden, 1),
        "h": draw.optional(batch, hidden),
        "lengths": lengths(draw, batch, steps),
        "reverse": draw.flag(),
        "activation": activation(draw),
    }


def rnn_sequence_grad(draw: Draw) -> Args:
    steps, batch, hidden = extent(draw)
    return {
        "dy": draw.optional(steps, batch, hidden),
        "dh": draw.optional(batch, hidden),
        "states": states(draw, steps + 1, batch, hidden),
        "weight": weight(draw, hidden, 1),
        "lengths": lengths(draw, batch, steps),
        "reverse": draw.flag(),
        "activation": activation(draw),
    }


def lstm_gates(draw: Draw) -> Args:
    batch, hidden = draw.size(), draw.size()
    return {"z": draw.array(batch, 4 * hidden), "c": draw.array(batch, hidden)}


def lstm_gates_grad(draw: Draw) -> Args:
    batch, hidden = draw.size(), draw.size()
    names = ("dh", "dc", "c", "new_c")
    arrays = {name: draw.array(batch, hidden) for name in names}
    order = ("dh", "dc", "gates", "c", "new_c")
    arrays["gates"] = gates_of(draw, batch, 4 * hidden)
    return {name: arrays[name] for name in order}


def lstm_sequence(draw: Draw) -> Args:
    steps, batch, hidden = extent(draw)
    return {
        "z": draw.array(steps, batch, 4 * hidden),
        "weight": weight(draw, hidden, 4),
        "h": draw.optional(batch, hidden),
        "c": draw.optional(batch, hidden),
        "lengths": lengths(draw, batch, steps),
        "reverse": draw.flag(),
    }


def lstm_sequence_grad(draw: Draw) -> Args:
    steps, batch, hidden = extent(draw)
    return {
        "dy": draw.optional(steps, batch, hidden),
        "dh": draw.optional(batch, hidden),
        "dc": draw.optional(batch, hidden),
        "cells": draw.array(steps + 1, batch, hidden),
        "gates": gates_of(draw, steps, batch, 4 * hidden),
        "weight": weight(draw, hidden, 4),
        "lengths": lengths(draw, batch, steps),
        "reverse": draw.flag(),
        "cell_norms": draw.flag(),
    }


def gru_gates(draw: Draw) -> Args:
    batch, hidden = draw.size(), draw.size()
    z, u = draw.array(batch, 3 * hidden), draw.array(batch, 3 * hidden)
    return {"z": z, "u": u, "h": states(draw, batch, hidden)}


def gru_gates_grad(draw: Draw) -> Args:
    batch, hidden = draw.size(), draw.size()
    return {
        "dh": draw.array(batch, hidden),
        "gates": gates_of(draw, batch, 3 * hidden),
        "u_n": draw.array(batch, hidden),
        "h": states(draw, batch, hidden),
    }


def gru_sequence(draw: Draw) -> Args:
    steps, batch, hidden = extent(draw)
    return {
        "z": draw.array(steps, batch, 3 * hidden),
        "weight": weight(draw, hidden, 3),
        "bias": draw.optional(3 * hidden),
        "h": draw.optional(batch, hidden),
        "lengths": lengths(draw, batch, steps),
        "reverse": draw.flag(),
    }


def gru_sequence_grad(draw: Draw) -> Args:
    steps, batch, hidden = extent(draw)
    return {
        "dy": draw.optional(steps, batch, hidden),
        "dh": draw.optional(batch, hidden),
        "states": states(draw, steps + 1, batch, hidden),
        "gates": gates_of(draw, steps, batch, 3 * hidden),
        "u_n": draw.array(steps, batch, hidden),
        "weight": weight(draw, hidden, 3),
        "lengths": lengths(draw, batch, steps),
        "reverse": draw.flag(),
    }


def time_first(draw: Draw) -> Args:
    steps, batch, features = extent(draw)
    begin = int(draw.rng.integers(features))
    width = int(draw.rng.integers(1, features - begin + 1)) if draw.flag() else None
    return {
        "x": draw.array(batch, steps, features),
        "lengths": lengths(draw, batch, steps),
        "begin": begin,
        "width": width,
    }


def batch_first(draw: Draw) -> Args:
    steps, batch, features = extent(draw)
    return {
        "x": draw.array(steps, batch, features),
        "lengths": lengths(draw, batch, steps),
        "other": draw.optional(steps, batch, draw.size()),
    }


def embedding(draw: Draw) -> Args:
    rows, features = draw.size(), draw.size()
    shape = (draw.size(), draw.size()) if draw.flag() else (draw.size(),)
    return {"indices": draw.rng.integers(rows, size=shape), "weight": draw.array(rows, features)}


def embedding_grad(draw: Draw) -> Args:
    args = embedding(draw)
    indices, dweight = args["indices"], args["weight"]
    dy = draw.array(*indices.shape, dweight.shape[1])
    return {"indices": indices, "dy": dy, "dweight": dweight}


RECURRENT_CASES: dict[str, Callable[[Draw], Args]] = {
    "rnn_sequence": rnn_sequence,
    "rnn_sequence_grad": rnn_sequence_grad,
    "lstm_gates": lstm_gates,
    "lstm_gates_grad": lstm_gates_grad,
    "lstm_sequence": lstm_sequence,
    "lstm_sequence_grad": lstm_sequence_grad,
    "gru_gates": gru_gates,
    "gru_gates_grad": gru_gates_grad,
    "gru_sequence": gru_sequence,
    "gru_sequence_grad": gru_sequence_grad,
    "time_first": time_first,
    "batch_first": batch_first,
    "embedding": embedding,
    "embedding_grad": embedding_grad,
}
