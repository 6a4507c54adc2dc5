"""Carrying remedies out: a changed program from a program and the actions of its verdicts."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np

from minidl import nn
from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies import actions, optimizers, surgery
from minidl.diagnosis.remedies.actions import Action
from minidl.diagnosis.remedies.losses import (
    CorrectedLoss,
    CrossEntropyOfProbabilities,
    ScaledLoss,
)
from minidl.diagnosis.remedies.standing import joined
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.nn import Layer, init
from minidl.nn.hooks import evaluating
from minidl.nn.recurrent.sequence import Recurrent
from minidl.seeds import as_generator
from minidl.training.inputs import Inputs, as_inputs, is_ragged
from minidl.typing import Array

# Layers first, then how they are drawn, then what stands around them, then how they are trained.
ORDER = (
    actions.ReplaceActivation, actions.ReplaceCell, actions.ReplaceHead, actions.FixGradient,
    actions.InsertNormalization, actions.AddResiduals, actions.Dropout, actions.Reinitialise,
    actions.GateBias, actions.ScaleInputs, actions.ScaleTargets, actions.UseOptimizer,
    actions.SetLearningRate, actions.Clip, actions.WeightDecay, actions.ClassWeights,
    actions.Epochs, actions.BatchSize, actions.Shuffle,
)  # fmt: skip


def apply(program: Program, remedies: Iterable[Action]) -> Program:
    """Change a program by remedies, all together; its model and optimizer are changed in place.

    Raises
    ------
    NotApplicableError
        If one of them cannot be carried out on this model, with these data.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> from minidl.diagnosis.program import Program
    >>> from minidl.diagnosis.remedies.actions import ReplaceActivation, SetLearningRate
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1), rng=0)
    >>> sgd = optim.SGD(model.parameters(), lr=10.0)
    >>> x = np.zeros((5, 2))
    >>> program = Program(model, nn.MSELoss(), sgd, x, x[:, :1], epochs=1)
    >>> program = apply(program, [SetLearningRate(0.1), ReplaceActivation("ReLU")])
    >>> program.model[1], program.optimizer.lr
    (ReLU(), 0.1)
    """
    for remedy in sorted(remedies, key=lambda remedy: ORDER.index(type(remedy))):
        program = carry_out(remedy, program)
    program.model.assign_paths()
    return program


@singledispatch
def carry_out(remedy: Action, program: Program) -> Program:
    """Change a program by one remedy."""
    raise NotApplicableError(f"{type(remedy).__name__} is not a remedy that can be carried out")


def inputs_of(program: Program) -> Inputs:
    """Return the inputs of a program, as its model takes them."""
    dtype = program.model.dtype or program.optimizer.flat.dtype
    return as_inputs("X", program.X, program.model, dtype)


def order_of(program: Program) -> list[surgery.Call]:
    """Return the layers of a program's model in the order in which they compute."""
    return surgery.calls(program.model, inputs_of(program).cast(slice(0, 2)))


def _changed(program: Program, model: Layer, loss: nn.Loss | None = None) -> Program:
    """Return the program with another model, after a forward pass has shown that it computes."""
    rows = inputs_of(replace(program, model=model)).cast(slice(0, 2))
    try:
        with evaluating(), np.errstate(all="ignore"):
            model(*rows)
    except (TypeError, ValueError, AttributeError) as error:
        raise NotApplicableError(f"the changed model does not compute: {error}") from error
    optimizer = optimizers.rebuilt(program.optimizer, model)
    return replace(program, model=model, optimizer=optimizer, loss=loss or program.loss)


# --- layers -----------------------------------------------------------------------------------


@carry_out.register
def _(remedy: actions.ReplaceActivation, program: Program) -> Program:
    model, found = program.model, 0
    for call in surgery.hidden_activations(order_of(program)):
        wanted = not remedy.layers or call.layer.path in remedy.layers
        if wanted and type(call.layer).__name__ != remedy.name:
            model = surgery.substitute(model, call.layer, getattr(nn, remedy.name)())
            found += 1
    if not found:
        raise NotApplicableError("the model has no hidden activation that could be replaced")
    return _changed(program, model)


