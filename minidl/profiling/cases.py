"""Every kernel at the sizes that matter; ``counting.py`` says how its work is counted.

Products are written m x k x n. A layer of a network needs all three forms of one product: ::

    y  = x @ W      batch  x inputs  x outputs
    dW = x.T @ dy   inputs x batch   x outputs
    dx = dy @ W.T   batch  x outputs x inputs
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from minidl import _kernels, kernels
from minidl._kernels import twins as reference
from minidl._kernels.twins import OPTIMIZER_STATE
from minidl.profiling.ceilings import aligned
from minidl.profiling.counting import GRADIENTS, UNARY, flops_of
from minidl.profiling.recurrent_cases import recurrent
from minidl.typing import Array

SQUARES = [(size, size, size) for size in (32, 64, 128, 256, 512, 1024)]
LAYERS = [(32, 784, 128), (64, 784, 256), (128, 512, 512), (256, 64, 64)]
ODD = [(128, 10, 45), (128, 45, 45), (128, 46, 46), (128, 46, 10)]
VECTORS = [(1, 256, 256), (1, 1024, 1024)]
ACTIVATIONS = (128, 128)  # 16k elements: a batch of activations
BATCHES = [(32, 64), (128, 512)]  # what is normalized: batch x features
CLASSES = [(32, 10), (128, 1000)]  # what is classified: batch x classes
PARAMETERS = [17_226, 1_000_000]  # those of 64-128-64-10, and many

Arguments = dict[str, Any]
Shape = tuple[int, ...]
Arrays = Mapping[str, Shape | Array]  # the shape of an array to draw, or an array as it is
NOTHING: Arrays = MappingProxyType({})
POSITIVE = {"v", "square", "rstd", "running_var", "target", "std", "gates"}
PARAMETER_OF: dict[str, Any] = {
    "leaky_relu": {"slope": 0.01},
    "elu": {"alpha": 1.0},
    "softplus": {"beta": 1.0},
}
OF_INPUT = {"silu_grad", "softplus_grad", "gelu_grad"}  # which take x, the others y


@dataclass(frozen=True)
class Case:
    """A kernel at one size.

    Parameters
    ----------
    kernel, shape
        Name of the kernel, and its size in words. Together the name of the case.
    flops
        Of one call.
    read, written, updated
        Bytes of the arrays that a call only reads, only writes, and changes in place.
    arguments
        Makes the arguments of a call, the same ones each time, in memory of their own.
    """

    kernel: str
    shape: str
    flops: int
    read: int
    written: int
    updated: int
    arguments: Callable[[], Arguments]

    @property
    def name(self) -> str:
        """Kernel and shape."""
        return f"{self.kernel} {self.shape}"

    @property
    def nbytes(self) -> int:
        """Bytes that a call moves at least."""
        return self.read + self.written + 2 * self.updated

    @property
    def footprint(self) -> int:
        """Bytes that a call touches: they fit into a level of memory or not."""
        return self.read + self.written + self.updated

    def call(self, backend: ModuleType = kernels) -> Callable[[], Any]:
        """The kernel on arguments of its own, from the instruction set that serves now."""
        return partial(getattr(backend, self.kernel), **self.arguments())

    def twin(self) -> Callable[[], Any]:
        """The NumPy twin on arguments of its own."""
        return self.call(reference)


def cases(dtype: Any = np.float32, names: Sequence[str] = _kernels.NAMES) -> list[Case]:
    """The cases of the named kernels, in the order of ``_kernels.NAMES``."""
    families = (
        _products,
        _linear,
        _elementwise,
        _dropout,
        _normalization,
        _rows,
        _losses,
        _optimizers,
        recurrent,
    )
    make = _Maker(dtype)
    found = [case for family in families for case in family(make) if case.kernel in names]
    return sorted(found, key=lambda case: _kernels.NAMES.index(case.kernel))


class _Maker:
    """Makes cases of one dtype from the names and shapes of their arrays."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def __call__(
        self,
        kernel: str,
        shape: str,
        flops: int,
        *,
        read: Arrays = NOTHING,
        updated: Arrays = NOTHING,
        out: Arrays = NOTHING,
        results: Sequence[Shape | Array] = (),
        **scalars: Any,
    ) -> Case:
        """A case; ``out`` are arguments that are written only, ``results`` what a call returns."""
        arrays = {**read, **updated, **out}
        return Case(
            kernel,
            shape,
            flops,
            self._bytes(read.values()),
            self._bytes([*out.values(), *results]),
            self._bytes(updated.values()),
            partial(self._draw, arrays, scalars),
        )

    def _bytes(self, arrays: Iterable[Shape | Array]) -> int:
        return sum(
            math.prod(array) * self.dtype.itemsize if isinstance(array, tuple) else array.nbytes
            for array in arrays
        )

    def _draw(self, arrays: Arrays, scalars: Arguments) -> Arguments:
        rng = np.random.default_rng(0)
        drawn = dict(scalars)
        for name, given in arrays.items():
            if isinstance(given, tuple):
                x = rng.standard_normal(given)
                if name == "weight":
                    x /= math.sqrt(len(x))  # as a network begins: sequences stay finite
                array = (1 / (1 + abs(x)) if name in POSITIVE else x).astype(self.dtype)
            else:
                array = given
            drawn[name] = aligned(array.shape, array.dtype)
            drawn[name][...] = array
        return drawn


