"""List every kernel at the sizes that matter, with the flops and bytes of a call.

**Flops** are those that ``minidl/_kernels/signature.py`` declares: an exp, log or tanh counts as
many as a polynomial of that accuracy takes; integer arithmetic, such as the hash of dropout, counts
as none. **Bytes** are those that no kernel can avoid: every array read counts once, every array
written once, and so an array updated in place twice. A kernel that passes over its input twice
reaches a smaller fraction of the ceiling.

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
from minidl._kernels import twins
from minidl._kernels.memory import aligned
from minidl._kernels.signature import KERNELS, UPDATED, Kernel, Operand
from minidl._kernels.twins import OPTIMIZER_STATE
from minidl.typing import Array

SQUARES = [(size, size, size) for size in (32, 64, 128, 256, 512, 1024)]
LAYERS = [(32, 784, 128), (64, 784, 256), (128, 512, 512), (256, 64, 64)]
ODD = [(128, 10, 45), (128, 45, 45), (128, 46, 46), (128, 46, 10)]
VECTORS = [(1, 256, 256), (1, 1024, 1024)]
ACTIVATIONS = (128, 128)  # 16k elements: a batch of activations
BATCHES = [(32, 64), (128, 512)]  # for normalization: batch x features
CLASSES = [(32, 10), (128, 1000)]  # for losses of classes: batch x classes
# Images, height, width, channels, window, groups, outputs: both of LeNet-5, a residual network's, a
# depthwise one.
CONVOLUTIONS = [
    (32, 28, 28, 1, 5, 5, 1, 6),
    (32, 12, 12, 6, 5, 5, 1, 16),
    (32, 16, 16, 16, 3, 3, 1, 16),
    (32, 16, 16, 32, 3, 3, 32, 32),
]
PARAMETERS = [17_226, 1_000_000]  # those of 64-128-64-10, and many

Arguments = dict[str, Any]
Shape = tuple[int, ...]
Arrays = Mapping[str, Shape | Array]  # the shape of an array to draw, or an array as it is
NOTHING: Arrays = MappingProxyType({})
POSITIVE = {"v", "square", "rstd", "running_var", "target", "std", "gates"}
SEQUENCE = (32, 16, 128)  # steps x batch x hidden size
IMAGES = [(128, 24, 24, 6), (128, 8, 8, 16)]  # batch x height x width x channels, of LeNet-5
CHARACTERS = (100, 64)  # a table of embeddings: rows x features
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
# Sizes of declared kernels, by the file of their twins, and their scalars.
SIZES: dict[str, list[Shape]] = {
    "activations": [ACTIVATIONS],
    "elementwise": [ACTIVATIONS],
    "normalization": [*BATCHES],
    "optimizers": [(n,) for n in PARAMETERS],
    "sequences": [SEQUENCE[1:]],
}
SCALARS: Arguments = {
    "slope": 0.01,
    "alpha": 1.0,
    "beta": 1.0,
    "factor": 1.0,  # so that repeated calls leave the numbers as they are
    "limit": 1.0,
    "p": 0.2,
    "momentum": 0.1,
    "eps": 1e-5,
    "weight": 0.01,
}


@dataclass(frozen=True)
class Case:
    """A kernel at one size.

    Parameters
    ----------
    kernel, shape
        Name of the kernel, and its size in words. Together the name of the case.
    flops
        Flops of one call.
    read, written, updated
        Bytes of the arrays that a call only reads, only writes, and changes in place.
    arguments
        Function that makes the arguments of a call, with the same numbers each time, in new memory.
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
        """Bytes of memory that a call touches: they decide which level of memory it needs."""
        return self.read + self.written + self.updated

    def call(self, backend: ModuleType = kernels) -> Callable[[], Any]:
        """Return a call of the kernel on new arguments, in the present instruction set."""
        return partial(getattr(backend, self.kernel), **self.arguments())

    def twin(self) -> Callable[[], Any]:
        """Return a call of the NumPy twin on new arguments."""
        return self.call(twins)


