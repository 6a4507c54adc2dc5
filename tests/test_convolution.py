"""Convolutions, beyond what holds for every layer and every kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from recording_helpers import shared_by

import minidl
from minidl import kernels, nn, optim
from minidl.nn.windows import Window

CASES = 60


def drawn(rng: np.random.Generator) -> tuple[nn.Layer, np.ndarray]:
    """A convolution of random options, and an input for it."""
    dimensions = int(rng.integers(1, 3))
    kernel = tuple(map(int, rng.integers(1, 5, dimensions)))
    groups = int(rng.choice([1, 1, 2, 3]))
    channels, outputs = (groups * int(rng.choice([1, 2, 5, 17])) for _ in range(2))
    padding: Any = tuple(map(int, rng.integers(0, 4, dimensions)))
    if rng.random() < 0.4:
        padding = str(rng.choice(["same", "valid", "causal"][: 4 - dimensions]))
    kind = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    dilation = tuple(map(int, rng.integers(1, 4, dimensions)))
    layer = kind(
        channels,
        outputs,
        kernel,
        stride=tuple(map(int, rng.integers(1, 4, dimensions))),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bool(rng.integers(2)),
        rng=int(rng.integers(99)),
        dtype=np.float64,
    )
    sizes = [d * (k - 1) + 1 + int(rng.integers(9)) for k, d in zip(kernel, dilation, strict=True)]
    return layer, rng.normal(size=(int(rng.integers(1, 4)), *sizes, channels))


def test_windows_of_random_options(backend: str) -> None:
    for seed in range(CASES):
        layer, x = drawn(np.random.default_rng(seed))
        y = layer(x)
        assert y.shape == layer.output_shape(x.shape), layer
        expected = oracles.LAYERS[type(layer).__name__](layer, y, x)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12, err_msg=f"{layer} {x.shape}")


def test_gradients_of_random_options(backend: str) -> None:
    """The gradient in a random direction, against the difference along it: y is linear in each."""
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        layer, x = drawn(rng)
        layer.zero_grad()
        y = layer(x)
        dy, direction = rng.normal(size=y.shape), rng.normal(size=x.shape)
        dx = layer.backward(dy)
        difference = (layer(x + direction) - y) * dy
        np.testing.assert_allclose((dx * direction).sum(), difference.sum(), atol=1e-9)
        for parameter in layer.parameters():
            before, turned = parameter.data.copy(), rng.normal(size=parameter.shape)
            parameter.data = before + turned
            difference = (layer(x) - y) * dy
            np.testing.assert_allclose((parameter.grad * turned).sum(), difference.sum(), atol=1e-9)
            parameter.data = before


# --- special cases of the same thing ------------------------------------------------------------


def test_one_pixel_is_a_linear_layer(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
    conv = nn.Conv2d(6, 7, 1, rng=0, dtype=np.float64)
    linear = nn.Linear(6, 7, dtype=np.float64)
    linear.weight.data, linear.bias.data = conv.weight.data[0, 0], conv.bias.data
    for layer in (conv, linear):
        layer.zero_grad()
    np.testing.assert_allclose(conv(x), linear(x), rtol=0, atol=1e-13)
    dy = np.random.default_rng(1).normal(size=(3, 4, 5, 7))
    np.testing.assert_allclose(conv.backward(dy), linear.backward(dy), rtol=0, atol=1e-13)
    np.testing.assert_allclose(conv.weight.grad[0, 0], linear.weight.grad, rtol=0, atol=1e-12)


def test_groups_are_convolutions_side_by_side(backend: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 5, 6))
    whole = nn.Conv2d(6, 9, 3, padding=1, groups=3, rng=0, dtype=np.float64)
    parts = []
    for group in range(3):
        part = nn.Conv2d(2, 3, 3, padding=1, dtype=np.float64)
        part.weight.data = whole.weight.data[..., 3 * group : 3 * group + 3]
        part.bias.data = whole.bias.data[3 * group : 3 * group + 3]
        parts.append(part(x[..., 2 * group : 2 * group + 2]))
    np.testing.assert_allclose(whole(x), np.concatenate(parts, axis=-1), rtol=0, atol=1e-13)


def test_images_of_one_row_are_sequences(backend: str) -> None:
    rng = np.random.default_rng(0)
    x, line = rng.normal(size=(2, 9, 3)), nn.Conv1d(3, 4, 3, padding=2, stride=2, dtype=np.float64)
    image = nn.Conv2d(3, 4, (1, 3), padding=(0, 2), stride=(1, 2), dtype=np.float64)
    image.weight.data, image.bias.data = line.weight.data[None], line.bias.data
    assert np.array_equal(line(x), image(x[:, None])[:, 0])


def test_causal_outputs_see_no_later_step(backend: str) -> None:
    rng = np.random.default_rng(0)
    layer = nn.Conv1d(2, 3, 4, padding="causal", dilation=2, rng=0, dtype=np.float64)
    x = rng.normal(size=(1, 20, 2))
    y = layer(x)
    assert y.shape == (1, 20, 3)
    changed = x.copy()
    changed[:, 11:] += 1
    assert np.array_equal(layer(changed)[:, :11], y[:, :11])
    assert not np.array_equal(layer(changed)[:, 11], y[:, 11])


@pytest.mark.parametrize("outputs", [1, 3, 6, 15, 16, 64])
def test_padding_is_an_image_with_zeros_around_it(backend: str, outputs: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 2), (3, 0), (0, 0)))
    layer = nn.Conv2d(2, outputs, 3, padding=((1, 2), (3, 0)), rng=0)
    bare = nn.Conv2d(2, outputs, 3, rng=0)
    assert np.array_equal(layer(x), bare(padded))


# --- recorded, on threads -----------------------------------------------------------------------


@pytest.mark.parametrize("threads", range(1, 9))
def test_the_same_bits_eager_recorded_and_on_threads(isa: str, threads: int) -> None:
    def trained(threads: int | None) -> list[np.ndarray]:
        model = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, rng=0), nn.ReLU(), nn.Conv2d(6, 16, 3, padding=1, stride=2)),
            *(nn.BatchNorm(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Tanh()),
            *(nn.Flatten(), nn.Linear(16 * 4 * 4, 3)),
            rng=0,
        )
        loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01)

        def step(x: np.ndarray, labels: np.ndarray) -> Any:
            value = loss(model(x), labels)
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
            return value

        rng = np.random.default_rng(0)
        x, labels = rng.normal(size=(5, 16, 16, 1)).astype(np.float32), np.arange(5) % 3
        run = step if threads is None else minidl.record(step)
        if threads is None:
            values = [float(run(x, labels)) for _ in range(3)]
        else:
            with shared_by(threads):
                values = [float(run(x, labels)) for _ in range(3)]
        return [np.array(values), *(p.data.copy() for p in model.parameters())]

    for eager, recorded in zip(trained(None), trained(threads), strict=True):
        assert np.array_equal(eager, recorded)


def test_an_activation_is_applied_in_the_convolution(isa: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype(np.float32)
    for activation in (nn.ReLU, nn.Tanh, nn.Sigmoid):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, rng=0), activation())
        recorded = minidl.record(model)
        assert np.array_equal(recorded(x), model(x))
        assert "conv + " in str(recorded.profile(x))


# --- what it is made of, and what is refused ----------------------------------------------------


def test_initialisers_count_the_inputs_of_a_window() -> None:
    wide = nn.Conv2d(16, 32, 3, init="he_normal", rng=0).weight.data
    assert abs(wide.std() / np.sqrt(2 / (9 * 16)) - 1) < 0.05
    glorot = nn.Conv1d(64, 32, 5, init="xavier_normal", rng=0).weight.data
    assert abs(glorot.std() / np.sqrt(2 / (5 * 64 + 5 * 32)) - 1) < 0.05
    square = nn.Conv2d(2, 4, 3, init="orthogonal", rng=0, dtype=np.float64).weight.data
    np.testing.assert_allclose(
        square.reshape(-1, 4).T @ square.reshape(-1, 4), np.eye(4), atol=1e-12
    )


def test_channels_may_be_small_integers_of_numpy() -> None:
    """The number of inputs of a window does not overflow."""
    made = nn.Conv2d(np.uint8(200), np.uint8(6), np.uint8(3), groups=np.uint8(2), rng=0)
    plain = nn.Conv2d(200, 6, 3, groups=2, rng=0)
    for mine, other in zip(made.parameters(), plain.parameters(), strict=True):
        assert np.array_equal(mine.data, other.data)
        assert {type(size) for size in mine.shape} == {int}


def test_hidden_convolutions_are_initialised_for_what_follows() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
    names = [layer.weight.initializer.name for layer in model.stack if hasattr(layer, "weight")]
    assert names == ["fan_in_uniform", "he_normal", "fan_in_uniform"]


def test_repr_is_how_to_make_it() -> None:
    for seed in range(CASES):
        layer, _ = drawn(np.random.default_rng(seed))
        made = eval(repr(layer), {name: getattr(nn, name) for name in ("Conv1d", "Conv2d")})
        assert repr(made) == repr(layer)
        assert made.window.options() == layer.window.options()
        assert made.weight.shape == layer.weight.shape
        assert (made.groups, made.bias is None) == (layer.groups, layer.bias is None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 0), r"Conv2d: kernel_size must be >= 1, got 0"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), r"Conv2d: kernel_size must be .* 2 numbers"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), r"in_channels=3 and out_channels=4 .* groups=2"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), r"in_channels=4 and out_channels=3 .* groups=2"),
        (lambda: nn.Conv2d(4, 3, 3, padding="causal"), r'padding must be .*"valid", "same", got'),
        (lambda: nn.Conv1d(4, 3, 3, padding=(1, 2)), r"or \(\(before, after\),\), got \(1, 2\)"),
        (lambda: nn.Conv2d(4, 3, 3, padding=((1, 2), 3)), r"\(\(top.*\), got \(\(1, 2\), 3\)"),
        (lambda: nn.Conv1d(4, 3, (3, 3)), r"kernel_size must be a whole number, got \(3, 3\)"),
        (lambda: nn.Conv1d(4, 3, 3, padding=-1), r"Conv1d: padding must be >= 0, got -1"),
        (lambda: nn.Conv1d(4, 3, 3, dilation=0), r"Conv1d: dilation must be >= 1, got 0"),
        (lambda: nn.Conv2d(4, 3, 1, dilation=2**61), r"Conv2d: dilation must be <= 2147483647"),
        (lambda: nn.Conv1d(4, 3, 3, bias=False, bias_init="zeros"), r"Conv1d: bias=False leaves"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm(8), nn.Conv2d(4, 8, 3)),
            r"BatchNorm\(8\) gives 8 features, and Conv2d\(4, 8, 3\) after it takes 4",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_inputs_that_do_not_fit_are_refused_with_layer_and_shape(backend: str) -> None:
    layer = nn.Conv2d(3, 4, 5, padding=1)
    with pytest.raises(ValueError, match=r"Conv2d\(3, 4, 5, padding=1\).*\(2, 2, 9, 3\).*reaches"):
        layer(np.zeros((2, 2, 9, 3), np.float32))
    with pytest.raises(ValueError, match=r"layer 0 Conv2d\(1, 2, 9\): .*reaches over 9 .* has 8"):
        nn.Sequential(nn.Conv2d(1, 2, 9)).summary((8, 8, 1))
    with pytest.raises(ValueError, match=r"images \(batch, height, width, channels\), got.*\(2, 9"):
        layer(np.zeros((2, 9, 3), np.float32))
    with pytest.raises(ValueError, match=r"Conv2d.*\(batch, \.\.\., 3\).*\(2, 9, 9, 4\)"):
        layer(np.zeros((2, 9, 9, 4), np.float32))


def test_tables_and_checks_of_widths_see_through_windows() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.Upsample(2), nn.AvgPool2d(2), nn.Conv2d(6, 2, 3)
    )
    assert str(model).count("(batch, height, width, 6)") == 4
    assert "(batch, time, 4)" in str(nn.Sequential(nn.Conv1d(1, 4, 3), nn.MaxPool1d(2)))
    assert "(batch, 10, 10, 2)" in model.summary((28, 28, 1))
    with pytest.raises(ValueError, match=r"AvgPool1d\(2\) gives 4 features, and Conv1d\(3, 2, 3\)"):
        nn.Sequential(nn.Conv1d(1, 4, 3), nn.AvgPool1d(2), nn.Conv1d(3, 2, 3))


def test_lengths_pass_where_the_steps_stay() -> None:
    x, lengths = np.ones((2, 8, 3), np.float32), np.array([8, 5])
    same = nn.Sequential(nn.Conv1d(3, 4, 3, padding="causal", rng=0), nn.GRU(4, 2), rng=0)
    first = same(x, lengths)
    x[1, 5:] = 9
    assert np.array_equal(same(x, lengths), first)
    back = nn.Sequential(nn.MaxPool1d(2), nn.Upsample(2), nn.GRU(3, 2), rng=0)
    assert not back(x, lengths)[1, 5:].any()  # the steps are those of the lengths again
    strided = nn.Sequential(nn.Conv1d(3, 4, 3, stride=2), nn.GRU(4, 2))
    with pytest.raises(
        ValueError, match=r"Conv1d\(3, 4, 3, stride=2\) makes other steps of 8.*GRU"
    ):
        strided(x, lengths)


def test_a_stride_may_be_set_to_one_number() -> None:
    layer, x = nn.Conv2d(1, 2, 3, stride=(2, 2), rng=0), np.ones((1, 5, 5, 1), np.float32)
    before = layer(x)
    layer.stride = 2  # type: ignore[assignment]
    assert np.array_equal(layer(x), before)


def test_no_stride_is_no_number() -> None:
    with pytest.raises(TypeError, match="Conv1d: stride must be a whole number, got None"):
        nn.Conv1d(4, 3, 3, stride=None)  # type: ignore[arg-type]


def test_shapes_in_words() -> None:
    assert nn.Conv1d(3, 4, 2).output_shape(None) == ("batch", "time", 4)
    assert nn.Conv2d(3, 4, 2).output_shape(None) == ("batch", "height", "width", 4)
    with pytest.raises(ValueError, match=r"input must be images \(batch.*\('batch', 6, 3\)"):
        nn.Conv2d(3, 4, 2).output_shape(("batch", 6, 3))
    assert nn.Upsample((2, 2)).output_shape(("batch", 6, 3)) is None


def test_kernels_take_whole_numbers(isa: str) -> None:
    x, weight = np.zeros((1, 4, 4, 2)), np.zeros((2, 2, 2, 3))
    with pytest.raises(TypeError, match="integer"):
        kernels.conv(x, weight, None, (1.5, 1))


def test_kernels_refuse_windows_that_do_not_fit(isa: str) -> None:
    x, weight = np.zeros((1, 4, 4, 2)), np.zeros((5, 5, 2, 3))
    with pytest.raises(ValueError, match=r"windows of 5 x 5 elements.*do not fit into 4 x 4"):
        kernels.conv(x, weight)


def test_gradients_of_another_shape_are_refused(isa: str) -> None:
    x, dy, dweight = np.zeros((1, 3, 3, 1)), np.zeros((1, 2, 2, 4)), np.zeros((2, 2, 1, 4))
    with pytest.raises(ValueError, match=r"dbias must be \(4,\), got \(3,\)"):
        kernels.conv_grad_params(x, dy, dweight, np.zeros(3))
    with pytest.raises(ValueError, match=r"dy must have shape \(1, 2, 2, 4\), got \(1, 3, 2, 4\)"):
        kernels.conv_grad_params(x, np.zeros((1, 3, 2, 4)), dweight)


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_kernels_refuse_numbers_whose_products_overflow(isa: str, kernel: int) -> None:
    x, weight = np.zeros((1, 3, 3, 1)), np.zeros((kernel, kernel, 1, 1))
    for power in (31, 61, 62, 63):
        huge = 2**power
        with pytest.raises(ValueError, match=r"conv: dilation must be numbers from 1 to"):
            kernels.conv(x, weight, None, (1, 1), ((1, 1), (1, 1)), (huge, huge))
        with pytest.raises(ValueError, match=r"conv: padding must be numbers from 0 to"):
            kernels.conv(x, weight, None, (1, 1), ((huge, huge), (0, 0)))


def test_tables_of_layers_whose_axes_are_not_known() -> None:
    for layer, sizes in ((nn.Conv2d(2, 4, 1), "height, width"), (nn.Conv1d(2, 4, 1), "time")):
        table = repr(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), layer))
        assert f"(batch, {sizes}, 4)" in table


@pytest.mark.parametrize("apart", [2**29, 2**30, 2**31 - 1])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_windows_that_reach_far_into_the_padding(isa: str, apart: int, channels: int) -> None:
    """Only their last element sees the image, however far away the others are."""
    steps = (2**31 - 1, apart)
    geometry = {"padding": tuple((step, 0) for step in steps), "dilation": steps}
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 3, 4, channels)), rng.normal(size=(2, 2, channels, 2))
    np.testing.assert_allclose(kernels.conv(x, weight, **geometry), x @ weight[1, 1])
    dy, dweight = rng.normal(size=(2, 3, 4, 2)), np.zeros(weight.shape)
    kernels.conv_grad_params(x, dy, dweight, **geometry)
    assert np.count_nonzero(dweight) == 2 * channels
    dx = kernels.conv_grad_input(dy, weight, x.shape, **geometry)
    np.testing.assert_allclose(dx, dy @ weight[1, 1].T)


def test_same_padding_makes_as_many_windows_as_strides() -> None:
    for size in range(1, 30):
        for kernel in range(1, 6):
            for stride in range(1, 4):
                for dilation in range(1, 3):
                    window = Window("", 1, kernel, stride, "same", dilation)
                    assert window.sizes_after((size,)) == (-(-size // stride),)
                    ((before, after),) = window.padding_for((size,))
                    assert 0 <= after - before <= 1
