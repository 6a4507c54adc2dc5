"""Run minidl."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import minidl
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
    x, _ = network.data
    model = _model(network).eval()
    for setting, prepare in _thread_counts(threads):
        calls = {"eager": partial(model, x), "recorded": partial(minidl.record(model), x)}
        for name, call in calls.items():
            check = partial(_result, call)
            yield Contender(name, call, setting, check=check, prepare=prepare)


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
