"""Jacobians, curvature, range test, slices and traces against closed forms and differences."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidl import analysis, datasets, nn, optim
from minidl.analysis.curvature import times_hessian
from minidl.analysis.objective import Objective

RNG = np.random.default_rng(0)


def small_network(dtype: Any = np.float32) -> nn.Sequential:
    layers = nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)
    return nn.Sequential(*layers, rng=0).astype(dtype)


def regression(rows: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 3)), rng.normal(size=(rows, 2))


def hessian(model: nn.Layer, loss: nn.Loss, x: Any, y: Any) -> np.ndarray:
    """By differences of the loss alone: (L₊₊ - L₊₋ - L₋₊ + L₋₋) / 4ε²."""
    objective = Objective(model, loss, x, y)
    size, step = objective.start.size, 1e-4
    found = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            total = 0.0
            for a in (1, -1):
                for b in (1, -1):
                    w = objective.start.copy()
                    w[i] += a * step
                    w[j] += b * step
                    total += a * b * objective.value(w)
            found[i, j] = total / (4 * step**2)
    return found


def snapshot(model: nn.Layer) -> list[np.ndarray]:
    arrays = [array for p in model.parameters() for array in (p.data, p.grad)]
    return [array.copy() for array in (*arrays, *model.state().values())]


# --- the objective ------------------------------------------------------------------------


def test_objective_is_a_function_even_with_dropout_and_batchnorm() -> None:
    model = nn.Sequential(
        *(nn.Linear(3, 8), nn.BatchNorm(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)), rng=0
    )
    x, y = regression()
    objective = Objective(model, nn.MSELoss(), x, y)
    first = objective.value_and_gradient(objective.start)
    again = objective.value_and_gradient(objective.start)
    assert first[0] == again[0] == objective.value(objective.start)
    np.testing.assert_array_equal(first[1], again[1])


def test_objective_leaves_out_frozen_parameters() -> None:
    model = small_network()
    model[0].freeze()
    x, y = regression()
    assert Objective(model, nn.MSELoss(), x, y).start.size == 4 * 2 + 2
    model.freeze()
    with pytest.raises(ValueError, match="Sequential has no parameters that are not frozen"):
        Objective(model, nn.MSELoss(), x, y)


def test_objective_takes_weights_of_rows_and_several_inputs() -> None:
    x, y = regression()
    weight = np.zeros(20)
    weight[:5] = 1
    model = small_network()
    some = Objective(model, nn.MSELoss(), x[:5], y[:5])
    weighted = Objective(model, nn.MSELoss(), x, (y, weight))
    assert weighted.value(some.start) == pytest.approx(some.value(some.start), rel=1e-12)
    lengths = np.array([3, 5])
    sequences = np.random.default_rng(0).normal(size=(2, 5, 3))
    rnn = nn.RNN(3, 2, return_sequences=False, rng=0)
    target = np.zeros((2, 2))
    with_lengths = Objective(rnn, nn.MSELoss(), (sequences, lengths), target)
    without = Objective(rnn, nn.MSELoss(), sequences, target)
    assert with_lengths.value(without.start) != without.value(without.start)


# --- Jacobians ------------------------------------------------------------------------------


def test_jacobian_of_a_linear_layer_is_its_weight() -> None:
    layer = nn.Linear(3, 2, rng=0)
    found = analysis.jacobian(layer, np.ones((1, 3)))
    np.testing.assert_array_equal(found, layer.weight.data.astype(np.float64).T)


@pytest.mark.parametrize(
    "make",
    [
        small_network,
        lambda: nn.Residual(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), rng=0)),
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Sigmoid(), rng=0),
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5, rng=0), rng=0),
    ],
)
def test_jacobian_is_the_finite_difference(make: Callable[[], nn.Layer]) -> None:
    model, x, eps = make(), regression(4)[0], 1e-6
    before = snapshot(model)
    found = analysis.jacobian(model, x)

    def output(x: np.ndarray) -> np.ndarray:
        return copy.deepcopy(model).astype(np.float64)(x).ravel()

    expected = np.empty_like(found)
    for j in range(x.size):
        change = np.zeros(x.size)
        change[j] = eps
        change = change.reshape(x.shape)
        expected[:, j] = (output(x + change) - output(x - change)) / (2 * eps)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    for a, b in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_jacobian_of_a_deep_network_is_the_product_of_its_layers() -> None:
    model, x = small_network(np.float64), regression(1)[0]
    product, value = np.eye(3), x
    for layer in model.stack:
        product = analysis.jacobian(layer, value) @ product
        value = layer(value)
    np.testing.assert_allclose(analysis.jacobian(model, x), product, atol=1e-14)


def test_jacobian_of_indices_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Embedding.* takes indices, which have no derivative"):
        analysis.jacobian(nn.Embedding(5, 2), np.array([[1]]))


# --- curvature --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.MSELoss("sum"), nn.HuberLoss(0.5)])
def test_hessian_vector_product_is_the_hessian_times_the_vector(loss: nn.Loss) -> None:
    model, (x, y) = small_network(), regression()
    matrix = hessian(model, loss, x, y)
    before = snapshot(model)
    for _ in range(3):
        v = RNG.normal(size=len(matrix))
        found = analysis.hessian_vector_product(model, loss, x, y, v)
        np.testing.assert_allclose(found, matrix @ v, atol=2e-6 * np.abs(matrix @ v).max())
        for scale in (1e-6, 1e6):  # the step does not depend on the length of v
            scaled = analysis.hessian_vector_product(model, loss, x, y, scale * v)
            np.testing.assert_allclose(scaled, scale * found, atol=1e-6 * scale * abs(found).max())
    assert not analysis.hessian_vector_product(model, loss, x, y, 0 * v).any()
    for a, b in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_hessian_of_a_linear_fit_is_known() -> None:
    x = np.random.default_rng(0).normal(size=(30, 5)) * [10, 3, 1, 0.3, 0.1]
    model, y = nn.Linear(5, 1, bias=False, rng=0), np.zeros((30, 1))
    matrix = 2 * x.T @ x / 30
    v = RNG.normal(size=5)
    found = analysis.hessian_vector_product(model, nn.MSELoss(), x, y, v)
    np.testing.assert_allclose(found, matrix @ v, rtol=1e-8)
    scaled = analysis.hessian_vector_product(model, nn.MSELoss(), x, y, 1e6 * v)
    np.testing.assert_allclose(scaled, 1e6 * found, rtol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_largest_curvature_is_the_largest_eigenvalue(seed: int) -> None:
    model, (x, y) = small_network().reset(seed), regression()
    values, vectors = np.linalg.eigh(hessian(model, nn.MSELoss(), x, y))
    found, direction = analysis.sharpest_direction(
        model, nn.MSELoss(), x, y, steps=2000, tolerance=1e-5, rng=seed
    )
    assert found == pytest.approx(values[-1], rel=1e-4)
    assert abs(direction @ vectors[:, -1]) == pytest.approx(1, abs=1e-3)
    assert found == analysis.largest_curvature(
        model, nn.MSELoss(), x, y, steps=2000, tolerance=1e-5, rng=seed
    )


def test_largest_curvature_by_default_is_within_one_per_cent_on_digits() -> None:
    data = datasets.digits()
    x, y = data.x_train[:200], data.y_train[:200]
    model = nn.Sequential(nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 10), rng=0)
    objective = Objective(model, nn.CrossEntropyLoss(), x, y)
    matrix = np.array([times_hessian(objective, e) for e in np.eye(objective.start.size)])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-8)
    expected = np.linalg.eigvalsh(matrix)[-1]
    found = analysis.largest_curvature(model, nn.CrossEntropyLoss(), x, y)
    assert found == pytest.approx(expected, rel=0.01)
    assert found <= expected * (1 + 1e-6)


def test_largest_curvature_where_the_steepest_eigenvalue_is_negative() -> None:
    """Power iteration goes to the largest modulus: of -20 and 2 to -20, of 20 and -2 to 20."""

    class Saddle(nn.Layer):
        """y = -10 w₀² + w₁², at w = 0."""

        def __init__(self) -> None:
            self.w = nn.Parameter((2,), nn.init.zeros(), 0)

        def forward(self, x: np.ndarray) -> np.ndarray:
            self.save(x)
            w = self.w.data
            return np.array([[-10 * w[0] ** 2 + w[1] ** 2]], w.dtype)

        def backward(self, dy: np.ndarray) -> np.ndarray:
            x = self.saved(dy)
            w = self.w.data
            self.w.grad += dy.item() * np.array([-20 * w[0], 2 * w[1]], w.dtype)
            return np.zeros_like(x)

    loss, x = nn.L1Loss(), np.ones((1, 1))
    # |y + 100| = y + 100 and |y - 100| = 100 - y.
    saddle = analysis.largest_curvature(Saddle(), loss, x, np.full((1, 1), -100.0))
    assert saddle == pytest.approx(2, rel=1e-3)
    mirrored = analysis.largest_curvature(Saddle(), loss, x, np.full((1, 1), 100.0))
    assert mirrored == pytest.approx(20, rel=1e-3)


def test_largest_curvature_of_a_plane_is_zero() -> None:
    x = np.ones((2, 3))
    assert analysis.largest_curvature(nn.Linear(3, 1), nn.L1Loss(), x, np.full((2, 1), 1e3)) == 0


@pytest.mark.parametrize("factor", [0.95, 1.05])
@pytest.mark.parametrize("scales", [(3, 1), (10, 0.1, 1), (1, 1, 1, 1)])
def test_two_over_the_curvature_is_the_limit_of_the_rate(
    factor: float, scales: tuple[float, ...]
) -> None:
    """A linear fit: the error along v is multiplied by 1 - η λ at every step."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, len(scales))) * scales).astype(np.float64)
    y = x @ rng.normal(size=(len(scales), 1))
    model = nn.Linear(len(scales), 1, bias=False, dtype=np.float64, rng=0)
    loss = nn.MSELoss()
    rate = factor * 2 / analysis.largest_curvature(model, loss, x, y, tolerance=1e-4)
    optimizer = optim.SGD(model.parameters(), lr=rate)
    values = []
    for _ in range(300):
        values.append(float(loss(model(x), y)))
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    if factor < 1:
        assert values[-1] < values[0]
        assert values[-1] < 1.0001 * min(values)
    else:
        assert values[-1] > 1e6 * values[0]


