"""The gradient check itself: it finds planted faults, and it excuses nothing but kinks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.nn.parameter import Parameter

Function = Callable[[np.ndarray], np.ndarray]


class Elementwise(nn.Layer):
    """y = f(x), with any claim of a derivative."""

    def __init__(self, f: Function, derivative: Function) -> None:
        self.f, self.derivative = f, derivative

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        self.save(x)
        return self.f(x)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self.derivative(self.saved(dy))


class Affine(nn.Layer):
    """y = γ · (x · W) + b, whose backward pass has one fault, or none."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.weight = Parameter((3, 3), nn.init.normal(), rng=0)
        self.gamma = Parameter((3,), nn.init.normal(), rng=1)
        self.bias = Parameter((3,), nn.init.normal(), rng=2)

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        z = x @ self.weight.data
        self.save(x, z)
        return self.gamma.data * z + self.bias.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x, z = self.saved(dy)
        dz = dy if self.fault == "dropped factor" else dy * self.gamma.data
        sign = -1 if self.fault == "flipped sign" else 1
        self.weight.grad += sign * (dz.T @ x if self.fault == "wrong axis" else x.T @ dz)
        if self.fault != "missing term":
            self.gamma.grad += (dy * z).sum(axis=0)
        if self.fault == "overwrites":
            self.bias.grad[...] = dy.sum(axis=0)
        else:
            self.bias.grad += dy.mean(axis=0) if self.fault == "mean for sum" else dy.sum(axis=0)
        return dz @ (self.weight.data if self.fault == "not transposed" else self.weight.data.T)


X = np.random.default_rng(0).normal(size=(3, 3))


def test_sound_layer_passes() -> None:
    report = minidl.gradcheck(Affine(), X)
    assert report.ok
    assert report.checked == 9 + 9 + 3 + 3
    assert not report.kinks
    assert set(report.tensors) == {"input", "weight", "gamma", "bias"}
    assert "Affine(): ok" in str(report)


@pytest.mark.parametrize(
    ("fault", "tensor"),
    [
        ("flipped sign", "weight"),
        ("dropped factor", "input"),
        ("wrong axis", "weight"),
        ("missing term", "gamma"),
        ("overwrites", "bias"),
        ("mean for sum", "bias"),
        ("not transposed", "input"),
    ],
)
def test_planted_fault_is_found(fault: str, tensor: str) -> None:
    with pytest.raises(minidl.GradcheckError, match=rf"Affine\(\), gradient of {tensor} at \["):
        minidl.gradcheck(Affine(fault), X)
    report = minidl.gradcheck(Affine(fault), X, raise_error=False)
    assert not report.ok
    assert "FAILED" in str(report)
    assert report.tensors[tensor] > 1e-3


def test_message_names_layer_tensor_index_and_both_values() -> None:
    layer = Elementwise(lambda x: 3 * x, lambda x: np.where(np.arange(4) == 2, 5.0, 3.0))
    with pytest.raises(minidl.GradcheckError) as caught:
        minidl.gradcheck(layer, np.ones((1, 4)))
    message = str(caught.value)
    assert "Elementwise()" in message
    assert "input at [0, 2]" in message
    analytic, numeric = (
        float(message.split(words)[1].split()[0].rstrip(","))
        for words in ("gives ", "differences ")
    )
    assert analytic / numeric == pytest.approx(5 / 3)


def test_gradient_of_a_wrong_shape_is_found() -> None:
    class Flat(Elementwise):
        def backward(self, dy: np.ndarray) -> np.ndarray:
            return super().backward(dy).sum(axis=0)

    with pytest.raises(minidl.GradcheckError, match=r"Flat.*input.*\(3,\).*\(3, 3\)"):
        minidl.gradcheck(Flat(lambda x: x, np.ones_like), X)


def test_nan_gradient_is_found() -> None:
    layer = Elementwise(lambda x: x, lambda x: np.full_like(x, np.nan))
    with pytest.raises(minidl.GradcheckError):
        minidl.gradcheck(layer, X)


def test_faulty_loss_is_found() -> None:
    class Halved(nn.MSELoss):
        def forward(self, prediction: Any, target: Any) -> Any:
            value, gradient = super().forward(prediction, target)
            return value, gradient / 2

    minidl.gradcheck(nn.MSELoss(), X, X + 1)
    with pytest.raises(minidl.GradcheckError, match=r"Halved.*prediction"):
        minidl.gradcheck(Halved(), X, X + 1)


# --- kinks ------------------------------------------------------------------------------

KINKED = np.array([[0.0, -0.0, 1e-12, -1e-9, 3e-8, 1e-7, -1.4e-7, -1e-6, 9e-6, 1.0, -1.0]])


