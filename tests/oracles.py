"""What layers, losses, optimizers and schedules should compute, in NumPy, from their formulas.

Nothing here calls a kernel or its twin: it is written anew from the docstrings and the papers,
without regard to overflow or speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray
State = dict[str, Array]

# --- layers: (layer before the call, its output, *inputs) -> the output that is right, and state --


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _linear(layer: Any, y: Array, x: Array) -> Array:
    assert layer.weight.shape == (layer.in_features, layer.out_features)
    out = np.einsum("...i,io->...o", x, layer.weight.data)
    return out if layer.bias is None else out + layer.bias.data


def _convolution(layer: Any, y: Array, x: Array) -> Array:
    """Element by element of the window, on an image of one row if x is a sequence."""
    sizes = x.shape[1:-1]
    image = x.reshape(len(x), -1, *x.shape[-2:])
    kernel = (1, *layer.kernel_size)[-2:]
    weight = layer.weight.data.reshape(*kernel, -1, layer.out_features)
    stride, dilation = (1, *layer.stride)[-2:], (1, *layer.dilation)[-2:]
    padding = [(0, 0), *layer.window.padding_for(sizes)][-2:]
    image = np.pad(image, ((0, 0), *padding, (0, 0)))
    height, width = y.reshape(len(x), -1, *y.shape[-2:]).shape[1:3]
    each, outputs = weight.shape[2], layer.out_features // layer.groups
    out = np.zeros((len(x), height, width, layer.out_features))
    for r, s, o in np.ndindex(*kernel, layer.out_features):
        channels = slice(o // outputs * each, (o // outputs + 1) * each)
        rows = r * dilation[0] + stride[0] * np.arange(height)
        columns = s * dilation[1] + stride[1] * np.arange(width)
        out[..., o] += image[:, rows][:, :, columns, channels] @ weight[r, s, :, o]
    return (out if layer.bias is None else out + layer.bias.data).reshape(y.shape)


def _prelu(layer: Any, y: Array, x: Array) -> Array:
    assert layer.weight.shape == (layer.in_features or 1,)
    return np.maximum(x, 0) + layer.weight.data * np.minimum(x, 0)


def _gelu(layer: Any, y: Array, x: Array) -> Array:
    if layer.approximate == "tanh":
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def _softmax(layer: Any, y: Array, x: Array) -> Array:
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def _batch_norm(layer: Any, y: Array, x: Array) -> tuple[Array, State]:
    mean, var = layer.running_mean, layer.running_var
    state = {"running_mean": mean, "running_var": var}
    if layer.training:
        rows = x.reshape(-1, x.shape[-1])
        mean = rows.sum(axis=0) / len(rows)
        squares = ((rows - mean) ** 2).sum(axis=0)
        var, unbiased = squares / len(rows), squares / (len(rows) - 1)
        m = layer.momentum
        state["running_mean"] = (1 - m) * state["running_mean"] + m * mean
        state["running_var"] = (1 - m) * state["running_var"] + m * unbiased
    return layer.gamma.data * (x - mean) / np.sqrt(var + layer.eps) + layer.beta.data, state


def _layer_norm(layer: Any, y: Array, x: Array) -> Array:
    n = x.shape[-1]
    mean = x.sum(axis=-1, keepdims=True) / n
    var = ((x - mean) ** 2).sum(axis=-1, keepdims=True) / n
    return layer.gamma.data * (x - mean) / np.sqrt(var + layer.eps) + layer.beta.data


def _rms_norm(layer: Any, y: Array, x: Array) -> Array:
    eps = np.finfo(x.dtype).eps if layer.eps is None else layer.eps
    return layer.gamma.data * x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)


def _dropout(layer: Any, y: Array, x: Array) -> Array:
    if not layer.training:
        return x
    dropped = y == 0
    if layer.whole_channels:
        first = dropped[:, *[slice(1)] * (x.ndim - 2)]
        assert (dropped == first).all(), "a part of a channel is dropped"
    if x.size >= 1000:
        assert abs(dropped.mean() - layer.p) < 0.05, "not this share is dropped"
    return np.where(dropped, 0, x / (1 - layer.p))


def _of_input(cell: Any, x: Array) -> Array:
    return x @ cell.input_weight.data + cell.bias.data


def _rnn_cell(cell: Any, y: Array, x: Array, h: Array) -> Array:
    z = _of_input(cell, x) + h @ cell.recurrent_weight.data
    return np.maximum(z, 0) if cell.nonlinearity == "relu" else np.tanh(z)


def _lstm_cell(cell: Any, y: Array, x: Array, h: Array, c: Array) -> list[Array]:
    i, f, g, o = np.split(_of_input(cell, x) + h @ cell.recurrent_weight.data, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def _gru_cell(cell: Any, y: Array, x: Array, h: Array) -> Array:
    of_x = np.split(_of_input(cell, x), 3, axis=-1)
    of_h = np.split(h @ cell.recurrent_weight.data + cell.recurrent_bias.data, 3, axis=-1)
    r, z = sigmoid(of_x[0] + of_h[0]), sigmoid(of_x[1] + of_h[1])
    return (1 - z) * np.tanh(of_x[2] + r * of_h[2]) + z * h


def _sequences(layer: Any, y: Array, x: Array, *state: Array) -> Any:
    """The cells in loops over time: layer upon layer, the second of two directions in reverse."""
    directions, zero = 1 + layer.bidirectional, np.zeros((len(x), layer.hidden_size))
    begins, ends, h = iter(state), [], []
    for index, cell in enumerate(layer.cells):
        reverse = index % directions == 1
        if not reverse:  # a new layer reads what all directions of the one below gave
            x, h = np.concatenate(h, axis=-1) if h else x, []
        now = [next(begins, zero) for _ in cell.state_of]
        steps = []
        for x_t in np.moveaxis(x, 1, 0)[:: -1 if reverse else 1]:
            now = LAYERS[type(cell).__name__](cell, y, x_t, *now)
            now = now if isinstance(now, list) else [now]
            steps.append(now[0])
        h.append(np.stack(steps[:: -1 if reverse else 1], axis=1))
        ends += now
    last = ends[-directions * len(now) :: len(now)]
    y = np.concatenate(h if layer.return_sequences else last, axis=-1)
    return [y, *ends] if state else y


def _of(layer: Any, *inputs: Array) -> Array:
    shape = layer.output_shape(inputs[0].shape)
    known = shape is not None and all(isinstance(size, int) for size in shape)
    found = LAYERS[type(layer).__name__](layer, np.ones(shape if known else 1), *inputs)
    return found[0] if isinstance(found, tuple) else found


def _sequential(layer: Any, y: Array, x: Array) -> Array:
    for _, child in layer.children():
        x = _of(child, x)
    return x


def _residual(layer: Any, y: Array, x: Array) -> Array:
    return _of(layer.body, x) + (x if layer.shortcut is None else _of(layer.shortcut, x))


def _channels_first(layer: Any, y: Array, x: Array) -> Array:
    """As if the axes were read in another order, one pixel after the other."""
    images = np.stack([x[:, channel] for channel in range(x.shape[1])], axis=-1)
    made = _of(layer.inner, images)
    return made if made.ndim == 2 else np.stack([made[..., c] for c in range(made.shape[-1])], 1)


def _flatten(layer: Any, y: Array, x: Array) -> Array:
    """Two axes into one, as often as there are more between the first and the last."""
    axis = layer.start_dim
    if layer.channels_first:
        return np.concatenate([x[..., c].reshape(len(x), -1) for c in range(x.shape[-1])], axis=1)
    for _ in range(axis, layer.end_dim % x.ndim):
        x = np.concatenate([x.take(i, axis) for i in range(x.shape[axis])], axis)
    return x


def _padding_of(layer: Any, sizes: tuple[int, ...], reach: list[int]) -> list[tuple[int, int]]:
    """What is padded before and after each dimension."""
    if layer.padding == "same":
        numbers = zip(sizes, reach, layer.stride, strict=True)
        totals = [max((math.ceil(n / s) - 1) * s + r - n, 0) for n, r, s in numbers]
        return [(total // 2, total - total // 2) for total in totals]
    return [(reach[0] - 1, 0)] if layer.padding == "causal" else list(layer.padding)


def _pooled(layer: Any, x: Array, fold: Callable[[Array, list[int]], Array]) -> Array:
    """The fold of every window: of its pixels that are no padding, and how many it counts."""
    sizes = x.shape[1:-1]
    reach = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    padding = _padding_of(layer, sizes, reach)
    begins = []
    for n, r, s, (before, after) in zip(sizes, reach, layer.stride, padding, strict=True):
        places = range(-before, n if layer.ceil_mode else n + after - r + 1, s)
        begins.append([b for b in places if layer.ceil_mode * (s - 1) + n + after >= b + r])
    found = np.empty((len(x), *map(len, begins), x.shape[-1]), x.dtype)
    for place in np.ndindex(*found.shape[1:-1]):
        pixels, counted = x, []
        for axis, (i, n, (_, after)) in enumerate(zip(place, sizes, padding, strict=True)):
            begin = begins[axis][i]
            seen = [begin + layer.dilation[axis] * a for a in range(layer.kernel_size[axis])]
            inside = [p for p in seen if 0 <= p < n]
            pixels = pixels.take(np.array(inside, int), axis + 1)
            counted.append(sum(p < n + after for p in seen))
        found[:, *place] = fold(pixels.reshape(len(x), -1, x.shape[-1]), counted)
    return found


def _max_pool(layer: Any, y: Array, x: Array) -> Array:
    return _pooled(layer, x, lambda pixels, _: pixels.max(axis=1, initial=-np.inf))


def _avg_pool(layer: Any, y: Array, x: Array) -> Array:
    if layer.count_include_pad:
        return _pooled(layer, x, lambda pixels, n: pixels.sum(axis=1) / math.prod(n))
    return _pooled(layer, x, lambda pixels, _: pixels.sum(axis=1) / max(pixels.shape[1], 1))


def _shape_of_one(layer: Any, x: Array) -> tuple[int, ...]:
    """The shape of one pixel for each image."""
    return (len(x), *(1 for _ in x.shape[1:-1] if layer.keepdims), x.shape[-1])


def _upsample(layer: Any, y: Array, x: Array) -> Array:
    """By the nearest pixel, with the index that it has in the smaller image."""
    for axis in range(1, x.ndim - 1):
        factor = y.shape[axis] / x.shape[axis]
        expected = layer.scale_factor
        assert factor == (expected[axis - 1] if isinstance(expected, tuple) else expected)
        x = x.take((np.arange(y.shape[axis]) / factor).astype(int), axis)
    return x


JOINED: dict[str | None, Callable[..., Any]] = {
    "concat": lambda parts: np.concatenate(parts, axis=-1),
    "add": sum,
    "multiply": math.prod,
    "stack": lambda parts: np.stack(parts, axis=-2),
    None: tuple,
}


def _parallel(layer: Any, y: Array, *inputs: Array) -> Any:
    parts = []
    for number, (_, branch) in enumerate(layer.branches.items()):
        x = inputs[number] if len(inputs) > 1 else inputs[0]
        parts.append(LAYERS[type(branch).__name__](branch, None, x))
    return JOINED[layer.join](parts) if layer.join else (tuple(parts), {})


def _split(layer: Any, y: Array, x: Array) -> Any:
    return tuple(np.split(x, np.cumsum(layer.sizes)[:-1], axis=-1)), {}


LAYERS: dict[str, Callable[..., Any]] = {
    "Linear": _linear,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "ReLU": lambda layer, y, x: np.maximum(x, 0),
    "LeakyReLU": lambda layer, y, x: np.maximum(x, 0) + layer.slope * np.minimum(x, 0),
    "PReLU": _prelu,
    "ELU": lambda layer, y, x: np.where(x > 0, x, layer.alpha * (np.exp(x) - 1)),
    "CELU": lambda layer, y, x: np.where(x > 0, x, layer.alpha * (np.exp(x / layer.alpha) - 1)),
    "SELU": lambda layer, y, x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1))
    ),
    "Sigmoid": lambda layer, y, x: sigmoid(x),
    "Tanh": lambda layer, y, x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
    "SiLU": lambda layer, y, x: x * sigmoid(x),
    "GELU": _gelu,
    "Mish": lambda layer, y, x: x * np.tanh(np.log(1 + np.exp(x))),
    "HardSigmoid": lambda layer, y, x: np.clip((x + 3) / 6, 0, 1),
    "HardSwish": lambda layer, y, x: x * np.clip((x + 3) / 6, 0, 1),
    "Softsign": lambda layer, y, x: x / (1 + np.abs(x)),
    "Softplus": lambda layer, y, x: np.log(1 + np.exp(layer.beta * x)) / layer.beta,
    "Softmax": _softmax,
    "LogSoftmax": lambda layer, y, x: np.log(_softmax(layer, y, x)),
    "Identity": lambda layer, y, x: x,
    "Flatten": _flatten,
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "Standardize": lambda layer, y, x: (x - layer.mean) / layer.std,
    "Dropout": _dropout,
    "MaxPool1d": _max_pool,
    "MaxPool2d": _max_pool,
    "AvgPool1d": _avg_pool,
    "AvgPool2d": _avg_pool,
    "GlobalAvgPool": lambda layer, y, x: (
        x.reshape(len(x), -1, x.shape[-1]).sum(1) / x[0, ..., 0].size
    ).reshape(_shape_of_one(layer, x)),
    "GlobalMaxPool": lambda layer, y, x: np.sort(x.reshape(len(x), -1, x.shape[-1]), axis=1)[
        :, -1
    ].reshape(_shape_of_one(layer, x)),
    "Upsample": _upsample,
    "Embedding": lambda layer, y, x: layer.weight.data[x],
    "RNNCell": _rnn_cell,
    "LSTMCell": _lstm_cell,
    "GRUCell": _gru_cell,
    "RNN": _sequences,
    "LSTM": _sequences,
    "GRU": _sequences,
    "Concat": lambda layer, y, *parts: JOINED["concat"](parts),
    "Add": lambda layer, y, *parts: sum(parts),
    "Multiply": lambda layer, y, *parts: math.prod(parts),
    "Stack": lambda layer, y, *parts: JOINED["stack"](parts),
    "Split": _split,
    "Select": lambda layer, y, *parts: parts[layer.index],
    "Parallel": _parallel,
    "Sequential": _sequential,
    "ChannelsFirst": _channels_first,
    "Residual": _residual,
}

# --- losses: (loss, prediction, target) -> the loss of every row and element, its weight ----------


def _counting(loss: Any, z: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Every step as a row; 0 for those that are ignored, with any label, else 1."""
    z, labels = z.reshape(-1, z.shape[-1]), labels.ravel()
    counts = labels != (-(10**9) if loss.ignore_index is None else loss.ignore_index)
    return z, np.where(counts, labels, 0), counts