@carry_out.register
def _(remedy: actions.ReplaceCell, program: Program) -> Program:
    model, found, cls = program.model, 0, getattr(nn, remedy.name)
    for call in order_of(program):
        old = call.layer
        if isinstance(old, Recurrent) and type(old) is not cls:
            new = cls(
                old.in_features,
                old.hidden_size,
                old.num_layers,
                old.bidirectional,
                old.dropouts[0].p if old.dropouts else 0.0,
                old.return_sequences,
                old.stateful,
                rng=_generator(program),
                dtype=old.dtype,
            )
            model, found = surgery.substitute(model, old, new), found + 1
    if not found:
        raise NotApplicableError(
            f"the model has no recurrent layer to be replaced by {cls.__name__}"
        )
    return _changed(program, model)


@carry_out.register
def _(remedy: actions.InsertNormalization, program: Program) -> Program:
    cls, rows = getattr(nn, remedy.name), len(inputs_of(program))
    if remedy.name == "BatchNorm" and 1 in (program.batch_size, rows, rows % program.batch_size):
        cls = nn.LayerNorm  # a batch of one row has no variance
    order = order_of(program)
    if any(isinstance(call.layer, surgery.NORMALIZATIONS) for call in order):
        raise NotApplicableError("the model has a normalization already")
    model, hidden = program.model, surgery.hidden_activations(order)
    for call in hidden:
        norm = cls(call.width, dtype=program.model.dtype)
        model = surgery.substitute(model, call.layer, norm, call.layer)
    if not hidden:
        raise NotApplicableError("the model has no hidden activation to normalise before")
    return _changed(program, model)


@carry_out.register
def _(remedy: actions.AddResiduals, program: Program) -> Program:
    found = 0
    for container in surgery.sequentials(program.model):
        stack = _with_residuals(container.stack)
        found += len(container.stack) - len(stack)
        container.stack = stack
    if not found:
        raise NotApplicableError("no hidden layer has an input and an output of one width")
    return _changed(program, program.model)


