"""Features of flattened images in state dicts of PyTorch, which has the channels on axis 1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_stacks import disturbed

from minidl import models, nn
from minidl.torch import (
    UnknownOrderError,
    from_torch,
    load_state_dict,
    save_state_dict,
    state_dict,
    to_torch,
)

Model = Callable[[], nn.Layer]


def chain(*layers: nn.Layer) -> nn.Layer:
    return nn.Sequential(*layers, rng=0)


def filters(channels: int = 1, out: int = 3) -> nn.Layer:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


def twice(layer: nn.Layer) -> nn.Layer:
    """One encoder of two images, side by side."""
    return nn.Parallel(layer, layer)


# Models with a Flatten() of images, and the shapes of their inputs.
MODELS: dict[str, tuple[Model, list[tuple[int, ...]]]] = {
    "lenet": (lambda: models.lenet5((16, 18, 2), rng=0), [(2, 16, 18, 2)]),
    "small": (lambda: models.small_cnn(rng=0), [(2, 8, 8, 1)]),
    "features": (
        lambda: chain(
            *(filters(), nn.Flatten(), nn.BatchNorm(18), nn.PReLU(18), nn.LayerNorm(18)),
            *(nn.RMSNorm(18), nn.Dropout(0.1), nn.Softmax(), nn.Standardize(18)),
            *(nn.Linear(18, 4, bias=False), nn.BatchNorm(4), nn.Linear(4, 2)),
        ),
        [(2, 4, 6, 1)],
    ),
    "sequence": (
        lambda: chain(nn.Conv1d(2, 3, 3, padding="causal"), nn.Flatten(), nn.Linear(15, 2)),
        [(2, 5, 2)],
    ),
    "words": (
        lambda: chain(nn.LSTM(2, 3), nn.Conv1d(3, 4, 2), nn.Flatten(), nn.Linear(16, 2)),
        [(2, 5, 2)],
    ),
    "pixels": (
        lambda: chain(filters(), nn.Flatten(1, -2), nn.Flatten(), nn.Linear(18, 2)),
        [(2, 4, 6, 1)],
    ),
    "one pixel": (
        lambda: chain(filters(), nn.GlobalAvgPool(True), nn.Flatten(), nn.Linear(3, 2)),
        [(2, 4, 6, 1)],
    ),
    "residual": (
        lambda: chain(
            nn.BatchNorm(2),
            *(nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm(2))),),
            *(nn.Upsample(2), nn.Flatten(), nn.Residual(nn.ReLU()), nn.Linear(48, 3)),
        ),
        [(2, 2, 3, 2)],
    ),
    "heads": (
        lambda: chain(
            filters(),
            nn.Flatten(),
            nn.Parallel(a=nn.Linear(18, 2), b=chain(nn.Tanh(), nn.Linear(18, 1)), join=None),
        ),
        [(2, 4, 6, 1)],
    ),
    "siamese": (
        lambda: chain(twice(chain(filters(), nn.Flatten(), nn.Linear(18, 4))), nn.Linear(8, 1)),
        [(2, 4, 6, 1), (2, 4, 6, 1)],
    ),
    "image and table": (
        lambda: chain(
            nn.Parallel(chain(nn.Linear(3, 5), nn.Tanh()), chain(filters(), nn.Flatten())),
            *(nn.BatchNorm(23), nn.Linear(23, 2)),
        ),
        [(2, 3), (2, 4, 6, 1)],
    ),
    "image, table and steps": (
        lambda: chain(
            nn.Parallel(
                *(chain(filters(), nn.Flatten()), nn.Linear(3, 5)),
                nn.GRU(2, 3, bidirectional=True, return_sequences=False),
                chain(nn.Conv1d(2, 4, 2), nn.GlobalMaxPool()),
            ),
            nn.Linear(18 + 5 + 6 + 4, 2),
        ),
        [(2, 4, 6, 1), (2, 3), (2, 5, 2), (2, 5, 2)],
    ),
    "joined channels": (
        lambda: chain(
            nn.Parallel(filters(2, 3), chain(nn.MaxPool2d(2), nn.Dropout(0.1))),
            *(nn.Split((2, 3)), nn.Concat(), nn.Flatten(), nn.Linear(30, 2)),
        ),
        [(2, 4, 6, 2)],
    ),
    "chosen": (
        lambda: chain(
            nn.Parallel(chain(filters(), nn.Flatten()), chain(filters(), nn.Flatten()), join=None),
            *(nn.Select(1), nn.Linear(18, 2)),
        ),
        [(2, 4, 6, 1)],
    ),
    "added": (
        lambda: chain(
            nn.Parallel(chain(filters(), nn.Flatten()), chain(filters(), nn.Flatten()), join="add"),
            nn.Linear(18, 2),
        ),
        [(2, 4, 6, 1)],
    ),
    "channels first": (
        lambda: nn.ChannelsFirst(chain(filters(), nn.Flatten(), nn.Linear(18, 2))),
        [(2, 1, 4, 6)],
    ),
    "one layer first": (
        lambda: chain(nn.ChannelsFirst(filters()), nn.Flatten(), nn.Linear(18, 2)),
        [(2, 1, 4, 6)],
    ),
}


def build(name: str) -> tuple[nn.Layer, list[Any]]:
    """A model without any number of a new one, and inputs for it."""
    rng = np.random.default_rng(0)
    made, shapes = MODELS[name]
    model = disturbed(made(), rng).eval()
    for _, layer in model.layers():
        if isinstance(layer, nn.Standardize):
            layer.adapt(rng.normal(2, 3, size=(9, 18)))
    return model, [rng.normal(size=shape).astype(np.float32) for shape in shapes]


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


# --- what cannot be known -------------------------------------------------------------------------


class Square(nn.Layer):
    """A layer of the user's."""

    def forward(self, x: Any) -> Any:
        return x * x


