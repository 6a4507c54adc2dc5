"""Features of flattened images in state dicts of PyTorch, which has the channels on axis 1."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flattening_cases import MODELS, UNKNOWN, Square, build, chain, filters, native
from random_stacks import disturbed

from minidl import nn
from minidl.torch import (
    UnknownOrderError,
    feature_order,
    from_torch,
    load_state_dict,
    save_state_dict,
    state_dict,
    to_torch,
)

OURS = [cls for cls in nn.Layer.registry if cls.__module__.startswith("minidl.nn.")]


def in_order_of_pytorch(model: nn.Layer) -> nn.Layer:
    """The model with other weights, whose Flatten layers give PyTorch's order themselves."""
    other = disturbed(copy.deepcopy(model), np.random.default_rng(1))
    for _, layer in other.layers():
        if isinstance(layer, nn.Flatten) and layer.end_dim == -1:
            layer.channels_first = True
    return other


def assert_close(found: Any, expected: Any) -> None:
    found, expected = (y if isinstance(y, tuple) else (y,) for y in (found, expected))
    for y, z in zip(found, expected, strict=True):
        y, z = (a.detach().numpy() if hasattr(a, "detach") else a for a in (y, z))
        np.testing.assert_allclose(y, z, rtol=0, atol=2e-6 * max(1.0, float(np.abs(z).max())))


def assert_equal(found: Any, expected: Any) -> None:
    found, expected = (y if isinstance(y, tuple) else (y,) for y in (found, expected))
    for y, z in zip(found, expected, strict=True):
        np.testing.assert_array_equal(y, z)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_those_of_a_network_that_flattens_as_pytorch_does(name: str) -> None:
    """Its Flatten(channels_first=True) needs no order, and is compared with PyTorch's."""
    model, xs = build(name)
    tensors = state_dict(model)
    other = in_order_of_pytorch(model)
    if name == "one layer first":
        other = copy.deepcopy(model)
    load_state_dict(tensors, other)
    assert_close(other(*xs), model(*xs))
    again = disturbed(copy.deepcopy(model), np.random.default_rng(2))
    load_state_dict(state_dict(other), again)
    for ours, expected in zip(again.parameters(), model.parameters(), strict=True):
        np.testing.assert_array_equal(ours.data, expected.data, err_msg=ours.name)
    for key, array in model.saved_state().items():
        np.testing.assert_array_equal(again.saved_state()[key], array, err_msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_files_of_weights_come_back(name: str, tmp_path: Path) -> None:
    model, xs = build(name)
    save_state_dict(model, tmp_path / "net")
    other = disturbed(copy.deepcopy(model), np.random.default_rng(3))
    assert load_state_dict(tmp_path / "net", other).complete
    assert_equal(other(*xs), model(*xs))


def test_the_order_of_a_row_of_pixels() -> None:
    """Feature k · pixels + p of PyTorch's is p · channels + k here."""
    model = chain(nn.Conv1d(1, 3, 1), nn.Flatten(), nn.BatchNorm(6), nn.Linear(6, 1))
    model[3].weight.data = np.arange(6.0)[:, None]  # steps 0 and 1 of channels 0, 1, 2 each
    model[2].running_mean[...] = np.arange(6)
    tensors = state_dict(model)
    np.testing.assert_array_equal(tensors["3.weight"], [[0, 3, 1, 4, 2, 5]])
    np.testing.assert_array_equal(tensors["2.running_mean"], [0, 3, 1, 4, 2, 5])
    load_state_dict(tensors | {"3.weight": np.arange(6.0)[None]}, model)
    np.testing.assert_array_equal(model[3].weight.data[:, 0], [0, 2, 4, 1, 3, 5])


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Flatten(), nn.Linear(12, 2)],  # rows, or images as PyTorch's module takes them
        [nn.GRU(2, 3), nn.Flatten(), nn.Linear(12, 2)],
        [nn.Conv1d(2, 2, 1), nn.RNN(2, 3), nn.Flatten(), nn.Linear(12, 2)],
        [nn.Conv1d(2, 3, 1), nn.Flatten(channels_first=True), nn.Linear(12, 2)],
        [nn.Conv1d(2, 3, 1), nn.GlobalMaxPool(), nn.Flatten(), nn.Linear(3, 2)],
        [nn.Conv1d(2, 3, 1), nn.LayerNorm(3), nn.Linear(3, 2), nn.Conv1d(2, 3, 1)],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_all_else_is_in_the_same_order(layers: list[nn.Layer]) -> None:
    model = chain(*layers)
    for name, tensor in state_dict(model).items():
        place, _, kind = name.rpartition(".")
        if kind == "weight" and isinstance(model[int(place)], nn.Linear):
            np.testing.assert_array_equal(tensor, model[int(place)].weight.data.T)


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_every_layer_is_known(cls: type[nn.Layer], monkeypatch: pytest.MonkeyPatch) -> None:
    """None of minidl's own is taken for one of the user's."""

    def refuse(walk: Any, layer: nn.Layer, layout: Any) -> None:
        pytest.fail(f"what becomes of features in {layer} is not known")

    monkeypatch.setattr(feature_order._Walk, "_through_own", refuse)
    for layer, _ in cls.examples():
        assert not feature_order.feature_orders(layer).of


# --- what cannot be known -------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_order_that_is_not_known_is_refused(name: str) -> None:
    made, words, _ = UNKNOWN[name]
    model = made()
    with pytest.raises(UnknownOrderError, match=rf"{words}.*write Flatten\(channels_first=True\)"):
        state_dict(model)
    before = [parameter.data.copy() for parameter in model.parameters()]
    with pytest.raises(UnknownOrderError, match=words):
        load_state_dict({}, model, strict=False)
    for parameter, array in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.data, array)


