"""Run JAX, compiled: one step a call, or all batches by a scan within one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from comparison import convolutions
from comparison.convolutions import Convolutional
from comparison.measuring import Contender
from comparison.networks import (
    CHECKED,
    LEARNING_RATE,
    MAX_NORM,
    Network,
    losses,
    over,
    summary,
)
from comparison.sequences import Sequences
from comparison.suites import KernelTask

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def about() -> str:
    """Return name and version."""
    return f"JAX {jax.__version__}"


# --- kernels ----------------------------------------------------------------------------


def kernels(task: KernelTask, threads: list[int]) -> Iterator[Contender]:
    """Compile each kernel; its arguments are JAX arrays beforehand."""
    arguments = task.case.arguments()
    if task.case.kernel == "adam":
        yield _adam(arguments)
        return
    double = any(getattr(value, "dtype", None) == np.float64 for value in arguments.values())
    jax.config.update("jax_enable_x64", double)
    calls: dict[str, Callable[..., Any]] = {
        "matmul": _product,
        "tanh": lambda x: (jnp.tanh, x),
        "sigmoid": lambda x: (jax.nn.sigmoid, x),
        "softmax_cross_entropy": lambda logits, labels: (
            jax.value_and_grad(_cross_entropy),
            logits,
            labels,
        ),
    }
    function, *arrays = calls[task.case.kernel](**arguments)
    call = _blocking(jax.jit(function), *map(jnp.asarray, arrays))
    names = ("loss", "gradient") if task.case.kernel == "softmax_cross_entropy" else ("result",)

    def check() -> dict[str, Any]:
        found = call()
        return dict(zip(names, found if isinstance(found, tuple) else [found], strict=True))

    yield Contender("JAX", call, check=check)


def _blocking(function: Callable[..., Any], *arrays: Any) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(function(*arrays))


def _product(a: Any, b: Any, out: Any, transpose_a: bool, transpose_b: bool) -> Any:
    return lambda a, b: (a.T if transpose_a else a) @ (b.T if transpose_b else b), a, b


def _cross_entropy(logits: Any, labels: Any) -> Any:
    logs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logs, labels[:, None], axis=1).mean()


def _adam(arguments: dict[str, Any]) -> Contender:
    data, m, v, grad = (jnp.asarray(arguments[name]) for name in ("data", "m", "v", "grad"))
    state = [(data, m, v, jnp.zeros((), jnp.int32))]
    update = jax.jit(partial(_updated, rate=1e-6, decay=1e-4), donate_argnums=0)

    def call() -> None:
        state[0] = jax.block_until_ready(update(state[0], grad))

    return Contender("JAX", call)


def _updated(state: Any, gradient: Any, rate: float, decay: float = 0.0) -> Any:
    """Make a step of Adam, for a tree of parameters or one vector."""
    data, m, v, taken = state
    taken = taken + 1
    if decay:
        gradient = jax.tree.map(lambda g, w: g + decay * w, gradient, data)
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, gradient)
    first, second = rate / (1 - BETA1**taken), 1 / (1 - BETA2**taken)
    data = jax.tree.map(lambda w, m, v: w - first * m / (jnp.sqrt(v * second) + EPS), data, m, v)
    return data, m, v, taken


# --- training steps ---------------------------------------------------------------------


def steps(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Make one step a call, or all steps in one call, with a tree of parameters or one vector.

    The scan gets its batches ready-made: gathering shuffled rows in it is slower.
    """
    tree = [tuple(map(jnp.asarray, layer)) for layer in network.weights()]
    forward = partial(_forward, network)
    makers = {kind: partial(_step, tree, forward, kind == "vector") for kind in ("tree", "vector")}
    yield from _training(network, makers)


def recurrent(network: Sequences, threads: list[int]) -> Iterator[Contender]:
    """Do the same with a recurrent network, its loop over time unrolled or not."""
    tree = {name: jnp.asarray(weight) for name, weight in network.weights().items()}
    if network.kind != "GRU":
        del tree["recurrent_bias"]
    forwards = {unroll: partial(_over_time, network.kind, unroll) for unroll in (1, 5)}
    makers = {f"unroll={n}": partial(_step, tree, f, False) for n, f in forwards.items()}
    yield from _training(network, makers)


def _over_time(kind: str, unroll: int, weights: Any, x: Any) -> Any:
    products = jnp.swapaxes(x, 0, 1) @ weights["input_weight"] + weights["bias"]
    zero = jnp.zeros((x.shape[0], weights["recurrent_weight"].shape[0]))
    cell = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}[kind]
    begin = (zero, zero) if kind == "LSTM" else zero
    end, _ = jax.lax.scan(partial(cell, weights), begin, products, unroll=unroll)
    h = end[0] if kind == "LSTM" else end
    return h @ weights["last_weight"] + weights["last_bias"]


def _rnn(weights: Any, h: Any, z: Any) -> Any:
    return jnp.tanh(z + h @ weights["recurrent_weight"]), None