def cases(dtype: Any = np.float32, names: Sequence[str] = _kernels.NAMES) -> list[Case]:
    """List the cases of the named kernels, in the order of ``_kernels.NAMES``."""
    families = (
        *(_products, _linear, _windows, _declared, _losses, _norms),
        *(_sequences, _layouts, _pools, _notes),
    )
    make = _Maker(dtype)
    found = [case for family in families for case in family(make) if case.kernel in names]
    return sorted(found, key=lambda case: _kernels.NAMES.index(case.kernel))


def tiny_calls(dtype: Any) -> dict[str, Callable[[], Any]]:
    """Return a few calls with arguments so small that the call takes longer than the kernel."""
    one = aligned((4, 4), dtype)
    names = ("relu", "add", "linear", "matmul")
    arguments = {name: [one] * (1 if name == "relu" else 2) for name in names}
    return {name: partial(getattr(kernels, name), *arguments[name]) for name in names}


class _Maker:
    """Makes cases of one dtype from the names and shapes of their arrays."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def __call__(
        self,
        kernel: str,
        shape: str,
        flops: int,
        /,  # a kernel may have an argument of one of these names
        *,
        read: Arrays = NOTHING,
        updated: Arrays = NOTHING,
        out: Arrays = NOTHING,
        results: Sequence[Shape | Array] = (),
        **scalars: Any,
    ) -> Case:
        """Make a case; ``out`` are arguments that are only written, ``results`` are returned."""
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
                    x /= math.sqrt(len(x))  # as a network is initialised: sequences stay finite
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
            transpose_a, transpose_b = form == "A.T@B", form == "A@B.T"
            a, b = (k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n)
            yield case(
                "matmul",
                f"{form} {m}x{k}x{n}",
                2 * m * k * n,
                read={"a": a, "b": b},
                out={"out": (m, n)},
                transpose_a=transpose_a,
                transpose_b=transpose_b,
            )


def _linear(case: _Maker) -> Iterator[Case]:
    for m, k, n in [*LAYERS, ODD[2]]:
        shape, flops = f"{m}x{k}x{n}", 2 * m * k * n
        x, weight, bias, dy = (m, k), (k, n), (n,), (m, n)
        yield case(
            "linear",
            f"{shape} relu",
            flops + 2 * m * n,  # bias and activation
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
            flops + m * n,  # for the bias
            read={"x": x, "dy": dy},
            updated={"dweight": weight, "dbias": bias},
        )


def _windows(case: _Maker) -> Iterator[Case]:
    for images, height, width, channels, rows, columns, groups, outputs in CONVOLUTIONS:
        before, after = (rows - 1) // 2, rows // 2
        same = groups == channels or channels == outputs  # padded, as in residual networks
        padding = ((before, after), (before, after)) if same else ((0, 0), (0, 0))
        out = (height, width) if same else (height - rows + 1, width - columns + 1)
        x, dy = (images, height, width, channels), (images, *out, outputs)
        weight = (rows, columns, channels // groups, outputs)
        flops = 2 * math.prod(dy) * math.prod(weight[:-1])
        shape = f"{images}x{height}x{width}x{channels} {rows}x{columns}x{outputs}"
        shape += " depthwise" if groups > 1 else ""
        placed: Arguments = {"padding": padding, "groups": groups}
        yield case("conv", shape, flops, read={"x": x, "weight": weight}, results=[dy], **placed)
        yield case(
            "conv_grad_input",
            shape,
            flops,
            read={"dy": dy, "weight": weight},
            results=[x],
            x_shape=x,
            **placed,
        )
        yield case(
            "conv_grad_params",
            shape,
            flops,
            read={"x": x, "dy": dy},
            updated={"dweight": weight},
            **placed,
        )


def _declared(case: _Maker) -> Iterator[Case]:
    """Yield the kernels whose arguments follow from their signature."""
    for kernel in KERNELS.values():
        family = kernel.twin.__module__.split(".")[-1] if kernel.twin is not None else ""
        if family in SIZES and not kernel.composite:
            for size in SIZES[family]:
                yield from _of_size(case, kernel, size)


def _of_size(case: _Maker, kernel: Kernel, size: Shape) -> Iterator[Case]:
    extent = size if len(kernel.widest) == len(size) else (math.prod(size),)
    values = dict(zip(kernel.widest, extent, strict=False))
    shape = "x".join(f"{n:,}" if len(size) == 1 else str(n) for n in size)
    if kernel.limited is not None:  # indices of rows of a table
        values = {"count": SEQUENCE[0] * SEQUENCE[1], "features": CHARACTERS[1]}
        shape = f"{values['count']} of {CHARACTERS[0]}x{CHARACTERS[1]}"
        values[kernel.limited.limit] = CHARACTERS[0]
    elif not values:
        shape = "2"  # the state of a generator, two words
    for other in kernel.sizes:
        values.setdefault(other.name, values.get(other.or_one, 0))
    lead = {kernel.widest[0]: size} if kernel.widest and len(extent) < len(size) else {}
    flags = [scalar for scalar in kernel.scalars if scalar.kind != "double"]
    modes = (True, False) if kernel.update_flag else (True,)
    for training in modes:
        scalars = {s.name: SCALARS[s.name] for s in kernel.scalars if s not in flags}
        scalars |= {flag.name: training for flag in flags}
        read, updated, results = {}, {}, []
        for operand in kernel.operands:
            array = _array(case, kernel, operand, values, lead)
            if operand.is_result:
                results += [] if operand.optional else [array]
            elif operand.mark and (training or operand.role != UPDATED):
                updated[operand.name] = array
            else:
                read[operand.name] = array
        yield case(
            kernel.name,
            f"{shape} {'train' if training else 'eval'}" if flags else shape,
            kernel.count_flops({**values, **scalars}),
            read=read,
            updated=updated,
            results=results,
            **scalars,
        )


def _array(
    case: _Maker,
    kernel: Kernel,
    operand: Operand,
    values: Mapping[str, int],
    lead: Mapping[str, Shape],
) -> Shape | Array:
    """Return the shape of an operand, or the array itself if its numbers are not arbitrary."""
    sizes: list[int] = []
    for size in operand.sizes:
        sizes += lead.get(size.name, (size.factor * values.get(size.name, 1),))
    if operand.dtype == "OptimizerState":
        return _state()
    if operand.dtype == "index":
        limit = values[operand.limit]
        return np.random.default_rng(0).integers(limit, size=sizes, dtype=np.intp)
    if operand.dtype:
        return np.ones(sizes, operand.dtype)
    if kernel.name == "log":
        return np.linspace(0.1, 3, math.prod(sizes), dtype=case.dtype).reshape(sizes)
    return tuple(sizes)


def _state() -> Array:
    """Make the state of an optimizer as in the middle of a training.

    A step is repeated with the same gradient many times: at this rate the parameters hardly move,
    and the moments converge to the gradient and its square.
    """
    state = np.zeros((), OPTIMIZER_STATE)
    fields = {"learning_rate": 1e-6, "weight_decay": 1e-4, "scale": 0.5, "step": 10.0}
    fields |= {"momentum": 0.9, "max_norm": 1.0, "norm": 2.0, "eps": 1e-8}
    fields |= {"beta1": 0.9, "beta2": 0.999, "alpha": 0.99}
    fields |= {"momentum_decay": 4e-3, "mu_product": 0.1}
    for name, number in fields.items():
        state[name] = number
    return state


# What the prediction is called, and what else is read of every column.
LOSSES_OF_ELEMENTS = {
    "mse": ("prediction", ""),
    "absolute_error": ("prediction", ""),
    "huber": ("prediction", ""),
    "bce_with_logits": ("logits", ""),
    "pinball": ("prediction", "quantiles"),
    "poisson_nll": ("log_rate", ""),
    "poisson_rate_nll": ("rate", ""),
}


def _losses(case: _Maker) -> Iterator[Case]:
    value = np.zeros(())  # the loss is one double
    for rows, classes in CLASSES:
        labels = np.random.default_rng(0).integers(classes, size=rows, dtype=np.intp)
        yield case(
            "softmax_cross_entropy",
            f"{rows}x{classes}",
            KERNELS["softmax_cross_entropy"].count_flops({"rows": rows, "classes": classes}),
            read={"logits": (rows, classes), "labels": labels},
            results=[value, (rows, classes)],
        )
        yield case(
            "nll",
            f"{rows}x{classes}",
            rows * classes,
            read={"log_probabilities": (rows, classes), "labels": labels},
            results=[value, (rows, classes)],
        )
    shape, size = "x".join(map(str, ACTIVATIONS)), ACTIVATIONS
    for kernel, (name, extra) in LOSSES_OF_ELEMENTS.items():
        read = {name: size, "target": size} | ({extra: size[1:]} if extra else {})
        yield case(
            kernel, shape, KERNELS[kernel].flops * math.prod(size), read=read, results=[value, size]
        )
    rows, columns = size
    for kernel, prediction, target in (
        ("gaussian_nll", (rows, 2 * columns), size),
        ("cosine_similarity", size, size),
        ("cosine_embedding", (rows, 2, columns), (rows,)),
    ):
        yield case(
            kernel,
            shape,
            KERNELS[kernel].flops * math.prod(prediction),
            read={"prediction": prediction, "target": target},
            results=[value, prediction],
        )


def _norms(case: _Maker) -> Iterator[Case]:
    square = np.array(4.0)
    yield case("clip", "1", 4, read={"squared_norm": square}, updated={"state": _state()})
    for n in PARAMETERS:
        yield case("squared_norm", f"{n:,}", 2 * n, read={"x": (n,)}, results=[square])
        yield case("dot", f"{n:,}", 2 * n, read={"x": (n,), "y": (n,)}, results=[square])
    size, slopes = ACTIVATIONS, ACTIVATIONS[1:]
    shape = "x".join(map(str, size))
    yield case(
        "prelu_grad",
        shape,
        KERNELS["prelu_grad"].flops * math.prod(size),
        read={"dy": size, "x": size, "slope": slopes},
        updated={"dslope": slopes},
        results=[size],
    )
    yield case("copy", shape, 0, read={"x": size}, results=[size])
    wide = (size[0], 2 * size[1])
    yield case("concat", shape, 0, read={"a": size, "b": size}, results=[wide])


def _sequences(case: _Maker) -> Iterator[Case]:
    for kind, gates in GATES.items():
        steps, batch, hidden = SEQUENCE
        shape, name = "x".join(map(str, SEQUENCE)), f"{kind}_sequence"
        values = {"steps": steps, "batch": batch, "hidden": hidden}
        z, weight = (steps, batch, gates * hidden), (hidden, gates * hidden)
        states, one = (steps + 1, batch, hidden), (batch, hidden)
        kept = {"rnn": [states], "lstm": [states, states, z], "gru": [states, z, SEQUENCE]}[kind]
        flops = KERNELS[name].count_flops(values)
        yield case(name, shape, flops, read={"z": z, "weight": weight}, results=kept)
        read: Arrays = {
            "rnn": {"states": states},
            "lstm": {"cells": states, "gates": z},
            "gru": {"states": states, "gates": z, "u_n": SEQUENCE},
        }[kind]
        begin = [one] * (2 if kind == "lstm" else 1)
        both = [z, z] if kind == "gru" else [z]
        norms = np.zeros((steps, batch))  # squared, in float64
        none: Arguments = {"dh": None, "dc": None} if kind == "lstm" else {"dh": None}
        yield case(
            f"{name}_grad",
            shape,
            KERNELS[f"{name}_grad"].count_flops(values),
            read={"dy": SEQUENCE, **read, "weight": weight},
            results=[*both, *begin, norms],
            **none,
        )


def _layouts(case: _Maker) -> Iterator[Case]:
    steps, batch, hidden = SEQUENCE
    shape, x = "x".join(map(str, SEQUENCE)), (batch, steps, hidden)
    yield case("time_first", shape, 0, read={"x": x}, results=[SEQUENCE])
    yield case("batch_first", shape, 0, read={"x": SEQUENCE}, results=[x])


def _pools(case: _Maker) -> Iterator[Case]:
    """Yield what halves images, what doubles them, and dropout of their channels."""
    twice, edge = (2, 2), ((0, 0), (0, 0))
    where: Any = {"kernel": twice, "stride": twice, "padding": edge}
    for large in IMAGES:
        batch, height, width, channels = large
        small = (batch, height // 2, width // 2, channels)
        shape, n = "x".join(map(str, large)), math.prod(large)
        read: Arrays = {"dy": small, "x": large, "y": small}
        yield case("max_pool", shape, n, read={"x": large}, results=[small], **where)
        yield case("max_pool_grad", shape, 2 * n, read=read, results=[large], **where)
        yield case("avg_pool", shape, n, read={"x": large}, results=[small], **where)
        sizes = (height, width)
        read = {"dy": small}
        yield case("avg_pool_grad", shape, n, read=read, results=[large], sizes=sizes, **where)
        yield case("upsample", shape, 0, read={"x": small}, results=[large], scale=twice)
        yield case("upsample_grad", shape, n, read={"dy": large}, results=[small], scale=twice)
        read = {"x": large, "key": np.ones(2, np.uint32)}
        yield case("dropout_channels", shape, 2 * n, read=read, results=[large], p=SCALARS["p"])


def _notes(case: _Maker) -> Iterator[Case]:
    """What a watched step notes: of activations, of parameters, and of itself."""
    size, columns = ACTIVATIONS, ACTIVATIONS[1:]
    shape, elements = "x".join(map(str, size)), math.prod(size)
    few, two, clock = np.zeros(4), np.zeros(2), np.array([7, 9, 1, 0, 4], np.uint64)
    blocks = np.zeros((-(-elements // 4096), 4))
    moments, squares = "moment_parts", "norm_parts"
    flops = {name: KERNELS[name].flops for name in (moments, squares)}
    yield case(moments, shape, flops[moments] * elements, read={"x": size}, results=[blocks])
    for n in PARAMETERS:
        both, parts = {"x": (n,), "before": (n,)}, np.zeros((-(-n // 4096), 2))
        yield case(squares, f"{n:,}", flops[squares] * n, read=both, results=[parts])
    yield case("collect", "4x4", 16, read={"parts": blocks}, updated={"sums": few})
    yield case("note_rows", "4x4", 16, read={"parts": blocks}, updated={"sums": few})
    lengths = np.arange(1, 1 + size[0])
    yield case("note_lengths", shape, size[0], read={"lengths": lengths}, updated={"sums": two})
    yield case("note_active", shape, 2 * elements, read={"x": size}, updated={"active": columns})
    read: Arrays = {"active": columns, "before": columns}
    yield case("count_inactive", str(columns[0]), 2 * columns[0], read=read, updated={"sums": two})
    read = {"state": _state(), "clock": clock}
    yield case("note_state", "1", 0, read=read, updated={"sums": few})
    changed: Arrays = {"sums": few, "journal": np.zeros((64, 4))}
    yield case("store_record", "4", 0, read={"clock": clock}, updated=changed)
    yield case("count_record", "1", 0, updated={"clock": clock})
