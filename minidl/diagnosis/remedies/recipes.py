"""What a cure tries: what verdicts prescribe, and what usually makes a program train.

After a change of a program, its learning rate and its number of epochs are no longer what they were
chosen for. So every cure chooses these anew, among those that this file names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from minidl import nn, optim
from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies import surgery
from minidl.diagnosis.remedies.actions import (
    Action,
    AddResiduals,
    Clip,
    Dropout,
    Epochs,
    GateBias,
    InsertNormalization,
    Reinitialise,
    ReplaceActivation,
    ReplaceCell,
    ReplaceHead,
    ScaleInputs,
    ScaleTargets,
    SetLearningRate,
    Shuffle,
    UseOptimizer,
    WeightDecay,
)
from minidl.diagnosis.remedies.apply import inputs_of, order_of
from minidl.diagnosis.remedies.probing import Change
from minidl.diagnosis.remedies.standing import joined
from minidl.diagnosis.task import Task
from minidl.diagnosis.verdict import Verdict
from minidl.nn.recurrent.sequence import Recurrent

# Optimizers whose steps do not depend on the size of the gradient: their useful rates are known.
ADAPTIVE = (optim.Adam, optim.AdamW, optim.Nadam, optim.RMSprop)
RATES = (0.01, 0.003, 0.03, 0.001, 0.1)
# What an optimizer whose rate depends on the gradient is tried at, beside the one that was told.
FACTORS = (1.0, 0.1, 10.0, 0.01, 100.0)
DEEP = 6  # hidden layers from which on normalization and ways around them are tried
OF_DISTANCE = (nn.MSELoss, nn.L1Loss, nn.HuberLoss)
PENALTIES = (0.1, 1.0, 3.0, 10.0)  # weight decay of AdamW
# Root mean squares of columns that need no scaling, unless nothing else has helped.
USUAL = (0.1, 4.0)
SPARSE = 0.5  # share of zeros from which on a table is one of zeros and ones, or of counts


def prescribed(verdicts: Iterable[Verdict]) -> list[Action]:
    """Return the actions of verdicts and of what causes them, one of each kind, the first one."""
    found: dict[type[Action], Action] = {}
    for verdict in verdicts:
        link: Verdict | None = verdict
        while link is not None:
            if link.action is not None:
                found.setdefault(type(link.action), link.action)
            link = link.because
    return list(found.values())


def merged(*changes: Iterable[Action]) -> Change:
    """Join changes; of two actions of a kind the later one stands, and one rule for the rate."""
    found: dict[type[Action], Action] = {}
    for action in (action for change in changes for action in change):
        if isinstance(action, (SetLearningRate, UseOptimizer)):
            found.pop(SetLearningRate, None)
            found.pop(UseOptimizer, None)
        found[type(action)] = action
    return tuple(found.values())


def fitting_head(program: Program, task: Task) -> ReplaceHead | None:
    """Return the head and the loss that belong to the targets; None if they do already.

    What an output means is kept where it can be: probabilities stay probabilities.
    """
    head = surgery.head_of(order := order_of(program))
    loss, width = program.loss, order[-1].width
    name = "" if head is None else type(head).__name__
    own = not type(loss).__module__.startswith("minidl.")
    if isinstance(loss, (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)):
        wanted = ReplaceHead("", None)
    elif isinstance(loss, nn.NLLLoss):
        wanted = ReplaceHead("LogSoftmax", None)
    elif task.kind == "numbers":
        if own or name in ("", "Softplus", "LeakyReLU", "PReLU") or _within(head, program.y):
            return None
        wanted = ReplaceHead("", None)
    else:
        wanted = ReplaceHead(
            "Softmax" if task.kind == "onehot" and width > 1 else "Sigmoid",
            "CrossEntropyOfProbabilities",
        )
    return None if wanted.head == name and wanted.loss is None else wanted


def _within(head: nn.Layer | None, y: object) -> bool:
    """Return whether a sigmoid or a tanh can answer all targets, and not only at its very ends."""
    targets = joined(y).astype(np.float64)
    low, high = (0, 1) if isinstance(head, nn.Sigmoid) else (-1, 1)
    squashes = isinstance(head, (nn.Sigmoid, nn.Tanh))
    return squashes and bool(low <= targets.min() and targets.max() <= high)


def keeping_meaning(change: Iterable[Action], program: Program, task: Task) -> Change:
    """Return a change that leaves probabilities what they are, where it would make them scores."""
    found: list[Action] = []
    of_scores = isinstance(program.loss, (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.NLLLoss))
    for action in change:
        scores = isinstance(action, ReplaceHead) and action.loss in (
            "BCEWithLogitsLoss",
            "CrossEntropyLoss",
        )
        if scores and not of_scores and task.kind in ("bits", "onehot"):
            head = "Softmax" if task.kind == "onehot" else "Sigmoid"
            action = ReplaceHead(head, "CrossEntropyOfProbabilities")
        found.append(action)
    return tuple(found)


def scaling(
    program: Program, task: Task, change: Iterable[Action] = (), always: bool = False
) -> Iterator[Action]:
    """Yield what brings inputs and targets to mean 0 and deviation 1, if they are far from it.

    Targets are scaled for a linear head: one that the program has, or that the change gives it.
    """
    inputs = inputs_of(program)
    x = inputs.arrays[0]
    if inputs.limits[0] is None and not (len(inputs.arrays) > 1 and inputs.lengths[0] is None):
        size = np.sqrt(np.square(x.reshape(-1, x.shape[-1]), dtype=np.float64).mean(axis=0))
        off = size.max() > USUAL[1] or size.max() < USUAL[0]
        sparse = float((x == 0).mean()) > SPARSE
        if off or (always and not sparse):
            yield ScaleInputs()
    if task.kind == "numbers" and not isinstance(program.loss, nn.BCEWithLogitsLoss):
        y = joined(program.y).astype(np.float64)
        size = np.sqrt(np.square(y).mean())
        heads = [a.head for a in change if isinstance(a, ReplaceHead) and a.head is not None]
        linear = heads[-1] == "" if heads else surgery.head_of(order_of(program)) is None
        if linear and (always or not USUAL[0] <= size <= USUAL[1]):
            yield ScaleTargets()


def rates(program: Program, change: Iterable[Action]) -> Iterator[Change]:
    """Yield optimizers and rates to choose from, what is prescribed and what was told first."""
    yield from _given(change)
    optimizer = program.optimizer
    if isinstance(optimizer, ADAPTIVE):
        yield (SetLearningRate(optimizer.lr),)
    else:
        yield from ((SetLearningRate(optimizer.lr * factor),) for factor in FACTORS)
    yield from (_at(program, rate) for rate in RATES)


def few_rates(program: Program, change: Iterable[Action]) -> Iterator[Change]:
    """Yield the rate of a change, and the most likely ones of an adaptive optimizer."""
    yield from _given(change)
    yield from (_at(program, rate) for rate in RATES[:3])


def _given(change: Iterable[Action]) -> Iterator[Change]:
    yield from ((a,) for a in change if isinstance(a, (SetLearningRate, UseOptimizer)))


def _at(program: Program, rate: float) -> Change:
    """Return an adaptive optimizer with this rate: the one that the program has, or Adam."""
    has_one = isinstance(program.optimizer, ADAPTIVE)
    return (SetLearningRate(rate) if has_one else UseOptimizer("Adam", rate),)


def usual(program: Program, task: Task) -> Change:
    """Return what usually makes a program train, whatever was wrong with it."""
    head = fitting_head(program, task)
    found: list[Action] = [] if head is None else [head]
    found += [*scaling(program, task, found, always=True), Reinitialise()]
    if not program.shuffle:
        found.append(Shuffle())
    if any(isinstance(call.layer, Recurrent) for call in order_of(program)):
        found.append(Clip(1.0))
    return tuple(found)


def structures(program: Program) -> Iterator[Change]:
    """Yield changes of the layers to choose from: none, activations, cells, normalization."""
    order = order_of(program)
    hidden = [call.layer for call in surgery.hidden_activations(order)]
    yield ()
    yield from cells(program, [call.layer for call in order])
    names = {type(layer).__name__ for layer in hidden}
    for name in ("Tanh", "LeakyReLU", "ReLU"):
        if hidden and names != {name}:
            yield (ReplaceActivation(name),)
    if any(isinstance(call.layer, nn.Dropout) and call.layer.p > 0.5 for call in order):
        yield (Dropout(0.2),)
    if len(hidden) >= DEEP:
        yield (InsertNormalization(),)
        yield (ReplaceActivation("ReLU"), AddResiduals())


def cells(program: Program, layers: Sequence[nn.Layer]) -> Iterator[Change]:
    """Yield recurrent layers to choose from: those with gates, and with gates that keep long."""
    if not any(isinstance(layer, Recurrent) for layer in layers):
        return
    steps = inputs_of(program).arrays[0].shape[1]
    keeping = (GateBias(round(math.log(max(steps - 1, 2)), 2)),)
    if any(isinstance(layer, nn.RNN) for layer in layers):
        yield (ReplaceCell("LSTM"),)
        yield (ReplaceCell("GRU"),)
        yield (ReplaceCell("LSTM"), *keeping)
        yield (ReplaceCell("GRU"), *keeping)
    else:
        yield keeping


def draws(count: int) -> Iterator[Change]:
    """Yield other draws of the first weights: small networks may be stuck with one of them."""
    yield from ((Reinitialise(draw=draw),) for draw in range(1, count + 1))


def penalties(program: Program) -> Iterator[Change]:
    """Yield what keeps a network from learning rows by heart."""
    rate = program.optimizer.lr if isinstance(program.optimizer, ADAPTIVE) else 0.003
    yield ()
    for penalty in PENALTIES:
        yield (UseOptimizer("AdamW", rate), WeightDecay(penalty))
    for p in (0.2, 0.5):
        yield (Dropout(p),)
    for part in (3, 10, 30):
        if program.epochs >= 2 * part:
            yield (Epochs(program.epochs // part),)
