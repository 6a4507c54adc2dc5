"""Kernels that see images through windows: what they refuse, numbers that are not finite, ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from minidl import kernels, nn
from minidl._kernels import twins

IMAGES, WEIGHT = np.ones((2, 5, 5, 3)), np.ones((3, 3, 3, 4))
POOLED, CONVOLVED = np.ones((2, 2, 2, 3)), np.ones((2, 3, 3, 4))
TWO, NONE = (2, 2), ((0, 0), (0, 0))
# A call of each kernel with arguments that it takes, but for what has a default.
CALLS: dict[str, dict[str, Any]] = {
    "conv": {"x": IMAGES, "weight": WEIGHT},
    "conv_grad_params": {"x": IMAGES, "dy": CONVOLVED, "dweight": np.zeros_like(WEIGHT)},
    "conv_grad_input": {"dy": CONVOLVED, "weight": WEIGHT, "x_shape": IMAGES.shape},
    "max_pool": {"x": IMAGES, "kernel": TWO, "stride": TWO, "padding": NONE},
    "max_pool_grad": {
        **{"dy": POOLED, "x": IMAGES, "y": POOLED},
        **{"kernel": TWO, "stride": TWO, "padding": NONE},
    },
    "avg_pool": {"x": IMAGES, "kernel": TWO, "stride": TWO, "padding": NONE},
    "avg_pool_grad": {
        **{"dy": POOLED, "sizes": (5, 5)},
        **{"kernel": TWO, "stride": TWO, "padding": NONE},
    },
    "upsample": {"x": IMAGES, "scale": TWO},
    "upsample_grad": {"dy": CONVOLVED[:, :2, :2], "scale": TWO},
}
POOLS = ("max_pool", "max_pool_grad", "avg_pool", "avg_pool_grad")
PLACES = {
    **dict.fromkeys(("conv", "conv_grad_params", "conv_grad_input"), ("stride", "dilation")),
    **dict.fromkeys(POOLS, ("kernel", "stride", "dilation")),
    **dict.fromkeys(("upsample", "upsample_grad"), ("scale",)),
}
NO_NUMBERS: tuple[Any, ...] = (
    2,
    2.5,
    "ab",
    {},
    {"a": 1, "b": 2},
    np.array(2),
    (),
    (2,),
    (2, 2, 2),
    (1.5, 2),
    (2, "a"),
    (None, 2),
)
OUT_OF_RANGE: tuple[Any, ...] = ((0, 2), (2, -1), (2**31, 1), (1, 2**70))


def wrong() -> Iterator[tuple[str, str, Any]]:
    """Kernels, their arguments, and what these cannot be."""
    for name, given in CALLS.items():
        arrays = [argument for argument, value in given.items() if isinstance(value, np.ndarray)]
        arrays += {"conv": ["bias"], "conv_grad_params": ["dbias"]}.get(name, [])
        arrays += ["lengths"] if name in POOLS else []
        yield from ((name, argument, value) for argument in arrays for value in (2, [1.0], "a"))
        for argument in PLACES[name]:
            yield from ((name, argument, value) for value in (*NO_NUMBERS, *OUT_OF_RANGE))
        if "scale" not in given:
            pairs = ((0, 0), (2, 2, 2)), ((0, 0),), ((-1, 0), (0, 0)), ((0, 0), (0, 2**40))
            for value in (2, "ab", None, (1, 1), {"a": 1, "b": 2}, *pairs):
                yield name, "padding", value
        if name.startswith("conv"):
            yield from ((name, "groups", value) for value in (None, "a", 1.5))
    yield from (("conv_grad_input", "x_shape", value) for value in (5, (2, 5, 5), (0, 5, 5, 3)))
    yield from (("avg_pool_grad", "sizes", value) for value in (5, None, (5,), (0, 5)))


@pytest.mark.parametrize(("name", "argument", "value"), list(wrong()))
def test_what_an_argument_cannot_be_is_said(isa: str, name: str, argument: str, value: Any) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=rf"^{name}: {argument}[a-z ]* must be .*, got "
    ):
        getattr(kernels, name)(**{**CALLS[name], argument: value})


@pytest.mark.parametrize("name", CALLS)
def test_what_they_take_is_not_refused(isa: str, name: str) -> None:
    result = getattr(kernels, name)(**CALLS[name])
    assert result is None or np.isfinite(result).all()
    as_lists = {k: list(v) if isinstance(v, tuple) else v for k, v in CALLS[name].items()}
    getattr(kernels, name)(**as_lists)


@pytest.mark.parametrize("activation", ["swish", ["relu"], 3, ("relu",)])
def test_unknown_activations_are_named(isa: str, activation: Any) -> None:
    with pytest.raises(ValueError, match="conv: unknown activation"):
        kernels.conv(IMAGES, WEIGHT, activation=activation)


def test_groups_below_one_are_refused(isa: str) -> None:
    for groups in (0, -1, 2, 2**80):
        with pytest.raises(ValueError, match=f"3 channels and 4 outputs do not make {groups}"):
            kernels.conv(IMAGES, WEIGHT, groups=groups)


def test_no_window_of_a_pool_begins_so_far_outside_that_it_sees_nothing(isa: str) -> None:
    with pytest.raises(ValueError, match=r"padding must be smaller than a window.*over 2, got"):
        kernels.max_pool(IMAGES, TWO, TWO, ((2, 0), (0, 0)))
    kernels.max_pool(IMAGES, TWO, TWO, ((2, 0), (0, 0)), dilation=(2, 1))


# --- numbers that are not finite ------------------------------------------------------------

# Channels, outputs and groups of the kernel's ways: depthwise, few outputs, patches, in groups.
WAYS = [(20, 20, 20), (3, 3, 3), (1, 1, 1), (2, 5, 1), (3, 40, 1), (4, 34, 2)]


def spoil(rng: np.random.Generator, x: np.ndarray, number: float, places: int) -> np.ndarray:
    """x with a number at some places."""
    x = x.copy()
    x.reshape(-1)[rng.integers(x.size, size=places)] = number
    return x


def assert_alike(ours: np.ndarray, theirs: np.ndarray, words: str) -> None:
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs), err_msg=words)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=words)


def each_spoilt(
    rng: np.random.Generator, arrays: tuple[np.ndarray, ...]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The arrays, with numbers in one of them that are not finite."""
    for which in range(len(arrays)):
        for number in (np.inf, -np.inf, np.nan):
            made = list(arrays)
            made[which] = spoil(rng, made[which], number, 1 + int(rng.integers(2)))
            yield f"{number} in array {which}", made