def _lstm(weights: Any, state: Any, z: Any) -> Any:
    h, c = state
    i, f, g, o = jnp.split(z + h @ weights["recurrent_weight"], 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None


def _gru(weights: Any, h: Any, z: Any) -> Any:
    u = h @ weights["recurrent_weight"] + weights["recurrent_bias"]
    (z_r, z_z, z_n), (u_r, u_z, u_n) = jnp.split(z, 3, axis=1), jnp.split(u, 3, axis=1)
    n = jnp.tanh(z_n + jax.nn.sigmoid(z_r + u_r) * u_n)
    return n + jax.nn.sigmoid(z_z + u_z) * (h - n), None


def convolution(network: Convolutional, threads: list[int]) -> Iterator[Contender]:
    """Do the same with a convolutional network, its maxima by windows or by a reshaped array."""
    weights = network.weights()
    pools = {"windows": _max_of_windows, "reshaped": _max_of_reshaped}
    if convolutions.MaxPool() not in network.layers:
        pools = {"": _max_of_windows}
    forwards = {
        name: lambda weights, x, pool=pool: _through(network.layers, iter(weights), pool, x)
        for name, pool in pools.items()
    }
    if network.trains:
        tree = jax.tree.map(jnp.asarray, weights)
        makers = {
            f"{kind} {name}".rstrip(): partial(_step, tree, forward, kind == "vector")
            for kind in ("tree", "vector")
            for name, forward in forwards.items()
        }
        # In XLA's loops on CPUs convolutions are slow: ten times, and more.
        yield from _training(network, makers, unroll=True)
        return
    for name, forward in forwards.items():
        call = _blocking(jax.jit(partial(forward, weights)), jnp.asarray(network.data[0]))
        yield Contender("JAX jit", call, name, check=lambda call=call: {"result": call()})


def _through(layers: tuple[Any, ...], weights: Iterator[Any], pool: Any, x: Any) -> Any:
    for layer in layers:
        match layer:
            case convolutions.Convolution():
                x = _convolved(layer, *next(weights), x)
            case convolutions.Linear():
                weight, bias = next(weights)
                x = x @ weight + bias
            case convolutions.BatchNorm():
                x = _normalized(*next(weights), x)
            case convolutions.ReLU():
                x = jax.nn.relu(x)
            case convolutions.MaxPool():
                x = pool(x)
            case convolutions.Mean():
                x = x.mean(tuple(range(1, x.ndim - 1)))
            case convolutions.Flatten():
                x = x.reshape(len(x), -1)
            case convolutions.Residual():
                x = x + _through(layer.body, weights, pool, x)
    return x


def _convolved(layer: Any, weight: Any, bias: Any, x: Any) -> Any:
    y = jax.lax.conv_general_dilated(
        *(x, weight, (1,) * len(layer.kernel), "SAME" if layer.same else "VALID"),
        dimension_numbers={1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}[
            len(layer.kernel)
        ],
        feature_group_count=layer.groups,
    )
    return y if bias is None else y + bias


def _normalized(gamma: Any, beta: Any, x: Any) -> Any:
    axes = tuple(range(x.ndim - 1))
    scale = gamma * jax.lax.rsqrt(x.var(axes) + convolutions.EPS)
    return (x - x.mean(axes)) * scale + beta


def _max_of_windows(x: Any) -> Any:
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def _max_of_reshaped(x: Any) -> Any:
    images, height, width, channels = x.shape
    return x.reshape(images, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _training(
    network: Any,
    makers: dict[str, Callable[[], tuple[Any, Callable[[], Any]]]],
    unroll: bool = False,
) -> Iterator[Contender]:
    arrays = [jnp.asarray(array) for array in network.data]
    batches = network.split(*arrays)
    stacked = tuple(
        array.reshape(network.batches, network.batch, *array.shape[1:]) for array in arrays
    )
    for setting, make in makers.items():
        step, state = make()
        call = over(_kept(jax.jit(step, donate_argnums=0), state()), batches)
        yield Contender("JAX jit", call, setting, check=losses(call))
        scan = jax.jit(partial(jax.lax.scan, step, unroll=unroll), donate_argnums=0)
        call = partial(_kept(scan, state()), stacked)
        check = partial(_first_losses, call)
        yield Contender("JAX scan", call, setting, network.batches, check)


def _first_losses(scan: Callable[[], Any]) -> dict[str, float]:
    return summary([float(loss) for loss in scan()[:CHECKED]])


def _kept(function: Callable[..., Any], state: Any) -> Callable[..., Any]:
    """Make a call that keeps the state; it is donated, so that its memory is used again."""
    kept = [state]

    def call(*batch: Any) -> Any:
        kept[0], result = function(kept[0], batch if len(batch) > 1 else batch[0])
        return jax.block_until_ready(result)

    return call


def _step(
    tree: Any, forward: Callable[..., Any], flat: bool
) -> tuple[Callable[..., Any], Callable[[], Any]]:
    """Make a step, and a function that makes its initial state."""
    vector, unravel = ravel_pytree(tree)
    restore = unravel if flat else lambda data: data
    loss_of = jax.value_and_grad(lambda data, x, y: _cross_entropy(forward(restore(data), x), y))

    def step(state: Any, batch: Any) -> Any:
        loss, gradient = loss_of(state[0], *batch)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
        factor = jnp.minimum(1.0, MAX_NORM / norm)
        gradient = jax.tree.map(lambda g: g * factor, gradient)
        return _updated(state, gradient, LEARNING_RATE), loss

    def state() -> Any:
        def copy(function: Callable[..., Any]) -> Any:
            return jax.tree.map(function, vector if flat else tree)

        return copy(jnp.copy), copy(jnp.zeros_like), copy(jnp.zeros_like), jnp.zeros((), jnp.int32)

    return step, state


def _forward(network: Network, layers: Any, x: Any) -> Any:
    activation = ACTIVATIONS[network.activation]
    *hidden, (last, last_bias) = layers
    for weight, bias in hidden:
        x = activation(x @ weight + bias)
    return x @ last + last_bias


# --- inference --------------------------------------------------------------------------


def inference(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Compile the formula, with its weights as constants."""
    layers = [tuple(map(jnp.asarray, layer)) for layer in network.weights()]
    x = jnp.asarray(network.data[0])
    call = _blocking(jax.jit(partial(_forward, network, layers)), x)
    yield Contender("JAX jit", call, check=lambda: {"result": call()})
