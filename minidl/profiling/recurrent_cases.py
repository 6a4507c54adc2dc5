"""The cases of ``cases.py`` that belong to recurrent networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl.profiling.counting import flops_of

SEQUENCES = (32, 16, 128)  # steps x batch x hidden size
CHARACTERS = (100, 64)  # what is looked up: rows x features
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def recurrent(case: Callable[..., Any]) -> Iterator[Any]:
    """Whole sequences, single steps of the gates, other layouts, and rows by their numbers."""
    for kind in GATES:
        yield from _sequences(case, kind)
    yield from _gates(case)
    steps, batch, hidden = SEQUENCES
    shape, x, turned = "x".join(map(str, SEQUENCES)), (batch, steps, hidden), SEQUENCES
    yield case("time_first", shape, 0, read={"x": x}, results=[turned])
    yield case("batch_first", shape, 0, read={"x": turned}, results=[x])
    rows, features = CHARACTERS
    indices = np.random.default_rng(0).integers(rows, size=(batch, steps), dtype=np.intp)
    found, shape = (batch, steps, features), f"{batch * steps} of {rows}x{features}"
    weight: Any = {"weight": CHARACTERS}
    yield case("embedding", shape, 0, read={"indices": indices, **weight}, results=[found])
    yield case(
        "embedding_grad",
        shape,
        flops_of("embedding_grad", found),
        read={"indices": indices, "dy": found},
        updated={"dweight": CHARACTERS},
    )


def _sequences(case: Callable[..., Any], kind: str) -> Iterator[Any]:
    (steps, batch, hidden), gates = SEQUENCES, GATES[kind]
    shape, name = "x".join(map(str, SEQUENCES)), f"{kind}_sequence"
    z, weight = (steps, batch, gates * hidden), (hidden, gates * hidden)
    states, one = (steps + 1, batch, hidden), (batch, hidden)
    kept = {"rnn": [states], "lstm": [states, states, z], "gru": [states, z, SEQUENCES]}[kind]
    flops = flops_of(name, SEQUENCES)
    yield case(name, shape, flops, read={"z": z, "weight": weight}, results=kept)
    read = {
        "rnn": {"states": states},
        "lstm": {"cells": states, "gates": z},
        "gru": {"states": states, "gates": z, "u_n": SEQUENCES},
    }[kind]
    begin = [one] * (2 if kind == "lstm" else 1)
    both = [z, z] if kind == "gru" else [z]
    norms = np.zeros((steps, batch))  # squared, in float64
    none = {"dh": None, "dc": None} if kind == "lstm" else {"dh": None}
    yield case(
        f"{name}_grad",
        shape,
        flops_of(f"{name}_grad", SEQUENCES),
        read={"dy": SEQUENCES, **read, "weight": weight},
        results=[*both, *begin, norms],
        **none,
    )


def _gates(case: Callable[..., Any]) -> Iterator[Any]:
    _, batch, hidden = SEQUENCES
    h, shape = (batch, hidden), f"{batch}x{hidden}"
    four, three = (batch, 4 * hidden), (batch, 3 * hidden)
    for name, read, results in (
        ("lstm_gates", {"z": four, "c": h}, [four, h, h]),
        (
            "lstm_gates_grad",
            {"dh": h, "dc": h, "gates": four, "c": h, "new_c": h},
            [four, h],
        ),
        ("gru_gates", {"z": three, "u": three, "h": h}, [three, h]),
        ("gru_gates_grad", {"dh": h, "gates": three, "u_n": h, "h": h}, [three, three, h]),
    ):
        yield case(name, shape, flops_of(name, h), read=read, results=results)
