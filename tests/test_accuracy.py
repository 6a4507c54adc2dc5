"""How exact the kernels are: in the last place, at the edges of the number range, in number."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidl import kernels
from minidl._kernels import twins as reference

DTYPES = [np.float32, np.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 1.0, -1.0, 3e38, -3e38]


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance from the exact value in units in the last place of got's dtype."""
    unit = np.spacing(np.abs(exact).astype(got.dtype)).astype(exact.dtype)
    return np.abs(got.astype(exact.dtype) - exact) / unit


def every_997th_float32() -> np.ndarray:
    """A sample of all float32: normal and subnormal, of both signs."""
    x = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


SAMPLE = every_997th_float32()


# --- exp-based functions ----------------------------------------------------------------


FUNCTIONS = ["exp", "log", "sigmoid", "tanh"]


def right(name: str, x: np.ndarray) -> np.ndarray:
    """The function in the type of x, which is wider than the one that is tested."""
    with np.errstate(over="ignore"):
        return np.asarray(getattr(reference, name)(x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_is_within_two_ulps(isa: str, name: str) -> None:
    x = SAMPLE[SAMPLE > 0] if name == "log" else SAMPLE
    exact, got = right(name, x.astype(np.float64)), getattr(kernels, name)(x)
    finite = np.abs(exact) <= np.finfo(np.float32).max
    error = ulps(got[finite], exact[finite])
    worst = error.argmax()
    assert error[worst] <= 2, f"{name}({x[finite][worst]!r}) is {error[worst]} ulps off"
    assert np.isinf(got[~finite]).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_within_two_ulps(isa: str, name: str) -> None:
    limit = 2.5 if (isa, name) == ("baseline", "tanh") else 2  # it rounds once more without FMA
    if np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("no long double to compare with")
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], 400_000)
    x = np.concatenate(
        [
            sign * np.exp(rng.uniform(np.log(1e-320), np.log(700), sign.size)),
            rng.uniform(-745, 709, 200_000),
            rng.uniform(-3, 3, 200_000),
        ]
    )
    if name == "log":
        x = np.concatenate([np.abs(x), np.exp(rng.uniform(-744, 709, 200_000))])
    error = ulps(getattr(kernels, name)(x), right(name, x.astype(np.longdouble)))
    assert error.max() <= limit, f"{name}({x[error.argmax()]!r}) is {error.max()} ulps off"


def tanh_interval(low: float, high: float) -> np.ndarray:
    """The column of tanh_table.h for low <= x < high, as its comment defines it."""
    middles = np.float32((low + high) / 2).view(np.int32) + np.arange(-2000, 2001, dtype=np.int32)
    middles = middles.view(np.float32)
    exact = np.tanh(middles.astype(np.longdouble))
    m = middles[np.argmin(np.abs(exact - exact.astype(np.float32)) / np.spacing(np.float32(exact)))]
    m = np.float32(0) if low == 1 / 16 else np.float32(10) if low >= 10 else m
    low, high = (0 if m == 0 else low), min(high, 9.02)  # from there on it is 1, after rounding
    coefficients = np.zeros(5)
    if m < 10:
        nodes = np.cos((2 * np.arange(5) + 1) * np.pi / 10)
        half = (high - low) / 2
        y = low + half - np.float64(m) + nodes * half
        # (tanh(m + y) - tanh(m)) / y, without the difference
        slope = np.sinh(y) / y / (np.cosh(m + y) * np.cosh(np.float64(m)))
        coefficients = np.linalg.solve(np.vander(y / half, 5, increasing=True), slope)
        coefficients /= half ** np.arange(5)
    return np.array([m, np.tanh(np.float64(m)), *coefficients], np.float32)


def test_the_table_of_tanh_is_what_it_claims() -> None:
    path = Path(__file__).parents[1] / "minidl" / "_kernels" / "loops" / "vector" / "tanh_table.h"
    numbers = re.sub(r"/\*.*?\*/", "", path.read_text().split("= {")[1], flags=re.DOTALL)
    table = np.array(re.findall(r"-?\d[\d.]*(?:e-\d+)?", numbers), np.float32).reshape(7, 32)
    starts = np.ldexp(1 + np.arange(32) % 4 / 4, [*np.repeat([1, 2, 3, -4, -3, -2, -1, 0], 4)])
    expected = [tanh_interval(low, low + np.exp2(np.floor(np.log2(low)) - 2)) for low in starts]
    assert np.array_equal(table[:2], np.transpose(expected)[:2])
    np.testing.assert_allclose(table[2:], np.transpose(expected)[2:], rtol=2e-7, atol=1e-11)


