"""Every number that the lessons quote, derived; where chance is in it, within its error.

Intervals are of four standard errors, so that one in sixteen thousand would miss. The errors are
those of theory where it knows them.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

from minidl import analysis, lab, nn, optim
from minidl.lab import batchnorm, by_hand, clipping, linear_draws, resnet
from minidl.lab.quoted import Quoted


@cache
def found(name: str, **options: Any) -> Any:
    """What an experiment computes."""
    return lab.module(name).compute(**options)


def rows(name: str, **options: Any) -> dict[str, Quoted]:
    return {row.what: row for row in found(name, **options).quoted()}


def within(values: Any, expected: float, errors: float = 4.0) -> bool:
    """Whether the mean of independent values is so many standard errors from what is expected."""
    values = np.asarray(values, np.float64)
    return abs(values.mean() - expected) <= errors * values.std(ddof=1) / math.sqrt(len(values))


def near(value: float, quoted: float, rel: float = 0.01) -> bool:
    """Whether a value is the quoted one but for its rounding."""
    return abs(value - quoted) <= rel * quoted


def digits(value: float) -> Any:
    """Equal to the last of twelve digits."""
    return pytest.approx(value, rel=1e-11, abs=1e-300)


# --- lesson 1: the linear unit --------------------------------------------------------------------


def test_lesson_1_the_sum_and_its_gradients() -> None:
    unit = found("linear-unit")
    assert unit.z == 0.5 * 2 + 1 * 3 == 4
    assert unit.dw.tolist() == [2, 3]  # dz/dw = x
    assert unit.dx.tolist() == [0.5, 1]  # dz/dx = w


def test_lesson_1_one_step_of_descent() -> None:
    unit = found("linear-unit")
    assert unit.slope == digits(2 * 2)  # of w² at w = 2
    assert unit.stepped == digits(2 - 0.1 * 4)
    assert unit.stepped**2 == digits(2.56)


def test_lesson_1_the_gradient_of_a_sum_of_squares() -> None:
    """f(x, y) = x² + y²: (2x, 2y)."""
    point = nn.Linear(1, 2, bias=False, dtype=np.float64)
    point.weight.data = [[3.0, -0.5]]
    pass_ = analysis.trace(point, np.ones((1, 1)), nn.MSELoss("sum"), np.zeros((1, 2)))
    assert pass_.loss == digits(9.25)
    assert pass_.steps[-1].parameters["weight"][1].tolist() == [[6, -1]]


@pytest.mark.parametrize("weight", [2.0, 1.1, 1.0, 0.9, 0.5])
def test_lesson_1_a_chain_of_equal_weights(weight: float) -> None:
    chain = found("linear-unit").chains[weight]
    np.testing.assert_allclose(chain, weight ** np.arange(51.0), rtol=1e-12)


# --- lesson 2: by hand ----------------------------------------------------------------------------


def test_lesson_2_the_forward_pass() -> None:
    z1 = 5 * 0.5 + 0.2
    z2 = 0.8 * max(0, z1) - 1
    expected = [2.7, 2.7, 1.16, 1 / (1 + math.exp(-z2))]
    assert found("by-hand").first == pytest.approx(expected, rel=1e-12)
    assert expected[3] == pytest.approx(0.76, abs=0.005)
    assert expected[3] > 0.5  # odd


def test_lesson_2_both_passes_and_the_step() -> None:
    """x = 3, y = 1, w = (0.5, 0.8), b = (0.2, -0.5), L = (a₂ - y)², η = 0.1, without minidl."""
    z1 = a1 = 0.5 * 3 + 0.2
    z2 = 0.8 * a1 - 0.5
    a2 = 1 / (1 + math.exp(-z2))
    d2 = 2 * (a2 - 1) * a2 * (1 - a2)
    hand = found("by-hand")
    forward = [hand.before[path].value.item() for path in "0123"]
    assert forward == pytest.approx([z1, a1, z2, a2], rel=1e-12)
    assert hand.loss == digits((a2 - 1) ** 2)
    backward = [hand.gradient(path) for path in "3210"]
    assert backward == pytest.approx([2 * (a2 - 1), d2, d2 * 0.8, d2 * 0.8], rel=1e-12)
    assert hand.slope("2") == digits(d2 * a1)
    assert hand.slope("0") == digits(d2 * 0.8 * 3)
    w1, w2 = 0.5 - 0.1 * d2 * 0.8 * 3, 0.8 - 0.1 * d2 * a1
    assert hand.weights == pytest.approx((w1, w2), rel=1e-12)
    z2 = w2 * (w1 * 3 + 0.2) - 0.5
    assert hand.after.loss == digits((1 / (1 + math.exp(-z2)) - 1) ** 2)


def test_lesson_2_which_quoted_numbers_are_cut_off() -> None:
    """a₂ = 0.702661 rounds to 0.703: 0.702 is off, and with it five that follow from it."""
    table = found("by-hand").quoted()
    off = {row.what: row.quoted for row in table if not row.agrees}
    assert off == {
        "a2 = sigmoid(z2)": "0.702",
        "L = (a2 - 1)²": "0.089",
        "dL/da2 = 2 (a2 - 1)": "-0.596",
        "dL/dw2": "-0.212",
        "dL/da1": "-0.100",
        "dL/dw1": "-0.300",
    }
    # And each follows from 0.702 in three digits, the last from the -0.100 before it.
    assert round((0.702 - 1) ** 2, 3) == 0.089
    assert round(2 * (0.702 - 1), 3) == -0.596
    assert round(0.702 * (1 - 0.702), 3) == 0.209
    assert round(-0.596 * 0.209 * 1.7, 3) == -0.212
    assert round(-0.596 * 0.209 * 0.8, 3) == -0.100
    assert round(-0.596 * 0.209 * 0.8 * 3, 3) == -0.299
    assert round(-0.100 * 3, 3) == -0.300
    assert rows("by-hand")["dL/dw1"].remark == by_hand.ROUNDED


def test_lesson_2_one_unit_cannot_tell_odd_from_even() -> None:
    """Its answer is monotone in x, whatever the weights are."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.Sigmoid())
    for seed in range(20):
        y = model.reset(seed)(np.arange(10.0, dtype=np.float32)[:, None]).ravel()
        assert (np.diff(y) >= 0).all() or (np.diff(y) <= 0).all()


