"""Compare an unrecorded call and an unrecorded step with plain NumPy.

    python benchmarks/eager.py [--batch 1] [--rounds 30]

A 4-64-64-2 tanh network, float32, one thread. "forward" is the model's output, "step" a whole
step of training: forward, mean squared error, backward, clipping by the global norm, Adam. It is
compared with code written by hand in NumPy, with all parameters, gradients and moments in flat
vectors. Both run in alternating rounds; a ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is loaded
os.environ.pop("OPENBLAS_CORETYPE", None)  # would hold it to an older machine
os.environ.pop("OPENBLAS_L2_SIZE", None)

import numpy as np

import minidl
from minidl import nn, optim

WIDTHS = (4, 64, 64, 2)
Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class ByHand:
    """The same network and optimizer in NumPy, with flat vectors."""

    def __init__(self, model: nn.Sequential, lr: float = 0.0, max_norm: float = 1.0) -> None:
        sizes = [parameter.size for parameter in model.parameters()]
        self.data, self.grad, self.m, self.v = np.zeros((4, sum(sizes)), np.float32)
        self.lr, self.max_norm, self.steps = lr, max_norm, 0
        self.layers = []
        start = 0
        for parameter in model.parameters():
            part = slice(start, start + parameter.size)
            self.data[part] = parameter.data.ravel()
            views = (vector[part].reshape(parameter.shape) for vector in (self.data, self.grad))
            self.layers.append(tuple(views))
            start = part.stop
        self.pairs = list(zip(self.layers[::2], self.layers[1::2], strict=True))

    def forward(self, x: Array) -> Array:
        (first, _), (first_bias, _) = self.pairs[0]
        (second, _), (second_bias, _) = self.pairs[1]
        (last, _), (last_bias, _) = self.pairs[2]
        h = np.tanh(x @ first + first_bias)
        h = np.tanh(h @ second + second_bias)
        return h @ last + last_bias

    def step(self, x: Array, y: Array) -> float:
        inputs = [x]
        for (weight, _), (bias, _) in self.pairs[:-1]:
            inputs.append(np.tanh(inputs[-1] @ weight + bias))
        (weight, _), (bias, _) = self.pairs[-1]
        error = inputs[-1] @ weight + bias - y
        value = float(np.mean(error * error))
        dy = error * np.float32(2 / error.size)
        for h, ((weight, dweight), (_, dbias)) in zip(
            reversed(inputs), reversed(self.pairs), strict=True
        ):
            np.matmul(h.T, dy, out=dweight)
            np.sum(dy, axis=0, out=dbias)
            if h is not x:
                dy = (dy @ weight.T) * (1 - h * h)
        self.update()
        return value

    def update(self) -> None:
        """Clip by the global norm, then Adam: Kingma and Ba 2015, algorithm 1."""
        g = self.grad
        norm = float(np.sqrt(g @ g))
        if norm > self.max_norm:
            g *= np.float32(self.max_norm / norm)
        self.steps += 1
        self.m *= 0.9
        self.m += 0.1 * g
        self.v *= 0.999
        self.v += 0.001 * (g * g)
        rate = self.lr / (1 - 0.9**self.steps)
        root = np.sqrt(self.v / (1 - 0.999**self.steps))
        root += 1e-8
        self.data -= rate * self.m / root


def seconds(call: Callable[[], object], calls: int) -> float:
    """Measure the seconds of one of so many calls."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def alternating(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, calls: int
) -> tuple[float, float, float]:
    """Measure both in alternating rounds; returns the median seconds of both and of their ratio."""
    times = []
    for number in range(rounds + 1):
        pair = [(ours, 0), (theirs, 1)]
        taken = [0.0, 0.0]
        for call, place in pair if number % 2 else reversed(pair):
            taken[place] = seconds(call, calls)
        times.append(taken)
    table = np.array(times[1:])  # the first round warms up
    return (*np.median(table, axis=0), float(np.median(table[:, 0] / table[:, 1])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=1000)
    arguments = parser.parse_args()
    minidl.set_num_threads(1)
    n, *hidden, out = WIDTHS
    layers: list[nn.Layer] = []
    for width in hidden:
        layers += [nn.Linear(n, width), nn.Tanh()]
        n = width
    model = nn.Sequential(*layers, nn.Linear(n, out), rng=0)
    by_hand, loss = ByHand(model), nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=0.0, max_norm=1.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(arguments.batch, WIDTHS[0])).astype(np.float32)
    y = rng.normal(size=(arguments.batch, out)).astype(np.float32)

    def step() -> float:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return float(value)

    # A rate of zero: once the batch is fitted, gradients are subnormal numbers, which are slow.
    for _ in range(3):  # check that both do the same
        assert abs(step() - by_hand.step(x, y)) < 1e-4
    print(f"{'-'.join(map(str, WIDTHS))} tanh, batch {arguments.batch}, µs of a call")
    for name, ours, theirs in (
        ("forward", lambda: model(x), lambda: by_hand.forward(x)),
        ("step", step, lambda: by_hand.step(x, y)),
    ):
        mine, numpy, ratio = alternating(ours, theirs, arguments.rounds, arguments.calls)
        print(f"{name:<8} minidl {mine * 1e6:6.1f}   NumPy {numpy * 1e6:6.1f}   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
