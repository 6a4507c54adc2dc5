"""How exact the activations and the kernels of rows are: in the last place, and at the edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from test_accuracy import EDGES, SAMPLE, every_dtype, ulps

from minidl import kernels
from minidl._kernels import twins as reference
from minidl._kernels.signature import KERNELS

LIMITS = {"elu": 2, "silu": 4, "softplus": 2, "gelu": 4.5, "selu": 3, "celu": 2, "mish": 5}
LIMITS |= {"softsign": 2}


@pytest.mark.parametrize("name", LIMITS)
def test_float32_activation_is_within_its_ulps(isa: str, name: str) -> None:
    """All of them scale tails of exp: where these are subnormal, so is what is left of digits."""
    limit = LIMITS[name]
    x = np.concatenate([SAMPLE[np.abs(SAMPLE) < 1e4], np.linspace(-12.8, 9, 500_001, dtype="f4")])
    x = x[x > (-12.8 if name == "gelu" else -87)]
    parameters = (1.0,) if name in ("elu", "celu", "softplus") else ()
    exact = getattr(reference, name)(x.astype(np.float64), *parameters)
    error = ulps(getattr(kernels, name)(x, *parameters), exact)
    if name == "gelu":
        error[x < 0] /= 5.5 / limit  # below zero it is a product of four rounded factors
    assert error.max() <= limit, f"{name}({x[error.argmax()]!r}) is {error.max()} ulps off"


def test_gelu_keeps_its_digits_in_the_tail(isa: str) -> None:
    # x (1 + erf(x / √2)) / 2, as it is often computed, is 0 here.
    x = -np.geomspace(1e-300, 37, 20_000)
    exact = np.array([v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.tolist()])
    np.testing.assert_allclose(kernels.gelu(x), exact, rtol=1e-12)
    np.testing.assert_allclose(kernels.gelu(-x), -x + exact, rtol=1e-14)
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    slope = exact / x + x * density
    np.testing.assert_allclose(kernels.gelu_grad(np.ones_like(x), x), slope, rtol=1e-9, atol=1e-15)
    assert kernels.gelu(np.array([-9.0], np.float32))[0] == pytest.approx(-1.0157296e-18, rel=1e-6)


RECTIFIERS = ["leaky_relu", "elu", "silu", "softplus", "gelu"]


@every_dtype
@pytest.mark.parametrize("name", RECTIFIERS)
def test_activations_and_their_gradients_at_the_edges(backend: str, name: str, dtype: Any) -> None:
    x = np.array([*EDGES, 50.0, -50.0, 1e4, -1e4], dtype)
    parameters = {"leaky_relu": (0.1,), "elu": (1.5,), "softplus": (2.0,)}.get(name, ())
    y = getattr(kernels, name)(x, *parameters)
    with np.errstate(all="ignore"):
        twin = getattr(reference, name)(x, *parameters)
    np.testing.assert_allclose(y, twin, rtol=1e-5, atol=np.finfo(dtype).tiny)
    low, below = {"leaky_relu": (-np.inf, dtype(0.1)), "elu": (-1.5, 0)}.get(name, (0, 0))
    assert np.array_equal(y[[2, 3, 4]], [np.inf, low, np.nan], equal_nan=True)
    given = y if name in ("leaky_relu", "elu") else x
    slope = getattr(kernels, f"{name}_grad")(np.ones_like(x), given, *parameters)
    assert np.array_equal(slope[[2, 10]], [1, 1])
    assert np.array_equal(slope[[3, 11]], [below, below])
    assert np.isnan(slope[4]) == (given is x)  # a rectifier hands on what it gets


ENDS = {  # the values at -∞ and ∞, and the slopes there
    "selu": (-1.7580993408473766, np.inf, 0, 1.0507009873554805),
    "celu": (-1.5, np.inf, 0, 1),
    "gelu_tanh": (0, np.inf, 0, 1),
    "hard_sigmoid": (0, 1, 0, 0),
    "hard_swish": (0, np.inf, 0, 1),
    "mish": (0, np.inf, 0, 1),
    "softsign": (-1, 1, 0, 0),
}


def test_every_activation_is_tested_at_the_edges() -> None:
    """A new one gets its values at ±∞ in ENDS, and in LIMITS how exact it is, if it uses exp."""
    elsewhere = {"relu", "sigmoid", "tanh"}  # test_accuracy.py
    names = {
        name
        for name, kernel in KERNELS.items()
        if kernel.signature.startswith("x[n]") and f"{name}_grad" in KERNELS
    }
    assert names == elsewhere | set(RECTIFIERS) | ENDS.keys()


@every_dtype
@pytest.mark.parametrize("name", ENDS)
def test_variants_and_their_gradients_at_the_edges(backend: str, name: str, dtype: Any) -> None:
    inside = np.nextafter(dtype(3), dtype(0))
    x = np.array([*EDGES, 50.0, -50.0, 1e4, -1e4, 3, -3, inside, -inside], dtype)
    parameters = (1.5,) if name == "celu" else ()
    y = getattr(kernels, name)(x, *parameters)
    given = y if name in ("selu", "celu") else x
    slope = getattr(kernels, f"{name}_grad")(np.ones_like(x), given, *parameters)
    with np.errstate(all="ignore"):
        twin = getattr(reference, name)(x, *parameters)
        twin_slope = getattr(reference, f"{name}_grad")(np.ones_like(x), given, *parameters)
    np.testing.assert_allclose(y, twin, rtol=1e-5, atol=np.finfo(dtype).tiny)
    np.testing.assert_allclose(slope, twin_slope, rtol=1e-5, atol=4 * np.finfo(dtype).eps)
    low, high, low_slope, high_slope = np.array(ENDS[name], dtype)
    np.testing.assert_allclose(y[[3, 2]], [low, high], rtol=1e-6, atol=0)
    np.testing.assert_allclose(slope[[3, 2]], [low_slope, high_slope], rtol=1e-6, atol=1e-6)
    assert np.isnan(y[4])
    assert np.isnan(slope[4]) == (name not in ("selu", "celu", "hard_sigmoid", "hard_swish"))


@every_dtype
@pytest.mark.parametrize("columns", [1, 2, 7, 16, 45])
def test_softmax_at_the_edges(backend: str, dtype: Any, columns: int) -> None:
    x = np.zeros((5, columns), dtype)
    x[0], x[1] = 3e38, -3e38
    x[2, 1:] = -np.inf
    x[3, -1] = np.nan
    x[4, 0] = 1e4
    y, z = kernels.softmax(x), kernels.log_softmax(x)
    np.testing.assert_allclose(y[:2], 1 / columns, rtol=1e-6)
    np.testing.assert_allclose(z[:2], -np.log(columns), rtol=1e-6, atol=1e-7)
    for row in (2, 4):
        assert np.array_equal(y[row], [1] + [0] * (columns - 1))
        far = -np.inf if row == 2 else -1e4
        assert np.array_equal(z[row], [0] + [far] * (columns - 1))
    assert np.isnan(y[3]).all()
    assert np.isnan(z[3]).all()


@every_dtype
def test_layer_norm_of_rows_far_from_zero(backend: str, dtype: Any) -> None:
    x = np.tile(np.array([1000, 1001, 1002], dtype), (5, 20))
    one, zero = np.ones(60, dtype), np.zeros(60, dtype)
    y, mean, rstd = kernels.layer_norm(x, one, zero, 0.0)
    np.testing.assert_allclose(mean, 1001, rtol=1e-6)
    np.testing.assert_allclose(rstd, np.sqrt(1.5), rtol=1e-3)
    np.testing.assert_allclose(y[:, :3], [[-np.sqrt(1.5), 0, np.sqrt(1.5)]] * 5, atol=1e-3)