def _products(case: _Maker) -> Iterator[Case]:
    for batch, inputs, outputs in SQUARES + LAYERS + ODD + VECTORS:
        for form, m, k, n in (
            ("A@B", batch, inputs, outputs),
            ("A.T@B", inputs, batch, outputs),
            ("A@B.T", batch, outputs, inputs),
        ):
            turn_a, turn_b = form == "A.T@B", form == "A@B.T"
            a, b = (k, m) if turn_a else (m, k), (n, k) if turn_b else (k, n)
            yield case(
                "matmul",
                f"{form} {m}x{k}x{n}",
                flops_of("matmul", (m, k, n)),
                read={"a": a, "b": b},
                out={"out": (m, n)},
                transpose_a=turn_a,
                transpose_b=turn_b,
            )


def _linear(case: _Maker) -> Iterator[Case]:
    for m, k, n in [*LAYERS, ODD[2]]:
        shape, flops = f"{m}x{k}x{n}", flops_of("matmul", (m, k, n))
        x, weight, bias, dy = (m, k), (k, n), (n,), (m, n)
        yield case(
            "linear",
            f"{shape} relu",
            flops_of("matmul", (m, k, n), fused=["add", "relu"]),
            read={"x": x, "weight": weight, "bias": bias},
            results=[dy],
            activation="relu",
        )
        yield case(
            "linear_grad_input", shape, flops, read={"dy": dy, "weight": weight}, results=[x]
        )
        yield case(
            "linear_grad_params",
            shape,
            flops + flops_of("column_sum", (m, n)),  # for the bias
            read={"x": x, "dy": dy},
            updated={"dweight": weight, "dbias": bias},
        )


def _elementwise(case: _Maker) -> Iterator[Case]:
    size = ACTIVATIONS
    shape = "x".join(map(str, size))
    yield case("copy", shape, 0, read={"x": size}, results=[size])
    # Counted like any array that is changed in place, although it is not read.
    yield case("clear", shape, 0, updated={"x": size})
    yield case("add", shape, flops_of("add", size), read={"a": size, "b": size}, results=[size])
    # Times one: repeated, the numbers stay as they are, and the work is the same.
    yield case("scale", shape, flops_of("scale", size), updated={"x": size}, factor=1.0)
    positive = np.linspace(0.1, 3, math.prod(size), dtype=case.dtype).reshape(size)
    for kernel in UNARY:
        read: Arrays = {"x": positive if kernel == "log" else size}
        flops, scalars = flops_of(kernel, size), PARAMETER_OF.get(kernel, {})
        yield case(kernel, shape, flops, read=read, results=[size], **scalars)
    for kernel in GRADIENTS:
        read = {"dy": size, "x" if kernel in OF_INPUT else "y": size}
        flops, scalars = flops_of(kernel, size), PARAMETER_OF.get(kernel.removesuffix("_grad"), {})
        yield case(kernel, shape, flops, read=read, results=[size], **scalars)
    slopes = size[1:]
    read = {"x": size, "slope": slopes}
    yield case("prelu", shape, flops_of("prelu", size), read=read, results=[size])
    yield case(
        "prelu_grad",
        shape,
        flops_of("prelu_grad", size),
        read={"dy": size, **read},
        updated={"dslope": slopes},
        results=[size],
    )


def _dropout(case: _Maker) -> Iterator[Case]:
    size = ACTIVATIONS
    key, state = np.array([1, 2], np.uint32), np.array([1, 0], np.uint64)
    shape = "x".join(map(str, size))
    yield case("dropout_key", "2", 0, updated={"state": state}, results=[key])
    flops = flops_of("dropout", size)
    yield case("dropout", shape, flops, read={"x": size, "key": key}, results=[size], p=0.2)


