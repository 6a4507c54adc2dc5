"""Copies, pickles, and what else happens to models between two trainings."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from layer_helpers import assert_same, inputs_of

from minidl import gradcheck, nn, optim

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


def model(rng: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(5, 7),
        nn.BatchNorm(7),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Residual(nn.Sequential(nn.Linear(7, 7), nn.Tanh())),
        nn.Linear(7, 3, init=nn.init.normal(0, 0.1)),
        rng=rng,
    )


def step(net: nn.Layer, optimizer: optim.Optimizer) -> None:
    x = np.random.default_rng(optimizer.steps).normal(size=(8, 5)).astype(np.float32)
    loss = nn.MSELoss()
    loss(net(x), np.ones((8, 3), np.float32))
    optimizer.zero_grad()
    net.backward(loss.backward())
    optimizer.step()


def bits(net: nn.Layer) -> list[bytes]:
    arrays = [parameter.data for parameter in net.parameters()] + list(net.state().values())
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda parameters: optim.Adam(parameters, max_norm=1.0),
        lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    ],
    ids=["adam", "sgd"],
)
def test_copy_goes_on_as_the_original_would(
    make_copy: Callable[[Any], Any], make_optimizer: Callable[[Any], optim.Optimizer]
) -> None:
    net = model()
    optimizer = make_optimizer(net.parameters())
    for _ in range(3):
        step(net, optimizer)
    other, other_optimizer = make_copy((net, optimizer))
    before = bits(net)
    assert bits(other) == before
    for _ in range(3):
        step(other, other_optimizer)
    assert bits(net) == before, "training the copy moved the original"
    for _ in range(3):
        step(net, optimizer)
    assert bits(net) == bits(other) != before


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("cls", nn.Layer.registry, ids=lambda cls: cls.__name__)
def test_every_layer_can_be_copied(cls: type[nn.Layer], make_copy: Callable[[Any], Any]) -> None:
    for layer, shapes in cls.examples():
        inputs = inputs_of(shapes, np.random.default_rng(0))
        other = make_copy(layer)  # before anything was drawn
        assert_same(other(*inputs), layer(*inputs))
        assert repr(other) == repr(layer)


def test_copy_of_an_optimizer_has_vectors_of_its_own() -> None:
    net = model()
    _, other = copy.deepcopy((net, optim.Adam(net.parameters())))
    for parameter in other.flat.parameters:
        assert np.shares_memory(parameter.data, other.flat.data)
        assert np.shares_memory(parameter.grad, other.flat.grad)


class Stack(nn.Layer):
    """A user's layer that keeps its children in a list, and a parameter in a tuple."""

    def __init__(self) -> None:
        self.blocks = [nn.Linear(3, 3, rng=i) for i in range(2)]
        self.scales = (nn.Parameter((1, 1), nn.init.constant(2.0), 0),)
        self.assign_paths()

    def forward(self, x: Any) -> Any:
        y = self.blocks[1](self.blocks[0](x))
        self.save(y)
        return y * self.scales[0].data

    def backward(self, dy: Any) -> Any:
        y = self.saved(dy)
        self.scales[0].grad += (dy * y).sum(keepdims=True)
        dy = dy * self.scales[0].data
        return self.blocks[0].backward(self.blocks[1].backward(dy))


def test_layers_and_parameters_in_lists_are_found() -> None:
    layer = Stack()
    names = [name for name, _ in layer.named_parameters()]
    blocks = [f"blocks.{i}.{name}" for i in range(2) for name in ("weight", "bias")]
    assert sorted(names) == sorted(["scales.0", *blocks])
    assert layer.eval().blocks[1].training is False
    assert gradcheck(layer.train(), np.random.default_rng(0).normal(size=(4, 3))).ok


def test_threads_that_look_at_once_get_one_array() -> None:
    for seed in range(20):
        parameter = nn.Parameter((200, 200), nn.init.he_normal(), seed)
        with ThreadPoolExecutor(8) as pool:
            arrays = list(pool.map(lambda _, p=parameter: p.data, range(8)))
        assert all(array is parameter.data for array in arrays)


@pytest.mark.parametrize("wrong", [None, 1.0, np.ones(3), np.ones((2, 1)), "x"])
@pytest.mark.parametrize("field", ["data", "grad"])
def test_only_numbers_of_the_same_shape_can_be_assigned(field: str, wrong: Any) -> None:
    parameter = nn.Parameter((1, 2), nn.init.constant(5.0), 0)
    before = getattr(parameter, field).copy()
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        setattr(parameter, field, wrong)
    assert np.array_equal(getattr(parameter, field), before)
    setattr(parameter, field, [[3, 4]])
    assert np.array_equal(getattr(parameter, field), np.array([[3, 4]], np.float32))


def test_slice_of_a_sequential_shares_its_layers() -> None:
    net = model()
    head = net[:2]
    assert isinstance(head, nn.Sequential)
    assert len(head) == 2
    assert head[0] is net[0]


def test_hyper_parameters_can_change_between_steps() -> None:
    optimizer = optim.Adam(model().parameters())
    optimizer.beta1, optimizer.eps = 0.5, 1e-4
    assert (optimizer.state["beta1"], optimizer.state["eps"]) == (0.5, 1e-4)
    assert "beta1=0.5" in repr(optimizer)
    with pytest.raises(ValueError, match="beta2 must be in"):
        optimizer.beta2 = 1.0
