"""NumPy, as written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from comparison.measuring import Contender
from comparison.networks import Network
from comparison.suites import KernelTask


def about() -> str:
    """Version."""
    return f"NumPy {np.__version__}"


def kernels(task: KernelTask, threads: list[int]) -> Iterator[Contender]:
    """Each kernel, into a given output; the twin of minidl where there is nothing better."""
    arguments = task.case.arguments()
    calls: dict[str, Callable[..., Callable[[], Any]]] = {
        "matmul": _product,
        "tanh": lambda x: partial(np.tanh, x, np.empty_like(x)),
        "sigmoid": _sigmoid,
    }
    kernel = task.case.kernel
    call = calls[kernel](**arguments) if kernel in calls else task.case.twin()
    check = (lambda: {"result": np.copy(call())}) if kernel in calls else None
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


def inference(network: Network, threads: list[int]) -> Iterator[Contender]:
    """The formula, and the formula into arrays that are kept."""
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
