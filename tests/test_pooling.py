"""Pooling, upsampling and dropout of whole channels, beyond what holds for every layer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import oracles
import pytest
from recording_helpers import shared_by

import minidl
from minidl import kernels, nn, optim

CASES = 40
Rng = np.random.Generator


def drawn(rng: Rng, dimensions: int) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Where windows lie, at random, and the shape of an input that they fit."""
    kernel = tuple(map(int, rng.integers(1, 5, dimensions)))
    words: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": tuple(map(int, rng.integers(1, 4, dimensions))),
        "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel),
    }
    if rng.random() < 0.2:
        words["padding"] = "same"
    elif rng.random() < 0.2:
        words["padding"] = tuple(tuple(map(int, rng.integers(0, k // 2 + 1, 2))) for k in kernel)
    if rng.random() < 0.3:
        words["dilation"] = tuple(map(int, rng.integers(1, 4, dimensions)))
    if rng.random() < 0.3:
        words["ceil_mode"] = True
    apart = words.get("dilation", (1,) * dimensions)
    sizes = tuple(
        d * (k - 1) + 1 + int(rng.integers(0, 8)) for k, d in zip(kernel, apart, strict=True)
    )
    return words, (int(rng.integers(1, 4)), *sizes, int(rng.choice([1, 2, 3, 6, 8, 17, 33])))


def layers(rng: Rng) -> tuple[nn.Layer, nn.Layer, np.ndarray]:
    """A pool of maxima and one of means, and an input for both."""
    dimensions = int(rng.integers(1, 3))
    words, shape = drawn(rng, dimensions)
    largest = (nn.MaxPool1d, nn.MaxPool2d)[dimensions - 1](**words)
    counts = bool(rng.integers(2))
    mean = (nn.AvgPool1d, nn.AvgPool2d)[dimensions - 1](**words, count_include_pad=counts)
    return largest, mean, rng.normal(size=shape)


# --- values and gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pools_of_random_windows(backend: str, dtype: Any) -> None:
    for seed in range(CASES):
        largest, mean, x = layers(np.random.default_rng(seed))
        x, tolerance = x.astype(dtype), 1e-5 if dtype == np.float32 else 1e-12
        for layer in (largest, mean):
            y = layer(x)
            assert y.dtype == dtype
            assert y.shape == layer.output_shape(x.shape)
            expected = oracles.LAYERS[type(layer).__name__](layer, y, x)
            np.testing.assert_allclose(
                y, expected, rtol=tolerance, atol=tolerance, err_msg=f"{layer}"
            )


def test_gradients_of_random_windows(backend: str) -> None:
    """A mean is linear: dy · y(x) = dx · x. A maximum is so where it is taken."""
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        *pools, x = layers(rng)
        for layer in pools:
            y = layer(x)
            dy = rng.normal(size=y.shape)
            dx = layer.backward(dy)
            np.testing.assert_allclose(
                (dy * y).sum(), (dx * x).sum(), rtol=1e-9, err_msg=f"{layer}"
            )


def test_equal_pixels_give_the_gradient_to_the_first(backend: str) -> None:
    layer = nn.MaxPool2d(2)
    x = np.zeros((1, 2, 4, 1))
    x[0, :, 2:, 0] = [[1, 2], [2, 2]]
    layer(x)
    dx = layer.backward(np.array([3.0, 5.0]).reshape(1, 1, 2, 1))
    assert dx[0, :, :, 0].tolist() == [[3, 0, 0, 5], [0, 0, 0, 0]]
    overlapping = nn.MaxPool1d(2, stride=1)
    overlapping(np.array([0.0, 7, 7, 0]).reshape(1, 4, 1))
    dx = overlapping.backward(np.array([1.0, 10, 100]).reshape(1, 3, 1))
    assert dx.ravel().tolist() == [0, 11, 100, 0]


@pytest.mark.parametrize("channels", [1, 6, 20])
def test_nan_makes_a_window_nan(backend: str, channels: int) -> None:
    for place in range(9):
        x = np.ones((1, 3, 3, channels))
        x[0, place // 3, place % 3, -1] = np.nan
        for layer in (nn.MaxPool2d(3), nn.AvgPool2d(3), nn.GlobalMaxPool(), nn.GlobalAvgPool()):
            y = layer(x).reshape(channels)
            assert np.isnan(y[-1])
            assert (y[:-1] == 1).all()
    layer = nn.MaxPool2d(3)
    layer(x)
    dx = layer.backward(np.ones((1, 1, 1, channels)))
    assert dx[0, 2, 2, -1] == 1  # the gradient goes where the NaN is
    assert dx.sum() == channels


def test_padding_is_smaller_than_any_number(backend: str) -> None:
    x = np.full((1, 3, 3, 2), -np.inf)
    layer = nn.MaxPool2d(3, stride=1, padding=1)
    assert (layer(x) == -np.inf).all()
    assert layer.backward(np.ones(x.shape)).sum() == x.size  # nothing is given to the padding


def test_padding_of_a_mean(backend: str) -> None:
    x = np.ones((1, 3, 1))
    assert nn.AvgPool1d(3, 1, 1)(x).ravel().tolist() == pytest.approx([2 / 3, 1, 2 / 3])
    assert nn.AvgPool1d(3, 1, 1, count_include_pad=False)(x).ravel().tolist() == [1, 1, 1]
    assert nn.AvgPool1d(2, 1, "causal")(x).ravel().tolist() == [0.5, 1, 1]


def test_pools_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        largest, mean, x = layers(rng)
        x[rng.random(x.shape) < 0.02] = np.nan
        x = np.maximum(x, 0)  # with equal pixels
        for layer in (largest, mean):
            if isinstance(layer.padding, str) or any(b != a for b, a in layer.padding):
                continue
            padding = tuple(before for before, _ in layer.padding)
            kind = getattr(torch.nn, type(layer).__name__)
            more = {"ceil_mode": layer.ceil_mode}
            if layer is largest:
                more["dilation"] = layer.dilation
            elif set(layer.dilation) != {1}:
                continue  # theirs has none
            else:
                more["count_include_pad"] = layer.count_include_pad
            peer = kind(layer.kernel_size, layer.stride, padding, **more)
            theirs = torch.tensor(x).movedim(-1, 1).requires_grad_()
            y, z = layer(x), peer(theirs)
            np.testing.assert_allclose(y, z.detach().movedim(1, -1), rtol=1e-12, atol=1e-12)
            if np.isnan(x).any():
                continue  # of several NaNs, theirs gives the gradient to the last
            dy = rng.normal(size=y.shape)
            z.backward(torch.tensor(dy).movedim(-1, 1))
            expected = theirs.grad.movedim(1, -1)
            np.testing.assert_allclose(layer.backward(dy), expected, rtol=1e-12, atol=1e-12)


def test_upsampling_and_the_mean_are_opposites(backend: str) -> None:
    for channels in (1, 6, 8, 17):
        x = np.random.default_rng(channels).normal(size=(2, 3, 5, channels))
        larger = nn.Upsample((2, 3))(x)
        np.testing.assert_array_equal(larger[:, 1::2, 2::3], x)
        np.testing.assert_allclose(nn.AvgPool2d((2, 3))(larger), x, rtol=1e-14)
        np.testing.assert_array_equal(nn.MaxPool2d((2, 3))(larger), x)


# --- whole images and sequences -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.GlobalAvgPool, nn.GlobalMaxPool])
@pytest.mark.parametrize("channels", [1, 5, 16, 19])
def test_padding_of_sequences_does_not_count(
    backend: str, kind: type[nn.Layer], channels: int
) -> None:
    rng, lengths = np.random.default_rng(0), np.array([4, 1, 7, 3])
    x, layer = rng.normal(size=(4, 7, channels)) - 5, kind()
    y = layer(x, lengths)
    dy = rng.normal(size=y.shape)
    dx = layer.backward(dy)
    for row, n in enumerate(lengths):
        alone = kind()
        np.testing.assert_allclose(y[row], alone(x[row : row + 1, :n])[0], rtol=1e-12)
        np.testing.assert_allclose(dx[row, :n], alone.backward(dy[row : row + 1])[0], rtol=1e-12)
        assert (dx[row, n:] == 0).all()


@pytest.mark.parametrize("kind", [nn.GlobalAvgPool, nn.GlobalMaxPool])
def test_lengths_reach_a_global_pool_and_end_there(backend: str, kind: type[nn.Layer]) -> None:
    model = nn.Sequential(nn.GRU(2, 3), kind(), nn.Linear(3, 2), rng=0).eval()
    x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype(np.float32)
    lengths = np.array([6, 2, 4])
    y = model(x, lengths)
    spoilt = x.copy()
    spoilt[1, 2:] = spoilt[2, 4:] = 100
    np.testing.assert_array_equal(model(spoilt, lengths), y)
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(model(x[row : row + 1, :n])[0], y[row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.GlobalAvgPool, nn.GlobalMaxPool])
def test_wrong_lengths_are_refused(kind: type[nn.Layer]) -> None:
    layer, x = kind(), np.ones((2, 3, 4), np.float32)
    name = kind.__name__
    with pytest.raises(ValueError, match=rf"{name}.*length 4 in row 1 is not in 1 to 3"):
        layer(x, np.array([3, 4]))
    with pytest.raises(ValueError, match=rf"{name}.*expected lengths of shape \(2,\), got \(3,\)"):
        layer(x, np.array([3, 3, 3]))
    with pytest.raises(TypeError, match=rf"{name}.*expected lengths to be an array of integers"):
        layer(x, lengths=np.array([3.0, 3.0]))
    with pytest.raises(ValueError, match=rf"{name}.*lengths are of sequences"):
        layer(np.ones((2, 3, 4, 5), np.float32), np.array([3, 3]))
    step = minidl.record(lambda x, lengths: layer(x, lengths))
    for _ in range(3):
        step(x, np.array([3, 1]))
    with pytest.raises(ValueError, match="length 0 in row 1 is not in 1 to 3"):
        step(x, np.array([3, 0]))


@pytest.mark.parametrize("length", [-1, 0, 4, 10**9])
def test_gradients_refuse_wrong_lengths(backend: str, length: int) -> None:
    x, where = np.ones((2, 3, 4), np.float32), ((2,), (2,), ((0, 1),))
    y, lengths = kernels.max_pool(x, *where), np.array([3, length])
    with pytest.raises(ValueError, match=rf"length {length} in row 1 is not in 1 to 3"):
        kernels.max_pool_grad(y, x, y, *where, lengths)
    with pytest.raises(ValueError, match=rf"length {length} in row 1 is not in 1 to 3"):
        kernels.avg_pool_grad(y, (3,), *where, False, lengths)


# --- training -------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    """All of these layers in one model of images (8, 8, 6)."""
    return nn.Sequential(
        *(nn.Linear(6, 6), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3, whole_channels=True)),
        *(nn.Upsample(2), nn.AvgPool2d(3, stride=2, padding=1), nn.Linear(6, 8), nn.Tanh()),
        *(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2, 2, 1, 2, ceil_mode=True)),
        *(nn.AvgPool2d(2, ceil_mode=True), nn.GlobalAvgPool(), nn.Linear(8, 3)),
        rng=0,
    )


def test_recorded_on_any_number_of_threads_is_eager(backend: str) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(64, 8, 8, 6)).astype(np.float32), rng.integers(3, size=64)
    results = []
    for threads in (None, 1, 2, 3):
        model, loss = network(), nn.CrossEntropyLoss()
        optimizer = optim.Adam(model.parameters(), 0.01)

        def step(x: Any, y: Any, model: Any = model, loss: Any = loss, o: Any = optimizer) -> Any:
            value = loss(model(x), y)
            o.zero_grad()
            model.backward(loss.backward())
            o.step()
            return value

        run = minidl.record(step) if threads else step
        with shared_by(threads or 1):
            for _ in range(5):
                run(x, labels)
        results.append(optimizer.flat.data.copy())
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_gradients_of_a_model_of_all() -> None:
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 6))
    assert minidl.gradcheck(copy.deepcopy(network()), x, rtol=1e-5).ok