def _cross_entropy(loss: Any, z: Array, labels: Array) -> tuple[Array, Array]:
    z, labels, counts = _counting(loss, z, labels)
    log_p = np.log(_softmax(None, z, z))
    classes = np.ones(z.shape[1]) if loss.class_weight is None else loss.class_weight
    own = -classes[labels] * log_p[np.arange(len(z)), labels]
    smooth = -(classes * log_p).mean(axis=1)
    eps = loss.label_smoothing
    return counts * ((1 - eps) * own + eps * smooth), counts * classes[labels]


def _nll(loss: Any, log_p: Array, labels: Array) -> tuple[Array, Array]:
    log_p, labels, counts = _counting(loss, log_p, labels)
    classes = np.ones(log_p.shape[1]) if loss.class_weight is None else loss.class_weight
    losses = -classes[labels] * log_p[np.arange(len(log_p)), labels]
    return counts * losses, counts * classes[labels]


def _huber(loss: Any, p: Array, t: Array) -> tuple[Array, Array]:
    e, d = np.abs(p - t), loss.delta
    return np.where(e <= d, e**2 / 2, d * (e - d / 2)), np.ones_like(e)


def _bce(loss: Any, z: Array, t: Array) -> tuple[Array, Array]:
    weight = 1 if loss.pos_weight is None else loss.pos_weight
    losses = -weight * t * np.log(sigmoid(z)) - (1 - t) * np.log(1 - sigmoid(z))
    return losses, np.ones_like(z)


