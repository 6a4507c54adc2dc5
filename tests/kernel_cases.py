"""One case per kernel: valid arguments, drawn at random. And what each kernel changes in place.

The cases of the activations are in activation_cases.py, those of recurrent networks in
recurrent_cases.py, those of convolutions in window_cases.py, those of pooling in pooling_cases.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from activation_cases import ACTIVATION_CASES, some_zero, unary
from pooling_cases import POOLING_CASES
from recurrent_cases import RECURRENT_CASES
from window_cases import WINDOW_CASES

from minidl._kernels.signature import KERNELS, Kernel
from minidl._kernels.twins import OPTIMIZER_STATE

SIZES = (1, 2, 3, 7, 10, 16, 32, 45, 46, 64, 127)
LENGTHS = (*SIZES, 1023, 1024, 1025, 4097, 10007)  # around BLOCK, LOSS_BLOCK and NORM_BLOCK

# m, k, n of products that cross the blocking limits KC = 128 or 256, MC = 132 (264 where n <= 512),
# NC = 1024, and 4 KC over k where m > 256; on both sides of the limits beyond which A and B are
# packed, and beyond which B is far; and in lower blocks of C.
BLOCKED = (
    (50, 600, 130),
    (250, 520, 530),
    (60, 40, 1100),
    (7, 300, 1100),
    (300, 1, 530),
    (1, 1000, 45),
    (127, 513, 46),
    (46, 257, 513),
    (133, 256, 33),
    (270, 1300, 140),
    (270, 45, 1100),
    (264, 140, 512),
    (265, 140, 512),
    (140, 140, 513),
    (20, 4100, 260),
    (270, 4100, 260),
    (310, 150, 530),
)

Args = dict[str, Any]


class Draw:
    """A source of random arguments of one dtype."""

    def __init__(
        self,
        seed: int,
        dtype: Any,
        sizes: tuple[int, ...] = SIZES,
        lengths: tuple[int, ...] = LENGTHS,
        product: tuple[int, int, int] | None = None,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.sizes, self.lengths = sizes, lengths
        self._product = product

    def size(self) -> int:
        return int(self.rng.choice(self.sizes))

    def flag(self) -> bool:
        return bool(self.rng.integers(2))

    def shape(self) -> tuple[int, ...]:
        """Of one, two or three dimensions."""
        few = int(self.rng.integers(1, 5))
        shapes = (
            (int(self.rng.choice(self.lengths)),),
            (self.size(), self.size()),
            (few, 2, self.size()),
        )
        return shapes[self.rng.integers(3)]

    def product(self) -> tuple[int, int, int]:
        return self._product or (self.size(), self.size(), self.size())

    def array(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape, self.dtype)

    def spread(self, *shape: int) -> np.ndarray:
        """Rows far enough apart that every column has a variance."""
        x = self.array(*shape)
        x[::2] += 4
        return x

    def weights(self, n: int) -> np.ndarray | None:
        """None, or a weight for each of n, some of them zero."""
        if self.flag():
            return None
        weights = np.maximum(self.rng.uniform(-0.3, 2, n), 0)
        weights[-1] = 1
        return weights.astype(self.dtype)

    def spoilt(self, x: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """x, where rows of weight 0 hold what would spoil all others."""
        if weight is not None:
            x[weight == 0] = self.rng.choice([np.nan, np.inf, -np.inf, 3e38])
        return x

    def optional(self, *shape: int) -> np.ndarray | None:
        return self.array(*shape) if self.flag() else None


def matmul(draw: Draw) -> Args:
    m, k, n = draw.product()
    a, b = draw.flag(), draw.flag()
    return {
        "a": draw.array(*((k, m) if a else (m, k))),
        "b": draw.array(*((n, k) if b else (k, n))),
        "out": draw.optional(m, n),
        "transpose_a": a,
        "transpose_b": b,
    }


def linear(draw: Draw) -> Args:
    m, k, n = draw.product()
    return {
        "x": draw.array(m, k) if draw.flag() else draw.array(1, m, k),
        "weight": draw.array(k, n) / k**0.5,
        "bias": draw.optional(n),
        "activation": draw.rng.choice([None, "relu", "sigmoid", "tanh"]),
    }


def linear_grad_input(draw: Draw) -> Args:
    m, k, n = draw.product()
    return {"dy": draw.array(m, n), "weight": draw.array(k, n)}


def linear_grad_params(draw: Draw) -> Args:
    m, k, n = draw.product()
    return {
        "x": draw.array(m, k),
        "dy": draw.array(m, n),
        "dweight": draw.array(k, n),
        "dbias": draw.optional(n),
    }


def copy(draw: Draw) -> Args:
    return {"x": draw.array(*draw.shape())}


def clear(draw: Draw) -> Args:
    return {"x": draw.array(*draw.shape())}


def positive(draw: Draw) -> Args:
    return {"x": np.exp(3 * draw.array(*draw.shape()))}


def add(draw: Draw) -> Args:
    shape = draw.shape()
    return {"a": draw.array(*shape), "b": draw.array(*shape)}


def concat(draw: Draw) -> Args:
    *lead, _ = draw.shape()
    parts = [draw.array(*lead, draw.size()) for _ in range(4)]
    return {
        "a": parts[0],
        "b": parts[1],
        "c": parts[2] if draw.flag() else None,
        "d": parts[3] if draw.flag() else None,
    }


def scale(draw: Draw) -> Args:
    return {**unary(draw), "factor": draw.rng.normal()}


def dropout_key(draw: Draw) -> Args:
    return {"state": draw.rng.integers(2**64, size=2, dtype=np.uint64)}


def dropout(draw: Draw) -> Args:
    key = draw.rng.integers(2**32, size=2, dtype=np.uint32)
    return {**unary(draw), "key": key, "p": draw.rng.uniform()}


def column_sum(draw: Draw) -> Args:
    return {"x": draw.array(*draw.shape())}


def batch_norm(draw: Draw) -> Args:
    rows, columns = 1 + draw.size(), draw.size()
    return {
        "x": draw.spread(rows, columns),
        "gamma": draw.array(columns),
        "beta": draw.array(columns),
        "running_mean": draw.array(columns),
        "running_var": 1 + draw.array(columns) ** 2,
        "momentum": draw.rng.uniform(),
        "eps": 1e-5,
        "training": draw.flag(),
    }


def batch_norm_grad(draw: Draw) -> Args:
    rows, columns = 1 + draw.size(), draw.size()
    x = draw.spread(rows, columns)
    return {
        "dy": draw.array(rows, columns),
        "x": x,
        "gamma": draw.array(columns),
        "mean": x.mean(axis=0),
        "rstd": 1 / x.std(axis=0),
        "dgamma": draw.array(columns),
        "dbeta": draw.array(columns),
        "training": draw.flag(),
    }


def layer_norm(draw: Draw) -> Args:
    # Columns far enough apart that every row has a variance.
    x = draw.array(*draw.shape(), 1 + draw.size())
    x[..., ::2] += 4
    columns = x.shape[-1]
    return {"x": x, "gamma": draw.array(columns), "beta": draw.array(columns), "eps": 1e-5}


def layer_norm_grad_input(draw: Draw) -> Args:
    args = layer_norm(draw)
    x = args["x"]
    rows = x.reshape(-1, x.shape[-1])
    return {
        "dy": draw.array(*x.shape),
        "x": x,
        "gamma": args["gamma"],
        "mean": rows.mean(axis=1),
        "rstd": 1 / rows.std(axis=1),
    }


def layer_norm_grad_params(draw: Draw) -> Args:
    args = layer_norm_grad_input(draw)
    columns = args.pop("gamma").size
    return {**args, "dgamma": draw.array(columns), "dbeta": draw.array(columns)}


def standardize(draw: Draw) -> Args:
    x = draw.array(*draw.shape())
    columns = x.shape[-1]
    return {"x": x, "mean": draw.optional(columns), "std": 0.5 + draw.array(columns) ** 2}


def softmax_cross_entropy(draw: Draw) -> Args:
    rows, classes = draw.size(), draw.size()
    args = {
        "logits": 5 * draw.array(rows, classes),
        "labels": draw.rng.integers(classes, size=rows),
        "mean": draw.flag(),
        "weight": draw.weights(rows),
        "class_weight": draw.weights(classes),
        "smoothing": float(draw.rng.choice([0, 0.1, 0.7])),
        "each": draw.flag() and draw.flag(),
    }
    draw.spoilt(args["logits"], args["weight"])
    return args | {"ignore_index": ignored_label(draw, args)}


def ignored_label(draw: Draw, args: Args) -> int | None:
    """None, a class, or another number that some labels are set to; some that count are left."""
    labels = args["labels"]
    ignored = draw.rng.choice([-100, -1, 0, len(args["logits"][0])])
    counts = np.ones(len(labels)) if args["weight"] is None else args["weight"]
    if args["class_weight"] is not None:
        counts = counts * args["class_weight"][labels]
    some = (draw.rng.uniform(size=len(labels)) < 0.3) | (labels == ignored)
    if draw.flag() or not counts[~some].any():
        return None
    labels[some] = ignored
    args["logits"][some] = draw.rng.choice([np.nan, 1])
    return int(ignored)


def nll(draw: Draw) -> Args:
    args = softmax_cross_entropy(draw)
    del args["smoothing"]
    return {"log_probabilities": -np.abs(args.pop("logits")), **args}


def mse(draw: Draw) -> Args:
    shape = draw.shape()
    args = {
        "prediction": draw.array(*shape),
        "target": draw.array(*shape),
        "mean": draw.flag(),
        "weight": draw.weights(shape[0]),
        "each": draw.flag() and draw.flag(),
    }
    draw.spoilt(args["prediction"], args["weight"])
    return args


def huber(draw: Draw) -> Args:
    return {**mse(draw), "delta": draw.rng.uniform(0.1, 2)}


def bce_with_logits(draw: Draw) -> Args:
    shape = draw.shape()
    target = draw.rng.uniform(size=shape).astype(draw.dtype)
    args = {
        "logits": 5 * draw.array(*shape),
        "target": target,
        "mean": draw.flag(),
        "weight": draw.weights(shape[0]),
        "pos_weight": draw.weights(int(np.prod(shape[1:]))),
        "each": draw.flag() and draw.flag(),
    }
    draw.spoilt(args["logits"], args["weight"])
    return args


def pinball(draw: Draw) -> Args:
    args = mse(draw)
    columns = args["prediction"].size // len(args["prediction"])
    return args | {"quantiles": draw.rng.uniform(0.05, 0.95, columns).astype(draw.dtype)}


def poisson_nll(draw: Draw) -> Args:
    args = mse(draw)
    log_rate = args.pop("prediction")
    return {"log_rate": log_rate, **args, **counts(draw, log_rate.shape), "full": draw.flag()}


def poisson_rate_nll(draw: Draw) -> Args:
    args = mse(draw)
    rate = np.abs(args.pop("prediction")) + draw.dtype.type(0.1)
    return {"rate": rate, **args, **counts(draw, rate.shape), "full": draw.flag(), "eps": 1e-3}


def counts(draw: Draw, shape: tuple[int, ...]) -> Args:
    return {"target": draw.rng.poisson(2, shape).astype(draw.dtype)}


def gaussian_nll(draw: Draw) -> Args:
    rows = (draw.size(), int(draw.rng.integers(1, 4)))[: 1 + draw.flag()]
    outputs = draw.size()
    prediction = draw.array(*rows, 2 * outputs)
    args = {
        "prediction": prediction,
        "target": draw.array(*rows, outputs),
        "least": -0.5,
        **reduced(draw, rows[0]),
        "full": draw.flag(),
    }
    draw.spoilt(prediction, args["weight"])
    return args


def cosine_similarity(draw: Draw) -> Args:
    rows = (draw.size(), int(draw.rng.integers(1, 4)))[: 1 + draw.flag()]
    prediction, target = (draw.array(*rows, 1 + draw.size()) for _ in range(2))
    target = np.resize(target, prediction.shape)
    if draw.flag():
        prediction[0] = 0  # a vector without a direction
    args = {"prediction": prediction, "target": target, **reduced(draw, rows[0])}
    draw.spoilt(prediction, args["weight"])
    return args


def cosine_embedding(draw: Draw) -> Args:
    rows, columns = draw.size(), 1 + draw.size()
    args = {
        "prediction": draw.array(rows, 2, columns),
        "target": draw.rng.choice([-1, 1], rows).astype(draw.dtype),
        "margin": draw.rng.uniform(-0.5, 0.5),
        **reduced(draw, rows),
    }
    draw.spoilt(args["prediction"], args["weight"])
    return args


def reduced(draw: Draw, rows: int) -> Args:
    each = draw.flag() and draw.flag()
    return {"mean": draw.flag(), "weight": draw.weights(rows), "each": each}


def dot(draw: Draw) -> Args:
    shape = draw.shape()
    return {"x": draw.array(*shape), "y": draw.array(*shape)}


def optimizer_state(draw: Draw) -> np.ndarray:
    state = np.zeros((), OPTIMIZER_STATE)
    for name in ("learning_rate", "weight_decay", "scale", "momentum", "beta1", "beta2"):
        state[name] = draw.rng.uniform(0, 0.99)
    state["alpha"], state["mu_product"] = draw.rng.uniform(0, 0.99, 2)
    for name in ("l1", "max_value", "momentum", "momentum_decay"):
        state[name] = draw.flag() * draw.rng.uniform(0.01, 0.99)
    state["centered"], state["decoupled"] = draw.flag(), draw.flag()
    state["step"] = draw.rng.integers(1, 50)
    state["nesterov"], state["eps"] = draw.flag(), 1e-8
    state["max_norm"] = draw.rng.choice([0, 0.5, 100])
    return state


def clip(draw: Draw) -> Args:
    square = draw.rng.choice([0.0, 1.7, 1e10, np.inf, np.nan])
    state = optimizer_state(draw)
    if draw.flag():
        state = np.array([optimizer_state(draw) for _ in range(3)])
    return {"squared_norm": np.array(square), "state": state}


def clamp(draw: Draw) -> Args:
    return {**unary(draw), "limit": draw.rng.uniform(0, 3)}


def lerp(draw: Draw) -> Args:
    shape = draw.shape()
    return {
        "average": draw.array(*shape),
        "x": draw.array(*shape),
        "weight": draw.rng.uniform(),
    }


def sgd(draw: Draw) -> Args:
    n = int(draw.rng.choice(draw.lengths))
    return {
        "data": draw.array(n),
        "grad": draw.array(n),
        "velocity": draw.optional(n),
        "state": optimizer_state(draw),
    }


def adam(draw: Draw) -> Args:
    n = int(draw.rng.choice(draw.lengths))
    return {
        "data": draw.array(n),
        "grad": draw.array(n),
        "m": draw.array(n),
        "v": draw.array(n) ** 2,
        "state": optimizer_state(draw),
    }


def rmsprop(draw: Draw) -> Args:
    n = int(draw.rng.choice(draw.lengths))
    mean = draw.array(n)
    return {
        "data": draw.array(n),
        "grad": draw.array(n),
        "square": mean**2 + 1 + draw.array(n) ** 2,
        "mean": mean,
        "velocity": draw.array(n),
        "state": optimizer_state(draw),
    }


def adagrad(draw: Draw) -> Args:
    n = int(draw.rng.choice(draw.lengths))
    return {
        "data": draw.array(n),
        "grad": draw.array(n),
        "square": 0.1 + draw.array(n) ** 2,
        "state": optimizer_state(draw),
    }


def moment_parts(draw: Draw) -> Args:
    groups = int(draw.rng.choice([1, 1, 3, 4]))
    x = draw.array(*draw.shape(), groups * draw.size())
    return {"x": x, "groups": groups, "sums": doubles(draw, 4 * groups) if draw.flag() else None}


def norm_parts(draw: Draw) -> Args:
    shape = draw.shape()
    x, before = draw.array(*shape), draw.optional(*shape)
    return {"x": x, "before": before, "sums": doubles(draw, 2) if draw.flag() else None}


def doubles(draw: Draw, *shape: int) -> np.ndarray:
    return draw.rng.standard_normal(shape)


def collect(draw: Draw) -> Args:
    k = draw.size()
    return {"parts": doubles(draw, draw.size(), k), "sums": doubles(draw, k)}


def note_rows(draw: Draw) -> Args:
    rows = draw.size()
    return {"parts": doubles(draw, rows, draw.size()), "sums": doubles(draw, rows)}


def note_lengths(draw: Draw) -> Args:
    lengths = draw.rng.integers(1, 100, draw.size())
    return {"lengths": lengths, "sums": doubles(draw, 2)}


def note_active(draw: Draw) -> Args:
    x = np.maximum(draw.array(*draw.shape(), draw.size()) - 1, 0)
    return {"x": x, "active": (draw.array(x.shape[-1]) > 1).astype(draw.dtype)}


def count_inactive(draw: Draw) -> Args:
    active, before = (np.maximum(draw.array(2, draw.size()), 0)).astype(draw.dtype)
    return {"active": active, "before": before, "sums": doubles(draw, 2)}


def clock(draw: Draw) -> np.ndarray:
    return np.array([draw.size(), 3, draw.size(), draw.rng.integers(6), 5], np.uint64)


def note_state(draw: Draw) -> Args:
    return {"state": optimizer_state(draw), "clock": clock(draw), "sums": doubles(draw, 4)}


def store_record(draw: Draw) -> Args:
    n = draw.size()
    return {"sums": doubles(draw, n), "journal": doubles(draw, 5, n), "clock": clock(draw)}


def count_record(draw: Draw) -> Args:
    return {"clock": clock(draw)}


def declared(kernel: Kernel) -> Callable[[Draw], Args]:
    """Draw arguments as the signature says, for kernels that take any numbers."""

    def case(draw: Draw) -> Args:
        lead = draw.shape() if len(kernel.widest) < 2 else draw.shape()[:-1] or (draw.size(),)
        sizes = {size.name: 1 + draw.size() for size in kernel.sizes}
        args: Args = {}
        for operand in kernel.operands:
            first, *others = operand.sizes
            leads = len(operand.sizes) == len(kernel.widest)
            shape = lead if leads else (int(np.prod(lead)),)
            if first.name != kernel.widest[0]:
                shape = (sizes[first.name],)
            x = draw.array(*shape, *(sizes[size.name] for size in others))
            args[operand.name] = some_zero(3 * x if operand.name == "x" else x)
        args |= {scalar.name: draw.rng.uniform(0.1, 2) for scalar in kernel.scalars}
        return {name: args[name] for name in kernel.parameters}

    return case


DECLARED = [
    kernel for kernel in KERNELS.values() if kernel.twin is not None and not kernel.composite
]
CASES: dict[str, Callable[[Draw], Args]] = {
    **{kernel.name: declared(kernel) for kernel in DECLARED},
    "matmul": matmul,
    "linear": linear,
    "linear_grad_input": linear_grad_input,
    "linear_grad_params": linear_grad_params,
    "copy": copy,
    "clear": clear,
    "add": add,
    "multiply": add,
    "concat": concat,
    "scale": scale,
    "log": positive,
    **ACTIVATION_CASES,
    "dropout_key": dropout_key,
    "dropout": dropout,
    "column_sum": column_sum,
    "batch_norm": batch_norm,
    "batch_norm_grad": batch_norm_grad,
    "layer_norm": layer_norm,
    "layer_norm_grad_input": layer_norm_grad_input,
    "layer_norm_grad_params": layer_norm_grad_params,
    "standardize": standardize,
    "softmax_cross_entropy": softmax_cross_entropy,
    "nll": nll,
    "mse": mse,
    "absolute_error": mse,
    "huber": huber,
    "bce_with_logits": bce_with_logits,
    "pinball": pinball,
    "poisson_nll": poisson_nll,
    "poisson_rate_nll": poisson_rate_nll,
    "gaussian_nll": gaussian_nll,
    "cosine_similarity": cosine_similarity,
    "cosine_embedding": cosine_embedding,
    "dot": dot,
    "squared_norm": unary,
    "clip": clip,
    "clamp": clamp,
    "sgd": sgd,
    "adam": adam,
    "nadam": adam,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "lerp": lerp,
    **RECURRENT_CASES,
    **WINDOW_CASES,
    **POOLING_CASES,
    "moment_parts": moment_parts,
    "norm_parts": norm_parts,
    "collect": collect,
    "note_rows": note_rows,
    "note_lengths": note_lengths,
    "note_active": note_active,
    "count_inactive": count_inactive,
    "note_state": note_state,
    "store_record": store_record,
    "count_record": count_record,
}

# Arguments that a kernel changes; all others it must leave alone.
IN_PLACE = {
    **{
        kernel.name: {o.name for o in kernel.operands if o.mark and not o.is_result}
        for kernel in DECLARED
    },
    "matmul": {"out"},
    "linear_grad_params": {"dweight", "dbias"},
    "conv_grad_params": {"dweight", "dbias"},
    "prelu_grad": {"dslope"},
    "clip": {"state"},
    "moment_parts": {"sums"},
    "norm_parts": {"sums"},
}
IN_PLACE = {name: changed for name, changed in IN_PLACE.items() if changed}

# Kernels that round at most once, so that they match their twins bit by bit.
EXACT = {
    *(
        "copy",
        "clear",
        "add",
        "multiply",
        "concat",
        "scale",
        "clamp",
        "relu",
        "relu_grad",
        "leaky_relu",
        "leaky_relu_grad",
    ),
    *("leaky_relu_grad", "prelu", "dropout_key", "dropout", "standardize"),
    *("time_first", "batch_first", "embedding", "max_pool", "upsample", "dropout_channels"),
}


def copied(args: Args) -> Args:
    return {name: x.copy() if isinstance(x, np.ndarray) else x for name, x in args.items()}


def widened(args: Args) -> Args:
    """The same values in float64: what the twin makes of them is the truth for float32."""
    return {
        name: x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype == np.float32 else x
        for name, x in copied(args).items()
    }


def outcome(kernel: Callable[..., Any], args: Args) -> list[Any]:
    """Everything a call gives: its results, then its arguments as they are afterwards."""
    result = kernel(**args)
    results = list(result) if isinstance(result, tuple) else [result]
    return results + list(args.values())