def test_relu_at_and_near_zero_passes() -> None:
    report = minidl.gradcheck(nn.ReLU(), KINKED)
    assert report.ok
    assert report.kinks >= 2
    assert report.checked + report.kinks == KINKED.size


@pytest.mark.parametrize("slopes", [(0.0, -1.0), (0.0, 2.0), (-1.0, 0.0), (1.0, 1.5)])
@pytest.mark.parametrize("x", KINKED[0])
def test_wrong_gradient_at_a_kink_is_not_excused(slopes: tuple[float, float], x: float) -> None:
    """f(x) = max(0, x) with gradients that lie outside the two one-sided slopes."""
    left, right = slopes
    claimed = right if x > 0 else left
    if claimed in (0.0, 1.0):
        claimed = -0.01
    layer = Elementwise(lambda v: np.maximum(v, 0), lambda v: np.full_like(v, claimed))
    with pytest.raises(minidl.GradcheckError):
        minidl.gradcheck(layer, np.array([[x]]))


@pytest.mark.parametrize("error", [0.5, 0.9, 0.99, 1.01, 1.5, -1])
def test_relu_with_a_wrong_slope_fails(error: float) -> None:
    layer = Elementwise(lambda x: np.maximum(x, 0), lambda x: error * (x > 0))
    with pytest.raises(minidl.GradcheckError):
        minidl.gradcheck(layer, np.vstack([X, np.zeros((1, 3))]))