@pytest.mark.parametrize(
    ("vector", "message"),
    [([1.0], "a number for each of the 26 parameters, got shape"), ([np.nan] * 26, "not finite")],
)
def test_wrong_vectors(vector: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analysis.hessian_vector_product(small_network(), nn.MSELoss(), *regression(), vector)


def test_a_loss_without_reduction_is_no_function() -> None:
    model, (x, y), loss = small_network(), regression(), nn.MSELoss("none")
    for call in (analysis.largest_curvature, analysis.learning_rate_range, analysis.loss_slice):
        with pytest.raises(ValueError, match="here one number is needed"):
            call(model, loss, x, y)


def test_curvature_of_a_loss_that_is_not_finite() -> None:
    x, y = regression()
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"gradient .* is not finite"):
        analysis.largest_curvature(small_network(), nn.MSELoss(), x, y + np.inf)


# --- mean squares ------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0.01, 1.0, 9.0])
def test_mean_squares_have_closed_forms(variance: float) -> None:
    assert analysis.mean_squares("relu", variance) == pytest.approx((variance / 2, 0.5))
    assert analysis.mean_squares("linear", variance) == pytest.approx((variance, 1))
    slope = 0.01
    leaky = (1 + slope**2) / 2
    assert analysis.mean_squares(nn.LeakyReLU(slope), variance) == pytest.approx(
        (variance * leaky, leaky)
    )
    # sin: E[sin² z] = (1 - e^(-2q)) / 2, E[cos² z] = (1 + e^(-2q)) / 2
    decay = math.exp(-2 * variance)
    expected = (1 - decay) / 2, (1 + decay) / 2
    assert analysis.mean_squares(np.sin, variance) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "elu", "gelu"])