# --- lesson 3: the chain rule ---------------------------------------------------------------------


def test_lesson_3_the_product_of_three_weights() -> None:
    chain = found("chain")
    assert chain.large == digits(2 * 1 * 2**2 * 3**2) == 72
    assert chain.small == digits(2 * 1 * 0.2**2 * 0.3**2) == digits(0.0072)


def test_lesson_3_a_hundred_layers() -> None:
    chain = found("chain")
    assert chain.counts[-1] == 99  # squared factors behind the first weight
    for weight, gradients in chain.long.items():
        np.testing.assert_allclose(gradients, 2 * weight ** (2.0 * chain.counts), rtol=1e-11)
    # The largest float32 is 2^128 (1 - 2^-24): 2 · 2^(2k) is beyond it from k = 64 on.
    assert chain.ends[2.0] == 64
    # The smallest is 2^-149; 2 · 2^(-2k) is below half of it from k = 76 on.
    assert chain.ends[0.5] == 76
    assert chain.ends[1.1] is chain.ends[1.0] is chain.ends[0.9] is None


def test_lesson_3_the_derivative_of_a_sigmoid() -> None:
    table = found("sigmoid-table")
    assert table.values[0] == 0.5
    assert table.stack[0] == 0.25 == 0.5 * (1 - 0.5)
    z = np.linspace(-30, 30, 2001)
    s = 1 / (1 + np.exp(-z))
    assert (s * (1 - s)).max() == 0.25  # at most, not at least


def test_lesson_3_powers_of_a_quarter() -> None:
    table = rows("sigmoid-table")
    said = (
        "0.250000 0.062500 0.015625 0.003906 0.000977 0.000244 0.000061 0.000015 0.000004 0.000001"
    )
    assert [f"{0.25**k:.6f}" for k in range(1, 11)] == said.split()
    assert f"{0.25**10:.8f}" == "0.00000095"
    assert near(0.25**9, 3.8e-6)  # "layer 10", if layer 1 has 1.0
    assert near(0.25**100, 6.2e-61)
    assert np.float32(0.25) ** 100 == 0
    assert [table[f"0.25^{k}"].computed for k in range(1, 10)] == [0.25**k for k in range(1, 10)]


def test_lesson_3_an_eighth_to_the_tenth_is_not_a_ten_millionth() -> None:
    row = rows("sigmoid-table")["0.125^10"]
    assert row.computed == digits(0.5**30) == pytest.approx(9.3e-10, rel=0.01)
    assert not row.agrees
    assert 100 < float(row.quoted) / row.computed < 110