def _quantile(loss: Any, p: Array, t: Array) -> tuple[Array, Array]:
    t = t.reshape(*t.shape, *[1] * (p.ndim - t.ndim))
    e, q = t - p, np.array(loss.quantiles)
    return np.maximum(q * e, (q - 1) * e), np.ones_like(p)


def _poisson(loss: Any, p: Array, t: Array) -> tuple[Array, Array]:
    losses = np.exp(p) - t * p if loss.log_input else p - t * np.log(p + loss.eps)
    if loss.full:
        t = np.maximum(t, 1)
        stirling = t * np.log(t) - t + 0.5 * np.log(2 * np.pi * t)
        losses = losses + np.where(t > 1, stirling, 0)
    return losses, np.ones_like(p)


def _gaussian(loss: Any, p: Array, t: Array) -> tuple[Array, Array]:
    """-log of the normal density, without its constant unless it counts."""
    outputs = p.shape[-1] // 2
    mean, deviation = p[..., :outputs], np.exp(p[..., outputs:] / 2)
    t = t.reshape(mean.shape)
    density = np.exp(-(((t - mean) / deviation) ** 2) / 2) / deviation / np.sqrt(2 * np.pi)
    losses = -np.log(density) - (0 if loss.full else np.log(2 * np.pi) / 2)
    return losses, np.ones_like(losses)