def test_kappa_is_the_mean_over_draws(name: str) -> None:
    """Within four standard errors of a mean over a million draws."""
    layer = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "elu": nn.ELU, "gelu": nn.GELU}[name]()
    z = np.random.default_rng(0).normal(scale=1.5, size=(1_000_000, 1))
    squares = layer.backward(np.ones_like(layer(z))) ** 2
    error = squares.std() / 1000
    assert analysis.kappa(name, 1.5**2) == pytest.approx(squares.mean(), abs=4 * error)


def test_kappa_of_a_variance_out_of_range() -> None:
    with pytest.raises(ValueError, match="kappa: variance must be"):
        analysis.kappa("tanh", 0.0)


# --- the range test ----------------------------------------------------------------------------


def range_of_a_bowl(curvature: float, **options: Any) -> analysis.LearningRateRange:
    """L = c · w² / 2 from w = 1, by gradient descent, which runs away beyond η = 2 / c."""
    model = nn.Linear(1, 1, bias=False, init=nn.init.constant(1.0), dtype=np.float64)
    x, y = np.full((1, 1), math.sqrt(curvature / 2)), np.zeros((1, 1))
    return analysis.learning_rate_range(model, nn.MSELoss(), x, y, **options)


@pytest.mark.parametrize("curvature", [0.1, 10.0, 1000.0])
def test_the_loss_runs_away_near_two_over_the_curvature(curvature: float) -> None:
    low, high = 2e-6 / curvature, 2e2 / curvature
    found = range_of_a_bowl(curvature, low=low, high=high)
    assert found.ended_early
    assert 2 < found.limit * curvature < 200
    assert found.suggestion < 2 / curvature
    assert found.suggestion == pytest.approx(found.best / 10)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 100
    assert f"is back at {found.limit:.2g}" in str(found)