def test_lesson_3_a_stack_of_sigmoids_is_less_than_the_bound() -> None:
    table = found("sigmoid-table")
    y, product = 0.0, 1.0
    for k in range(10):
        y = 1 / (1 + math.exp(-y))
        product *= y * (1 - y)
        assert table.values[k] == digits(y)
        assert table.stack[k] == digits(product)
    assert product == pytest.approx(3.9e-7, rel=0.01)
    assert product < 0.25**10 / 2
    # The outputs approach the solution of x = σ(x), where σ' = x (1 - x).
    assert y == pytest.approx(0.6590, abs=1e-4)
    assert table.stack[-1] / table.stack[-2] == pytest.approx(0.659 * 0.341, abs=1e-4)
    assert (table.halved <= 0.125**table.layers).all()


def test_lesson_3_light_that_halves() -> None:
    table = rows("sigmoid-table")
    halves = [table[f"layer {k}"].computed for k in (3, 4)]
    assert halves == [0.25, 0.125]
    assert table["layer 10: 0.5^9"].computed == digits(1 / 512)


def test_lesson_3_tanh_has_slope_one_at_zero_only() -> None:
    layer, z = nn.Tanh(), np.linspace(-5, 5, 101)[:, None]
    slopes = layer.backward(np.ones_like(layer(z)))
    assert slopes.max() == slopes[50] == 1
    assert (np.delete(slopes, 50) < 1).all()
    assert (slopes > 0).all()


def test_lesson_3_relu_has_slope_one_or_zero() -> None:
    layer, z = nn.ReLU(), np.array([[-2.0, 0.0, 3.0]])
    assert layer.backward(np.ones_like(layer(z))).tolist() == [[0, 0, 1]]


# --- lesson 4: exploding --------------------------------------------------------------------------


def test_lesson_4_powers_of_two() -> None:
    powers = found("exploding").powers
    assert powers.tolist() == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert powers[8] == 512  # "layer 10", if layer 1 has 1.0


def test_lesson_4_weights_twice_he_double_the_gradient() -> None:
    """ln of the factor per layer, over twenty networks."""
    growths: dict[str, list[float]] = {"He weights": [], "twice as large": []}
    for seed in range(20):
        trainings = found("exploding", steps=1, seed=seed).trainings
        for name, logs in growths.items():
            logs.append(math.log(trainings[name].growth))
    for name, factor in (("He weights", 1), ("twice as large", 2)):
        assert within(growths[name], math.log(factor))
        assert np.std(growths[name]) < 0.05


def test_lesson_4_the_loss_runs_away_unless_the_gradient_is_clipped() -> None:
    for seed in range(5):
        calm, twice, clipped = found("exploding", steps=100, seed=seed).trainings.values()
        assert not calm.failure
        assert not clipped.failure
        assert twice.failure
        assert np.nanmax(twice.losses) > 1e3
        assert clipped.losses[-1] < clipped.losses[0]


# --- lesson 5: random linear networks -------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_lesson_5_the_mean_is_the_power_of_n_var_w(scale: float) -> None:
    """E r = s^L and E r² = s^(2L) (1 + 2/n)^L, so the error of a mean of so many draws is known."""
    draws, width, depth = 4000, 20, 10
    ratios = found("linear-draws", depth=depth, width=width, draws=draws, scale=scale).ratios[:, -1]
    error = scale**depth * math.sqrt(((1 + 2 / width) ** depth - 1) / draws)
    assert abs(ratios.mean() - scale**depth) < 4 * error
    assert 4 * error < 0.15 * scale**depth


def test_lesson_5_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of forty intervals of two standard errors, about two miss."""
    inside = 0
    for seed in range(40):
        some = found("linear-draws", depth=5, width=20, draws=200, seed=seed).ratios[:, -1]
        inside += within(some, 1.0, errors=2)
    assert 33 <= inside <= 40


def test_lesson_5_the_typical_gradient_is_far_below_the_mean() -> None:
    """ln r is a sum of L independent ln(χ²_n / n): mean ψ(n/2) + ln(2/n), variance ψ'(n/2)."""
    draws = found("linear-draws")
    logs = np.log(draws.ratios[:, -1])
    error = math.sqrt(draws.spread / len(logs))
    assert abs(logs.mean() - math.log(draws.typical[-1])) < 4 * error
    assert logs.var() == pytest.approx(draws.spread, rel=4 * math.sqrt(2 / len(logs)))
    assert draws.typical[-1] == pytest.approx(0.0062, rel=0.01)
    assert draws.expected[-1] == 1
    # The median lies within the ranks that a binomial gives for four standard errors.
    rank = np.sort(logs)[[500 - 64, 500 + 64]]
    assert rank[0] < math.log(draws.typical[-1]) < rank[1]


