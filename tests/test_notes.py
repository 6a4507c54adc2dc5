"""The worked lesson: numbers small enough to check with a pencil.

The comments hold the arithmetic, with σ(z) = 1 / (1 + e^-z); expected values follow from it to all
the digits that are written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from minidl import nn, optim


def neuron(weight: float, bias: float | None = 0.0) -> nn.Linear:
    """One input, one output: z = w · a + b."""
    layer = nn.Linear(1, 1, bias=bias is not None, init=nn.init.constant(weight), dtype=np.float64)
    if layer.bias is not None:
        layer.bias.data = [bias]
    return layer


def number(value: float) -> np.ndarray:
    return np.array([[value]], np.float64)


def close(expected: float) -> object:
    """Equal to the six decimals that are written."""
    return pytest.approx(expected, rel=0, abs=5.01e-7)


def test_two_neurons_forward() -> None:
    net = nn.Sequential(neuron(0.5, 0.2), nn.ReLU(), neuron(0.8, -1), nn.Sigmoid())
    # z₁ = 0.5 · 5 + 0.2 = 2.7;  a₁ = max(0, 2.7);  z₂ = 0.8 · 2.7 - 1 = 1.16;  σ(1.16)
    assert net(number(5)).item() == close(0.761333)


def test_one_step_of_learning() -> None:
    """x = 3, y = 1, ReLU then sigmoid, w = (0.5, 0.8), b = (0.2, -0.5), loss (a - y)², η = 0.1."""
    first, second = neuron(0.5, 0.2), neuron(0.8, -0.5)
    net, loss = nn.Sequential(first, nn.ReLU(), second, nn.Sigmoid()), nn.MSELoss()

    # z₁ = 1.7;  a₁ = 1.7;  z₂ = 0.8 · 1.7 - 0.5 = 0.86;  a₂ = σ(0.86) = 0.702661
    assert float(loss(net(number(3)), number(1))) == close(0.088411)

    # δ₂ = 2 (a₂ - 1) · a₂ (1 - a₂) = -0.124245;  ∂L/∂w₂ = δ₂ · a₁;  ∂L/∂w₁ = δ₂ · w₂ · 1 · x
    net.backward(loss.backward())
    assert second.weight.grad.item() == close(-0.211217)
    assert first.weight.grad.item() == close(-0.298189)

    # w ← w - 0.1 · ∂L/∂w, of the weights alone: the biases stay as they are.
    optim.SGD([first.weight, second.weight], lr=0.1).step()
    assert second.weight.data.item() == close(0.821122)
    assert first.weight.data.item() == close(0.529819)
    # z₂ = 0.821122 · (0.529819 · 3 + 0.2) - 0.5 = 0.969362;  (σ(z₂) - 1)²
    assert float(loss(net(number(3)), number(1))) == close(0.075629)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 2, 3), 72),  # 2 · 6 · (1 · 2 · 3)
        ((1, 0.2, 0.3), 0.0072),  # two weights ten times smaller: 10⁴ times less gradient
    ],
)
def test_gradient_of_a_product_of_weights(weights: Sequence[float], expected: float) -> None:
    """P = x · w₁ · w₂ · w₃ with x = 1 and L = P²: ∂L/∂w₁ = 2P · x · w₂ · w₃."""
    net = nn.Sequential(*(neuron(w, bias=None) for w in weights))
    loss = nn.MSELoss()
    loss(net(number(1)), number(0))
    net.backward(loss.backward())
    assert net[0].weight.grad.item() == pytest.approx(expected, rel=1e-12)