def test_batches_of_unequal_difficulty_do_not_mislead_the_range_test() -> None:
    """Half of the targets are a hundred times larger, so that losses differ by chance."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 3))
    y = x @ np.ones((3, 1)) * rng.choice([0.1, 10.0], size=(256, 1))
    model = nn.Linear(3, 1, init="zeros", dtype=np.float64)
    curvature = analysis.largest_curvature(model, nn.MSELoss(), x, y)
    for seed in range(10):
        found = analysis.learning_rate_range(model, nn.MSELoss(), x, y, batch_size=4, rng=seed)
        assert 1e-3 < found.suggestion * curvature < 1
        assert np.ptp(found.smoothed[:30]) < 0.01 * found.untrained.mean()
        assert np.ptp(found.losses[:30]) > found.untrained.mean()


def test_a_range_that_ends_before_the_loss_runs_away() -> None:
    found = range_of_a_bowl(1.0, high=0.1, steps=20)
    assert not found.ended_early
    assert found.limit == math.inf
    assert found.best == found.rates[-1] == pytest.approx(0.1)
    assert "does not rise again" in str(found)


def test_the_range_test_trains_a_copy_with_the_settings_of_the_optimizer() -> None:
    data = datasets.digits()
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10), rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    before = snapshot(model)
    arguments = model, nn.CrossEntropyLoss(), data.x_train, data.y_train
    found = analysis.learning_rate_range(*arguments, optimizer=optimizer)
    for a, b in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert optimizer.lr == 0.5
    assert optimizer.steps == 0
    plain = analysis.learning_rate_range(*arguments)
    assert plain.best < plain.limit < 10
    assert found.best < plain.best  # momentum 0.9 multiplies the rate by ten in effect
    again = analysis.learning_rate_range(*arguments)
    np.testing.assert_array_equal(plain.losses, again.losses)
    assert not np.array_equal(plain.losses, analysis.learning_rate_range(*arguments, rng=1).losses)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_the_suggested_rate_trains(make: Any) -> None:
    data = datasets.digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), rng=0)
    loss = nn.CrossEntropyLoss()
    found = analysis.learning_rate_range(model, loss, data.x_train, data.y_train, optimizer=make)
    optimizer = make(model.parameters(), lr=found.suggestion)
    order = np.random.default_rng(0)
    for _ in range(300):
        rows = order.integers(len(data.x_train), size=32)
        loss(model(data.x_train[rows]), data.y_train[rows])
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    accuracy = (model(data.x_test).argmax(axis=1) == data.y_test).mean()
    assert accuracy > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "low < high, got 1.0 and 0.1"),
        ({"steps": 1}, "steps must be >= 2"),
        ({"low": 0.0}, "low must be finite and > 0"),
    ],
)
def test_wrong_ranges(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        range_of_a_bowl(1.0, **options)


def test_a_range_test_that_begins_with_nan() -> None:
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="before any step"):
        range_of_a_bowl(math.inf)


# --- slices of the loss ---------------------------------------------------------------------------


def test_a_slice_along_an_eigenvector_is_the_parabola_of_its_curvature() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.zeros((30, 1))
    model = nn.Linear(4, 1, bias=False, init="zeros", dtype=np.float64)
    curvature, direction = analysis.sharpest_direction(
        model, nn.MSELoss(), x, y, steps=1000, tolerance=1e-8
    )
    found = analysis.loss_slice(
        model, nn.MSELoss(), x, y, directions=[direction], radius=2.0, points=9
    )
    np.testing.assert_allclose(found.losses, curvature * found.places**2 / 2, rtol=1e-6)
    assert found.places[4] == 0
    assert found.centre == 0


def test_random_directions_are_as_long_as_the_weights_of_every_unit() -> None:
    model, (x, y) = small_network(), regression()
    found = analysis.loss_slice(model, nn.MSELoss(), x, y, directions=2, points=3)
    first, bias, second, last = Objective(model, nn.MSELoss(), x, y).split(found.directions[0])
    for part, layer in ((first, model[0]), (second, model[2])):
        expected = np.linalg.norm(layer.weight.data, axis=0)
        np.testing.assert_allclose(np.linalg.norm(part, axis=0), expected, rtol=1e-6)
    assert not bias.any()
    assert not last.any()
    assert found.losses.shape == (3, 3)


def test_a_slice_does_not_see_how_a_relu_network_is_scaled() -> None:
    """10 W₁ and W₂ / 10 are the same function, and have the same slices."""
    layers = nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False)
    model = nn.Sequential(*layers, rng=0).astype(np.float64)
    scaled = copy.deepcopy(model)
    scaled[0].weight.data = 10 * model[0].weight.data
    scaled[2].weight.data = model[2].weight.data / 10
    x, y = regression()
    one, other = (analysis.loss_slice(m, nn.MSELoss(), x, y, points=5) for m in (model, scaled))
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-10)


def test_two_dimensions_have_the_first_direction_first() -> None:
    model = nn.Linear(2, 1, bias=False, init="zeros", dtype=np.float64)
    x, y = np.array([[1.0, 0.0], [0.0, 3.0]]), np.zeros((2, 1))
    found = analysis.loss_slice(model, nn.MSELoss(), x, y, directions=np.eye(2), points=3)
    np.testing.assert_allclose(found.losses, [[5, 0.5, 5], [4.5, 0, 4.5], [5, 0.5, 5]])
    assert repr(found) == "LossSlice of 3 by 3 points: the loss is 0 at the model, 0 to 5 around it"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 4}, "points must be odd, got 4"),
        ({"directions": 3}, "directions must be 1 or 2, got 3"),
        ({"directions": [[1.0]]}, r"one or two vectors of 26 numbers, got shapes \[\(1,\)\]"),
        ({"radius": 0.0}, "radius must be"),
    ],
)
def test_wrong_slices(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analysis.loss_slice(small_network(), nn.MSELoss(), *regression(), **options)


# --- the trace ------------------------------------------------------------------------------------


def test_a_trace_has_every_value_and_every_gradient() -> None:
    model, (x, y), loss = small_network(np.float64), regression(3), nn.MSELoss()
    before = snapshot(model)
    found = analysis.trace(model, x, loss, y)
    for a, b in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [step.path for step in found] == ["", "0", "1", "2"]
    output = model(x)
    assert found.loss == float(loss(output, y))
    dy = loss.backward()
    np.testing.assert_array_equal(found["2"].value, output)
    np.testing.assert_array_equal(found["2"].gradient, dy)
    dx = model.backward(dy)
    np.testing.assert_array_equal(found[""].gradient, dx)
    np.testing.assert_array_equal(found["0"].parameters["weight"][1], model[0].weight.grad)
    # dL/d(the output of 1) = dy · W₂ᵀ
    np.testing.assert_allclose(found["1"].gradient, dy @ model[2].weight.data.T)
    assert found["1"].norm == pytest.approx(np.linalg.norm(found["1"].value))
    assert found["1"].gradient_norm == pytest.approx(np.linalg.norm(found["1"].gradient))


def test_a_trace_without_a_loss_begins_with_ones() -> None:
    model, (x, _) = small_network(), regression(3)
    np.testing.assert_array_equal(analysis.trace(model, x)["2"].gradient, np.ones((3, 2)))
    dy = regression(3)[1]
    found = analysis.trace(model, x, dy=dy)[""].gradient
    np.testing.assert_allclose(
        found, (dy.ravel() @ analysis.jacobian(model, x)).reshape(3, 3), rtol=1e-5
    )


def test_a_trace_goes_into_residual_blocks_and_through_sequences() -> None:
    block = nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    model = nn.Sequential(
        nn.Embedding(9, 3), nn.GRU(3, 4, return_sequences=False), block, nn.Linear(4, 1), rng=0
    )
    found = analysis.trace(model, np.array([[1, 2], [3, 4]]))
    paths = [step.path for step in found]
    assert paths == ["", "0", "1", "2.body.0", "2.body.1", "2", "3"]
    assert found[""].gradient is None
    assert math.isnan(found[""].gradient_norm)
    assert not found["2"].parameters
    assert set(found["2.body.0"].parameters) == {"weight", "bias"}
    assert len(found["1"].parameters) == len(model[1].parameters())
    # The gradient of the sum goes both ways: through the body and around it.
    around = found["2"].gradient
    body = around * (1 - found["2.body.1"].value ** 2) @ block.body[0].weight.data.T
    np.testing.assert_allclose(found["1"].gradient, around + body, rtol=1e-5)


def test_a_trace_of_a_layer_that_is_called_twice_has_both_calls() -> None:
    class Twice(nn.Layer):
        """y = f(f(x)), with one f."""

        def __init__(self) -> None:
            self.inner = nn.Linear(1, 1, bias=False, init=nn.init.constant(3.0))
            self.assign_paths()

        def forward(self, x: np.ndarray) -> np.ndarray:
            return self.inner(self.inner(x))

        def backward(self, dy: np.ndarray) -> np.ndarray:
            return self.inner.backward(self.inner.backward(dy))

    found = analysis.trace(Twice(), np.ones((1, 1)))
    steps = [(step.path, step.value.item(), step.gradient.item()) for step in found.steps[1:]]
    assert steps == [("inner", 3, 3), ("inner", 9, 1), ("", 9, 1)]


def test_a_trace_prints_a_table() -> None:
    model, (x, y) = small_network(np.float64), regression(1)
    lines = str(analysis.trace(model, x, nn.MSELoss(), y)).splitlines()
    assert lines[0].split() == ["layer", "shape", "forward", "backward:", "dL/d..."]
    assert lines[2].startswith("input")
    assert "norm" in next(line for line in lines if "weight" in line)
    assert lines[-1].startswith("loss MSELoss()")
    with pytest.raises(KeyError, match="no layer was traced at '7'"):
        analysis.trace(model, x)["7"]


def test_a_loss_needs_targets() -> None:
    model, (x, y) = small_network(), regression()
    with pytest.raises(ValueError, match="a loss needs y, and y a loss"):
        analysis.trace(model, x, nn.MSELoss())
    with pytest.raises(ValueError, match="with the loss, or with dy; give one"):
        analysis.trace(model, x, nn.MSELoss(), y, dy=y)


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_are_written(tmp_path: Path) -> None:
    model, (x, y) = small_network(), regression()
    range_of_a_bowl(1.0).plot(tmp_path / "range.png")
    for count in (1, 2):
        found = analysis.loss_slice(model, nn.MSELoss(), x, y, directions=count, points=5)
        found.plot(tmp_path / f"slice{count}.png")
    assert {path.name for path in tmp_path.iterdir()} == {"range.png", "slice1.png", "slice2.png"}