def test_lesson_5_paths_cancel_in_the_mean() -> None:
    for seed in range(5):
        draws = found("linear-draws", depth=10, draws=2000, seed=seed)
        assert within(draws.component, 0.0)


def test_lesson_5_a_little_less_than_one() -> None:
    assert near(0.99**100, 0.366)  # not nearly zero
    assert near(0.99**1000, 4.3e-5)
    assert near(1.01**100, 2.7)


def test_lesson_5_a_hundred_matrices_of_four_by_four() -> None:
    """ln ‖g‖ grows by (ln 2 + ψ(2)) / 2 = 0.558 a matrix: to 1.7e24."""
    lyapunov = (math.log(2) + linear_draws.digamma(2.0)) / 2
    assert lyapunov == pytest.approx(0.558, abs=5e-4)
    draws = found("linear-draws", depth=100, width=4, scale=4.0)
    assert within(np.log(draws.ratios[:, -1]) / 2, 100 * lyapunov)
    assert math.exp(100 * lyapunov) == pytest.approx(1.7e24, rel=0.02)


@pytest.mark.parametrize("x", [0.5, 1.0, 2.5, 10.0])
def test_lesson_5_digamma_and_trigamma(x: float) -> None:
    """By differences of ln Γ."""
    h = 1e-4
    up, middle, down = math.lgamma(x + h), math.lgamma(x), math.lgamma(x - h)
    assert linear_draws.digamma(x) == pytest.approx((up - down) / (2 * h), rel=1e-6, abs=1e-6)
    assert linear_draws.trigamma(x) == pytest.approx((up - 2 * middle + down) / h**2, rel=1e-5)


# --- lesson 6: the critical line ------------------------------------------------------------------


def test_lesson_6_kappa_and_the_initialisations_that_follow() -> None:
    assert analysis.kappa("relu") == pytest.approx(0.5)
    assert 1 / analysis.kappa("relu") == pytest.approx(2)  # He: Var(w) = 2 / n
    near, one, far = (analysis.kappa("tanh", variance) for variance in (0.01, 1.0, 100.0))
    assert (near, one, far) == pytest.approx((0.981, 0.464, 0.053), abs=5e-4)
    assert analysis.kappa("tanh", 1e-6) == pytest.approx(1, abs=1e-5)  # Xavier: Var(w) = 1 / n
    assert analysis.kappa("sigmoid", 1e-6) == pytest.approx(1 / 16, abs=1e-6)
    assert analysis.kappa("sigmoid") == pytest.approx(0.0448, abs=5e-5)
    line = found("critical-line", depth=2, width=8).found
    critical = {name: one.critical[1] for name, one in line.items()}
    assert critical == pytest.approx({"sigmoid": 103, "tanh": 1, "relu": 2, "elu": 1}, rel=0.005)
    assert line["sigmoid"].critical[0] == pytest.approx(46, abs=0.5)
    gelu = found("critical-line", activation="gelu", depth=2, width=8)
    assert gelu.found["gelu"].critical is None
    assert any("none" in line for line in gelu.lines())


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "elu", "linear"])
def test_lesson_6_networks_grow_as_n_var_w_kappa_says(name: str) -> None:
    """Within 3 % a layer at width 256, except where tanh is chaotic and rows part company."""
    line = found("critical-line", activation=name, depth=12, width=256).found[name]
    error = np.abs(np.log(line.measured / line.predicted))
    assert np.median(error) < 0.03
    assert error.max() < 0.15
    slopes = np.diff(np.log(line.measured))
    assert (slopes > 0).all()  # larger weights, larger gradients