class Net(nn.Layer):
    """A network of the user's, with a flow of its own."""

    def __init__(self, *layers: nn.Layer) -> None:
        self.parts = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.parts:
            x = layer(x)
        return x


IMAGE = (2, 4, 6, 1)
# Models, what is said of them, and the shapes of their inputs; None for those without a module.
UNKNOWN: dict[str, tuple[Model, str, tuple[int, ...] | None]] = {
    "a layer of the user's before": (
        lambda: chain(filters(), Square(), nn.Flatten(), nn.Linear(18, 2)),
        "layer 2 Flatten.* layer 3 Linear.* the channels that it takes are not known",
        None,
    ),
    "a layer of the user's behind": (
        lambda: chain(filters(), nn.Flatten(), Square(), nn.Linear(18, 2)),
        "layer 1 Flatten.* layer 3 Linear.* because layer 2 Square.* may change it",
        None,
    ),
    "a layer of the user's around": (
        lambda: Net(filters(), nn.Flatten(), nn.Linear(18, 2)),
        r"Flatten.* how Net\(\) calls its layers",
        None,
    ),
    "a layer of the user's that joins": (
        lambda: chain(
            nn.Parallel(filters(), filters(), join=None),
            Net(nn.Concat(), nn.Flatten(), nn.Tanh()),
            nn.Linear(36, 2),
        ),
        "how layer 1 Net.* calls its layers",
        None,
    ),
    "pooling first": (
        lambda: chain(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2)),
        "the channels that it takes are not known",
        (2, 4, 6, 3),
    ),
    "inside of channels first": (
        lambda: nn.ChannelsFirst(chain(nn.Flatten(), nn.Linear(18, 2))),
        "the channels that it takes are not known",
        (2, 3, 2, 3),
    ),
    "columns": (
        lambda: chain(filters(), nn.Flatten(2), nn.GRU(9, 2)),
        "joins the channels to one of several axes",
        IMAGE,
    ),
    "linear layers of pixels": (
        lambda: chain(filters(), nn.Linear(3, 2), nn.Flatten(), nn.Linear(12, 2)),
        "the channels that it takes are not known",
        IMAGE,
    ),
    "two widths": (
        lambda: chain(
            nn.Parallel(chain(filters(), nn.Flatten()), chain(filters(), nn.Flatten())),
            nn.Linear(36, 2),
        ),
        "several widths",
        IMAGE,
    ),
    "one Flatten of images and sequences": (
        lambda: twofold(nn.Flatten()),
        "called twice",
        IMAGE,
    ),
    "a Residual over features": (
        lambda: chain(filters(), nn.Flatten(), nn.Residual(nn.Linear(18, 18)), nn.Linear(18, 2)),
        "combined with features of another order",
        IMAGE,
    ),
    "stacked": (
        lambda: chain(
            *(filters(), nn.Flatten(), nn.Parallel(nn.ReLU(), nn.Tanh(), join="stack")),
            nn.GRU(18, 2),
        ),
        "they are stacked",
        IMAGE,
    ),
    "split": (
        lambda: chain(filters(), nn.Flatten(), nn.Split((9, 9)), nn.Select(0), nn.Linear(9, 2)),
        "they are split",
        IMAGE,
    ),
    "no pixels": (
        lambda: chain(filters(), nn.Flatten(), nn.Linear(17, 2)),
        "17 features are no pixels of 3 channels",
        None,
    ),
    "an input that may be an image": (
        lambda: nn.Parallel(
            chain(filters(), nn.GlobalAvgPool()), chain(nn.Flatten(), nn.Linear(24, 3))
        ),
        "other layers take its input for images",
        IMAGE,
    ),
}


def twofold(flatten: nn.Flatten) -> nn.Layer:
    """A network that calls one Flatten with images and with rows."""
    return chain(filters(), flatten, nn.Linear(18, 4), nn.ReLU(), flatten, nn.Linear(4, 2))


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


def test_one_layer_for_features_in_different_orders_is_refused() -> None:
    shared = nn.Linear(18, 18)
    model = chain(filters(), nn.Flatten(), shared, nn.ReLU(), shared)
    with pytest.raises(UnknownOrderError, match=r"layer 2 Linear.* is called twice"):
        state_dict(model)


# --- PyTorch --------------------------------------------------------------------------------------


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
