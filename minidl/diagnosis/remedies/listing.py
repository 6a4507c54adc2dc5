"""The cured program as a user would write it: lines of code from models, losses and optimizers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from minidl import nn
from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies.actions import Action, ScaleTargets
from minidl.diagnosis.remedies.apply import Unstandardize
from minidl.diagnosis.remedies.losses import CorrectedLoss, CrossEntropyOfProbabilities, ScaledLoss
from minidl.diagnosis.remedies.optimizers import settings_of
from minidl.nn import Layer, Loss
from minidl.nn.affine import WEIGHT
from minidl.nn.init import NAMED
from minidl.optim import Optimizer

# What an argument has if it need not be written.
USUAL_SETTINGS = {
    "weight_decay": 0.0, "l1": 0.0, "max_norm": None, "max_value": None, "betas": (0.9, 0.999),
    "eps": 1e-8, "momentum": 0.0, "alpha": 0.99, "nesterov": False, "centered": False,
    "momentum_decay": 4e-3,
}  # fmt: skip


def listing(program: Program, actions: Iterable[Action]) -> list[str]:
    """Return the lines that build and train a program, as far as its layers are minidl's."""
    actions = tuple(actions)
    scales = any(isinstance(action, ScaleTargets) for action in actions)
    lines = ["mean, deviation = y.mean(axis=0), y.std(axis=0)"] * scales
    lines.append("model = " + "\n".join(of_model(program.model)))
    lines += list(of_loss(program.loss))
    lines.append(f"optimizer = {of_optimizer(program.optimizer)}")
    lines.append("trainer = Trainer(model, loss, optimizer, rng=0)")
    options = f"epochs={program.epochs}, batch_size={program.batch_size}"
    options += "" if program.shuffle else ", shuffle=False"
    if program.class_weight is not None:
        options += f", class_weight={json.dumps(program.class_weight)}"
    if program.sample_weight is not None:
        lines.append("labels = y.argmax(axis=-1) if y.shape[-1] > 1 else y[:, 0].astype(int)")
        lines.append("weights = len(y) / np.bincount(labels)[labels]")
        options += ", sample_weight=weights"
    targets = "(y - mean) / deviation" if scales else "y"
    lines.append(f"trainer.fit(X, {targets}, {options})")
    lines += ["prediction = trainer.predict(X) * deviation + mean"] * scales
    lines.sort(key=lambda line: not line.startswith("from "))  # imports first
    return [line for text in lines for line in text.split("\n")]


def of_model(model: Layer) -> list[str]:
    """Return the lines that make a model, with weights that are the same whenever they run."""
    lines = list(of_layer(model))
    return [*lines[:-1], "    rng=0,", ")"] if lines[0] == "nn.Sequential(" else lines


def of_layer(layer: Layer, indent: str = "") -> Iterator[str]:
    """Yield the lines that make a layer; containers have a line for each of their layers."""
    if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
        yield f"{indent}nn.Sequential("
        for inner in flattened(layer):
            *before, last = of_layer(inner, indent + "    ")
            yield from before
            yield f"{last},"
        yield f"{indent})"
    elif type(layer) is nn.Residual:
        yield f"{indent}nn.Residual("
        for _, part in layer.children():
            *before, last = of_layer(part, indent + "    ")
            yield from before
            yield f"{last},"
        yield f"{indent})"
    else:
        yield indent + of_leaf(layer)


def flattened(model: nn.Sequential) -> Iterator[Layer]:
    """Yield the layers of a ``Sequential``, and of those in it, without what restores targets."""
    for layer in model.stack:
        if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
            yield from flattened(layer)
        elif not isinstance(layer, Unstandardize):
            yield layer


def of_leaf(layer: Layer) -> str:
    """Return the expression that makes a layer without layers in it."""
    text = repr(layer)
    if "\n" in text or not type(layer).__module__.startswith("minidl."):
        return f"{type(layer).__name__}(...)"
    if isinstance(layer, nn.Linear) and layer.weight.initializer != WEIGHT:
        init = layer.weight.initializer
        by_name = init.name in NAMED  # what a LeakyReLU prefers has a slope, and the same name
        text = text[:-1] + f", init={json.dumps(init.name) if by_name else f'nn.init.{init!r}'})"
    if isinstance(layer, (nn.LSTM, nn.GRU)):
        option, usual = ("forget_bias", 1.0) if isinstance(layer, nn.LSTM) else ("update_bias", 0.0)
        keeping = float(layer.cells[0].bias.initializer((layer.cells[0].gates,))[1])
        text = text if keeping == usual else f"{text[:-1]}, {option}={keeping:g})"
    return f"nn.{text}.adapt(X)" if isinstance(layer, nn.Standardize) else f"nn.{text}"


def of_loss(loss: Loss) -> Iterator[str]:
    """Yield the lines that make a loss, without the scale of its targets."""
    if isinstance(loss, ScaledLoss):
        yield from of_loss(loss.inner)
    elif isinstance(loss, CorrectedLoss):
        yield f"loss = {loss.inner!r}  # its forward: return value, {loss.factor:.3g} * gradient"
    elif isinstance(loss, CrossEntropyOfProbabilities):
        yield "from minidl.diagnosis.remedies.losses import CrossEntropyOfProbabilities"
        yield f"loss = {loss!r}"
    else:
        ours = type(loss).__module__.startswith("minidl.nn")
        yield f"loss = {'nn.' if ours else ''}{loss!r}"


def of_optimizer(optimizer: Optimizer) -> str:
    """Return the expression that builds an optimizer, without settings that are as usual."""
    shown = {
        name: value
        for name, value in settings_of(optimizer).items()
        if name != "lr" and USUAL_SETTINGS.get(name, value) != value
    }
    rate = optimizer.lr if optimizer.schedule is None else optimizer.schedule
    text = f"{rate:.3g}" if isinstance(rate, float) else f"optim.schedules.{rate!r}"
    text = text.replace(", 0.0)", ")")
    more = "".join(f", {name}={value!r}" for name, value in shown.items())
    return f"optim.{type(optimizer).__name__}(model.parameters(), lr={text}{more})"
