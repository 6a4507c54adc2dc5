"""What ``Linear`` and the convolutions share: a weight, a bias, and how these are initialised."""

from __future__ import annotations

import math

from minidl.nn import init as initializers
from minidl.nn.layer import Layer
from minidl.nn.parameter import Initializer, Parameter, Shape
from minidl.seeds import as_generator
from minidl.typing import DType, Seed

# Chosen by measurement: benchmarks/defaults.py compares with U(±1/√fan_in) for both.
WEIGHT = initializers.fan_in_uniform()
BIAS = initializers.fan_in_uniform(math.sqrt(3))


class Affine(Layer):
    """Holds the weight and the bias of an affine map, whose outputs are the last dimension."""

    weight: Parameter  # W (..., outputs)
    bias: Parameter | None  # b (outputs)
    default_init: bool  # whether the constructor was given no initialiser of the weight
    default_bias: bool  # likewise of the bias

    def _make_parameters(
        self,
        shape: Shape,
        bias: bool,
        init: str | Initializer | None,
        rng: Seed,
        dtype: DType,
        bias_init: str | Initializer | None,
    ) -> None:
        """Make weight and bias; ``shape`` is that of the weight, and all but the last its fan_in.

        Raises ValueError for an unknown initialiser, and for ``bias_init`` without a bias.
        """
        if bias_init is not None and not bias:
            raise ValueError(
                f"{type(self).__name__}: bias=False leaves bias_init={bias_init!r} without a use"
            )
        self.default_init = init is None
        self.default_bias = init is None and bias_init is None
        if bias_init is None:
            bias_init = "zeros" if init is not None else BIAS
        weight_init = initializers.by_name(WEIGHT if init is None else init)
        bias_init = initializers.for_bias(bias_init, math.prod(shape[:-1]))
        rng = as_generator(rng)  # weight and bias each take a seed from it
        self.weight = Parameter(shape, weight_init, rng, dtype)
        self.bias = Parameter(shape[-1:], bias_init, rng, dtype) if bias else None

    def choose_init(self, preferred_init: str | Initializer | None) -> None:
        """Set the initialisers of a hidden layer, those that the constructor was not given.

        ``preferred_init`` is that of the activation after the layer.
        """
        if self.default_init:
            self.weight.initializer = initializers.by_name(preferred_init or "xavier_uniform")
        if self.default_bias and self.bias:
            self.bias.initializer = initializers.zeros()