def _normalization(case: _Maker) -> Iterator[Case]:
    for batch, features in BATCHES:
        shape = f"{batch}x{features}"
        x, row = (batch, features), (features,)
        yield case("column_sum", shape, flops_of("column_sum", x), read={"x": x}, results=[row])
        fixed: Arrays = {"x": x, "gamma": row, "beta": row}
        running: Arrays = {"running_mean": row, "running_var": row}  # updated in training only
        for training in (True, False):
            yield case(
                "batch_norm",
                f"{shape} {'train' if training else 'eval'}",
                flops_of("batch_norm", x, training),
                read=fixed if training else {**fixed, **running},
                updated=running if training else NOTHING,
                results=[x, row, row],
                momentum=0.1,
                eps=1e-5,
                training=training,
            )
        yield case(
            "batch_norm_grad",
            f"{shape} train",
            flops_of("batch_norm_grad", x),
            read={"dy": x, "x": x, "gamma": row, "mean": row, "rstd": row},
            updated={"dgamma": row, "dbeta": row},
            results=[x],
            training=True,
        )


def _rows(case: _Maker) -> Iterator[Case]:
    for batch, features in BATCHES:
        shape, x, row, each = f"{batch}x{features}", (batch, features), (features,), (batch,)
        names = ("layer_norm", "layer_norm_grad_input", "layer_norm_grad_params", "standardize")
        forward, grad_input, grad_params, scaling = (
            (name, shape, flops_of(name, x)) for name in names
        )
        affine: Arrays = {"x": x, "gamma": row, "beta": row}
        grad: Arrays = {"dy": x, "x": x, "mean": each, "rstd": each}
        sums: Arrays = {"dgamma": row, "dbeta": row}
        yield case(*forward, read=affine, results=[x, each, each], eps=1e-5)
        yield case(*grad_input, read={**grad, "gamma": row}, results=[x])
        yield case(*grad_params, read=grad, updated=sums)
        yield case(*scaling, read={"x": x, "mean": row, "std": row}, results=[x])


def _losses(case: _Maker) -> Iterator[Case]:
    value = np.zeros(())  # the loss is one double
    for rows, classes in CLASSES:
        labels = np.random.default_rng(0).integers(classes, size=rows, dtype=np.intp)
        yield case(
            "softmax_cross_entropy",
            f"{rows}x{classes}",
            flops_of("softmax_cross_entropy", (rows, classes)),
            read={"logits": (rows, classes), "labels": labels},
            results=[value, (rows, classes)],
        )
        yield case(
            "nll",
            f"{rows}x{classes}",
            flops_of("nll", (rows, classes)),
            read={"log_probabilities": (rows, classes), "labels": labels},
            results=[value, (rows, classes)],
        )
    shape, size = "x".join(map(str, ACTIVATIONS)), ACTIVATIONS
    for kernel in ("mse", "absolute_error", "huber", "bce_with_logits"):
        name = "logits" if kernel == "bce_with_logits" else "prediction"
        read = {name: size, "target": size}
        yield case(kernel, shape, flops_of(kernel, size), read=read, results=[value, size])


def _optimizers(case: _Maker) -> Iterator[Case]:
    # A step is repeated with the same gradient many times: at this rate the parameters wander,
    # but not far, and the moments come to rest at the gradient and its square.
    state, square = np.zeros((), OPTIMIZER_STATE), np.array(4.0)
    fields = {"learning_rate": 1e-6, "weight_decay": 1e-4, "scale": 0.5, "step": 10.0}
    fields |= {
        "momentum": 0.9,
        "max_norm": 1.0,
        "norm": 2.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
    }
    fields |= {"alpha": 0.99, "momentum_decay": 4e-3, "mu_product": 0.1}
    for name, number in fields.items():
        state[name] = number
    yield case(
        "clip", "1", flops_of("clip", (1,)), read={"squared_norm": square}, updated={"state": state}
    )
    for count in PARAMETERS:
        shape, n = f"{count:,}", (count,)
        yield case(
            "squared_norm", shape, flops_of("squared_norm", n), read={"x": n}, results=[square]
        )
        read: Arrays = {"grad": n, "state": state}
        momentum, moments = {"data": n, "velocity": n}, {"data": n, "m": n, "v": n}
        yield case("sgd", shape, flops_of("sgd", n), read=read, updated=momentum)
        yield case("adam", shape, flops_of("adam", n), read=read, updated=moments)
        yield case("nadam", shape, flops_of("nadam", n), read=read, updated=moments)
        squares: Arrays = {"data": n, "square": n}
        moving: Arrays = {**squares, "mean": n, "velocity": n}
        yield case("rmsprop", shape, flops_of("rmsprop", n), read=read, updated=moving)
        yield case("adagrad", shape, flops_of("adagrad", n), read=read, updated=squares)
        average: Arrays = {"average": n}
        follow = flops_of("follow", n)
        yield case("follow", shape, follow, read={"x": n}, updated=average, weight=0.01)
        yield case("clamp", shape, flops_of("clamp", n), updated={"x": n}, limit=1.0)