@every_dtype
def test_log_is_exact_where_it_can_be(isa: str, dtype: Any) -> None:
    one, eps = dtype(1), np.finfo(dtype).eps
    near = np.array([one, one + eps, one - eps / 2], dtype)
    assert np.array_equal(kernels.log(near), np.array([0, eps - eps * eps / 2, -eps / 2], dtype))
    x = np.array([0.0, -0.0, -1.0, -np.inf, -1e-45, np.inf, np.nan], dtype)
    expected = [-np.inf, -np.inf, np.nan, np.nan, np.nan, np.inf, np.nan]
    x[4] = -np.finfo(dtype).smallest_subnormal
    assert np.array_equal(kernels.log(x), expected, equal_nan=True)


@every_dtype
def test_exp_at_the_edges(isa: str, dtype: Any) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, 3e38, -3e38], dtype)
    expected = [1, 1, np.inf, 0, np.nan, np.inf, 0, np.inf, 0]
    assert np.array_equal(kernels.exp(x), expected, equal_nan=True)


@every_dtype
def test_cross_entropy_of_two_classes_is_log1p_exp(isa: str, dtype: Any) -> None:
    # One row [0, z] and label 0: loss = log(1 + exp(z)), an exact value to compare with.
    for z in np.concatenate([np.linspace(-90, 90, 181), [1e30, -1e30]]).astype(dtype):
        loss, gradient = kernels.softmax_cross_entropy(np.array([[0, z]], dtype), np.array([0]))
        assert float(loss) == pytest.approx(np.logaddexp(0, float(z)), rel=1e-6, abs=1e-7)
        p = reference.sigmoid(np.array(z, np.float64))
        assert gradient[0, 1] == pytest.approx(p, rel=1e-6, abs=1e-37)
        assert gradient[0, 0] == pytest.approx(-p, abs=float(4 * np.finfo(dtype).eps))


@every_dtype
def test_bce_loses_no_small_loss(isa: str, dtype: Any) -> None:
    for z in np.linspace(-85, 85, 171).astype(dtype):
        loss, _ = kernels.bce_with_logits(np.array([z]), np.zeros(1, dtype))
        assert float(loss) == pytest.approx(np.logaddexp(0, float(z)), rel=1e-6)


