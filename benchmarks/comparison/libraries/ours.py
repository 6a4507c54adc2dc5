"""Run minidl."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import minidl
from comparison import convolutions
from comparison.convolutions import Convolutional
from comparison.measuring import Contender
from comparison.networks import CHECKED, LEARNING_RATE, MAX_NORM, Network, losses, over
from comparison.sequences import Sequences
from comparison.suites import KernelTask
from minidl import _kernels, nn, optim

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def about() -> str:
    """Return version and instruction set."""
    return f"minidl {minidl.__version__} ({_kernels.isa})"


def kernels(task: KernelTask, threads: list[int]) -> Iterator[Contender]:
    """Call the kernel as minidl's layers do."""
    for setting, prepare in _thread_counts(threads):
        call = task.case.call()
        check = None if task.case.kernel == "adam" else partial(_result, call)
        yield Contender("minidl", call, setting, check=check, prepare=prepare)


def _result(call: Callable[[], Any]) -> dict[str, Any]:
    found = call()
    names = ("loss", "gradient") if isinstance(found, tuple) else ("result",)
    values = found if isinstance(found, tuple) else (found,)
    return dict(zip(names, map(np.copy, values), strict=True))


def steps(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Make a step as in the README: eager, recorded, and recorded in whole epochs."""
    yield from _training(network, partial(_model, network), threads)


def recurrent(network: Sequences, threads: list[int]) -> Iterator[Contender]:
    """Do the same with a recurrent network."""
    yield from _training(network, partial(_recurrent, network), threads)


def convolution(network: Convolutional, threads: list[int]) -> Iterator[Contender]:
    """Train a convolutional network, or call it: recorded as ``step``, and ``eager``."""
    model = partial(_convolutional, network)
    if network.trains:
        yield from _training(network, model, threads)
    else:
        yield from _predicting(network, model(), {"eager": "eager", "recorded": "step"}, threads)


def _training(
    network: Any, model: Callable[[], nn.Layer], threads: list[int]
) -> Iterator[Contender]:
    x, y = network.data
    batches = network.split(x, y)
    for setting, prepare in _thread_counts(threads):
        call = over(_step(model()), batches)
        yield Contender("eager", call, setting, check=losses(call), prepare=prepare)
        call = over(minidl.record(_step(model())), batches)
        yield Contender("step", call, setting, check=losses(call), prepare=prepare)
        for name in ("epoch", "shuffled"):
            step = minidl.record(_step(model()))
            yield Contender(
                name,
                partial(
                    step.epoch, x, y, batch_size=network.batch, rng=0, shuffle=name == "shuffled"
                ),
                setting,
                network.batches,
                partial(_mean_loss, step, network),
                prepare,
            )


def _mean_loss(step: Any, network: Any) -> dict[str, float]:
    x, y = (array[: CHECKED * network.batch] for array in network.data)
    return {"mean loss": float(step.epoch(x, y, batch_size=network.batch, shuffle=False))}


def inference(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Call the model, eagerly and recorded."""
    yield from _predicting(
        network, _model(network), {"eager": "eager", "recorded": "recorded"}, threads
    )


def _predicting(
    network: Any, model: nn.Layer, names: dict[str, str], threads: list[int]
) -> Iterator[Contender]:
    x, _ = network.data
    model.eval()
    for setting, prepare in _thread_counts(threads):
        calls = {"eager": partial(model, x), "recorded": partial(minidl.record(model), x)}
        for name, call in calls.items():
            check = partial(_result, call)
            yield Contender(names[name], call, setting, check=check, prepare=prepare)


def _model(network: Network) -> nn.Sequential:
    layers: list[nn.Layer] = []
    for (inputs, outputs), (weight, bias) in zip(network.layers, network.weights(), strict=True):
        linear = nn.Linear(inputs, outputs)
        linear.weight.data, linear.bias.data = weight, bias
        layers += [linear, ACTIVATIONS[network.activation]()]
    return nn.Sequential(*layers[:-1])


def _recurrent(network: Sequences) -> nn.Sequential:
    weights = network.weights()
    layer = getattr(nn, network.kind)(network.inputs, network.hidden, return_sequences=False)
    last = nn.Linear(network.hidden, network.classes)
    (cell,) = layer.cells
    for name in ("input_weight", "recurrent_weight", "bias", "recurrent_bias"):
        if hasattr(cell, name):
            getattr(cell, name).data = weights[name]
    last.weight.data, last.bias.data = weights["last_weight"], weights["last_bias"]
    return nn.Sequential(layer, last)


def _convolutional(network: Convolutional) -> nn.Sequential:
    return _layers(network.layers, iter(network.weights()))


def _layers(layers: tuple[Any, ...], weights: Iterator[Any]) -> nn.Sequential:
    plain = {
        convolutions.ReLU: nn.ReLU,
        convolutions.MaxPool: partial(nn.MaxPool2d, 2),
        convolutions.Mean: nn.GlobalAvgPool,
        convolutions.Flatten: nn.Flatten,
    }
    made: list[nn.Layer] = []
    for layer in layers:
        match layer:
            case convolutions.Convolution() | convolutions.Linear():
                weight, bias = next(weights)
                affine = _affine(layer)
                affine.weight.data = weight
                if bias is not None:
                    affine.bias.data = bias
                made.append(affine)
            case convolutions.BatchNorm():
                next(weights)  # those of a new layer
                made.append(nn.BatchNorm(layer.channels, eps=convolutions.EPS))
            case convolutions.Residual():
                made.append(nn.Residual(_layers(layer.body, weights)))
            case _:
                made.append(plain[type(layer)]())
    return nn.Sequential(*made)


def _affine(layer: Any) -> Any:
    if isinstance(layer, convolutions.Linear):
        return nn.Linear(layer.inputs, layer.outputs)
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[len(layer.kernel)]
    padding = "same" if layer.same else 0
    return kind(
        *(layer.inputs, layer.outputs, layer.kernel),
        padding=padding,
        groups=layer.groups,
        bias=layer.bias,
    )


def _step(model: nn.Layer) -> Callable[[Any, Any], Any]:
    loss = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE, max_norm=MAX_NORM)

    def step(x: Any, y: Any) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    return step


def _thread_counts(threads: list[int]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield each number of threads in words, and the call that sets it."""
    for count in threads:
        words = "1 thread" if count == 1 else f"{count} threads"
        yield words, partial(minidl.set_num_threads, count)
