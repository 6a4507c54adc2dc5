"""Networks for images: what they compute, at the command line and in files, and what they see."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import ROOT, accuracy_in, write_idx

import minidl
from minidl import analysis, datasets, models, nn, saving
from minidl.cli import main

IMAGES = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype(np.float32)
DIGITS = datasets.digits()
MNIST = ROOT.parent / "shared" / "data"


# --- builders ---------------------------------------------------------------------------------


def test_lenet5_has_the_parameters_of_the_paper_of_simple_chains() -> None:
    model = models.lenet5(rng=0)
    assert sum(p.size for p in model.parameters()) == 44_426
    assert model(IMAGES).shape == (3, 10)
    assert models.lenet5((32, 20, 3), classes=7)(np.zeros((2, 32, 20, 3), np.float32)).shape == (
        2,
        7,
    )


@pytest.mark.parametrize("depth", [8, 14, 20, 56])
def test_resnet_has_as_many_layers_with_weights_as_its_depth_says(depth: int) -> None:
    for residual in (True, False):
        model = models.resnet(depth, width=2, residual=residual, rng=0)
        layers = [layer for _, layer in model.layers() if isinstance(layer, (nn.Conv2d, nn.Linear))]
        shortcuts = [c for c in layers if isinstance(c, nn.Conv2d) and c.kernel_size == (1, 1)]
        assert len(layers) - len(shortcuts) == depth
        assert len(shortcuts) == (2 if residual else 0)


def test_resnet_halves_the_image_twice_and_doubles_the_channels() -> None:
    pass_ = analysis.trace(models.resnet(8, width=4, rng=0).eval(), IMAGES[:1])
    shapes = [step.value.shape[1:] for step in pass_ if "." not in step.path][1:]
    stages = dict.fromkeys(shape for shape in shapes if len(shape) == 3)
    assert list(stages) == [(28, 28, 4), (14, 14, 8), (7, 7, 16)]


def test_a_residual_block_is_relu_of_the_sum() -> None:
    """With γ = 0 in every body, blocks of one shape hand on what they get."""
    model = models.resnet(14, width=2, rng=0)
    body = model[3].body
    body[4].gamma.data = 0 * body[4].gamma.data
    x = np.abs(np.random.default_rng(0).normal(size=(2, 5, 5, 2))).astype(np.float32)
    np.testing.assert_array_equal(model[4](model[3](x)), x)


def test_initialisers_are_those_for_relu() -> None:
    model = models.resnet(56, width=16, rng=0)
    for _, layer in model.layers():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            fan_in = 9 * layer.in_features
            assert layer.weight.data.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.3)


def test_sizes_may_be_small_integers_of_numpy() -> None:
    """Products of sizes do not overflow."""
    wide, size = np.uint8(200), np.uint8(28)
    assert models.small_cnn(width=wide, rng=0).stack[-1].in_features == 16 * 400
    assert models.resnet(8, width=wide, rng=0).stack[-1].in_features == 800
    assert models.lenet5((size, size, np.uint8(1))).stack[7].in_features == 256


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.resnet(8, width=0), "resnet: width must be >= 1, got 0"),
        (lambda: models.lenet5((8, 8, 1)), "lenet5: shape must be that of images of at least 16"),
        (lambda: models.lenet5((28, 28)), "(height, width, channels); got (28, 28)"),
        (lambda: models.small_cnn((1, 8, 1)), "at least 2 x 2 pixels"),
        (lambda: models.resnet(9), "resnet: depth must be 6n + 2, such as 8, 14, 20 or 56"),
        (lambda: models.resnet(2), "in each of three stages; got 2"),
        (lambda: models.resnet(0), "depth must be >= 1"),
        (lambda: models.resnet(8, channels=0), "resnet: channels must be >= 1, got 0"),
        (lambda: models.lenet5(classes=0), "lenet5: classes must be >= 1, got 0"),
        (lambda: models.small_cnn(classes=-1), "small_cnn: classes must be >= 1, got -1"),
        (lambda: models.small_cnn(width=0), "small_cnn: width must be >= 1, got 0"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(
    build: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@pytest.mark.parametrize(
    "build", [models.lenet5, models.small_cnn, lambda **o: models.resnet(8, width=4, **o)]
)
def test_a_file_builds_the_model_again(build: Callable[..., Any], tmp_path: Path) -> None:
    model = build(rng=0)
    x = IMAGES if model is not None and build is not models.small_cnn else IMAGES[:, :8, :8]
    model(x)  # BatchNorm takes statistics
    model.eval()
    saving.save(model, tmp_path / "net")
    again = minidl.load(tmp_path / "net").eval()
    np.testing.assert_array_equal(again(x), model(x))


# --- feature maps -----------------------------------------------------------------------------


def test_feature_maps_are_what_the_layers_give() -> None:
    model = models.lenet5(rng=0)
    found = analysis.feature_maps(model, IMAGES[0])
    np.testing.assert_array_equal(found.filters, model[0].weight.data)
    first = model[1](model[0](IMAGES[:1]))
    second = model[4](model[3](model[2](first)))
    assert list(found.maps) == ["1 ReLU()", "4 ReLU()"]
    np.testing.assert_array_equal(found.maps["1 ReLU()"], first[0])
    np.testing.assert_array_equal(found.maps["4 ReLU()"], second[0])


def test_feature_maps_are_those_of_evaluation_and_change_nothing() -> None:
    model = models.small_cnn(rng=0)
    image = DIGITS.x_train[0].reshape(8, 8, 1)
    model(DIGITS.x_train[:64].reshape(-1, 8, 8, 1))
    before = [array.copy() for array in (*model.state().values(), model[0].weight.data)]
    found = analysis.feature_maps(model, image)
    assert model.training
    for array, was in zip((*model.state().values(), model[0].weight.data), before, strict=True):
        np.testing.assert_array_equal(array, was)
    expected = model.eval()[:3](image[None])[0]
    np.testing.assert_array_equal(found.maps["2 ReLU()"], expected)


def test_of_a_deep_network_some_layers_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = models.resnet(20, channels=3, width=20, rng=0)
    image = np.random.default_rng(0).random((12, 12, 3), np.float32)
    found = analysis.feature_maps(model, image)
    shown = list(found.shown)
    assert (shown[0], shown[-1], len(shown)) == (*[list(found.maps)[i] for i in (0, -1)], 4)
    figure = found.plot(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 1 + 16 * 5
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles[0].startswith("image, and filters of 0 Conv2d(3, 20, 3, padding=1, bias=False)")
    assert "16 of 20 channels, grey is 0" in titles[0]
    assert titles[1].startswith("2 ReLU(): 12 x 12, 16 of 20 channels, up to ")


def test_feature_maps_say_in_lines_what_they_hold() -> None:
    found = analysis.feature_maps(models.lenet5(rng=0), IMAGES[0])
    first, *lines = repr(found).splitlines()
    assert first == "FeatureMaps of an image (28, 28, 1): 6 filters of 0 Conv2d(1, 6, 5)"
    assert [line.rpartition(",")[0] for line in lines] == [
        "1 ReLU(): (24, 24, 6)",
        "4 ReLU(): (8, 8, 16)",
    ]


@pytest.mark.parametrize(
    ("model", "image", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), np.zeros((8, 8, 1)), "the model has no Conv2d"),
        (nn.Conv2d(1, 1, 3), np.zeros((1, 8, 8, 1)), "expected one image (height, width, chan"),
        (nn.Conv2d(1, 1, 3), np.zeros((0, 8, 1)), "expected one image (height, width, channels)"),
        (nn.Conv2d(1, 1, 3), np.full((4, 5, 1), np.nan), "at (0, 0, 0) it holds nan"),
        (nn.Conv2d(1, 1, 3), np.diag([0, np.inf])[..., None], "at (1, 1, 0) it holds inf"),
    ],
)
def test_what_has_no_maps_is_told(model: Any, image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        analysis.feature_maps(model, image)


# --- the command line -------------------------------------------------------------------------


def test_train_digits_cnn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--model", "cnn", "--epochs", "3"]) == 0
    output = capsys.readouterr().out
    assert "0 Conv2d(1, 16, 3, padding=1, bias=False)" in output
    assert accuracy_in(output) >= 0.95


@pytest.fixture
def big_digits(tmp_path: Path) -> list[str]:
    """The digits, enlarged to 16 x 16 pixels, as IDX files."""
    images = (DIGITS.x_train[:300] * 255).reshape(-1, 8, 8).repeat(2, 1).repeat(2, 2)
    files = [write_idx(tmp_path / "images.gz", images)]
    files.append(write_idx(tmp_path / "labels.gz", DIGITS.y_train[:300]))
    return ["train", "idx", "--images", files[0], "--labels", files[1], "--quiet"]


@pytest.mark.parametrize(
    "options", [["lenet5", "--epochs", "8"], ["resnet", "--depth", "8", "--epochs", "3"]]
)
def test_train_idx_learns(
    big_digits: list[str], capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main([*big_digits, "--model", *options]) == 0
    assert accuracy_in(capsys.readouterr().out) > 0.5


def test_lenet5_on_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    """After three epochs; after ten it has 0.975 and more."""
    files = [MNIST / f"t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    if not files[0].exists():
        pytest.skip("the MNIST files are not here")
    arguments = ["--images", str(files[0]), "--labels", str(files[1]), "--model", "lenet5"]
    assert main(["train", "idx", *arguments, "--epochs", "3", "--quiet"]) == 0
    assert accuracy_in(capsys.readouterr().out) > 0.94


def test_plot_has_filters_and_maps_below(
    big_digits: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("matplotlib.image")
    heights = []
    for model in ("mlp", "lenet5"):
        file = tmp_path / f"{model}.png"
        assert main([*big_digits, "--model", model, "--epochs", "1", "--plot", str(file)]) == 0
        heights.append(image.imread(file).shape[0])
    assert heights[1] > 1.5 * heights[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "cnn", "--hidden", "3"], "--hidden belongs to --model mlp, not to cnn"),
        (["--model", "resnet", "--dropout", "0.1"], "--dropout belongs to --model mlp"),
        (["--model", "cnn", "--norm"], "--norm belongs to --model mlp"),
        (["--model", "cnn", "--no-norm"], "--norm belongs to --model mlp"),  # as without it
        (["--depth", "8"], "--depth belongs to --model resnet, not to mlp"),
        (
            ["--model", "lenet5"],
            "got (8, 8, 1); --model cnn takes smaller images",
        ),
        (["--model", "resnet", "--depth", "10"], "depth must be 6n + 2"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", *options]) == 2
    assert message in capsys.readouterr().err


def test_rows_that_are_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = (
        write_idx(tmp_path / "x", np.ones((20, 9))),
        write_idx(tmp_path / "y", np.arange(20) % 2),
    )
    options = ["--images", files[0], "--labels", files[1], "--model", "cnn"]
    assert main(["train", "idx", *options]) == 2
    assert "a convolution takes images (height, width)" in capsys.readouterr().err


def test_diagnose_takes_the_same_models(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "cnn", "--epochs", "1", "--quiet"]
    assert main(["diagnose", "digits", *options]) == 0
    assert capsys.readouterr().out
