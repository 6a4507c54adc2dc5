"""Gradients that are measured, not trained with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minidl.nn import Layer


@contextmanager
def in_evaluation(model: Layer) -> Iterator[None]:
    """Put every layer into evaluation, and back into its own mode afterwards.

    Unlike within ``nn.evaluating()``, a forward pass may be followed by a backward pass.
    """
    before = [(layer, layer.training) for _, layer in model.layers()]
    model.eval()
    try:
        yield
    finally:
        for layer, was_training in before:
            layer.training = was_training