@pytest.mark.parametrize("offset", [0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("error", [1.0001, 0.99, 0.9, 1.1])
def test_rounding_noise_is_not_taken_for_a_kink(offset: float, error: float) -> None:
    """A large constant drowns the differences; a wrong gradient must not pass for that."""
    layer = Elementwise(lambda x: x + offset, lambda x: np.full_like(x, error))
    with pytest.raises(minidl.GradcheckError):
        minidl.gradcheck(layer, X)


@pytest.mark.parametrize("power", [1e3, 1e6])
def test_curvature_is_not_taken_for_a_kink(power: float) -> None:
    # The derivative at 0 is 0, but within ε the slope reaches ±power · ε.
    sound = Elementwise(lambda x: power * x**2, lambda x: 2 * power * x)
    assert minidl.gradcheck(sound, np.zeros((1, 1))).kinks == 0
    wrong = Elementwise(lambda x: power * x**2, lambda x: 2 * power * x + 1e-4)
    with pytest.raises(minidl.GradcheckError):
        minidl.gradcheck(wrong, np.zeros((1, 1)))


# --- what it leaves alone ---------------------------------------------------------------


def test_layer_is_not_changed() -> None:
    layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Dropout(0.5), nn.Linear(4, 2), rng=0)
    x = X.astype(np.float32)
    layer.backward(np.ones_like(layer(x)))
    layer(x)
    twin, given = copy.deepcopy(layer), x.copy()
    minidl.gradcheck(layer, x)
    assert np.array_equal(x, given)
    assert layer.dtype == np.float32
    for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
        assert np.array_equal(a.data, b.data)
        assert np.array_equal(a.grad, b.grad)
    for name, array in layer.state().items():
        assert np.array_equal(array, twin.state()[name])
    dy = np.ones((3, 2), np.float32)
    assert np.array_equal(layer.backward(dy), twin.backward(dy))


def test_layer_held_by_an_optimizer_stays_there() -> None:
    layer = nn.Linear(3, 2, rng=0)
    optimizer = minidl.optim.SGD(layer.parameters())
    minidl.gradcheck(layer, X)
    optimizer.step()


def test_weights_not_yet_drawn_stay_so() -> None:
    layer = nn.Linear(3, 2)
    minidl.gradcheck(layer, X)
    assert not layer.weight.drawn


@pytest.mark.parametrize("options", [{"eps": 0}, {"eps": -1}, {"rtol": 0}, {"atol": float("nan")}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="gradcheck"):
        minidl.gradcheck(nn.ReLU(), X, **options)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"Nothing.*Linear"):
        list(minidl.gradcheck_all(["Nothing"]))


# --- any smooth function ----------------------------------------------------------------

SMOOTH: list[tuple[Function, Function]] = [
    (np.sin, np.cos),
    (np.exp, np.exp),
    (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    (lambda x: x**3, lambda x: 3 * x**2),
    (lambda x: np.log1p(x**2), lambda x: 2 * x / (1 + x**2)),
    (lambda x: 1 / (1 + x**2), lambda x: -2 * x / (1 + x**2) ** 2),
]


@settings(max_examples=150)
@given(
    st.sampled_from(SMOOTH),
    st.lists(st.floats(-3, 3), min_size=1, max_size=4),
    st.floats(0.01, 100),
    st.floats(1e-4, 3),
)
def test_any_smooth_function(
    pair: tuple[Function, Function], values: list[float], factor: float, error: float
) -> None:
    """The true derivative passes everywhere; one that is off by a factor fails."""
    f, derivative = pair
    x = np.array([values])
    sound = Elementwise(lambda v: factor * f(v), lambda v: factor * derivative(v))
    assert minidl.gradcheck(sound, x, rtol=1e-5, atol=1e-7).kinks == 0
    largest = np.abs(factor * derivative(x)).max()
    if largest > 1e-2:
        wrong = Elementwise(sound.f, lambda v: (1 + error) * sound.derivative(v))
        assert not minidl.gradcheck(wrong, x, rtol=1e-5, atol=1e-7, raise_error=False).ok


# --- what looks right only where it is tried ----------------------------------------------


class Scaled(nn.Layer):
    """y = g · x + b with g = 1 and b = 0 at first, whose backward pass has one fault, or none."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.g = Parameter((3,), nn.init.constant(1))
        self.b = Parameter((3,), nn.init.zeros())

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        if self.fault != "saves nothing":
            self.save(x)
        return x * self.g.data + self.b.data * self.b.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x = self.saved(dy)
        if self.fault == "sets":
            self.g.grad = (dy * x).sum(axis=0)
        else:
            self.g.grad += (dy * x).sum(axis=0)
        if self.fault != "no term":
            self.b.grad += 2 * dy.sum(axis=0) * self.b.data
        return dy if self.fault == "no factor" else dy * self.g.data


@pytest.mark.parametrize(("fault", "tensor"), [("no factor", "input"), ("no term", "b")])
def test_a_factor_of_one_and_a_term_of_zero_are_missed(fault: str, tensor: str) -> None:
    layer = Scaled()
    assert minidl.gradcheck(layer, X).ok
    assert (layer.g.data == 1).all()
    report = minidl.gradcheck(Scaled(fault), X, raise_error=False)
    assert not report.ok
    assert report.tensors[tensor] > 1e-3


def test_statistics_of_zero_and_one_hide_nothing() -> None:
    class Forgetful(nn.BatchNorm):
        """In evaluation dx = γ · dy, without the running variance."""

        def backward(self, dy: np.ndarray) -> np.ndarray:
            return super().backward(dy) * np.sqrt(self.running_var + self.eps)

    assert minidl.gradcheck(nn.BatchNorm(3).eval(), X).ok
    with pytest.raises(minidl.GradcheckError, match="input"):
        minidl.gradcheck(Forgetful(3).eval(), X)


def test_a_gradient_that_is_set_and_not_added_to_is_named() -> None:
    with pytest.raises(minidl.GradcheckError, match=r"gradient of g .* write parameter.grad \+="):
        minidl.gradcheck(Scaled("sets"), X)
    with pytest.raises(minidl.GradcheckError) as caught:
        minidl.gradcheck(Scaled("no factor"), X)
    assert "+=" not in str(caught.value)


def test_a_layer_that_saves_nothing_is_told_so() -> None:
    with pytest.raises(RuntimeError, match=r"Scaled.*saved nothing.*self.save"):
        minidl.gradcheck(Scaled("saves nothing"), X)


class Product(nn.Layer):
    """y = a · b, or y = a · b where c, which is integers, is not zero."""

    def __init__(self, returns: int = 0) -> None:
        self.returns = returns

    def forward(self, *inputs: np.ndarray) -> np.ndarray:  # type: ignore[override]
        self.save(inputs)
        a, b, *c = inputs
        return a * b * (c[0] != 0 if c else 1)

    def backward(self, dy: np.ndarray) -> Any:
        a, b, *c = self.saved(dy)
        dy = dy * (c[0] != 0 if c else 1)
        return (dy * b, dy * a, None)[: self.returns or 2 + len(c)]


class AnyInputs(Product):
    def check_input(self, *inputs: np.ndarray) -> None:  # type: ignore[override]
        pass


def test_several_inputs() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 3, 3))
    whole = np.arange(9).reshape(3, 3) % 2
    assert set(minidl.gradcheck(Product(), a, b).tensors) == {"input 0", "input 1"}
    for returns in (2, 3):  # a gradient for each input, or for each that has one
        report = minidl.gradcheck(AnyInputs(returns), a, b, whole)
        assert report.checked == 18
        assert set(report.tensors) == {"input 0", "input 1"}
    with pytest.raises(minidl.GradcheckError, match=r"returns 1 gradients.*2 inputs"):
        minidl.gradcheck(Product(returns=1), a, b)


def test_lengths_are_an_input() -> None:
    x = np.random.default_rng(2).normal(size=(2, 4, 3))
    report = minidl.gradcheck(nn.GRU(3, 2, rng=0), x, np.array([4, 2]))
    assert report.checked > x.size