def test_features_that_nothing_is_learned_of_need_no_order() -> None:
    for layers in ([nn.Flatten(2)], [Square(), nn.Flatten()], [nn.Flatten(), Square()]):
        assert len(state_dict(chain(filters(), *layers))) == 2


class Siamese(nn.Layer):
    """A network of the user's that calls one encoder, and maybe a head."""

    def __init__(self, *encoder: nn.Layer, head: nn.Layer | None = None) -> None:
        self.encoder, self.head = nn.Sequential(*encoder, rng=0), head

    def forward(self, x: Any) -> Any:
        return self.head(self.encoder(x)) if self.head else self.encoder(x)


def test_a_network_within_a_layer_of_the_users() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 6, 1)).astype(np.float32)
    encoder = filters(), nn.Flatten(), nn.Linear(18, 3)
    for model in (Siamese(*encoder), Siamese(*encoder, head=nn.Linear(3, 2))):
        disturbed(model, rng)
        other = in_order_of_pytorch(model)
        load_state_dict(state_dict(model), other)
        assert_close(other(x), model(x))
    assert len(state_dict(Siamese(filters(), nn.Flatten()))) == 2
    for head in (nn.Linear(18, 2), chain(nn.BatchNorm(18), nn.Linear(18, 2))):
        with pytest.raises(
            UnknownOrderError, match=r"how Siamese\(\) calls its layers is not known"
        ):
            state_dict(Siamese(filters(), nn.Flatten(), head=head))


class ByHand(nn.Layer):
    """A network of the user's that flattens by itself."""

    def __init__(self, width: int, *flatten: nn.Flatten) -> None:
        self.filters, self.flatten = filters(), list(flatten)
        self.hidden, self.head = nn.Linear(width, 8), nn.Linear(8, 2)


def test_images_that_seem_to_be_flattened_by_hand_are_refused() -> None:
    with pytest.raises(
        UnknownOrderError, match=r"ByHand.* the 18 features that Linear.*one by one"
    ):
        state_dict(ByHand(18))
    for model in (ByHand(18, nn.Flatten(channels_first=True)), ByHand(3), ByHand(8), ByHand(20)):
        assert {"filters.0.weight", "hidden.weight", "head.bias"} < state_dict(model).keys()
    np.testing.assert_array_equal(
        state_dict(model := ByHand(3))["hidden.weight"], model.hidden.weight.data.T
    )


def test_one_layer_for_features_in_different_orders_is_refused() -> None:
    shared = nn.Linear(18, 18)
    model = chain(filters(), nn.Flatten(), shared, nn.ReLU(), shared)
    with pytest.raises(UnknownOrderError, match=r"layer 2 Linear.* is called twice"):
        state_dict(model)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lenet", "features", "steps", "heads"])
def test_weights_of_modules_of_pytorch_s_own(name: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module, model, shape = native(name)
    x = torch.randn(shape)
    module(x)  # so that running statistics are no longer those of a new module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    module.eval()
    model.eval()
    load_state_dict(module.state_dict(), model)
    last = np.ascontiguousarray(np.moveaxis(x.numpy(), 1, -1))
    assert_close(model(last), module(x))
    disturbed(model, np.random.default_rng(0))
    module.load_state_dict({key: torch.tensor(a) for key, a in state_dict(model).items()})
    assert_close(model(last), module(x))


@pytest.mark.parametrize("name", MODELS)
def test_modules_hold_what_state_dicts_do(name: str) -> None:
    torch = pytest.importorskip("torch")
    model, xs = build(name)
    module, expected = to_torch(model), model(*xs)
    assert_close(module(*map(torch.tensor, xs)), expected)
    tensors = module.state_dict()
    for key, array in state_dict(model).items():
        np.testing.assert_array_equal(array, tensors[key].numpy(), err_msg=key)
    again = from_torch(module)
    if name == "one layer first":  # now all of them are, within one ChannelsFirst
        assert_close(again(*xs), expected)
    else:
        assert repr(again) == repr(model)
        assert_equal(again(*xs), expected)
    other = disturbed(copy.deepcopy(model), np.random.default_rng(4))
    load_state_dict(tensors, other)
    assert_equal(other(*xs), expected)


@pytest.mark.parametrize("name", [name for name, (_, _, shape) in UNKNOWN.items() if shape])
def test_modules_of_an_unknown_order_have_that_of_the_model(name: str) -> None:
    torch = pytest.importorskip("torch")
    made, _, shape = UNKNOWN[name]
    model = disturbed(made(), np.random.default_rng(0)).eval()
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    module = to_torch(model)
    assert_close(module(torch.tensor(x)), model(x))
    assert_equal(from_torch(module)(x), model(x))


def test_a_part_of_a_module_computes_what_it_did() -> None:
    torch = pytest.importorskip("torch")
    model, (x,) = build("lenet")
    module = to_torch(model)
    head = module[6:]
    images = module[:6](torch.tensor(x))
    assert_close(from_torch(head)(images.detach().numpy()), model(x))


def test_features_that_a_model_returns_and_learns_of_are_refused() -> None:
    pytest.importorskip("torch")
    both = nn.Parallel(nn.Linear(18, 2), nn.Identity(), join=None)
    with pytest.raises(ValueError, match="to_torch: the model returns features of flattened"):
        to_torch(chain(filters(), nn.Flatten(), both))
