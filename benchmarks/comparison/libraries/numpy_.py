"""Run NumPy code written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from comparison.measuring import Contender
from comparison.networks import Network
from comparison.suites import KernelTask


def about() -> str:
    """Return name and version."""
    return f"NumPy {np.__version__}"


def kernels(task: KernelTask, threads: list[int]) -> Iterator[Contender]:
    """Compute each kernel into the same outputs each time: new arrays cost more than the sums."""
    makers: dict[str, Callable[..., Callable[[], Any]]] = {
        "matmul": _product,
        "tanh": lambda x: partial(np.tanh, x, np.empty_like(x)),
        "sigmoid": _sigmoid,
        "softmax_cross_entropy": _cross_entropy,
        "adam": _adam,
    }
    call = makers[task.case.kernel](**task.case.arguments())

    def check() -> dict[str, Any]:
        found = call()
        if isinstance(found, tuple):
            return {"loss": found[0], "gradient": found[1].copy()}
        return {} if found is None else {"result": found.copy()}

    yield Contender("NumPy", call, check=check)


def _product(a: Any, b: Any, out: Any, transpose_a: bool, transpose_b: bool) -> Any:
    return partial(np.matmul, a.T if transpose_a else a, b.T if transpose_b else b, out)


def _sigmoid(x: Any) -> Callable[[], Any]:
    y, one = np.empty_like(x), x.dtype.type(1)

    def call() -> Any:
        np.negative(x, y)
        np.exp(y, y)
        np.add(y, one, y)
        return np.divide(one, y, y)

    return call


def _cross_entropy(logits: Any, labels: Any) -> Callable[[], Any]:
    rows, y = np.arange(len(labels)), np.empty_like(logits)
    column, share = np.empty((len(labels), 1), logits.dtype), logits.dtype.type(1 / len(labels))

    def call() -> Any:
        np.max(logits, 1, column, True)
        np.subtract(logits, column, y)
        chosen = y[rows, labels]
        np.exp(y, y)
        np.sum(y, 1, None, column, True)
        np.divide(y, column, y)
        y[rows, labels] -= 1
        np.multiply(y, share, y)
        return (np.log(column[:, 0]) - chosen).mean(), y

    return call


def _adam(data: Any, grad: Any, m: Any, v: Any, state: Any) -> Callable[[], None]:
    real, g, root = data.dtype.type, np.empty_like(data), np.empty_like(data)
    decay, scale, eps = (real(state[name]) for name in ("weight_decay", "scale", "eps"))
    beta1, beta2, rate = (float(state[name]) for name in ("beta1", "beta2", "learning_rate"))

    def call() -> None:
        state["step"] += 1
        np.multiply(grad, scale, g)
        np.add(g, np.multiply(data, decay, root), g)
        np.add(m, np.multiply(np.subtract(g, m, root), real(1 - beta1), root), m)
        np.multiply(np.multiply(g, g, g), real(1 - beta2), g)
        np.add(np.multiply(v, real(beta2), v), g, v)
        np.sqrt(np.multiply(v, real(1 / (1 - beta2 ** state["step"])), root), root)
        np.divide(m, np.add(root, eps, root), root)
        np.multiply(root, real(rate / (1 - beta1 ** state["step"])), root)
        np.subtract(data, root, data)

    return call


def inference(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Compute the formula, into new arrays or into the same ones each time."""
    x, _ = network.data
    function = {"tanh": np.tanh}[network.activation]
    *hidden, (last, last_bias) = network.weights()

    def plain() -> Any:
        h = x
        for weight, bias in hidden:
            h = function(h @ weight + bias)
        return h @ last + last_bias

    outputs = [np.empty((len(x), width), np.float32) for width in network.widths[1:]]
    layers = [(*layer, y) for layer, y in zip(hidden, outputs, strict=False)]
    logits = outputs[-1]

    def in_place() -> Any:
        h = x
        for weight, bias, y in layers:
            np.matmul(h, weight, y)
            np.add(y, bias, y)
            h = function(y, y)
        np.matmul(h, last, logits)
        return np.add(logits, last_bias, logits)

    for call, setting in ((plain, "as the formula"), (in_place, "out= everywhere")):
        yield Contender("NumPy", call, setting, check=lambda call=call: {"result": call().copy()})