def _with_residuals(stack: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return layers in which every square ``Linear``, with what follows it, is a residual block."""
    layers: list[Layer] = []
    index = 0
    while index < len(stack):
        first, end = stack[index], index + 1
        while end < len(stack) and isinstance(
            stack[end], (*surgery.ACTIVATIONS, *surgery.NORMALIZATIONS, nn.Dropout)
        ):
            end += 1
        square = isinstance(first, nn.Linear) and first.in_features == first.out_features
        if square and end > index + 1 and end < len(stack):
            norm = nn.LayerNorm(first.in_features or 1, dtype=first.dtype)
            layers.append(nn.Residual(nn.Sequential(norm, *stack[index:end])))
            index = end
        else:
            layers.append(first)
            index += 1
    return tuple(layers)


@carry_out.register
def _(remedy: actions.Dropout, program: Program) -> Program:
    layers = [layer for _, layer in program.model.layers() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.p = remedy.p
    model = program.model
    if not layers and remedy.p:
        hidden = surgery.hidden_activations(order_of(program))
        if not hidden:
            raise NotApplicableError("the model has no hidden activation to drop units after")
        for call in hidden:
            drop = nn.Dropout(remedy.p, rng=_generator(program))
            model = surgery.substitute(model, call.layer, call.layer, drop)
    return _changed(program, model)


@carry_out.register
def _(remedy: actions.Reinitialise, program: Program) -> Program:
    order = order_of(program)
    rng = as_generator(remedy.draw) if remedy.draw else _generator(program)
    wanted = [
        call.layer
        for call in order
        if (not remedy.layers or call.layer.path in remedy.layers)
        and not any(parameter.frozen for parameter in call.layer.parameters())
    ]
    for linear, preferred in surgery.preferred_inits(order):
        if any(linear is layer for layer in wanted):
            linear.weight.initializer = init.by_name(remedy.init or preferred)
            if linear.bias is not None:
                linear.bias.initializer = init.zeros()
    for layer in wanted:
        for cell in layer.cells if isinstance(layer, Recurrent) else ():
            _as_by_default(cell)
        for _, part in layer.layers():
            part.reset_own(rng)
    return _changed(program, program.model)


def _as_by_default(cell: Any) -> None:
    """Have the parameters of a recurrent cell drawn as its class does without other wishes."""
    fresh = type(cell)(cell.in_features, cell.hidden_size)
    for (_, own), (_, usual) in zip(cell.named_parameters(), fresh.named_parameters(), strict=True):
        own.initializer = usual.initializer


@carry_out.register
def _(remedy: actions.GateBias, program: Program) -> Program:
    cells = [
        cell
        for _, layer in program.model.layers()
        if isinstance(layer, (nn.LSTM, nn.GRU))
        for cell in layer.cells
    ]
    if not cells:
        raise NotApplicableError("the model has no recurrent layer with gates")
    gates = [
        init.zeros(),
        init.constant(remedy.bias),
    ]  # both have the one that keeps in second place
    for cell in cells:
        cell.bias.initializer = init.by_gate(*gates, *[init.zeros()] * (cell.gates - 2))
        cell.bias.reset(_generator(program))
    return _changed(program, program.model)


# --- head, loss and scales --------------------------------------------------------------------


@carry_out.register
def _(remedy: actions.ReplaceHead, program: Program) -> Program:
    model, order = program.model, order_of(program)
    head, width = surgery.head_of(order), order[-1].width
    if remedy.head is not None:
        new = (getattr(nn, remedy.head)(),) if remedy.head else ()
        if head is not None:
            model = surgery.substitute(model, head, *new)
        elif new:
            model = nn.Sequential(model, *new)
    program = _changed(program, model)
    if remedy.loss is not None:
        loss = loss_of(remedy.loss, program.loss, surgery.head_of(order_of(program)))
        program = replace(program, loss=loss)
    loss = program.loss
    y, validation = fitting_targets(program.y, loss, width), program.validation
    if isinstance(validation, tuple):
        validation = (validation[0], fitting_targets(validation[1], loss, width), *validation[2:])
    return replace(program, y=y, validation=validation)


def loss_of(name: str, old: nn.Loss, head: Layer | None) -> nn.Loss:
    """Build a loss by its name, with the reduction that another has."""
    if name == "CrossEntropyOfProbabilities":
        return CrossEntropyOfProbabilities(rows=isinstance(head, nn.Softmax))
    loss: nn.Loss = getattr(nn, name)(getattr(old, "reduction", "mean"))
    return loss


def fitting_targets(y: Any, loss: nn.Loss, width: int) -> Any:
    """Return targets in the form that a loss takes: labels, or rows of zeros and ones."""
    if is_ragged(y):
        return [fitting_targets(row, loss, width) for row in y]
    array = np.asarray(y)
    if loss.takes_labels:
        if array.ndim > 1 and array.shape[-1] == width > 1 and array.dtype.kind == "f":
            return array.argmax(axis=-1)
        if array.ndim > 1 and array.shape[-1] == 1:
            array = array[..., 0]
        whole = array.dtype.kind == "f" and (array == np.floor(array)).all()
        return array.astype(np.int64) if whole else array
    if array.ndim == 1 and array.dtype.kind in "iu":
        return np.eye(width)[array] if width > 1 else array[:, None].astype(float)
    return y


@carry_out.register
def _(remedy: actions.FixGradient, program: Program) -> Program:
    return replace(program, loss=CorrectedLoss(program.loss, remedy.factor))


class Unstandardize(nn.Standardize):
    """Bring numbers of mean 0 and deviation 1 to a mean and a deviation: y = x · σ + μ."""

    @classmethod
    def to(cls, mean: Array, deviation: Array, dtype: Any) -> Unstandardize:
        """Make the layer that undoes (y - mean) / deviation."""
        layer = cls(len(mean), dtype)
        layer.mean[...], layer.std[...] = -mean / deviation, 1 / deviation
        return layer

    def __repr__(self) -> str:
        return f"Unstandardize({self.in_features})"


@carry_out.register
def _(remedy: actions.ScaleInputs, program: Program) -> Program:
    inputs, model = inputs_of(program), program.model
    x, others = inputs.arrays[0], inputs.arrays[1:]
    if (
        inputs.limits[0] is not None
        or model.takes_indices
        or (others and inputs.lengths[0] is None)
    ):
        raise NotApplicableError("the inputs are not one table of numbers that could be scaled")
    first = next((layer for _, layer in model.layers() if not list(layer.children())), None)
    if isinstance(first, nn.Standardize):
        raise NotApplicableError("the model standardises its inputs already")
    steps = inputs.steps()
    rows = np.asarray(x if steps is None else x[steps], np.float64)
    dtype = program.optimizer.flat.dtype
    try:
        front = nn.Standardize(x.shape[-1], dtype).adapt(rows)
    except ValueError:  # float32 would keep too few of the distinct values
        model.astype(np.float64)
        front = nn.Standardize(x.shape[-1], np.float64).adapt(rows)
    return _changed(program, nn.Sequential(front, model))


@carry_out.register
def _(remedy: actions.ScaleTargets, program: Program) -> Program:
    if program.loss.takes_labels or isinstance(program.loss, nn.BCEWithLogitsLoss):
        raise NotApplicableError("the targets are classes, which have no scale")
    y = joined(program.y).astype(np.float64)
    columns = y.reshape(-1, y.shape[-1])
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    deviation = np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)
    back = Unstandardize.to(mean, deviation, program.model.dtype)
    loss = ScaledLoss(program.loss, mean, deviation)
    return _changed(program, nn.Sequential(program.model, back), loss)


# --- training ---------------------------------------------------------------------------------


@carry_out.register
def _(remedy: actions.UseOptimizer, program: Program) -> Program:
    momentum = {"momentum": remedy.momentum} if remedy.momentum else {}
    new = optimizers.of_name(
        remedy.name, program.model, program.optimizer, lr=remedy.lr, **momentum
    )
    return replace(program, optimizer=new)


@carry_out.register
def _(remedy: actions.SetLearningRate, program: Program) -> Program:
    optimizers.set_rate(program.optimizer, remedy.lr)
    return program


@carry_out.register
def _(remedy: actions.Clip, program: Program) -> Program:
    program.optimizer.max_norm = remedy.max_norm
    return program


@carry_out.register
def _(remedy: actions.WeightDecay, program: Program) -> Program:
    program.optimizer.weight_decay = remedy.weight_decay
    return program


@carry_out.register
def _(remedy: actions.ClassWeights, program: Program) -> Program:
    if program.loss.takes_labels or isinstance(program.loss, nn.BCEWithLogitsLoss):
        return replace(program, class_weight="balanced")
    y = np.asarray(program.y)
    labels = y.argmax(axis=-1) if y.shape[-1] > 1 else (y[..., 0] > 0.5).astype(int)
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return replace(program, sample_weight=len(which) / (len(counts) * counts[which]))


@carry_out.register
def _(remedy: actions.Epochs, program: Program) -> Program:
    return replace(program, epochs=remedy.epochs)


@carry_out.register
def _(remedy: actions.BatchSize, program: Program) -> Program:
    return replace(program, batch_size=remedy.batch_size)


@carry_out.register
def _(remedy: actions.Shuffle, program: Program) -> Program:
    return replace(program, shuffle=True)


def _generator(program: Program) -> np.random.Generator:
    """Return a generator that starts as the program's does, and leaves that one alone."""
    rng = copy.deepcopy(program.rng)
    return as_generator(0 if rng is None else rng)