def _cosine(u: Array, v: Array) -> Array:
    return (u * v).sum(-1) / np.sqrt((u * u).sum(-1) * (v * v).sum(-1))


def _embedding(loss: Any, p: Array, t: Array) -> tuple[Array, Array]:
    cosine = _cosine(p[:, 0], p[:, 1])
    return np.where(t > 0, 1 - cosine, np.maximum(0, cosine - loss.margin)), np.ones_like(cosine)


LOSSES: dict[str, Callable[..., tuple[Array, Array]]] = {
    "MSELoss": lambda loss, p, t: ((p - t) ** 2, np.ones_like(p)),
    "L1Loss": lambda loss, p, t: (np.abs(p - t), np.ones_like(p)),
    "HuberLoss": _huber,
    "BCEWithLogitsLoss": _bce,
    "CrossEntropyLoss": _cross_entropy,
    "NLLLoss": _nll,
    "QuantileLoss": _quantile,
    "PoissonNLLLoss": _poisson,
    "GaussianNLLLoss": _gaussian,
    "CosineSimilarityLoss": lambda loss, p, t: (1 - _cosine(p, t), np.ones(p.shape[:-1])),
    "CosineEmbeddingLoss": _embedding,
}


def loss_value(loss: Any, prediction: Array, target: Array, weight: Array | None) -> Any:
    """Σ weight · L, or that over Σ weight; without reduction, weight · L."""
    losses, counts = LOSSES[type(loss).__name__](loss, prediction, target)
    if weight is not None:
        weight = weight.reshape(-1, *[1] * (losses.ndim - 1))  # of each row
        losses, counts = weight * losses, weight * counts
    if loss.reduction == "none":
        return losses.reshape(target.shape) if loss.takes_labels else losses
    return float(losses.sum() / counts.sum() if loss.reduction == "mean" else losses.sum())