def test_lesson_6_xavier_on_relu_halves_the_square() -> None:
    """The norm falls by √½ a layer; thirty layers leave 3.1e-5."""
    logs = []
    for seed in range(20):
        layers = [
            layer for _ in range(30) for layer in (nn.Linear(128, 128, bias=False), nn.ReLU())
        ]
        model = nn.Sequential(*layers, rng=seed)
        for depth, layer in enumerate(layers[::2]):
            draws = np.random.default_rng([seed, depth]).normal(size=(128, 128))
            layer.weight.data = draws / math.sqrt(128)
        x, dy = np.random.default_rng(seed).normal(size=(2, 8, 128))
        ratio = analysis.trace(model, x, dy=dy)[""].gradient_norm / np.linalg.norm(dy)
        logs.append(math.log(ratio) / 30)
    assert np.mean(logs) == pytest.approx(-math.log(2) / 2, rel=0.05)
    assert near(0.5**15, 3.1e-5, 0.02)


def test_lesson_6_the_distributions_of_xavier_and_he() -> None:
    """U(±√6/√(n_in + n_out)) has the variance 2/(n_in + n_out); He's √(2/n_in) is a deviation."""
    fans = 300, 200
    xavier = nn.init.xavier_uniform()(fans, 0)
    bound = math.sqrt(6) / math.sqrt(sum(fans))
    assert 0.999 * bound < np.abs(xavier).max() < bound
    count = xavier.size
    # The variance of a squared uniform number is 4/45 a⁴, that of a squared normal one 2 σ⁴.
    assert (xavier**2).mean() == pytest.approx(
        2 / sum(fans), abs=4 * math.sqrt(4 / 45 / count) * bound**2
    )
    he = nn.init.he_normal()(fans, 0)
    assert (he**2).mean() == pytest.approx(2 / 300, rel=4 * math.sqrt(2 / count))


# --- lesson 7: incomes and normalization ----------------------------------------------------------


def test_lesson_7_the_slope_at_an_income_of_150_000() -> None:
    loan = found("loan")
    assert near(150_000 * 0.0002, 30)
    assert loan.slope == pytest.approx(math.exp(-30) / (1 + math.exp(-30)) ** 2, rel=0.002)
    assert loan.slope == pytest.approx(9.4e-14, rel=0.01)
    assert loan.slope32 == 0


@pytest.mark.parametrize("seed", range(3))
def test_lesson_7_only_standardised_incomes_train(seed: int) -> None:
    loan = found("loan", seed=seed)
    raw, scaled = loan.trainings["in dollars"], loan.trainings["standardised"]
    assert raw.saturation > 0.99
    assert scaled.saturation < 0.3
    assert raw.gradient < 1e-3 * scaled.gradient
    assert raw.losses[-1] > loan.base - 0.02
    assert scaled.losses[-1] < loan.base - 0.15


def test_lesson_7_normalization_makes_mean_zero_and_variance_one() -> None:
    for name, stack in found("batchnorm", depth=15, width=64).normalized.items():
        assert stack.mean == pytest.approx(0, abs=1e-12), name
        assert stack.variance == pytest.approx(1, abs=0.01), name


def test_lesson_7_a_normalized_sigmoid_is_not_saturated() -> None:
    """E σ'(z) for z ~ N(0, 1), against a mean over draws."""
    stack = found("batchnorm", depth=15, width=64).normalized["sigmoid"]
    assert stack.slope == pytest.approx(0.2066, rel=0.01)
    s = 1 / (1 + np.exp(-np.random.default_rng(0).normal(size=100_000)))
    assert within(s * (1 - s), 0.206621)


def test_lesson_7_the_scale_of_the_weights_does_not_matter() -> None:
    """y = BatchNorm(W x) is the same for 10 W."""
    x = np.random.default_rng(0).normal(size=(32, 8))
    linear = nn.Linear(8, 8, bias=False, rng=0).astype(np.float64)
    norm = nn.BatchNorm(8, dtype=np.float64)
    before = norm(linear(x))
    linear.weight.data = 10 * linear.weight.data
    np.testing.assert_allclose(norm(linear(x)), before, atol=1e-3)


def test_lesson_7_normalization_makes_gradients_grow() -> None:
    """√(π / (π - 1)) = 1.211 a layer for ReLU: 1.4e4 in fifty. Poincaré: never below one."""
    assert batchnorm.growth("relu") == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=1e-6)
    assert batchnorm.growth("relu") == pytest.approx(1.211, abs=5e-4)
    assert batchnorm.growth("relu") ** 50 == pytest.approx(1.4e4, rel=0.04)
    assert batchnorm.growth("linear") == pytest.approx(1, rel=1e-9)
    for name in ("sigmoid", "tanh", "relu", "elu", "gelu"):
        assert batchnorm.growth(name) > 1
    grown = [
        found("batchnorm", activation="relu", seed=seed).normalized["relu"] for seed in range(3)
    ]
    assert np.mean([stack.growth for stack in grown]) == pytest.approx(1.211, rel=0.02)


