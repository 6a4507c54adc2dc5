"""The command line: what it prints, what it returns, and how it complains."""

from __future__ import annotations

import re
import struct
import sys

import numpy as np
import pytest
from cli_helpers import ROOT, SHORT, accuracy_in, write_idx

import minidl
from minidl import datasets, nn
from minidl.cli import _parser, main, network, train

MNIST = ROOT.parent / "shared" / "data"


@pytest.fixture
def idx_files(tmp_path):
    """The digits as a pair of IDX files, 200 images."""
    data = datasets.digits()
    images = (data.x_train[:200] * 255).reshape(-1, 8, 8)
    return [
        "--images",
        write_idx(tmp_path / "images.gz", images),
        "--labels",
        write_idx(tmp_path / "labels.gz", data.y_train[:200]),
    ]


# --- train ------------------------------------------------------------------------------


def test_train_digits_reports_all_it_promises(capsys):
    assert main(["train", "digits"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("layer ")
    assert "0 Linear(64, 128)" in output
    assert "1,437 images to train on, 360 to test" in output
    assert output.count("\nepoch ") == 20
    assert accuracy_in(output) >= 0.965
    assert float(re.search(r"training took ([\d.]+) s", output)[1]) < 5
    assert "true \\ predicted" in output
    assert " wrong; " in output
    assert "taken for" in output
    table = output[output.index("gradient norm") :].splitlines()
    assert [line.split()[0] for line in table[1:]] == ["0", "2", "4"]
    norms = [line.split()[-2:] for line in table[1:]]
    assert all(float(number) > 0 for pair in norms for number in pair)


@pytest.mark.parametrize("seed", range(1, 11))
def test_train_digits_is_good_with_every_seed(capsys, seed):
    assert main(["train", "digits", "--seed", str(seed), "--quiet"]) == 0
    output = capsys.readouterr()
    assert accuracy_in(output.out) >= 0.955
    assert len(output.out.splitlines()) == 1
    assert output.err == ""


@pytest.mark.parametrize(
    "options",
    [
        "--activation tanh --init xavier",
        "--activation sigmoid --init he_uniform --epochs 10",
        "--init normal:0.1 --seed 0",
        "--norm --residual --dropout 0.2 --hidden 32,32",
        "--no-norm --no-residual --hidden none --epochs 8",
        "--optimizer sgd --max-norm none --epochs 4",
        "--lr 5e-3 --batch-size 64 --max-norm 0.5 --epochs 4",
    ],
)
def test_train_takes_every_option(capsys, options):
    assert main([*SHORT, *options.split()]) == 0
    output = capsys.readouterr().out
    assert accuracy_in(output) > 0.6
    assert ("BatchNorm(32)" in output) == (" --norm" in f" {options}")
    assert ("Residual(" in output) == (" --residual" in f" {options}")
    assert ("SGD(" in output) == ("sgd" in options)


def without_speed(text):
    return re.sub(r"(  |, )[\d,]+ samples/s|took [\d.]+ s|\nplot written.*\n", "", text)


def test_train_is_repeatable(capsys):
    outputs = []
    for seed in ("3", "3", "4"):
        main([*SHORT, "--dropout", "0.2", "--seed", seed])
        outputs.append(without_speed(capsys.readouterr().out).replace(f"seed {seed}", ""))
    assert outputs[0] == outputs[1] != outputs[2]


def test_the_seed_decides_the_parameters_too():
    weights = []
    for seed in ("3", "3", "4"):
        arguments = _parser().parse_args([*SHORT, "--seed", seed])
        weights.append(network.build_model(64, 10, arguments).parameters()[0].data)
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_the_initialiser_is_chosen_by_name_and_normal_by_its_width():
    def weight(init, place=0):
        arguments = _parser().parse_args([*SHORT, "--hidden", "32,32", "--init", init])
        layers = network.build_model(64, 10, arguments).layers()
        return [x.weight.data for _, x in layers if isinstance(x, nn.Linear)][place]

    assert weight("normal:0.05").std() == pytest.approx(0.05, rel=0.1)
    assert weight("normal:2").std() == pytest.approx(2, rel=0.1)
    assert not weight("normal:0").any()
    assert not weight("zeros").any()
    assert np.array_equal(weight("he"), weight("he_normal"))
    assert np.array_equal(weight("auto", 1), weight("he", 1))  # what suits ReLU
    assert np.array_equal(weight("auto"), weight("fan_in_uniform"))  # both ends start small


def test_measuring_for_a_plot_does_not_change_the_training(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "training.png"
    options = [*SHORT, "--norm", "--dropout", "0.2", "--residual"]
    main(options)
    plain = capsys.readouterr().out
    assert main([*options, "--plot", str(picture)]) == 0
    output = capsys.readouterr().out
    assert without_speed(output) == without_speed(plain)
    assert f"plot written to {picture}" in output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
    assert "matplotlib.pyplot" not in sys.modules


def test_train_idx(capsys, idx_files):
    assert main(["train", "idx", *idx_files, "--epochs", "8"]) == 0
    output = capsys.readouterr().out
    assert "160 images to train on, 40 to test" in output
    assert "BatchNorm(256)" in output
    assert accuracy_in(output) > 0.7


def test_train_idx_scales_pixels_to_one(monkeypatch, idx_files):
    seen = []
    monkeypatch.setattr(train, "run", lambda data, arguments: seen.append(data) or 0)
    assert main(["train", "idx", *idx_files]) == 0
    original = datasets.digits().x_train[:200]
    np.testing.assert_allclose(seen[0].x_train, original[:160], atol=1 / 255)
    np.testing.assert_allclose(seen[0].x_test, original[160:], atol=1 / 255)
    assert seen[0].x_train.max() == 1


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ("--train 150", (150, 50)),
        ("--test 20", (180, 20)),
        ("--train 100 --test 30", (100, 30)),
    ],
)
def test_train_idx_splits_as_asked(capsys, idx_files, options, split):
    assert main(["train", "idx", *idx_files, "--epochs", "1", *options.split()]) == 0
    assert f"{split[0]} images to train on, {split[1]} to test" in capsys.readouterr().out


def test_train_idx_on_mnist(capsys):
    files = [MNIST / f"t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    if not files[0].exists():
        pytest.skip("the MNIST files are not here")
    options = "--hidden 256,128 --norm --dropout 0.2 --epochs 15 --quiet"
    arguments = ["--images", str(files[0]), "--labels", str(files[1])]
    assert main(["train", "idx", *arguments, *options.split()]) == 0
    assert accuracy_in(capsys.readouterr().out) >= 0.965


# --- complaints -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "required"),
        ("fly", "invalid choice"),
        ("train", "required"),
        ("train dogs", "invalid choice"),
        ("train idx", "required"),
        ("train digits --hidden 128,x", "expected widths such as 128,64"),
        ("train digits --hidden 0", "expected widths"),
        ("train digits --epochs 0", "expected a whole number >= 1, got '0'"),
        ("train digits --batch-size 2.5", "expected a whole number >= 1, got '2.5'"),
        ("train digits --dropout 1", "expected a number in [0, 1), got '1'"),
        ("train digits --lr nan", "expected a number > 0, got 'nan'"),
        ("train digits --lr -1", "expected a number > 0"),
        ("train digits --max-norm 0", "expected a number > 0 or none"),
        ("train digits --seed -1", "expected a whole number >= 0, got '-1'"),
        ("train digits --seed 1.0", "expected a whole number >= 0, got '1.0'"),
        ("train digits --activation gelu", "invalid choice"),
        ("train digits --init best", "expected one of auto, he, xavier, xavier_uniform"),
        ("train digits --init normal", "or normal:STD, got 'normal'"),
        ("train digits --init normal:wide", "expected normal:STD with STD >= 0, got 'wide'"),
        ("train digits --init normal:-1", "expected normal:STD with STD >= 0, got '-1'"),
        ("train digits --init normal:inf", "expected normal:STD with STD >= 0"),
        ("train digits --optimizer lion", "invalid choice"),
        ("train digits --plot nowhere/plot.png", "there is no folder nowhere"),
        ("train digits --plot plot.docx", "must end in one of"),
        ("train digits --plot .", "cannot draw ."),
        ("train digits --norm --batch-size 1", "with batch size 1 every batch has one; choose"),
        ("train digits --norm --batch-size 1436", "leave one for the last; choose another"),
        ("train idx --images none.gz --labels none.gz", "No such file"),
        ("sample none.safetensors", "none.safetensors: No such file"),
        ("lab depth plain deep", "no network is called 'deep'; there are plain"),
        ("check Linaer", "no layer or loss called 'Linaer'; known: "),
    ],
)
def test_wrong_arguments_get_a_message_and_status_2(capsys, arguments, words):
    assert main(arguments.split()) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert "Traceback" not in output.err
    assert "Errno" not in output.err
    assert "error:" in output.err.splitlines()[-1]
    assert "|" not in output.out  # no head of a table that will not come