# --- optimizers: parameter by parameter -----------------------------------------------------------


class Plain:
    """One parameter under one optimizer: ``step`` is the formula of the docstring."""

    def __init__(self, lr: float, weight_decay: float = 0.0, l1: float = 0.0, **own: Any) -> None:
        self.lr, self.weight_decay, self.l1, self.t = lr, weight_decay, l1, 0
        self.own = {**self.defaults, **own}
        self.m: Any = 0.0
        self.v: Any = 0.0
        self.b: Any = 0.0
        self.product = 1.0

    defaults: ClassVar[dict[str, Any]] = {}

    def step(self, w: Array, g: Array) -> Array:
        self.t += 1
        g = g + self.l1 * np.sign(w)
        return self.update(w, g + self.weight_decay * w)

    def update(self, w: Array, g: Array) -> Array:
        raise NotImplementedError


class PlainSGD(Plain):
    defaults: ClassVar[dict[str, Any]] = {"momentum": 0.0, "nesterov": False}

    def update(self, w: Array, g: Array) -> Array:
        mu = self.own["momentum"]
        self.v = mu * self.v + g
        return w - self.lr * (g + mu * self.v if self.own["nesterov"] else self.v)


class PlainAdam(Plain):
    defaults: ClassVar[dict[str, Any]] = {"betas": (0.9, 0.999), "eps": 1e-8}

    def moments(self, g: Array) -> None:
        beta1, beta2 = self.own["betas"]
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g**2

    def update(self, w: Array, g: Array) -> Array:
        self.moments(g)
        beta1, beta2 = self.own["betas"]
        m, v = self.m / (1 - beta1**self.t), self.v / (1 - beta2**self.t)
        return w - self.lr * m / (np.sqrt(v) + self.own["eps"])


class PlainAdamW(PlainAdam):
    def __init__(self, lr: float, weight_decay: float = 1e-2, **own: Any) -> None:
        super().__init__(lr, **own)
        self.decay = weight_decay

    def update(self, w: Array, g: Array) -> Array:
        return super().update(w * (1 - self.lr * self.decay), g)