def test_lesson_7_small_weights_without_it() -> None:
    """√(n Var(w) κ) a layer: κ is 1/2 for ReLU, near 1 for tanh and near 1/16 for sigmoid."""
    plain = found("batchnorm", depth=20).plain
    size = math.sqrt(128 * 0.05**2)
    assert plain["relu"].growth == pytest.approx(size * math.sqrt(1 / 2), rel=0.05)
    assert plain["tanh"].growth == pytest.approx(size, rel=0.05)
    assert plain["sigmoid"].growth == pytest.approx(size / 4, rel=0.05)


def test_lesson_7_a_modern_network() -> None:
    """784-256-128-10 with BatchNorm, ReLU and Dropout."""
    layers = nn.Linear(784, 256), nn.BatchNorm(256), nn.ReLU(), nn.Dropout(0.2)
    more = nn.Linear(256, 128), nn.BatchNorm(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
    model = nn.Sequential(*layers, *more)
    linear = 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    assert linear == 235_146
    assert sum(p.size for p in model.parameters()) == linear + 2 * (256 + 128) == 235_914


# --- lesson 8: a way around -----------------------------------------------------------------------


def test_lesson_8_the_jacobian_of_a_block_is_one_plus_that_of_its_body() -> None:
    for activation in ("tanh", "relu"):
        result = found("residual", activation=activation, depth=4, width=8)
        assert result.block_error < 1e-14
        assert result.product_error < 1e-12
        assert result.sum_error < 1e-12
        assert result.flat == 1
        assert result.cancelled == 0  # one is no floor


def test_lesson_8_two_hundred_layers() -> None:
    """√(n Var(w)) a layer; √2 if F alone would keep the gradient; √e in all if F is scaled."""
    plain, around, doubled, scaled = found("residual").gradients.values()
    assert plain[-1] ** (1 / 200) == pytest.approx(math.sqrt(64 * 0.05**2), rel=0.02)
    assert plain[-1] < 1e-75
    assert 1 < around[-1] < 1000
    assert doubled[-1] ** (1 / 200) == pytest.approx(math.sqrt(2), rel=0.03)
    assert scaled[-1] == pytest.approx(math.sqrt(math.e), rel=0.1)


# --- lesson 9: powers of a matrix -----------------------------------------------------------------


def test_lesson_9_powers_of_lambda() -> None:
    assert near(0.9**100, 2.7e-5, 0.02)
    assert near(1.1**100, 1.38e4)


@pytest.mark.parametrize("radius", [0.9, 1.0, 1.1])
def test_lesson_9_between_the_spectral_radius_and_the_singular_value(radius: float) -> None:
    result = found("rnn-radius", radius=radius)
    for name, powers in result.at_rest.items():
        k = np.arange(len(powers.norms))
        assert powers.radius == pytest.approx(radius)
        # ‖W^k‖_F / √n is between ρ^k / √n and s^k.
        assert (powers.norms <= powers.largest**k * (1 + 1e-9)).all(), name
        assert (powers.norms >= radius**k / math.sqrt(32) * (1 - 1e-9)).all(), name
    orthogonal, gaussian, triangular = result.at_rest.values()
    np.testing.assert_allclose(orthogonal.norms, radius ** np.arange(101.0), rtol=1e-9)
    assert orthogonal.largest == pytest.approx(radius)
    assert gaussian.largest > 1.4 * radius
    assert triangular.largest > 3 * radius


def test_lesson_9_a_radius_below_one_does_not_forbid_growth() -> None:
    """With ρ = 0.9 and s > 1 the gradient grows tenfold first, and then vanishes."""
    powers = found("rnn-radius", steps=400).at_rest["triangular"]
    assert powers.norms.max() > 10
    assert powers.norms[-1] < 1e-10
    assert (powers.norms[400] / powers.norms[300]) ** (1 / 100) == pytest.approx(0.9, abs=0.005)


def test_lesson_9_tanh_makes_less_of_it() -> None:
    result = found("rnn-radius")
    factors = [norms[-1] ** (1 / 100) for norms in result.driven.values()]
    assert factors == sorted(factors)
    assert factors[0] == pytest.approx(0.5, abs=0.05)
    assert factors[-1] < 0.75 * 1.6  # saturation takes the rest
    assert result.driven[0.5][-1] < 1e-20


# --- lesson 10: gates -----------------------------------------------------------------------------


@pytest.mark.parametrize(("bias", "power"), [(0.0, 7.9e-31), (1.0, 2.5e-14), (5.0, 0.51)])
def test_lesson_10_a_cell_is_multiplied_by_the_forget_gate(bias: float, power: float) -> None:
    """With weights of zero the gates are constant, and dL/dc_0 = f^T · dL/dc_T."""
    layer = nn.LSTM(1, 1, init="zeros", recurrent_init="zeros", forget_bias=bias, rng=0)
    layer.astype(np.float64)
    y, *_ = layer(np.zeros((1, 100, 1)), *layer.zero_state(1))
    _, dh, dc = layer.backward(np.zeros_like(y), np.zeros((1, 1)), np.ones((1, 1)))
    f = 1 / (1 + math.exp(-bias))
    assert dc.item() == digits(f**100)
    assert f**100 == pytest.approx(power, rel=0.02)
    assert dh.item() == 0


def test_lesson_10_gates_learn_what_a_plain_network_does_not() -> None:
    cells = found("gates", steps=20, hidden=16, epochs=4).cells
    assert cells["RNN"].errors[-1] > 0.02
    assert cells["GRU"].errors[-1] < 0.005
    assert cells["LSTM, forget bias 1"].errors[-1] < 0.005
    assert cells["GRU"].after[-1] > 100 * cells["GRU"].before[-1]
    assert near(1 / 6, 0.1667)


# --- lesson 11: clipping, ravines -----------------------------------------------------------------


@pytest.mark.parametrize(("max_norm", "factor"), [(1.0, 0.2), (5.0, 1.0), (10.0, 1.0)])
def test_lesson_11_clipping_keeps_the_direction(max_norm: float, factor: float) -> None:
    """(3, 4) is 5 long: θ / ‖g‖ of it where that is below one."""
    parameter = nn.Parameter((2,), nn.init.zeros(), dtype=np.float64)
    optimizer = optim.SGD([parameter], lr=1.0, max_norm=max_norm)
    parameter.grad = [3.0, 4.0]
    assert optimizer.step() == digits(5)
    assert (-parameter.data).tolist() == pytest.approx([3 * factor, 4 * factor])
    assert found("clipping").clipped.tolist() == pytest.approx([0.6, 0.8])


def test_lesson_11_the_cliff() -> None:
    result = found("clipping")
    assert result.median == pytest.approx(0.008, abs=0.0005)
    assert result.steepest == pytest.approx(13.8, abs=0.05)
    assert result.place == pytest.approx((4.9, -2.55))
    assert result.steepest / result.median > 1000


def test_lesson_11_the_gradient_of_the_cliff_is_its_finite_difference() -> None:
    w, b, h = np.array(5.2), np.array(-2.4), 1e-6
    _, dw, db = clipping.cliff(w, b)
    assert dw == pytest.approx((clipping.cliff(w + h, b)[0] - clipping.cliff(w - h, b)[0]) / 2 / h)
    assert db == pytest.approx((clipping.cliff(w, b + h)[0] - clipping.cliff(w, b - h)[0]) / 2 / h)


def test_lesson_11_one_step_off_the_cliff() -> None:
    plain, clipped = found("clipping").descents.values()
    assert plain.norms.max() > 10
    assert plain.errors[-1] == pytest.approx(0.7**2 - 2 * 0.7 + 1, abs=1e-3)  # sigmoid says 1
    assert np.median(clipped.errors[-20:]) < 0.01
    lengths = np.linalg.norm(np.diff(clipped.points, axis=0), axis=1)
    assert lengths.max() == pytest.approx(clipping.RATE * 0.5)


def test_lesson_11_the_rates_of_descent_and_momentum() -> None:
    """Distances shrink by (κ - 1)/(κ + 1) and (√κ - 1)/(√κ + 1) a step, f by the squares."""
    ravine = found("ravine", steps=300)
    assert ravine.factors == pytest.approx((99 / 101, 9 / 11))
    for name, factor in zip(("sgd", "momentum"), ravine.factors, strict=True):
        values = ravine.paths[name].values
        measured = (values[200] / values[100]) ** (1 / 200)
        assert measured == pytest.approx(factor, rel=0.01)
    too_high = ravine.paths["sgd, too high"].values
    assert too_high[-1] > 1e6 * too_high[0]
    assert (ravine.newton == 0).all()


# --- lesson 12: curvature -------------------------------------------------------------------------


def test_lesson_12_the_largest_rate_is_two_over_the_curvature() -> None:
    result = found("curvature")
    assert result.found == pytest.approx(result.exact, rel=0.01)
    half, below, above = result.fits.values()
    assert below[-1] < half[0]
    assert below[-1] < below[30] < below[0]
    assert above[-1] > above[30] > above[0]
    # Along the sharpest direction the error is multiplied by 1 - 2 · 1.05 at every step.
    assert (above[60] / above[40]) ** (1 / 40) == pytest.approx(2 * 1.05 - 1, rel=0.001)


def test_lesson_12_training_brings_the_curvature_to_the_limit() -> None:
    trainings = found("curvature").trainings
    for rate in (0.08, 0.12):
        last = trainings[rate].curvatures[-10:]
        assert last.mean() == pytest.approx(2 / rate, rel=0.15)
        assert trainings[rate].losses[-1] < 0.1 * trainings[rate].losses[0]
    assert trainings[0.04].curvatures[-1] < 0.7 * 2 / 0.04


def test_lesson_12_plateaus_and_ravines() -> None:
    (plateau, flat), (ravine, sharp), (gradient, curvature) = found("curvature").places.values()
    assert plateau < 1e-3 * gradient
    assert ravine < 0.1 * gradient
    assert flat < 1e-3 * curvature
    assert sharp > 1e3 * curvature


def test_lesson_12_a_way_around_smooths_the_landscape() -> None:
    result = found("landscape", depth=15, epochs=4, points=9)
    plain, around = result.slices.values()
    chance = math.log(10)
    assert (plain.losses < chance).mean() < (around.losses < chance).mean()
    assert np.median(around.losses) < np.median(plain.losses)


# --- lesson 13: deep networks for images ----------------------------------------------------------


@cache
def deep(residual: bool) -> Any:
    """Networks of 56 layers, trained a little."""
    return resnet.measured(56, residual, "momentum", 5, 0)


def test_lesson_13_gradients_of_a_plain_network_grow_as_normalization_makes_them() -> None:
    plain, residual = deep(False), deep(True)
    assert plain.growth == pytest.approx(1.20, abs=0.02)  # theory: 1.211 in wide networks
    assert plain.ratio == pytest.approx(790, rel=0.02)
    assert residual.growth == pytest.approx(1.10, abs=0.02)
    assert residual.ratio == pytest.approx(3.0, rel=0.02)


def test_lesson_13_blocks_multiply_to_the_depth() -> None:
    """(1 + 1/1) (1 + 1/2) ... (1 + 1/L) = L + 1."""
    for blocks in (9, 27):
        assert math.prod(1 + 1 / block for block in range(1, blocks + 1)) == digits(blocks + 1)


def test_lesson_13_halves_of_the_data_agree_only_with_shortcuts() -> None:
    assert deep(False).middle == pytest.approx(-0.01, abs=0.01)
    assert deep(True).middle == pytest.approx(0.19, abs=0.01)


def test_lesson_13_the_residual_network_of_56_layers_trains_where_the_plain_one_does_not() -> None:
    plain, residual = (deep(each).history["accuracy"] for each in (False, True))
    assert plain[-1] < 0.5
    assert residual[-1] > 0.8
    assert all(a < b for a, b in zip(plain[2:], residual[2:], strict=True))


def test_lesson_13_a_cosine_of_gradients() -> None:
    a, b = np.array([[1.0, 0], [0, 2]]), np.array([[3.0, 1], [0, 0]])
    assert resnet.cosine(a, b) == pytest.approx(3 / math.sqrt(5 * 10))
    layers, means = resnet.smooth(np.arange(1.0, 8))
    np.testing.assert_allclose(layers, [3, 4, 5])
    np.testing.assert_allclose(means, [3, 4, 5])


def test_a_depth_that_cannot_be_is_refused_before_any_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resnet, "measured", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 2, .* got 57"):
        resnet.compute(depth=57)
