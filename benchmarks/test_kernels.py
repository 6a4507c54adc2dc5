"""Every kernel beside its NumPy twin, by pytest-benchmark.

    pytest benchmarks --benchmark-group-by=group
    pytest benchmarks --benchmark-save=before; ...; pytest benchmarks --benchmark-compare

Each figure is one call from Python at a size of a small network.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minidl import _kernels as kernels
from minidl._kernels import reference

BATCH, INPUTS, OUTPUTS = 64, 256, 128


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    """float32 arrays of these shapes."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def state() -> Any:
    """An optimizer's state, in the middle of a training."""
    fields = {"learning_rate": 1e-3, "scale": 1.0, "step": 10.0, "momentum": 0.9}
    result = np.zeros((), reference.OPTIMIZER_STATE)
    for name, value in (fields | {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}).items():
        result[name] = value
    return result


def cases() -> dict[str, tuple[Any, ...]]:
    """Arguments of each kernel."""
    x, weight, bias, dy = arrays((BATCH, INPUTS), (INPUTS, OUTPUTS), (OUTPUTS,), (BATCH, OUTPUTS))
    gamma, beta, mean, var, dgamma, dbeta = arrays(*[(OUTPUTS,)] * 6)
    (dweight,) = arrays((INPUTS, OUTPUTS))
    flat, grad, m, v = arrays(*[(100_000,)] * 4)
    labels = np.random.default_rng(0).integers(0, OUTPUTS, BATCH)
    return {
        "matmul": (x, weight),
        "linear": (x, weight, bias, "relu"),
        "linear_grad_input": (dy, weight),
        "linear_grad_params": (x, dy, dweight, dbeta),
        "add": (dy, dy),
        "scale": (flat, 1.0),
        "relu": (dy,),
        "relu_grad": (dy, dy),
        "sigmoid": (dy,),
        "sigmoid_grad": (dy, dy),
        "tanh": (dy,),
        "tanh_grad": (dy, dy),
        "dropout_key": (np.array([1, 0], np.uint64),),
        "dropout": (dy, np.array([1, 2], np.uint32), 0.2),
        "column_sum": (dy,),
        "batch_norm": (dy, gamma, beta, mean, abs(var), 0.1, 1e-5, True),
        "batch_norm_grad": (dy, dy, gamma, mean, abs(var), dgamma, dbeta, True),
        "softmax_cross_entropy": (dy, labels),
        "mse": (dy, dy),
        "bce_with_logits": (dy, abs(dy)),
        "squared_norm": (flat,),
        "clip": (np.array(4.0), state()),
        "sgd": (flat, grad, m, state()),
        "adam": (flat, grad, m, abs(v), state()),
    }


@pytest.mark.parametrize("backend", [kernels, reference], ids=["minidl", "twin"])
@pytest.mark.parametrize("name", list(cases()))
def test_kernel(benchmark: Any, name: str, backend: ModuleType) -> None:
    benchmark.group = name
    benchmark(getattr(backend, name), *cases()[name])