class PlainNadam(PlainAdam):
    defaults: ClassVar[dict[str, Any]] = {**PlainAdam.defaults, "momentum_decay": 4e-3}

    def update(self, w: Array, g: Array) -> Array:
        self.moments(g)
        beta1, beta2 = self.own["betas"]
        psi = self.own["momentum_decay"]
        now, after = (beta1 * (1 - 0.5 * 0.96 ** (t * psi)) for t in (self.t, self.t + 1))
        self.product *= now
        m = after * self.m / (1 - self.product * after) + (1 - now) * g / (1 - self.product)
        return w - self.lr * m / (np.sqrt(self.v / (1 - beta2**self.t)) + self.own["eps"])


class PlainRMSprop(Plain):
    defaults: ClassVar[dict[str, Any]] = {
        "alpha": 0.99,
        "eps": 1e-8,
        "momentum": 0.0,
        "centered": False,
    }

    def update(self, w: Array, g: Array) -> Array:
        alpha = self.own["alpha"]
        self.v = alpha * self.v + (1 - alpha) * g**2
        self.m = alpha * self.m + (1 - alpha) * g
        spread = self.v - self.m**2 if self.own["centered"] else self.v
        step = g / (np.sqrt(spread) + self.own["eps"])
        self.b = self.own["momentum"] * self.b + step
        return w - self.lr * self.b


class PlainAdaGrad(Plain):
    defaults: ClassVar[dict[str, Any]] = {"eps": 1e-10}

    def update(self, w: Array, g: Array) -> Array:
        self.v = self.v + g**2
        return w - self.lr * g / (np.sqrt(self.v) + self.own["eps"])


OPTIMIZERS: dict[str, type[Plain]] = {
    "SGD": PlainSGD,
    "RMSprop": PlainRMSprop,
    "AdaGrad": PlainAdaGrad,
    "Adam": PlainAdam,
    "AdamW": PlainAdamW,
    "Nadam": PlainNadam,
}


def clipped(
    gradients: list[Array], max_norm: float | None = None, max_value: float | None = None
) -> list[Array]:
    """By the norm of all together, then by value."""
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    factor = max_norm / norm if max_norm and norm > max_norm else 1.0
    limit = max_value or math.inf
    return [np.minimum(np.maximum(factor * g, -limit), limit) for g in gradients]


# --- schedules: (step, *arguments) -> rate --------------------------------------------------------


def _between(begin: float, end: float, done: float) -> float:
    """Half a cosine, by the half angle."""
    return end + (begin - end) * math.cos(math.pi * done / 2) ** 2


def _step_decay(t: int, lr: float, every: int, factor: float) -> float:
    for step in range(1, t + 1):
        lr = lr * factor if step % every == 0 else lr
    return lr


def _exponential(t: int, lr: float, factor: float) -> float:
    for _ in range(t):
        lr *= factor
    return lr


def _warmup(t: int, rate: Any, steps: int, start: float) -> float:
    if t >= steps:
        return rate(t - steps) if callable(rate) else rate
    return float(np.interp(t, [0, steps], [start, 1])) * (rate(0) if callable(rate) else rate)


def _one_cycle(
    t: int, top: float, steps: int, rise: float, divide: float, final_divide: float
) -> float:
    peak, end = rise * steps - 1, steps - 1
    if t <= peak:
        return _between(top / divide, top, t / peak)
    return _between(top, top / divide / final_divide, min(1.0, (t - peak) / (end - peak)))


SCHEDULES: dict[str, Callable[..., float]] = {
    "step_decay": _step_decay,
    "exponential": _exponential,
    "cosine": lambda t, lr, steps, final: _between(lr, final, min(t, steps) / steps),
    "warmup": _warmup,
    "one_cycle": _one_cycle,
}


def plateau(values: list[float], rates: list[float], settings: dict[str, Any]) -> list[list[float]]:
    """The rates of groups after each observation, told in words: see ``ReduceOnPlateau``."""
    found, best, bad, rest = [], None, 0, 0
    sign = 1 if settings["mode"] == "min" else -1
    for value in values:
        if best is None or sign * value + settings["threshold"] * abs(best) < sign * best:
            best, bad = value, 0
        else:
            bad += 1
        if rest:
            rest, bad = rest - 1, 0
        if bad > settings["patience"]:
            least = settings["smallest"]
            rates = [max(r * settings["factor"], least) if r > least else r for r in rates]
            rest, bad = settings["cooldown"], 0
        found.append(rates)
    return found
