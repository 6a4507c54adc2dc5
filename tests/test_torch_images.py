"""Networks for images and sequences to PyTorch and back, wherever the channels are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_stacks import disturbed, random_images

from minidl import nn
from minidl.torch import from_torch, load_state_dict, state_dict, to_torch

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from minidl.torch.branch_modules import Join, Parallel, Residual, Split  # noqa: E402

T = torch.nn


def assert_close(found: Any, expected: Any) -> None:
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale)


def tuned(module: Any) -> Any:
    """The module in evaluation mode, without any running statistics of a new one."""
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer += torch.rand(buffer.shape)
    return module.eval()


def lenet() -> Any:
    return T.Sequential(
        *(T.Conv2d(1, 6, 5, padding=2), T.Tanh(), T.AvgPool2d(2)),
        *(T.Conv2d(6, 16, 5), T.ReLU(), T.MaxPool2d(2), T.Flatten()),
        *(T.Linear(64, 20), T.BatchNorm1d(20), T.ReLU(), T.Linear(20, 10), T.Softmax(dim=1)),
    )


def block(channels: int, out: int, stride: int) -> Any:
    body = T.Sequential(
        *(T.Conv2d(channels, out, 3, stride, 1, bias=False), T.BatchNorm2d(out), T.ReLU()),
        *(T.Conv2d(out, out, 3, padding="same", groups=2), T.BatchNorm2d(out)),
    )
    same = stride == 1 and channels == out
    return Residual(body, None if same else T.Conv2d(channels, out, 1, stride))


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "lenet": (lenet, (3, 1, 16, 16)),
    "resnet": (
        lambda: T.Sequential(
            *(T.Conv2d(3, 4, 3, padding=1), block(4, 4, 1), T.ReLU(), block(4, 6, 2)),
            *(T.PReLU(6), T.Dropout2d(0.3), T.AdaptiveAvgPool2d((1, 1)), T.Flatten()),
            T.Linear(6, 5),
        ),
        (2, 3, 7, 9),
    ),
    "one layer": (lambda: T.Conv2d(3, 4, (2, 3), (2, 1), (1, 0), (1, 2)), (2, 3, 5, 8)),
    "images again": (
        lambda: T.Sequential(T.Upsample(scale_factor=2), T.Conv2d(2, 1, 3), T.Softmax(dim=1)),
        (2, 2, 4, 5),
    ),
    "sequence": (
        lambda: T.Sequential(
            *(T.Conv1d(3, 4, 3, padding=1), T.BatchNorm1d(4), T.ELU(), T.MaxPool1d(2, 1)),
            *(T.Dropout1d(), T.AdaptiveMaxPool1d(1), T.Flatten(), T.Linear(4, 2)),
        ),
        (2, 3, 7),
    ),
    "pixels": (lambda: T.Sequential(T.Conv2d(2, 3, 2), T.Flatten(2)), (2, 2, 4, 5)),
    "rows of each image": (  # Linear and LayerNorm are over the columns of an image
        lambda: T.Sequential(
            *(T.Linear(6, 5), T.Conv2d(2, 3, 2), T.BatchNorm2d(3), T.LayerNorm(4)),
            *(T.PReLU(3), T.Softmax(dim=1), T.Linear(4, 3), T.MaxPool2d(2), T.Flatten()),
            T.Linear(3, 2),
        ),
        (2, 2, 4, 6),
    ),
    "branches": (
        lambda: T.Sequential(
            T.Conv2d(2, 4, 3, padding=1),
            Parallel(
                {"a": T.Conv2d(4, 2, 1), "b": T.Sequential(T.ReLU(), T.MaxPool2d(3, 1, 1))},
                "concat",
                channels_first=True,
            ),
            *(Split((2, 4), channels_first=True), Join("concat", channels_first=True)),
            T.AdaptiveAvgPool2d(1),
        ),
        (2, 2, 5, 6),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_pytorch_take_and_give_what_they_did(name: str) -> None:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    module = tuned(build())
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = module(torch.tensor(x))
    model = from_torch(module)
    assert_close(model(x), expected)
    names = module.state_dict()
    ours = state_dict(model)
    assert list(ours) == list(names)
    for key, array in ours.items():
        np.testing.assert_array_equal(array, names[key].numpy(), err_msg=key)
    if name != "rows of each image":
        back = to_torch(model)
        assert list(map(type, back.modules())) == list(map(type, module.modules()))
        assert_close(back(torch.tensor(x)).detach().numpy(), expected)
    assert_close(from_torch(to_torch(model))(x), expected)


def test_only_the_border_is_transposed() -> None:
    model = from_torch(lenet())
    assert isinstance(model, nn.ChannelsFirst)
    assert not any(isinstance(layer, nn.ChannelsFirst) for _, layer in model.inner.layers())
    assert repr(model.inner[6]) == "Flatten(channels_first=True)"


def test_weights_of_a_network_with_its_channels_last() -> None:
    module = tuned(lenet())
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(channels_first=True)),
        *(nn.Linear(64, 20), nn.BatchNorm(20), nn.ReLU(), nn.Linear(20, 10), nn.Softmax()),
    ).eval()
    load_state_dict(module.state_dict(), model)
    x = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype(np.float32)
    assert_close(model(x), module(torch.tensor(x).movedim(-1, 1)))


def test_square_weights_are_turned_as_all_others_are() -> None:
    module, model = T.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    load_state_dict(module.state_dict(), model)
    for index in np.ndindex(3, 3, 3, 3):
        out, channel, row, column = index
        assert model.weight.data[row, column, channel, out] == module.weight[index]


@pytest.mark.parametrize("seed", range(20))
def test_random_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_images(rng)
    module = to_torch(model)
    y = model(x)
    assert_close(module(torch.tensor(x)).detach().numpy(), y)
    again = from_torch(module)
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again(x), y)
    first = nn.ChannelsFirst(model).eval()
    turned = np.moveaxis(x, -1, 1).copy()
    module = to_torch(first)
    expected = np.moveaxis(y, -1, 1) if y.ndim > 2 else y
    assert_close(module(torch.tensor(turned)).detach().numpy(), expected)
    np.testing.assert_array_equal(from_torch(module)(turned), expected)
    tensors = module.state_dict()
    for name, array in state_dict(model).items():
        np.testing.assert_array_equal(array, tensors[name].numpy(), err_msg=name)
    disturbed(model, rng)
    load_state_dict(tensors, model)
    np.testing.assert_array_equal(model(x), y)


@pytest.mark.parametrize("seed", range(6))
def test_gradients_are_those_of_pytorch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_images(rng)
    model, x = nn.ChannelsFirst(model.astype(np.float64)), np.moveaxis(x, -1, 1).astype(float)
    module = to_torch(model)
    theirs = torch.tensor(x, requires_grad=True)
    y, z = model(x), module(theirs)
    z.backward(torch.cos(z.detach()))
    np.testing.assert_allclose(model.backward(np.cos(y)), theirs.grad.numpy(), atol=1e-9)
    for parameter in model.parameters():
        parameter.data = parameter.grad
    ours = state_dict(model)
    for name, tensor in module.named_parameters():
        np.testing.assert_allclose(ours[name], tensor.grad.numpy(), atol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: T.Conv2d(2, 2, 3, padding_mode="reflect"), "padding_mode='reflect'"),
        (lambda: T.MaxPool2d(2, ceil_mode=True), "ceil_mode=True"),
        (lambda: T.MaxPool2d(2, dilation=2), "dilation=2"),
        (lambda: T.MaxPool1d(2, return_indices=True), "return_indices=True"),
        (lambda: T.AvgPool2d(2, divisor_override=3), "divisor_override=3"),
        (lambda: T.AdaptiveAvgPool2d((2, 1)), r"output_size=\(2, 1\)"),
        (lambda: T.Upsample(scale_factor=1.5), "scale_factor=1.5"),
        (lambda: T.Upsample(size=4), "size=4"),
        (lambda: T.Upsample(scale_factor=2, mode="bilinear"), "mode='bilinear'"),
        (lambda: T.ConvTranspose2d(2, 2, 3), "no counterpart"),
        (lambda: T.Conv3d(2, 2, 3), "no counterpart"),
        (lambda: T.BatchNorm2d(2, momentum=None), "momentum=None"),
        (lambda: T.LazyConv2d(2, 3), "does not know its sizes yet"),
    ],
)
def test_what_minidl_has_not_is_refused_by_name(build: Any, words: str) -> None:
    model = T.Sequential(T.Conv2d(2, 2, 1), T.Sequential(build()))
    with pytest.raises(TypeError, match=rf"from_torch: module 1\.0 .*{words}"):
        from_torch(model)


def test_layers_without_a_counterpart_with_the_channels_first_are_named() -> None:
    model = nn.ChannelsFirst(nn.Sequential(nn.Conv2d(1, 2, 1), nn.LayerNorm(2)))
    with pytest.raises(TypeError, match=r"to_torch: layer inner\.1 LayerNorm"):
        to_torch(model)


def test_a_branch_with_a_name_that_pytorch_needs_is_refused() -> None:
    model = nn.Parallel(half=nn.Linear(2, 2), other=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="a branch cannot be called 'half'"):
        to_torch(model)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: (T.ConstantPad1d((4, 0), 0.0), T.Conv1d(2, 3, 3, dilation=2)), (2, 2, 6)),
        (lambda: (T.ZeroPad1d((1, 0)), T.Conv1d(2, 3, 3, padding="valid")), (2, 2, 6)),
        (lambda: (T.ZeroPad2d((1, 2, 0, 3)), T.Conv2d(2, 3, 3, 2, padding=(1, 0))), (2, 2, 5, 4)),
        (lambda: (T.ConstantPad2d(1, 0.0), T.Conv2d(2, 2, 3, groups=2)), (2, 2, 5, 4)),
    ],
)
def test_zeros_before_a_convolution_are_its_padding(layers: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = T.Sequential(T.ReLU(), *layers(), T.Tanh(), T.Flatten(), T.LazyLinear(2)).eval()
    x = torch.randn(shape)
    expected = module(x)
    model = from_torch(module)
    assert_close(model(x.numpy()), expected)
    assert list(state_dict(model)) == list(module.state_dict())
    back = to_torch(model)
    assert_close(back(x).detach().numpy(), expected)
    assert_close(from_torch(back)(x.numpy()), expected)


def twice_used() -> list[Any]:
    convolution = T.Conv2d(2, 2, 1)
    return [convolution, T.ZeroPad2d(1), convolution]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (lambda: [T.Conv2d(2, 2, 1), T.ZeroPad2d(1)], "ZeroPad2d pads; minidl pads with zeros"),
        (lambda: [T.Conv2d(2, 2, 1), T.ZeroPad2d(1), T.MaxPool2d(2)], "ZeroPad2d pads;"),
        (lambda: [T.Tanh(), T.ConstantPad2d(1, 0.5), T.Conv2d(2, 2, 1)], "pads with 0.5"),
        (lambda: [T.Tanh(), T.ZeroPad2d((-1, 0, 0, 0)), T.Conv2d(2, 2, 1)], "ZeroPad2d pads;"),
        (lambda: [T.Tanh(), T.ZeroPad2d(1), T.Conv2d(2, 2, 1, padding="same")], "ZeroPad2d pads;"),
        (lambda: [T.Tanh(), T.ZeroPad2d(1), T.Sequential(T.Conv2d(2, 2, 1))], "ZeroPad2d pads;"),
        (twice_used, "ZeroPad2d pads;"),
    ],
)
def test_padding_of_anything_else_is_refused(layers: Any, words: str) -> None:
    with pytest.raises(TypeError, match=rf"from_torch: module 1 .*{words}"):
        from_torch(T.Sequential(*layers()))


def test_padding_that_pytorch_lacks() -> None:
    rng = np.random.default_rng(0)
    options = ({"padding": "causal"}, {"stride": 2, "padding": "same"}, {"padding": ((2, 0),)})
    for option in options:
        model = disturbed(nn.Conv1d(2, 3, 3, **option), rng).eval()
        x = rng.normal(size=(2, 6, 2)).astype(np.float32)
        module = to_torch(nn.ChannelsFirst(model))
        found = module(torch.tensor(x).movedim(-1, 1)).movedim(1, -1)
        assert_close(found.detach().numpy(), model(x))