def test_idx_files_that_do_not_fit_are_refused(capsys, tmp_path, idx_files):
    broken = tmp_path / "broken"
    broken.write_bytes(b"not idx")
    short = write_idx(tmp_path / "short", np.zeros(7))
    for changes, words in [
        ({1: str(broken)}, "not an IDX file"),
        ({3: short}, "images.gz holds 200 images, and"),
        ({3: short}, "short holds 7 labels"),
        ({1: idx_files[3], 3: idx_files[1]}, "exchange --images and --labels"),
        ({1: idx_files[3]}, "labels.gz: expected images, an array (count, height, width), got"),
        ({3: idx_files[1]}, "images.gz: expected a label for each image, got shape (200, 8, 8)"),
        (
            {3: write_idx(tmp_path / "fives", np.full(200, 5))},
            "the images to train on are all of class 5",
        ),
    ]:
        files = [changes.get(index, value) for index, value in enumerate(idx_files)]
        assert main(["train", "idx", *files]) == 2
        assert words in capsys.readouterr().err
    for options in ("--train 201", "--test 200", "--train 150 --test 51"):
        assert main(["train", "idx", *idx_files, *options.split()]) == 2
        assert "of 200 images" in capsys.readouterr().err


def test_training_that_explodes_is_a_failure_with_the_layer(capsys):
    arguments = [*SHORT, "--optimizer", "sgd", "--lr", "1e30", "--max-norm", "none"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("minidl: training failed: training step ")
    assert "Traceback" not in error


def test_a_plot_without_matplotlib_says_what_to_install_before_training(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*SHORT, "--plot", "plot.png"]) == 2
    output = capsys.readouterr()
    assert "pip install 'minidl[plot]'" in output.err
    assert output.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        "train digits --hidden 1000000000000,5",
        "train digits --hidden 9000000000000000000000",
        "train adding --steps 100000000000",
        "train text --embedding 9000000000000000000000",
    ],
)
def test_what_does_not_fit_into_memory_is_said_in_one_line(capsys, arguments):
    assert main([*arguments.split(), "--quiet"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("minidl: error: there is not enough memory for this: ")
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_ctrl_c_says_so_and_nothing_more(capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("minidl.cli.train.Trainer.fit", interrupt)
    assert main(SHORT) == 130
    assert capsys.readouterr().err == "interrupted\n"


# --- check, doctor, version -------------------------------------------------------------


def test_check_passes_for_every_layer_and_loss(capsys):
    assert main(["check"]) == 0
    output = capsys.readouterr().out
    assert "worst relative error" in output
    assert "FAILED" not in output
    for name in ("Linear", "BatchNorm", "Dropout", "RNNCell", "CrossEntropyLoss", "MSELoss"):
        assert re.search(rf"^{name}\(.* ok$", output, re.MULTILINE), name


def test_check_takes_names(capsys):
    assert main(["check", "Tanh", "MSELoss"]) == 0
    names = {line.split("(")[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert names == {"Tanh", "MSELoss"}


def test_check_fails_with_a_wrong_gradient(capsys, monkeypatch):
    monkeypatch.setattr(minidl.nn.Tanh, "backward", lambda self, dy: dy * self.saved(dy))
    assert main(["check", "Tanh", "ReLU"]) == 1
    output = capsys.readouterr()
    assert re.search(r"^Tanh\(\) .* FAILED$", output.out, re.MULTILINE)
    assert re.search(r"^ReLU\(\) .* ok$", output.out, re.MULTILINE)
    assert "Tanh" in output.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"minidl {minidl.__version__}\n"


@pytest.mark.parametrize("command", ["", "train", "train digits", "check", "bench", "doctor"])
def test_help(capsys, command):
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: minidl")


def test_help_names_the_initialisers(capsys):
    main(["train", "digits", "--help"])
    output = " ".join(capsys.readouterr().out.split())
    assert "he, xavier, xavier_uniform" in output
    assert "normal:STD" in output


def test_labels_that_would_take_an_output_layer_of_gigabytes(capsys, tmp_path):
    images = write_idx(tmp_path / "images", np.zeros((10, 2, 2)))
    labels = tmp_path / "labels"
    labels.write_bytes(bytes([0, 0, 12, 1]) + struct.pack(">I10i", 10, *[0] * 9, 2**31 - 1))
    assert main(["train", "idx", "--images", images, "--labels", str(labels)]) == 2
    error = capsys.readouterr().err
    assert "labels must be less than 4,096" in error
    assert "got 2147483647 in row 9" in error