# --- dropout of whole channels --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50, 7, 6), (50, 3, 4, 20), (50, 5)])
def test_dropout_of_whole_channels(backend: str, shape: tuple[int, ...]) -> None:
    layer = nn.Dropout(0.4, rng=0, whole_channels=True)
    y = layer(np.ones(shape, np.float32)).reshape(50, -1, shape[-1])
    assert (y == y[:, :1]).all()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.6)}
    assert abs((y[:, 0] == 0).mean() - 0.4) < 0.1
    dx = layer.backward(np.full(shape, 2, np.float32)).reshape(y.shape)
    np.testing.assert_array_equal(dx, 2 * y)
    x = np.full(shape, np.nan, np.float32)
    assert np.isnan(layer(x)).mean() > 0.3
    assert (layer(x) == 0).mean() > 0.2  # 0, not 0 · NaN
    assert layer.eval()(x) is x


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: nn.MaxPool2d(0), ValueError, "MaxPool2d: kernel_size must be >= 1, got 0"),
        (lambda: nn.MaxPool2d(2.5), TypeError, "MaxPool2d: kernel_size must be a whole number"),
        (lambda: nn.MaxPool2d((2, 2, 2)), ValueError, "MaxPool2d: kernel_size must be a whole"),
        (lambda: nn.AvgPool1d(2, 0), ValueError, "AvgPool1d: stride must be >= 1, got 0"),
        (lambda: nn.AvgPool1d(2, padding=-1), ValueError, "AvgPool1d: padding must be >= 0"),
        (
            lambda: nn.MaxPool2d(3, padding=(1, 2)),
            ValueError,
            "MaxPool2d: padding must be at most half the kernel size, got 2 for a window of 3",
        ),
        (lambda: nn.MaxPool2d(2, padding="causal"), ValueError, 'one of "valid", "same", got'),
        (lambda: nn.Upsample(0), ValueError, "Upsample: scale_factor must be >= 1, got 0"),
        (lambda: nn.Upsample(1.5), TypeError, "Upsample: scale_factor must be a whole number"),
        (lambda: nn.Upsample((1, 2, 3)), ValueError, "Upsample: scale_factor must be a whole"),
    ],
)
def test_what_no_layer_can_be(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.MaxPool2d(3), (1, 2, 5, 1), r"0 MaxPool2d\(3\).*3 elements, but the input has 2"),
        (nn.AvgPool1d(4), (1, 3, 1), r"0 AvgPool1d\(4\).*4 elements, but the input has 3"),
        (nn.MaxPool2d(2), (1, 4, 3), r"\(batch, height, width, channels\), got \(1, 4, 3\)"),
        (nn.MaxPool1d(2), (1, 4, 4, 3), r"\(batch, steps, channels\), got \(1, 4, 4, 3\)"),
        (
            nn.GlobalAvgPool(),
            (3, 4),
            r"GlobalAvgPool\(\).*steps, channels\), got \(3, 4\)",
        ),
        (nn.Upsample((2, 2)), (1, 4, 3), r"Upsample\(\(2, 2\)\).*height, width, channels\), got"),
        (nn.Upsample(2), (1, 4), r"Upsample\(2\).*got \(1, 4\)"),
    ],
)
def test_what_no_layer_takes(layer: nn.Layer, shape: tuple[int, ...], message: str) -> None:
    model = nn.Sequential(layer)
    with pytest.raises(ValueError, match=message):
        model(np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.MaxPool2d(2), ("batch", 5, 6, 3), ("batch", 2, 3, 3)),
        (nn.AvgPool1d(3, 1, "same"), ("batch", 5, 3), ("batch", 5, 3)),
        (nn.AvgPool1d(3), ("batch", "time", 3), ("batch", "time", 3)),
        (nn.MaxPool2d(2), ("batch", 3), None),
        (nn.GlobalMaxPool(), ("batch", 5, 6, 3), ("batch", 3)),
        (nn.Upsample((2, 3)), ("batch", 5, 6, 3), ("batch", 10, 18, 3)),
        (nn.Upsample(2), None, None),
    ],
)
def test_shapes_of_outputs_are_known(layer: nn.Layer, shape: Any, expected: Any) -> None:
    assert layer.output_shape(shape) == expected


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.MaxPool2d(2), "MaxPool2d(2)"),
        (nn.MaxPool2d((2, 3), stride=1, padding=1), "MaxPool2d((2, 3), stride=1, padding=1)"),
        (nn.AvgPool1d(3, 2, "same"), 'AvgPool1d(3, stride=2, padding="same")'),
        (
            nn.AvgPool2d(2, count_include_pad=False),
            "AvgPool2d(2, count_include_pad=False)",
        ),
        (nn.Upsample((1, 2)), "Upsample((1, 2))"),
        (nn.Dropout(0.1, whole_channels=True), "Dropout(0.1, whole_channels=True)"),
    ],
)
def test_repr_is_what_one_writes(layer: nn.Layer, text: str) -> None:
    assert repr(layer) == text