# --- edges of the number range ----------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("name", ["relu", "exp", "sigmoid", "tanh"])
@pytest.mark.parametrize("length", [1, 7, 64, 127])
def test_edges_match_the_twin_at_every_position(
    backend: str, name: str, dtype: Any, length: int
) -> None:
    twin = getattr(reference, name)
    for edge in np.array(EDGES, dtype):
        for position in {0, length // 2, length - 1}:
            x = np.full(length, 0.5, dtype)
            x[position] = edge
            with np.errstate(over="ignore"):
                got, expected = getattr(kernels, name)(x), twin(x)
            np.testing.assert_allclose(got, expected, rtol=1e-6 if dtype is np.float32 else 1e-14)
            if name == "tanh":
                assert np.signbit(got[position]) == np.signbit(edge) or np.isnan(edge)


@every_dtype
def test_activations_at_the_edges(backend: str, dtype: Any) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    assert np.array_equal(kernels.relu(x), [np.inf, 0, np.nan, 0, 0], equal_nan=True)
    assert np.array_equal(kernels.sigmoid(x), [1, 0, np.nan, 0.5, 0.5], equal_nan=True)
    assert np.array_equal(kernels.tanh(x), [1, -1, np.nan, 0, 0], equal_nan=True)


@every_dtype
def test_tiny_numbers_are_not_flushed_to_zero(backend: str, dtype: Any) -> None:
    tiny = np.array([np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny / 4], dtype)
    for name in ("relu", "tanh"):
        assert np.array_equal(getattr(kernels, name)(tiny), tiny)
    assert np.array_equal(kernels.add(tiny, 0 * tiny), tiny)
    assert np.array_equal(kernels.tanh_grad(tiny, 0 * tiny), tiny)
    assert np.array_equal(kernels.matmul(tiny[None], np.ones((2, 1), dtype))[0, 0], tiny.sum())


@every_dtype
def test_relu_gradient_is_zero_where_relu_is(backend: str, dtype: Any) -> None:
    y = np.array([0.0, -0.0, 1.0, np.finfo(dtype).tiny], dtype)
    assert np.array_equal(kernels.relu_grad(np.full(4, 3, dtype), y), [0, 0, 3, 3])


@every_dtype
@pytest.mark.parametrize("big", [1e30, -1e30, 3e38])
def test_huge_logits_do_not_overflow(backend: str, dtype: Any, big: float) -> None:
    logits = np.array([[big, 0, 0], [0, -big, 0], [big, big, big]], dtype)
    with np.errstate(over="ignore"):
        loss, gradient = kernels.softmax_cross_entropy(logits, np.array([0, 0, 2]), False)
    softmax = gradient + np.eye(3)[[0, 0, 2]]
    assert np.isfinite(gradient).all()
    assert float(loss) >= 0
    np.testing.assert_allclose(softmax.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(softmax[2], 1 / 3, rtol=1e-6)

    target = np.array([[1.0 if big > 0 else 0.0]], dtype)
    loss, gradient = kernels.bce_with_logits(np.array([[big]], dtype), target)
    assert float(loss) == 0
    assert gradient == 0


@every_dtype
def test_softmax_of_minus_infinity_is_zero(backend: str, dtype: Any) -> None:
    for classes in (2, 7, 45):
        logits = np.full((1, classes), -np.inf, dtype)
        logits[0, -1] = 2
        loss, gradient = kernels.softmax_cross_entropy(logits, np.array([classes - 1]))
        assert float(loss) == 0
        assert not gradient.any()


@every_dtype
@pytest.mark.parametrize("position", [0, 3, 15, 16, 45])
def test_nan_in_a_loss_is_seen(backend: str, dtype: Any, position: int) -> None:
    bad = np.zeros((2, 46), dtype)
    bad[1, position] = np.nan
    assert np.isnan(kernels.softmax_cross_entropy(bad, np.array([0, 1]))[0])
    for loss in (kernels.mse, kernels.bce_with_logits):
        assert np.isnan(loss(bad, np.zeros_like(bad))[0])
    assert np.isnan(kernels.squared_norm(bad))
    assert np.isnan(kernels.column_sum(bad)[position])


@every_dtype
@pytest.mark.parametrize("value", [1e-30, 1e25, 1.0, 1e-45, 3e38])
@pytest.mark.parametrize("n", [1, 7, 127, 4097])
def test_squared_norm_neither_overflows_nor_vanishes(
    backend: str, dtype: Any, value: float, n: int
) -> None:
    x = np.full(n, value, dtype)
    expected = n * float(x[0]) ** 2
    assert float(kernels.squared_norm(x)) == pytest.approx(expected, rel=1e-5, abs=0)


def test_squared_norm_of_small_beside_large(backend: str) -> None:
    x = np.full(8192, 1e-3, np.float32)
    x[5000] = 1e18
    assert float(kernels.squared_norm(x)) == pytest.approx(float(x[5000]) ** 2, rel=1e-6)


def test_column_sum_of_many_rows_keeps_its_digits(isa: str) -> None:
    x = np.full((200_000, 3), 0.1, np.float32)
    exact = x.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(kernels.column_sum(x), exact, rtol=1e-5)


@every_dtype
def test_variance_of_data_far_from_zero(isa: str, dtype: Any) -> None:
    # E[x²] - E[x]² would lose every digit here.
    x = np.array([[1000.0], [1001.0], [1002.0]] * 20, dtype)
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    _, mean, rstd = kernels.batch_norm(x, one, zero, zero.copy(), one.copy(), 0.1, 0.0, True)
    np.testing.assert_allclose(mean, 1001, rtol=1e-6)
    np.testing.assert_allclose(rstd, np.sqrt(1.5), rtol=1e-3)


@every_dtype
@pytest.mark.parametrize("rows", [2, 9, 128, 129, 1000])
@pytest.mark.parametrize("columns", [1, 64, 127])
def test_variance_does_not_depend_on_the_order_of_the_rows(
    isa: str, dtype: Any, rows: int, columns: int
) -> None:
    # The first rows, from whose mean deviations are taken, far from all others.
    x = np.random.default_rng(0).standard_normal((rows, columns)).astype(dtype)
    x[: min(8, rows // 2)] += 1000
    one, zero = np.ones(columns, dtype), np.zeros(columns, dtype)
    wide = x.astype(np.longdouble)
    for data, exact in ((x, wide), (x[::-1], wide[::-1])):
        _, mean, rstd = kernels.batch_norm(
            np.ascontiguousarray(data), one, zero, zero.copy(), one.copy(), 0.1, 0.0, True
        )
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=0, atol=1000 * 4 * eps)
        np.testing.assert_allclose(rstd, 1 / exact.std(axis=0), rtol=100 * eps)


# --- dropout ----------------------------------------------------------------------------


def mask_of(seed: int, calls: int, p: float, shape: tuple[int, ...]) -> np.ndarray:
    key = kernels.dropout_key(np.array([seed, calls], np.uint64))
    return kernels.dropout(np.ones(shape, np.float32), key, p) > 0


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_dropout_drops_with_its_probability(backend: str, p: float) -> None:
    n = 200_000
    for seed in (0, 1, 2**64 - 1):
        dropped = n - np.count_nonzero(mask_of(seed, 0, p, (n,)))
        assert abs(dropped - n * p) <= 5 * np.sqrt(n * p * (1 - p))


def test_dropout_masks_are_independent(backend: str) -> None:
    # Of seeds, of calls, and of neighbouring positions: each pair agrees in half the places.
    masks = [mask_of(seed, calls, 0.5, (100_000,)) for seed in (0, 1) for calls in (0, 1, 2)]
    masks += [np.roll(masks[0], shift) for shift in (1, 2, 16, 64, 1024)]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert abs(np.mean(a == b) - 0.5) < 5 * 0.5 / np.sqrt(a.size)


def test_dropout_keeps_the_mean(backend: str) -> None:
    key = np.array([3, 4], np.uint32)
    y = kernels.dropout(np.ones((1000, 100)), key, 0.3)
    assert set(np.unique(y)) == {0, 1 / 0.7}
    assert y.mean() == pytest.approx(1, abs=0.01)


def test_dropout_keeps_an_element_whose_hash_is_p(backend: str) -> None:
    # The edge between zero and kept is one of 2³² values; bisection finds it.
    key, one = np.array([3, 4], np.uint32), np.ones(1)
    kept, dropped = 0, 2**32
    while dropped - kept > 1:
        middle = (kept + dropped) // 2
        if reference.dropout(one, key, middle / 2**32):
            kept = middle
        else:
            dropped = middle
    assert kernels.dropout(one, key, kept / 2**32) > 0
    assert kernels.dropout(one, key, dropped / 2**32) == 0


def test_dropped_nan_and_infinity_are_zero(backend: str) -> None:
    key = np.array([3, 4], np.uint32)
    keep = kernels.dropout(np.ones(1000, np.float32), key, 0.5) > 0
    for value in (np.nan, np.inf):
        y = kernels.dropout(np.full(1000, value, np.float32), key, 0.5)
        assert not y[~keep].any()
        assert not np.isfinite(y[keep]).any()


# --- more than 2³¹ elements -------------------------------------------------------------


@pytest.mark.skipif(
    os.environ.get("MINIDL_TEST_LARGE") != "1", reason="needs 9 GB: MINIDL_TEST_LARGE=1"
)
def test_indexes_are_64_bit() -> None:
    """Every kernel that works in place or reduces, on one array beyond 2³¹ elements.

    All but its ends is zero, so that an index which wrapped around would show.
    """
    n = 2**31 + 16
    x = np.zeros(n, np.float32)
    x[:16], x[-16:] = 1, 2
    kernels.scale(x, 3)
    assert (x[:16] == 3).all()
    assert (x[-16:] == 6).all()
    assert not x[16:32].any()
    assert float(kernels.squared_norm(x)) == 16 * (9 + 36)
    assert np.array_equal(kernels.column_sum(x.reshape(-1, 16)), np.full(16, 9))
    ones = np.broadcast_to(np.ones((1, 1), np.float32), (n, 1))
    assert kernels.matmul(x.reshape(1, n), ones) == 16 * 9
    assert kernels.matmul(x.reshape(n, 1), ones, transpose_a=True) == 16 * 9
