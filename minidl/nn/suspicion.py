"""Warnings of models and losses that can be trained, but probably not as intended."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from minidl.nn.activations import LogSoftmax, Sigmoid, Softmax
from minidl.nn.classification_losses import CrossEntropyLoss, NLLLoss
from minidl.nn.containers import in_order
from minidl.nn.dropout import Dropout
from minidl.nn.layer import Layer
from minidl.nn.linear import Linear
from minidl.nn.losses import BCEWithLogitsLoss, Loss
from minidl.nn.normalization import BatchNorm
from minidl.nn.parameter import Parameter
from minidl.nn.reshape import Identity
from minidl.typing import Array
from minidl.warnings import TrainingWarning

# Layers that make no difference to what a model can compute.
TRANSPARENT = (Identity, Dropout)
TAKES_SCORES = (
    "the loss takes scores (logits) and has the {activation} in it; leave the layer out, and apply "
    "it to predictions where probabilities are wanted"
)


def suspicious(model: Layer, loss: Loss, output: Array | None = None) -> Iterator[str]:
    """Yield a sentence for each probable mistake in training the model with this loss.

    Parameters
    ----------
    model, loss
        The model to be trained, and its loss.
    output
        The model's output for some rows, if it is known.
    """
    layers = [layer for layer in in_order(model) if not isinstance(layer, TRANSPARENT)]
    if layers:
        yield from _before_the_loss(layers[-1], loss, output)
    with_modes = [part for _, part in model.layers() if isinstance(part, (BatchNorm, Dropout))]
    if with_modes and not any(part.training for part in (model, *with_modes)):
        yield (
            "the whole model is in evaluation, as model.eval() leaves it: Dropout stays off and "
            "BatchNorm keeps its statistics; write model.train() before fit, or put only the "
            "layers into evaluation that are to stay as they are"
        )
    for first, second in pairwise(layers):
        if type(first) is type(second) is Linear:
            inputs, outputs = first.weight.shape[0], second.weight.shape[1]
            # A narrower layer between them makes a product of low rank, which may be intended.
            if first.out_features >= min(inputs, outputs):
                yield (
                    f"{first.label} and {second.label} follow one another without an activation "
                    "between them: together they compute no more than one Linear does"
                )


def _before_the_loss(last: Layer, loss: Loss, output: Array | None) -> Iterator[str]:
    if type(loss) is CrossEntropyLoss and isinstance(last, (Softmax, LogSoftmax, Sigmoid)):
        yield f"{last.label} before {loss!r}: " + TAKES_SCORES.format(activation="log-softmax")
    elif type(loss) is BCEWithLogitsLoss and isinstance(last, (Sigmoid, Softmax, LogSoftmax)):
        yield f"{last.label} before {loss!r}: " + TAKES_SCORES.format(activation="sigmoid")
    elif type(loss) is NLLLoss and (
        isinstance(last, (Linear, Softmax, Sigmoid)) or _no_log_probabilities(output)
    ):
        yield (
            f"{loss!r} after {type(last).__name__}: the loss takes logarithms of probabilities, "
            "and its value falls without end on others; end in LogSoftmax, or take scores "
            "with CrossEntropyLoss"
        )


def _no_log_probabilities(output: Array | None) -> bool:
    """Return whether an output is no log probabilities: exponentials of a row exceed one in sum."""
    if output is None or output.ndim < 2:
        return False
    with np.errstate(over="ignore"):
        return bool((np.exp(output.astype(np.float64)).sum(axis=-1) > 1.01).any())


def left_out(model: Layer, trained: Iterable[Parameter]) -> Iterator[str]:
    """Yield a sentence that names the parameters that are neither trained nor frozen, if any."""
    known = {id(parameter) for parameter in trained}
    names = [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in known and not parameter.frozen
    ]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"parameter {names[0]!r}{more} of the model: not in the optimizer, and not frozen, so "
            "that training leaves them as they are; build the optimizer last, from "
            "model.parameters(), and freeze() before that what is to stay"
        )


def warn_of_suspicious(
    model: Layer, loss: Loss, output: Array | None, trained: Iterable[Parameter]
) -> None:
    """Issue a ``TrainingWarning`` for everything suspicious, once for each model.

    ``trained`` are the parameters that the optimizer holds.
    """
    warn_once(model, (*suspicious(model, loss, output), *left_out(model, trained)), 5)


def warn_once(model: Layer, sentences: Iterable[str], stacklevel: int) -> None:
    """Issue a ``TrainingWarning`` for each sentence that was not said of the model before."""
    said = vars(model).setdefault("_said", set())
    for sentence in sentences:
        if sentence not in said:
            said.add(sentence)
            warnings.warn(sentence, TrainingWarning, stacklevel=stacklevel)