@pytest.mark.parametrize(("channels", "outputs", "groups"), WAYS)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3)])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_zeros_of_the_padding_times_infinity_are_nan(
    isa: str, channels: int, outputs: int, groups: int, kernel: tuple[int, int]
) -> None:
    """Padding is zeros, also for weights and gradients that are not finite."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 7, channels))
    weight = rng.normal(size=(*kernel, channels // groups, outputs))
    for stride, padding, step in [(1, 1, 1), (2, 2, 1), (1, 2, 2), (1, 0, 1)]:
        where = (stride, stride), ((padding, padding),) * 2, (step, step), groups
        dy = rng.normal(size=twins.conv(x, weight, None, *where).shape)
        calls: list[tuple[Callable[..., Any], Callable[..., Any], tuple[np.ndarray, ...]]] = [
            (kernels.conv, twins.conv, (x, weight)),
            (kernels.conv_grad_input, twins.conv_grad_input, (dy, weight)),
            (kernels.conv_grad_params, twins.conv_grad_params, (x, dy)),
        ]
        for ours, theirs, arrays in calls:
            for what, spoilt in each_spoilt(rng, arrays):
                words = f"{theirs.__name__}, {what}, {where}"
                if ours is kernels.conv_grad_params:
                    a, b = np.zeros_like(weight), np.zeros_like(weight)
                    ours(*spoilt, a, None, *where)
                    theirs(*spoilt, b, None, *where)
                    assert_alike(a, b, words)
                    continue
                other = None if ours is kernels.conv else x.shape
                assert_alike(ours(*spoilt, other, *where), theirs(*spoilt, other, *where), words)


def test_a_depthwise_convolution_is_one_in_groups(isa: str) -> None:
    """Of a single channel for each group, and of two that are alike."""
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(1, 4, 4, 5)), rng.normal(size=(3, 3, 1, 5))
    weight[0, 2, 0, 3] = np.inf
    same = {"padding": ((1, 1), (1, 1))}
    alone = kernels.conv(x, weight, groups=5, **same)
    twice = kernels.conv(x, np.repeat(weight, 2, axis=-1), groups=5, **same)
    np.testing.assert_array_equal(np.isnan(twice[..., ::2]), np.isnan(alone))
    assert np.isnan(alone[0, 0, :, 3]).all()  # the row whose windows have the weight in the padding
    assert np.isfinite(np.delete(alone, 3, axis=-1)).all()


# --- windows that are rounded up, and dilated -------------------------------------------------


def test_a_last_window_reaches_out_of_the_image(backend: str) -> None:
    x = np.arange(1.0, 6).reshape(1, 5, 1)
    assert nn.MaxPool1d(2, ceil_mode=True)(x).ravel().tolist() == [2, 4, 5]
    assert nn.AvgPool1d(2, ceil_mode=True)(x).ravel().tolist() == [1.5, 3.5, 5]
    padded = nn.AvgPool1d(4, 2, 1, ceil_mode=True)  # the padding counts, what lies behind it not
    assert padded(x).ravel().tolist() == [1.5, 3.5, 3]


def test_no_window_begins_in_the_padding_at_the_end(backend: str) -> None:
    x = np.arange(1.0, 5).reshape(1, 4, 1)
    layer = nn.MaxPool1d(2, stride=3, padding=1, ceil_mode=True)
    assert layer(x).ravel().tolist() == [1, 4]  # a third one would begin behind the last step
    assert nn.MaxPool1d(1, stride=5, ceil_mode=True)(x).ravel().tolist() == [1]


def test_an_input_smaller_than_a_window_makes_one_that_is_rounded_up(backend: str) -> None:
    x = np.arange(1.0, 3).reshape(1, 2, 1)
    assert nn.MaxPool1d(3, stride=2, ceil_mode=True)(x).ravel().tolist() == [2]
    for layer in (nn.MaxPool1d(3, stride=2), nn.MaxPool1d(3, stride=1, ceil_mode=True)):
        with pytest.raises(ValueError, match="reaches over 3 elements, but the input has 2"):
            layer(x)


def test_dilated_windows_leave_elements_out(backend: str) -> None:
    x = np.array([[[1.0], [9], [2], [8], [3]]])
    layer = nn.MaxPool1d(2, stride=1, dilation=2)
    assert layer(x).ravel().tolist() == [2, 9, 3]
    assert layer.backward(np.ones((1, 3, 1))).ravel().tolist() == [0, 1, 1, 0, 1]
    mean = nn.AvgPool1d(2, stride=1, dilation=2)
    assert mean(x).ravel().tolist() == [1.5, 8.5, 2.5]
    assert mean.backward(np.ones((1, 3, 1))).ravel().tolist() == [0.5, 0.5, 1, 0.5, 0.5]


def test_windows_of_padding_alone(backend: str) -> None:
    """Both elements of a dilated window may lie outside: there is no maximum, and no mean."""
    x = np.array([[[7.0]]])
    assert nn.MaxPool1d(2, 1, "same", 3)(x).ravel().tolist() == [-np.inf]
    mean = nn.AvgPool1d(2, 1, "same", dilation=3, count_include_pad=False)
    assert mean(x).ravel().tolist() == [0]
    assert mean.backward(np.ones((1, 1, 1))).ravel().tolist() == [0]


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.MaxPool2d(3, 2, dilation=2), "MaxPool2d(3, stride=2, dilation=2)"),
        (nn.MaxPool1d(2, ceil_mode=True), "MaxPool1d(2, ceil_mode=True)"),
        (
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            "AvgPool2d(2, ceil_mode=True, count_include_pad=False)",
        ),
    ],
)
def test_repr_has_them(layer: nn.Layer, text: str) -> None:
    assert repr(layer) == text
