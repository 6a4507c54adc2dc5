"""Initialisation by data: scale weights until every layer's output has variance one."""

from __future__ import annotations

from minidl.nn import init
from minidl.nn.affine import Affine
from minidl.nn.checks import POSITIVE, check_count, check_number
from minidl.nn.layer import Layer
from minidl.nn.watching import watching
from minidl.seeds import as_generator
from minidl.typing import Array, Seed


def lsuv(
    model: Layer, X: Array, tolerance: float = 0.01, tries: int = 10, rng: Seed = None
) -> Layer:
    """Layer-sequential unit-variance initialisation: W ← W / std(layer's output), front to back.

    The weight of every ``Linear`` and convolution begins orthonormal and is divided by the standard
    deviation of the layer's output for the data, until that is one; frozen weights stay. Signals,
    and with them gradients, then neither vanish nor explode in depth, whatever the activation is.

    Source: Mishkin and Matas 2016, algorithm 1.

    Parameters
    ----------
    model
        Any layer; its ``Linear`` layers are initialised. Build the optimizer before or after.
    X
        A batch of inputs, as large as training's or larger.
    tolerance
        Allowed distance of a variance from one, > 0.
    tries
        How many times the weight of a layer is scaled at most, ≥ 1.
    rng
        Seed of the orthonormal weights.

    Returns
    -------
    Layer
        The model.

    Raises
    ------
    ValueError
        If a layer's output is constant or not finite, or its variance not one after so many
        tries, naming it; or for settings out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layers = [layer for _ in range(20) for layer in (nn.Linear(64, 64), nn.Tanh())]
    >>> X = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    >>> model = nn.lsuv(nn.Sequential(*layers), X, rng=0)
    >>> f"{np.var(model(X)):.1f}"  # that of tanh(z) for z ~ N(0, 1), after twenty layers
    '0.4'
    """
    tolerance = check_number("lsuv", "tolerance", tolerance, POSITIVE, float("inf"))
    tries = check_count("lsuv", "tries", tries)
    rng = as_generator(rng)
    layers = [layer for _, layer in model.layers()]
    modes = [layer.training for layer in layers]
    model.eval()  # so that running statistics do not change
    try:
        for layer in layers:
            if isinstance(layer, Affine) and not layer.weight.frozen:
                layer.choose_init(None)  # biases of zero, unless others were asked for
                layer.weight.data = init.orthogonal()(layer.weight.shape, rng)
                _scale(model, layer, X, tolerance, tries)
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode
            layer.forget()
    return model


def _scale(model: Layer, layer: Affine, X: Array, tolerance: float, tries: int) -> None:
    """Scale the weight of one layer until the variance of its output is one."""
    variances: list[float] = []
    with watching([layer], "forward", lambda _, output: variances.append(float(output.var()))):
        for scaled in range(tries + 1):
            model(X)
            variance, last = variances[-1], scaled == tries
            if not last and not 0 < variance < float("inf"):
                raise ValueError(f"lsuv: the output of {layer.label} has variance {variance}")
            if abs(variance - 1) <= tolerance:
                return
            if not last:
                layer.weight.data = layer.weight.data / variance**0.5
    raise ValueError(
        f"lsuv: the output of {layer.label} has variance {variance:.6g} after {tries} tries; "
        "allow more, or a larger tolerance"
    )
