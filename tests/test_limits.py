"""Numbers at their limits: weight 0, NaN, infinity, and what lies beyond float32 or float64.

The rules are in docs/kernels.md, "Numbers at their limits". What holds for every loss and every
optimizer is a check of test_registry.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import kernels, nn, optim
from minidl._kernels.twins import OPTIMIZER_STATE

INF, NAN = np.inf, np.nan
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# --- losses -------------------------------------------------------------------------------------


@every_dtype
def test_binary_cross_entropy_of_infinite_logits(backend: str, dtype: Any) -> None:
    z = np.array([INF, INF, INF, -INF, -INF, -INF, NAN, NAN, 1.0], dtype)
    t = np.array([0, 1, 0.25, 0, 1, 0.25, 0, 1, NAN], dtype)
    expected = [INF, 0, INF, 0, INF, INF, NAN, NAN, NAN]
    slopes = [1, 0, 0.75, 0, -1, -0.25, NAN, NAN, NAN]
    for i in range(len(z)):
        value, gradient = kernels.bce_with_logits(z[i : i + 1], t[i : i + 1])
        np.testing.assert_equal(float(value), expected[i])
        np.testing.assert_equal(gradient[0], slopes[i])
    lengths = np.tile(z, 30), np.tile(t, 30)  # in whole vectors as well
    np.testing.assert_equal(kernels.bce_with_logits(*lengths, False)[1], np.tile(slopes, 30))


@every_dtype
@pytest.mark.parametrize("classes", [2, 5, 9, 16, 33, 100])
def test_one_infinite_logit_is_certain(backend: str, dtype: Any, classes: int) -> None:
    """Softmax tends to 1 there, the loss to 0 with that label and to infinity with another."""
    z = np.random.default_rng(0).normal(size=(3, classes)).astype(dtype)
    z[0, 1] = z[1, classes - 1] = INF
    certain = np.zeros((2, classes), dtype)
    certain[0, 1] = certain[1, classes - 1] = 1
    np.testing.assert_array_equal(kernels.softmax(z)[:2], certain)
    np.testing.assert_array_equal(kernels.log_softmax(z)[:2], np.where(certain == 1, 0, -INF))
    for label, value in ((1, 0), (0, INF)):
        loss, gradient = kernels.softmax_cross_entropy(z[:1], np.array([label]))
        assert float(loss) == value
        np.testing.assert_array_equal(gradient[0], certain[0] - np.eye(classes)[label])
        weighted = kernels.softmax_cross_entropy(z[:1], np.array([label]), True, np.ones(1, dtype))
        assert float(weighted[0]) == value
    # Beside such rows, all others are as ever.
    together = kernels.softmax_cross_entropy(z, np.array([1, classes - 1, 0]))
    alone = kernels.softmax_cross_entropy(z[2:], np.array([0]))
    np.testing.assert_allclose(together[0] * 3, alone[0], rtol=1e-6)
    np.testing.assert_allclose(together[1][2] * 3, alone[1][0], rtol=1e-5, atol=1e-7)


@every_dtype
@pytest.mark.parametrize("classes", [2, 9, 33])
def test_where_softmax_has_no_limit_it_is_nan(backend: str, dtype: Any, classes: int) -> None:
    """Of two infinite logits neither is the larger; nor is there one where none is possible."""
    z = np.zeros((3, classes), dtype)
    z[0, :2], z[1], z[2, 0], z[2, 1] = INF, -INF, INF, NAN
    for row in z:
        assert np.isnan(kernels.softmax(row[None])).any()
        assert np.isnan(kernels.log_softmax(row[None])).any()
        loss, gradient = kernels.softmax_cross_entropy(row[None], np.array([0]))
        assert np.isnan(loss)
        assert np.isnan(gradient).any()


def test_the_only_class_is_certain(backend: str) -> None:
    for z in (3.0, INF, -INF):
        loss, gradient = kernels.softmax_cross_entropy(np.array([[z]]), np.array([0]))
        assert float(loss) == 0
        assert gradient[0, 0] == 0


@every_dtype
def test_a_masked_class_of_weight_zero_does_not_count(backend: str, dtype: Any) -> None:
    z = np.array([[1, 2, -INF], [0, 1, -INF]], dtype)
    labels = np.array([0, 1])
    loss = nn.CrossEntropyLoss(class_weight=[1, 1, 0], label_smoothing=0.1)
    value, gradient = float(loss(z, labels)), loss.backward()
    # ε of 3 classes, one of which counts nothing, is spread over two.
    own, other = 0.9 + 0.1 / 3, 0.1 / 3
    log_p = z[:, :2] - np.log(np.exp(z[:, :2].astype(float)).sum(axis=1, keepdims=True))
    share = np.array([[own, other], [other, own]])
    assert value == pytest.approx(-(share * log_p).sum() / 2, rel=1e-6)
    expected = (np.exp(log_p) * (own + other) - share) / 2
    np.testing.assert_allclose(gradient[:, :2], expected, rtol=1e-5)
    assert not gradient[:, 2].any()


@every_dtype
@pytest.mark.parametrize("cls", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_labels_of_weight_zero_do_not_count(backend: str, dtype: Any, cls: Any) -> None:
    z = -np.ones((3, 4), dtype)
    z[1] = NAN
    loss = cls(class_weight=[1, 0, 2, 1])
    value, gradient = float(loss(z, np.array([0, 1, 2]))), loss.backward()
    assert np.isfinite(value)
    assert not gradient[1].any()
    assert gradient[0].any()


def median(prediction: Any, target: Any, **options: Any) -> Any:
    quantiles = np.full(prediction.size // len(prediction), 0.5, prediction.dtype)
    return kernels.pinball(prediction, target, quantiles, **options)


@every_dtype
def test_gradient_of_nan_is_nan(backend: str, dtype: Any) -> None:
    losses = kernels.mse, kernels.absolute_error, kernels.huber, kernels.bce_with_logits
    for loss in (*losses, median, kernels.poisson_nll, kernels.poisson_rate_nll):
        value, gradient = loss(np.array([0.5, NAN], dtype), np.array([0, 0.5], dtype))
        assert np.isnan(value)
        assert np.array_equal(np.isnan(gradient), [False, True])


@every_dtype
def test_errors_of_infinite_predictions(backend: str, dtype: Any) -> None:
    for sign in (1, -1):
        x, zero = np.array([sign * INF], dtype), np.zeros(1, dtype)
        losses = (
            (kernels.mse, INF),
            (kernels.absolute_error, 1),
            (kernels.huber, 1),
            (median, 0.5),
        )
        for loss, slope in losses:
            value, gradient = loss(x, zero)
            assert float(value) == INF
            assert gradient[0] == sign * slope


@pytest.mark.parametrize(
    "name", ["mse", "absolute_error", "huber", "bce_with_logits", "median", "poisson_nll"]
)
def test_wide_weighted_rows_are_summed_in_float64(backend: str, name: str) -> None:
    rng = np.random.default_rng(0)
    prediction = rng.uniform(size=(1, 3_000_001)).astype(np.float32)
    target = np.zeros_like(prediction)
    loss = median if name == "median" else getattr(kernels, name)
    value, gradient = loss(prediction, target, weight=np.ones(1, np.float32))
    expected = loss(prediction.astype(float), target.astype(float))[0]
    assert float(value) == pytest.approx(float(expected), rel=2e-8)
    np.testing.assert_allclose(gradient, loss(prediction, target)[1], rtol=1e-6)


def test_cross_entropy_over_many_classes(backend: str) -> None:
    z = np.random.default_rng(0).normal(size=(2, 1_000_003)).astype(np.float32)
    labels = np.array([5, 1_000_002])
    for weight in (None, np.ones(2, np.float32)):
        value = kernels.softmax_cross_entropy(z, labels, weight=weight)[0]
        exact = kernels.softmax_cross_entropy(z.astype(float), labels)[0]
        assert float(value) == pytest.approx(float(exact), rel=2e-7)


@every_dtype
def test_tiny_weights_count_like_large_ones(backend: str, dtype: Any) -> None:
    x, zero = np.array([[1.0], [3.0]], dtype), np.zeros((2, 1), dtype)
    for weight in (1e-40, 1e38):
        value, gradient = kernels.mse(x, zero, weight=np.full(2, weight, dtype))
        assert float(value) == pytest.approx(5, rel=1e-5)
        np.testing.assert_allclose(gradient, x, rtol=1e-5)


# --- layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [NAN, INF, -INF, 1e30])
def test_fixed_statistics_keep_rows_apart(backend: str, bad: float) -> None:
    layer = nn.BatchNorm(37)
    layer.running_var[...] = 4
    layer.eval()
    x = np.random.default_rng(0).normal(size=(5, 37)).astype(np.float32)
    dy = np.random.default_rng(1).normal(size=(5, 37)).astype(np.float32)
    layer(x)
    expected = layer.backward(dy)
    x[2] = bad
    layer(x)
    np.testing.assert_array_equal(layer.backward(dy), expected)  # dx = dy γ / σ, whatever x
    dy[2] = NAN if bad != 1e30 else 1e10
    layer(x)
    found = layer.backward(dy)
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(expected, 2, 0))
    np.testing.assert_allclose(found[2], dy[2] / np.sqrt(np.float32(4 + layer.eps)), rtol=1e-6)


@every_dtype
@pytest.mark.parametrize("width", [1, 7, 45, 999, 100_003])
@pytest.mark.parametrize("value", [100.1, -1e-3, 3e38])
def test_layer_norm_of_a_constant_row_is_beta(
    backend: str, dtype: Any, width: int, value: float
) -> None:
    layer = nn.LayerNorm(width, dtype=dtype)
    layer.beta.data = np.arange(width)
    x = np.full((2, width), value, dtype)
    np.testing.assert_array_equal(layer(x), np.tile(layer.beta.data, (2, 1)))


@every_dtype
@pytest.mark.parametrize("width", [1, 7, 45])
def test_root_mean_square_of_any_size(backend: str, dtype: Any, width: int) -> None:
    """Squares never overflow, and infinity and NaN stay in their row."""
    layer = nn.RMSNorm(width, dtype=dtype)
    most = np.finfo(dtype).max
    sizes = np.array([1e-30, 1e-3, 1, 1e19, most / 2, most, 0, INF, -INF, NAN], dtype)
    x = np.repeat(sizes[:, None], width, axis=1)
    x[7:, 1:] = 1
    y = layer(x)
    eps = float(np.finfo(dtype).eps)
    expected = [1e-30 / np.sqrt(eps), 1e-3 / np.sqrt(1e-6 + eps), 1, 1, 1, 1, 0]
    np.testing.assert_allclose(y[:7], np.tile(np.array(expected)[:, None], width), rtol=1e-5)
    assert np.isnan(y[7:, 0]).all()  # ∞ / ∞
    assert not y[7:9, 1:].any()  # 1 / ∞
    assert np.isnan(y[9]).all()
    dx = layer.backward(np.ones_like(x))
    assert np.isfinite(dx[:7]).all()


@pytest.mark.parametrize("width", [1024, 1025, 30_001, 300_007])
def test_root_mean_square_of_wide_rows_keeps_its_digits(backend: str, width: int) -> None:
    """A long chain of additions would lose one part in 10⁵."""
    rng = np.random.default_rng(width)
    dy, gamma = rng.uniform(size=(2, 1, width)).astype(np.float32)
    for x in (np.full((1, width), 1.1, np.float32), rng.uniform(size=(1, width)).astype("f4")):
        wide = x.astype(np.float64)
        y, rstd = kernels.rms_norm(x, gamma[0], 1e-6)
        _, exact = kernels.rms_norm(wide, gamma[0].astype(np.float64), 1e-6)
        np.testing.assert_allclose(rstd, exact, rtol=4e-6)
        np.testing.assert_allclose(y, wide * exact * gamma, rtol=5e-6)
        dx = kernels.rms_norm_grad_input(dy, x, gamma[0], rstd)
        g, x_hat = gamma.astype(np.float64) * dy, wide * exact
        np.testing.assert_allclose(dx, exact * (g - x_hat * (g * x_hat).mean()), atol=2e-5)


def test_gradients_of_activations_in_pieces_at_nan(backend: str) -> None:
    """What docs/kernels.md says, under "Numbers at their limits"."""
    x, dy = np.array([NAN, 1.0]), np.array([3.0, 3.0])
    flat = {"relu": (), "hard_sigmoid": (), "hard_swish": ()}
    sloping = {"leaky_relu": (0.5,), "elu": (0.5,), "selu": (), "celu": (0.5,)}
    for name, settings in {**flat, **sloping}.items():
        y = getattr(kernels, name)(x, *settings)
        assert np.isnan(y[0]), name
        of_x = name.startswith("hard")
        dx = getattr(kernels, f"{name}_grad")(dy, x if of_x else y, *settings)
        assert (dx[0] == 0) if name in flat else (dx[0] != 0), name


@every_dtype
@pytest.mark.parametrize("rows", [2, 7, 8, 129, 999])
def test_batch_norm_of_a_constant_column_is_beta(backend: str, dtype: Any, rows: int) -> None:
    layer = nn.BatchNorm(5, dtype=dtype)
    layer.beta.data = np.arange(5)
    x = np.full((rows, 5), 100.1, dtype)
    np.testing.assert_allclose(layer(x), np.tile(np.arange(5), (rows, 1)), atol=1e-6)


@every_dtype
def test_means_of_many_rows_do_not_drift(backend: str, dtype: Any) -> None:
    """Of 200,000 rows far from zero: what is added up one by one in float32 loses five digits."""
    x = (100 + np.random.default_rng(0).uniform(size=(200_000, 3))).astype(dtype)
    exact = x.astype(np.float64)
    mean, var = np.zeros(3, dtype), np.ones(3, dtype)
    one, zero = np.ones(3, dtype), np.zeros(3, dtype)
    kernels.batch_norm(x, one, zero, mean, var, 1.0, 1e-5, True)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(axis=0), rtol=1e-3)
    np.testing.assert_allclose(kernels.column_sum(x), exact.sum(axis=0), rtol=1e-6)


@every_dtype
def test_elu_of_what_underflows_keeps_its_slope(backend: str, dtype: Any) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    for alpha in (0.25, 1e-30):
        x = np.array([-tiny, -1e-30, 0.0, tiny] * 9, dtype)
        slope = kernels.elu_grad(np.ones_like(x), kernels.elu(x, alpha), alpha)
        np.testing.assert_allclose(slope, [alpha, alpha, 1, 1] * 9, rtol=1e-6)


def test_an_index_that_cannot_be_changes_nothing(backend: str) -> None:
    dy = np.ones((3, 2), np.float32)
    for indices in ([1, 2, 99], [1, 2, -1]):
        dweight = np.zeros((4, 2), np.float32)
        with pytest.raises(ValueError, match=rf"index {indices[-1]} in row 2 is not in 0 to 3"):
            kernels.embedding_grad(np.array(indices), dy, dweight)
        assert not dweight.any()
        with pytest.raises(ValueError, match=rf"index {indices[-1]} in row 2 is not in 0 to 3"):
            kernels.embedding(np.array(indices), dweight)


# --- norms and clipping -------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("n", [1, 37, 4096, 10_007])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1e-19, 1.0, 1e15, 1e19, 3e38])
def test_squared_norm_of_any_size(backend: str, dtype: Any, n: int, size: float) -> None:
    x = (size * np.random.default_rng(0).uniform(0.5, 1, n)).astype(dtype)
    expected = float((x.astype(np.longdouble) ** 2).sum())
    assert float(kernels.squared_norm(x)) == pytest.approx(expected, rel=1e-5, abs=0)
    for bad, norm in ((INF, INF), (-INF, INF), (NAN, NAN)):
        x[n // 2] = bad
        np.testing.assert_equal(float(kernels.squared_norm(x)), norm)


def test_squared_norm_of_large_beside_tiny_blocks(backend: str) -> None:
    x = np.zeros(3 * 4096, np.float32)
    x[5], x[5000], x[9000] = 1e-30, 3e30, 1.0
    assert float(kernels.squared_norm(x)) == pytest.approx(float(x[5000]) ** 2, rel=1e-6)


CLIPPED = [
    *((np.float32, max_norm, g) for max_norm, g in [(1.0, 1e37), (1.0, 3e38), (1e-3, 1e35)]),
    *((np.float32, max_norm, g) for max_norm, g in [(1e-6, 1e32), (1e-30, 1e30), (1.0, 1e-20)]),
    *((np.float64, max_norm, g) for max_norm, g in [(1.0, 1e154), (1e-6, 1e300), (1.0, 1e307)]),
    *((np.float64, max_norm, g) for max_norm, g in [(1.0, 1e-180), (1e-30, 1e290)]),
]


@pytest.mark.parametrize(("dtype", "max_norm", "size"), CLIPPED)
def test_clipping_is_right_for_every_finite_norm(
    backend: str, dtype: Any, max_norm: float, size: float
) -> None:
    rng = np.random.default_rng(0)
    layer = nn.Linear(7, 5, init="zeros", dtype=dtype)
    g = (size * rng.uniform(0.5, 1, size=(7, 5))).astype(dtype)
    wide = g.astype(np.longdouble)
    norm = np.sqrt((wide**2).sum())
    expected = (wide * min(1, max_norm / norm)).astype(float)

    optimizer = optim.SGD(layer.parameters(), lr=1.0, max_norm=max_norm)
    layer.weight.grad = g
    assert optimizer.step() == pytest.approx(float(norm), rel=1e-6, abs=0)
    tiny = float(np.finfo(dtype).tiny)  # below it, updates take numbers for zero
    np.testing.assert_allclose(-layer.weight.data, expected, rtol=1e-5, atol=tiny)

    layer.weight.grad = g
    found = optim.clip_by_norm(layer.parameters(), max_norm)
    assert found == pytest.approx(float(norm), rel=1e-6, abs=0)
    np.testing.assert_allclose(layer.weight.grad, expected, rtol=1e-5, atol=tiny)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_norms_that_are_not_finite_are_refused(backend: str, bad: float) -> None:
    layer = nn.Linear(2, 2, init="zeros", dtype=np.float64)
    optimizer = optim.SGD(layer.parameters(), lr=1.0, max_norm=1.0)
    for grad in ([[1e200, bad], [0, 0]], [[1e308] * 2, [1e308] * 2]):
        layer.weight.grad = np.array(grad)
        if np.isfinite(grad).all():
            layer.weight.grad *= 1.7  # finite, but the norm is beyond float64
        with pytest.raises(FloatingPointError, match="no parameter was changed"):
            optimizer.step()
        with pytest.raises(FloatingPointError, match="nothing was changed"):
            optim.clip_by_norm(layer.parameters(), 1.0)
    assert not layer.weight.data.any()


def test_a_recorded_step_finds_norms_beyond_squares(backend: str) -> None:
    def run(record: bool) -> list[bytes]:
        layer = nn.Linear(3, 2, rng=0, dtype=np.float64)
        loss = nn.MSELoss("sum")
        optimizer = optim.SGD(layer.parameters(), lr=0.1, max_norm=1.0)

        def step(x: Any, y: Any) -> Any:
            value = loss(layer(x), y)
            optimizer.zero_grad()
            layer.backward(loss.backward())
            return value, optimizer.step()

        go: Callable[..., Any] = minidl.record(step) if record else step
        out = []
        for size in (1.0, 1e100, 1.0, 1e-170, 1e120):
            x = size * np.random.default_rng(1).normal(size=(4, 3))
            out.append(np.array(go(x, np.zeros((4, 2)))[1]).tobytes())
        return [*out, layer.weight.data.tobytes()]

    assert run(True) == run(False)


# --- second moments -----------------------------------------------------------------------------

ADAPTIVE: list[Any] = [
    (optim.Adam, {}, "moment2"),
    (optim.AdamW, {"weight_decay": 0.0}, "moment2"),
    (optim.Nadam, {}, "moment2"),
    (optim.RMSprop, {}, "square"),
    (optim.RMSprop, {"centered": True}, "square"),
    (optim.AdaGrad, {}, "square"),
]
adaptive = pytest.mark.parametrize(("cls", "settings", "name"), ADAPTIVE)


@adaptive
@every_dtype
def test_an_infinite_second_moment_moves_nothing_and_heals(
    backend: str, cls: Any, settings: dict[str, Any], name: str, dtype: Any
) -> None:
    layer = nn.Linear(37, 1, bias=False, rng=0, dtype=dtype)
    optimizer = cls(layer.parameters(), lr=0.1, **settings)
    getattr(optimizer, name)[...] = INF
    before = layer.weight.data.copy()
    layer.weight.grad += 1
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.data, before)
    assert np.isfinite(getattr(optimizer, name)).all()


@adaptive
def test_weights_move_again_after_a_huge_gradient(
    backend: str, cls: Any, settings: dict[str, Any], name: str
) -> None:
    """With moments that forget within some hundred steps."""
    own: dict[str, Any] = {"alpha": 0.5} if cls is optim.RMSprop else {"betas": (0.5, 0.5)}
    own = settings if cls is optim.AdaGrad else settings | own
    layer = nn.Linear(4, 1, bias=False, init="zeros")
    optimizer = cls(layer.parameters(), lr=0.01, **own)
    for step in range(300):
        layer.weight.grad = np.ones((4, 1)) * (-1) ** step
        layer.weight.grad[0] = 1e20 if step == 1 else layer.weight.grad[0]
        optimizer.step()
        assert np.isfinite(getattr(optimizer, name)).all()
        assert np.abs(layer.weight.data).max() < 1
    before = layer.weight.data.copy()
    layer.weight.grad = np.ones((4, 1))
    optimizer.step()
    moved = np.abs(layer.weight.data - before)[:, 0]
    if cls is not optim.AdaGrad:  # whose sums never fall
        np.testing.assert_allclose(moved[0], moved[1], rtol=1e-3)


@pytest.mark.parametrize("size", [1e15, 1e18, 1e30, 3e38])
def test_centered_squares_of_huge_gradients(backend: str, size: float) -> None:
    layer = nn.Linear(37, 1, bias=False, init="zeros")
    optimizer = optim.RMSprop(layer.parameters(), lr=0.1, centered=True)
    for sign in (1, -1, 1):
        layer.weight.grad = np.full((37, 1), sign * size)
        optimizer.step()
        assert np.abs(layer.weight.data).max() < 10


@every_dtype
def test_nan_in_a_moment_is_not_hidden(backend: str, dtype: Any) -> None:
    state = np.zeros((), OPTIMIZER_STATE)
    for field in ("scale", "norm", "centered"):
        state[field] = 1
    state["learning_rate"], state["alpha"], state["eps"] = 0.1, 0.9, 1e-8
    vectors = [np.full(37, 0.5, dtype) for _ in range(5)]
    vectors[2][:] = NAN  # the mean square
    kernels.rmsprop(*vectors, state)
    assert np.isnan(vectors[0]).all()
