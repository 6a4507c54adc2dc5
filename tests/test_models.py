"""Modes, state, seeds and initial values: what a model does besides its formula."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from minidl import nn, optim

F32 = np.float32


def same_parameters(a: nn.Layer, b: nn.Layer) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(np.array_equal(p.data, q.data) for p, q in pairs)


# --- batch normalization ----------------------------------------------------------------


def test_batch_norm_normalises_every_feature(backend: str) -> None:
    x = np.random.default_rng(0).normal(5, 3, (64, 4, 7))
    y = nn.BatchNorm(7, eps=1e-12, dtype=np.float64)(x)
    np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 1)), 1, rtol=1e-9)


def test_running_statistics_follow_the_batches(backend: str) -> None:
    layer = nn.BatchNorm(3, momentum=0.25, dtype=np.float64)
    mean, var = np.zeros(3), np.ones(3)
    for seed in range(4):
        x = np.random.default_rng(seed).normal(2, 3, (5, 3))
        layer(x)
        mean += 0.25 * (x.mean(axis=0) - mean)
        var += 0.25 * (x.var(axis=0, ddof=1) - var)  # unbiased
        np.testing.assert_allclose(layer.running_mean, mean)
        np.testing.assert_allclose(layer.running_var, var)


def test_evaluation_uses_and_keeps_the_running_statistics(backend: str) -> None:
    layer = nn.BatchNorm(2, eps=1e-3, dtype=np.float64).eval()
    layer.running_mean[...], layer.running_var[...] = (1, 2), (4, 9)
    x = np.array([[3.0, 8.0]])
    expected = (x - [1, 2]) / np.sqrt(np.array([4, 9]) + 1e-3)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12)
    np.testing.assert_allclose(layer(np.vstack([x, x + 5]))[:1], expected, rtol=1e-12)
    assert layer.running_mean.tolist() == [1, 2]
    assert layer.running_var.tolist() == [4, 9]


# --- dropout ----------------------------------------------------------------------------


def test_dropout_masks_are_a_function_of_the_seed(backend: str) -> None:
    x = np.ones((20, 30), F32)
    a, b, c = (nn.Dropout(0.5, rng=seed) for seed in (1, 1, 2))
    first, second = a(x), a(x)
    assert not np.array_equal(first, second)
    assert np.array_equal(b(x), first)
    assert np.array_equal(b(x), second)
    assert not np.array_equal(c(x), first)


def test_dropout_masks_are_the_same_on_every_backend(isa: str) -> None:
    from minidl import _kernels

    x = np.ones((20, 30), F32)
    here = nn.Dropout(0.3, rng=7)(x)
    _kernels.select("reference")
    assert np.array_equal(nn.Dropout(0.3, rng=7)(x), here)


def test_gradient_passes_where_the_signal_did(backend: str) -> None:
    layer = nn.Dropout(0.4, rng=3)
    y = layer(np.ones((30, 40), F32))
    assert np.array_equal(layer.backward(np.ones((30, 40), F32)), y)


def test_dropout_is_off_in_evaluation_and_at_zero(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(F32)
    for layer in (nn.Dropout(0.9, rng=0).eval(), nn.Dropout(0.0, rng=0)):
        assert np.array_equal(layer(x), x)
        assert np.array_equal(layer.backward(x), x)


def test_state_can_be_put_back() -> None:
    layer = nn.Dropout(0.5, rng=0)
    x = np.ones((4, 50), F32)
    layer(x)
    state = {name: array.copy() for name, array in layer.state().items()}
    y = layer(x)
    for name, array in layer.state().items():
        array[...] = state[name]
    assert np.array_equal(layer(x), y)


# --- containers -------------------------------------------------------------------------


def nested() -> nn.Sequential:
    block = nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4), nn.Dropout(0.5)))
    return nn.Sequential(nn.Linear(3, 4), block, nn.ReLU(), nn.Linear(4, 2), rng=0)


def test_modes_reach_every_layer() -> None:
    model = nested()
    assert model.eval() is model
    assert [layer.training for _, layer in model.layers()] == [False] * 9
    assert all(layer.training for _, layer in model.train().layers())


def test_paths_name_layers_parameters_and_state() -> None:
    model = nested()
    assert [name for name, _ in model.named_parameters()] == [
        "0.weight",
        "0.bias",
        "1.body.0.weight",
        "1.body.0.bias",
        "1.body.1.gamma",
        "1.body.1.beta",
        "3.weight",
        "3.bias",
    ]
    assert list(model.state()) == [
        "1.body.1.running_mean",
        "1.body.1.running_var",
        "1.body.2.generator",
    ]
    assert model[1].body[0].weight.name == "1.body.0.weight"
    assert len(model) == 4
    assert isinstance(model[2], nn.ReLU)


class Box(nn.Layer):
    def __init__(self, inner: nn.Layer) -> None:
        self.inner = inner


def test_paths_reach_deeper_than_the_stack_of_python() -> None:
    model: nn.Layer = nn.Linear(2, 2)
    depth = sys.getrecursionlimit() + 1
    for _ in range(depth):
        model = Box(model)
    model.assign_paths()
    *_, (path, layer) = model.layers()
    assert layer.path == path == ".".join(["inner"] * depth)
    assert model.parameters()[0].name == f"{path}.weight"


def test_layers_are_found_in_order_and_each_once() -> None:
    shared = nn.Linear(2, 2)
    blocks = [nn.Residual(nn.Sequential(nn.ReLU(), shared), shared) for _ in range(2)]
    names = [path for path, _ in nn.Sequential(*blocks, nn.Tanh()).layers()]
    first = ["", "0", "0.body", "0.body.0", "0.body.1"]
    assert names == [*first, "1", "1.body", "1.body.0", "2"]


def test_shared_parameter_is_listed_once() -> None:
    first, second = nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1)
    second.weight = first.weight
    assert len(nn.Sequential(first, second).parameters()) == 3


def test_residual_adds_its_input(backend: str) -> None:
    body = nn.Linear(3, 3, rng=0, dtype=np.float64)
    x = np.random.default_rng(0).normal(size=(4, 3))
    layer = nn.Residual(body)
    np.testing.assert_allclose(layer(x), x + (x @ body.weight.data + body.bias.data))
    dy = np.ones((4, 3))
    np.testing.assert_allclose(layer.backward(dy), dy + dy @ body.weight.data.T)


def test_residual_with_a_dead_body_still_passes_the_gradient() -> None:
    layer = nn.Residual(nn.Linear(3, 3, init="zeros"))
    layer(np.ones((2, 3), F32))
    dy = np.arange(6, dtype=F32).reshape(2, 3)
    assert np.array_equal(layer.backward(dy), dy)


def test_repr_is_a_table() -> None:
    text = repr(nested())
    head, rule, *rows, _, total = text.splitlines()
    assert head.split() == ["layer", "output", "parameters"]
    assert set(rule) == {"-"}
    assert rows[0].split() == ["0", "Linear(3,", "4)", "(batch,", "4)", "16"]
    assert "Residual(Linear -> BatchNorm -> Dropout)" in rows[1]
    assert rows[1].endswith(" 28")
    assert total.split() == ["float32", "54"]
    assert len({len(line) for line in (head, rule, *rows, total)}) == 1


def test_astype_converts_parameters_gradients_and_state() -> None:
    model = nested()
    values = [parameter.data.copy() for parameter in model.parameters()]
    generator = model[1].body[2].generator.copy()
    assert model.astype(np.float64) is model
    assert model.dtype == np.float64
    for parameter, value in zip(model.parameters(), values, strict=True):
        assert parameter.data.dtype == parameter.grad.dtype == np.float64
        assert np.array_equal(parameter.data, value)
    assert model[1].body[1].running_var.dtype == np.float64
    assert np.array_equal(model[1].body[2].generator, generator)
    y = model(np.ones((2, 3)))
    assert y.dtype == np.float64
    assert model.backward(y).dtype == np.float64


def test_zero_grad_clears_every_gradient() -> None:
    model = nested()
    model.backward(np.ones_like(model(np.ones((3, 3), F32))))
    assert any(parameter.grad.any() for parameter in model.parameters())
    model.zero_grad()
    assert not any(parameter.grad.any() for parameter in model.parameters())


# --- seeds and initial values -----------------------------------------------------------


def test_one_number_seeds_the_whole_model() -> None:
    a, b, c = nested(), nested(), nested().reset(1)
    assert same_parameters(a, b)
    assert not same_parameters(a, c)
    x = np.ones((8, 3), F32)
    assert np.array_equal(a(x), b(x))  # dropout included
    assert same_parameters(c.reset(0), a)
    assert a[0].weight.data.shape != ()
    assert np.unique(a[0].weight.data).size == 12


def test_order_of_looking_changes_no_weight() -> None:
    a, b = nested(), nested()
    for parameter in reversed(b.parameters()):
        assert parameter.data.size
    assert same_parameters(a, b)


def test_generator_draws_on() -> None:
    rng = np.random.default_rng(0)
    a, b = nn.Linear(3, 3, rng=rng), nn.Linear(3, 3, rng=rng)
    assert not np.array_equal(a.weight.data, b.weight.data)
    assert np.array_equal(a.weight.data, nn.Linear(3, 3, rng=0).weight.data)


HIDDEN = [  # what follows a hidden layer, and how its weight is drawn
    ([nn.ReLU()], "he_normal()"),
    ([nn.BatchNorm(4), nn.Dropout(0.1), nn.ReLU()], "he_normal()"),
    ([nn.Tanh()], "xavier_uniform()"),
    ([nn.Sigmoid()], "xavier_uniform()"),
    ([nn.BatchNorm(4), nn.Tanh(), nn.ReLU()], "xavier_uniform()"),
    ([nn.Linear(4, 4), nn.ReLU()], "xavier_uniform()"),
    ([nn.Dropout(0.1)], "xavier_uniform()"),
    ([], "xavier_uniform()"),
]
ENDS = "fan_in_uniform(1.0)"


@pytest.mark.parametrize(("after", "expected"), HIDDEN)
def test_default_initialiser_of_a_hidden_layer_suits_what_follows(
    after: list[nn.Layer], expected: str
) -> None:
    hidden = nn.Linear(3, 4)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), hidden, *after, nn.Linear(4, 1), rng=0)
    assert repr(hidden.weight.initializer) == expected
    assert not hidden.bias.data.any()
    ends = (model[0], model[len(model) - 1])
    for layer in ends:
        assert repr(layer.weight.initializer) == ENDS


def test_ends_and_single_layers_start_small() -> None:
    for model in (nn.Linear(400, 300, rng=0), nn.Sequential(nn.Linear(400, 300), nn.ReLU(), rng=0)):
        weight, bias = (parameter.data for parameter in model.parameters())
        assert np.abs(weight).max() == pytest.approx(1 / 20, rel=1e-3)
        assert weight.var() == pytest.approx(1 / 1200, rel=0.02)
        assert np.abs(bias).max() == pytest.approx(3**0.5 / 20, rel=0.05)
        assert bias.var() == pytest.approx(1 / 400, rel=0.2)


def test_weight_and_bias_have_seeds_of_their_own() -> None:
    a, b = (nn.Linear(1, 50, rng=0) for _ in range(2))
    assert np.array_equal(a.bias.data, b.bias.data)
    assert abs(np.corrcoef(a.weight.data[0], a.bias.data)[0, 1]) < 0.5
    assert not np.array_equal(a.bias.data, nn.Linear(1, 50, rng=1).bias.data)


def test_a_bias_is_zero_beside_weights_that_were_asked_for() -> None:
    assert not nn.Linear(3, 2, init="he_normal", rng=0).bias.data.any()
    layer = nn.Linear(400, 300, init="zeros", bias_init="fan_in_uniform", rng=0)
    assert np.abs(layer.bias.data).max() == pytest.approx(1 / 20, rel=0.02)
    assert not layer.weight.data.any()
    hidden = nn.Linear(4, 4, bias_init=nn.init.constant(0.5))
    nn.Sequential(nn.Linear(4, 4), nn.ReLU(), hidden, nn.ReLU(), nn.Linear(4, 4), rng=0)
    assert (hidden.bias.data == 0.5).all()
    assert repr(hidden.weight.initializer) == "he_normal()"


def test_initialiser_asked_for_is_kept() -> None:
    layers = [nn.Linear(3, 3, init="xavier_normal") for _ in range(3)]
    nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    assert {repr(layer.weight.initializer) for layer in layers} == {"xavier_normal()"}


def within(*layers: nn.Layer) -> nn.Sequential:
    """A model in which a Linear(3, 4) among these layers is a hidden one."""
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), *layers, nn.Linear(4, 1))


def test_weights_that_were_looked_at_are_drawn_anew() -> None:
    seen, unseen = nn.Linear(3, 4, rng=0), nn.Linear(3, 4, rng=0)
    assert seen.weight.data.size
    assert seen.bias.data.any()
    for layer in (seen, unseen):
        within(layer, nn.ReLU())
        assert repr(layer.weight.initializer) == "he_normal()"
        assert not layer.bias.data.any()
    assert np.array_equal(seen.weight.data, unseen.weight.data)


def test_weights_that_were_set_are_kept() -> None:
    for change in (lambda w: w * 2, lambda w: w + np.eye(*w.shape)):
        layer = nn.Linear(3, 4)
        layer.weight.data = changed = change(layer.weight.data).astype(np.float32)
        layer.bias.data = np.full(4, 7.0)
        within(layer, nn.ReLU())
        assert np.array_equal(layer.weight.data, changed)
        assert (layer.bias.data == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_look_before_a_conversion_changes_no_weight(dtype: Any) -> None:
    seen, unseen = (nn.Linear(3, 4, rng=0, dtype=dtype) for _ in range(2))
    assert seen.weight.data.size
    for layer in (seen, unseen):
        within(layer.astype(np.float64), nn.ReLU())
    assert np.array_equal(seen.weight.data, unseen.weight.data)


def test_an_optimizer_that_was_built_before_holds_the_weights_drawn_anew() -> None:
    layer, other = nn.Linear(3, 4, rng=0), nn.Linear(3, 4, rng=0)
    optimizer = optim.SGD(layer.parameters())
    within(layer, nn.ReLU())
    within(other, nn.ReLU())
    optimizer.step()
    assert np.array_equal(layer.weight.data, other.weight.data)


@pytest.mark.parametrize(
    "nest",
    [
        lambda linear: within(nn.Sequential(linear), nn.ReLU()),
        lambda linear: within(nn.Sequential(nn.Sequential(linear), nn.Identity()), nn.ReLU()),
        lambda linear: within(linear, nn.Sequential(nn.BatchNorm(4), nn.ReLU())),
        lambda linear: within(linear, nn.ReLU())[2:3],
        lambda linear: nn.Sequential(within(linear, nn.ReLU()), nn.ReLU(), nn.Linear(1, 1))[:1],
    ],
)
def test_initialisers_see_through_nested_sequentials(nest: Any) -> None:
    plain, nested = nn.Linear(3, 4, rng=0), nn.Linear(3, 4, rng=0)
    within(plain, nn.ReLU())
    nest(nested)
    assert repr(nested.weight.initializer) == "he_normal()"
    assert np.array_equal(plain.weight.data, nested.weight.data)


def test_a_part_of_a_model_keeps_its_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), rng=0)
    before = [parameter.data.copy() for parameter in model.parameters()]
    assert [layer.path for layer in model[1:].stack] == ["1", "2"]
    assert model[:1].stack == (model[0],)
    for parameter, data in zip(model.parameters(), before, strict=True):
        assert np.array_equal(parameter.data, data)


# name, limit of the uniform ones (None: normal), variance of a weight of shape (300, 200)
DISTRIBUTIONS: list[tuple[Any, float | None, float]] = [
    ("xavier_uniform", (6 / 500) ** 0.5, 2 / 500),
    ("xavier_normal", None, 2 / 500),
    ("he_uniform", (6 / 300) ** 0.5, 2 / 300),
    ("he_normal", None, 2 / 300),
    ("fan_in_uniform", (1 / 300) ** 0.5, 1 / 900),
    (nn.init.uniform(-0.5, 1.5), 1.5, 1 / 3),
    (nn.init.normal(1, 0.1), None, 0.01),
]


@pytest.mark.parametrize(("init", "limit", "variance"), DISTRIBUTIONS)
def test_distribution_of_weights(init: Any, limit: float | None, variance: float) -> None:
    weight = nn.Linear(300, 200, init=init, rng=0, dtype=np.float64).weight.data
    fourth = np.mean((weight - weight.mean()) ** 4) / weight.var() ** 2
    assert weight.var() == pytest.approx(variance, rel=0.02)
    assert fourth == pytest.approx(3 if limit is None else 1.8, rel=0.05)
    if limit is not None:
        assert 0.99 * limit < weight.max() <= limit
    else:
        assert weight.max() > 3.5 * variance**0.5


def test_constant_initialisers() -> None:
    assert not nn.Linear(3, 2, init="zeros").weight.data.any()
    assert (nn.Linear(3, 2, init=nn.init.constant(0.25)).weight.data == 0.25).all()
    assert not nn.Linear(3, 2, bias_init="zeros", rng=0).bias.data.any()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nn.Linear(2, 2, init="glorot"), ValueError, "glorot.*xavier_uniform"),
        (lambda: nn.Linear(2, 2, init=np.zeros((2, 2))), TypeError, "initialiser"),
        (lambda: nn.init.uniform(1, 1), ValueError, "low < high"),
        (lambda: nn.init.normal(0, -1), ValueError, "std"),
        (lambda: nn.init.he_normal()((3,)), ValueError, "fan_in"),
        (lambda: nn.init.fan_in_uniform()((3,)), ValueError, "fan_in"),
        (lambda: nn.init.fan_in_uniform(0), ValueError, "scale > 0, got 0"),
        (lambda: nn.init.fan_in_uniform(fan_in=0), ValueError, "fan_in >= 1, got 0"),
        (lambda: nn.Linear(2, 2, bias=False, bias_init="zeros"), ValueError, "bias=False leaves"),
        (lambda: nn.Linear(2, 2, bias_init="glorot"), ValueError, "glorot.*fan_in_uniform"),
        (lambda: nn.Linear(2, 2, bias_init="he_normal").bias.data, ValueError, "for a bias choose"),
        (lambda: nn.Linear(2, 2, rng="seed"), TypeError, "Generator"),
        (lambda: nn.Linear(2, 2, rng=True), TypeError, "Generator"),
        (lambda: nn.Linear(2, 2, dtype=np.int64), TypeError, "float32 or float64"),
        (lambda: nn.Sequential(nn.Linear(2, 2), np.tanh), TypeError, "Sequential takes layers"),
    ],
)
def test_bad_initialisers_seeds_and_dtypes(make: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        make()
