"""Which layer each pattern of operators becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.onnx import adapters, patterns
from minidl.onnx.graph_file import Graph, Node, shortest
from minidl.onnx.matching import Match, find
from minidl.onnx.patterns import Pattern
from minidl.onnx.readers import Step, fill, make_linear, reads


def _reads_pattern(pattern: Pattern, make: Callable[[Match], Layer | None]) -> None:
    """Register a pattern, and what makes a layer of a match, or None of what only looks so."""

    def reader(graph: Graph, node: Node) -> Step | None:
        match = find(graph, node, pattern)
        layer = None if match is None else make(match)
        if match is None or layer is None:
            return None
        inputs, outputs = match.inputs(pattern), match.outputs(pattern)
        rank = graph.ranks.get(inputs[0], 2)
        if isinstance(layer, RecurrentCell) and rank != 2:
            return None
        if rank < 2:
            layer = adapters.AsRows(layer, 0)
        return Step(layer, inputs, outputs, match.nodes)

    reads(pattern.last, first=True)(reader)


def _linear(match: Match) -> Layer | None:
    weight, bias = match.constants["weight"], match.constants["bias"]
    if weight.ndim != 2 or bias.shape not in (weight.shape[1:], (1, *weight.shape[1:])):
        return None
    return make_linear(weight, bias.reshape(-1))


def _standardize(match: Match) -> Layer | None:
    mean, std = match.constants["mean"], match.constants["std"]
    if mean.ndim != 1 or mean.shape != std.shape or not (std > 0).all():
        return None
    return fill(nn.Standardize(len(mean), dtype=mean.dtype), mean=mean, std=std)


def _rms_norm(match: Match) -> Layer | None:
    gamma, eps = match.constants["gamma"], match.constants["eps"]
    if gamma.ndim != 1 or eps.size != 1:
        return None
    norm = nn.RMSNorm(len(gamma), shortest(eps.item()), dtype=gamma.dtype)
    return fill(norm, gamma=gamma)


def _softplus(match: Match) -> Layer | None:
    beta = match.constants.get("beta", np.ones(1))
    threshold = match.constants.get("threshold", np.full(1, np.inf))
    if beta.size > 1 or threshold.size > 1 or threshold.item() < nn.Softplus.straight_from:
        return None
    return nn.Softplus(shortest(beta.item()))


def _cell(kind: Callable[..., Any], **options: Any) -> Callable[[Match], Layer | None]:
    """Return a function that makes a recurrent cell of a match."""

    def make(match: Match) -> Layer | None:
        recurrent = match.constants["recurrent_weight"]
        if match.values["x"] == match.values["h"] or recurrent.ndim != 2:
            return None
        width = len(match.constants["input_weight"])
        cell = kind(width, len(recurrent), rng=0, dtype=recurrent.dtype, **options)
        return fill(cell, **match.constants)

    return make


for _pattern, _make in (
    (patterns.GELU, lambda match: nn.GELU()),
    (patterns.GELU_TANH, lambda match: nn.GELU("tanh")),
    (patterns.SILU, lambda match: nn.SiLU()),
    (patterns.MISH, lambda match: nn.Mish()),
    (patterns.SOFTSIGN, lambda match: nn.Softsign()),
    (patterns.SOFTPLUS, _softplus),
    (patterns.SOFTPLUS_OR_X, _softplus),
    (patterns.SOFTPLUS_OF_BETA_OR_X, _softplus),
    (patterns.STANDARDIZE, _standardize),
    (patterns.LINEAR, _linear),
    (patterns.RMS_NORM, _rms_norm),
    *((pattern, _rms_norm) for pattern in patterns.RMS_NORM_BY_INVERSE),
    (patterns.RNN_CELL["tanh"], _cell(nn.RNNCell)),
    (patterns.RNN_CELL["relu"], _cell(nn.RNNCell, nonlinearity="relu")),
    (patterns.LSTM_CELL, _cell(nn.LSTMCell)),
    (patterns.GRU_CELL, _cell(nn.GRUCell)),
):
    _reads_pattern(_pattern, _make)
