"""The command line: where its output goes, and the tables in it."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from cli_helpers import ROOT, SHORT, accuracy_in, run, write_idx

import minidl
from minidl.cli import doctor, main, report

# --- output that is no terminal ---------------------------------------------------------


def test_an_ascii_terminal_gets_every_line():
    done = run(
        *SHORT,
        "--residual",
        environment={
            "LC_ALL": "C",
            "PYTHONIOENCODING": "ascii",
            "PYTHONUTF8": "0",
            "COLUMNS": "30",
        },
    )
    assert done.returncode == 0
    assert done.stderr == b""
    assert b"Residual(Linear -> ReLU" in done.stdout
    assert b"\r" not in done.stdout
    assert accuracy_in(done.stdout.decode("ascii")) > 0.6


@pytest.mark.parametrize("errors", ["strict", "surrogateescape", "surrogatepass", "ignore"])
def test_characters_that_cannot_be_shown_are_replaced(monkeypatch, errors):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(doctor, "describe", lambda: {"naïve": "été"})
    assert main(["doctor"]) == 0
    assert output.buffer.getvalue() in (b"na?ve  ?t?\n", b"nave  t\n")
    assert output.errors == errors


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "command", [["check"], ["doctor"], ["--help"], ["--version"], ["check", "Lineär"], SHORT]
)
def test_the_c_locale_gets_every_line(command):
    done = run(*command, environment=C_LOCALE)
    assert done.returncode == (2 if "Lineär" in command else 0)
    assert b"Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert done.stderr.isascii()


def test_a_file_whose_name_cannot_be_shown_can_be_trained_on(tmp_path):
    images = write_idx(tmp_path / "blåbær.idx", np.zeros((20, 3, 3)))
    labels = write_idx(tmp_path / "naïve.idx", np.arange(20) % 2)
    files = ["--images", images, "--labels", labels, "--epochs", "1"]
    for environment in (C_LOCALE, {"PYTHONIOENCODING": "ascii"}):
        done = run("train", "idx", *files, environment=environment)
        assert done.returncode == 0, done.stderr
        assert b"bl?" in done.stdout


# --- output that cannot be written ------------------------------------------------------


@pytest.mark.parametrize("command", [["--version"], SHORT, ["doctor"], ["check", "Tanh"]])
def test_a_full_disk_is_said_in_one_line(command):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = run(*command, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"minidl: error: cannot write output: ")
    assert done.stderr.count(b"\n") == 1


def test_a_disk_that_is_full_after_the_training_is_said_with_the_file(
    capsys, monkeypatch, tmp_path
):
    figures = pytest.importorskip("matplotlib.figure")

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures.Figure, "savefig", fail)
    monkeypatch.setattr("minidl.cli._discard_output", lambda: None)
    picture = tmp_path / "training.png"
    assert main([*SHORT, "--quiet", "--plot", str(picture)]) == 1
    expected = f"minidl: error: cannot write {picture}: No space left on device\n"
    assert capsys.readouterr().err == expected


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor as a POSIX shell does")
@pytest.mark.parametrize("command", ["--version", "doctor", "train digits"])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", ">&- 2>/dev/null"])
def test_a_closed_output_is_said_in_one_line(command, closed):
    line = f'exec "$0" -m minidl {command} {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], cwd=ROOT, capture_output=True, timeout=120
    )
    assert done.returncode == 1
    expected = b"" if "2>" in closed else b"minidl: error: standard output is closed\n"
    assert done.stderr == expected


def test_a_full_standard_error_is_no_traceback(capsys, monkeypatch):
    def fail(message):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.stderr, "write", fail)
    assert main(["check", "Linaer"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", [SHORT, ["doctor"], ["check", "Tanh"], ["--help"]])
def test_a_reader_that_goes_away_ends_the_command_quietly(command):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(*command, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize("columns", [20, 60])
def test_a_narrow_terminal_gets_a_bar_that_fits(columns):
    pty = pytest.importorskip("pty")
    pytest.importorskip("tqdm")
    import fcntl
    import termios

    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    done = run(*SHORT, capture_output=False, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    bar = os.read(mine, 1 << 16).decode()
    os.close(mine)
    assert done.returncode == 0
    assert b"epoch" not in done.stdout
    assert "epoch" in bar
    assert "Traceback" not in bar
    # Two columns for an escape sequence and the line end that tqdm adds.
    assert max(map(len, re.split(r"[\r\n]+", bar))) <= columns + 2


# --- doctor -----------------------------------------------------------------------------


def test_doctor_says_what_it_runs_on(capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for name in ("instruction set", "why", "available", "cores", "NumPy", "Python", "platform"):
        assert re.search(rf"^{name}  +\S", output, re.MULTILINE), name
    assert np.__version__ in output


@pytest.mark.parametrize("columns", [200, 60, 30, 5])
def test_doctor_wraps_long_facts_at_a_terminal_only(capsys, monkeypatch, columns):
    flags = "-O3 -ffp-contract=fast " * 6 + "-mprefer-vector-width=512"
    monkeypatch.setattr(doctor, "describe", lambda: {"compiler flags": flags, "cores": "2"})
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["doctor"])
    piped = capsys.readouterr().out
    assert piped == f"compiler flags  {flags}\ncores           2\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[16:] for line in lines if line[16:].strip() != line[16:]] == []
    assert " ".join(line[16:] for line in lines[:-1]) == flags
    assert all(line[:16].isspace() for line in lines[1:-1])
    assert max(map(len, lines)) <= max(columns, 16 + len("-mprefer-vector-width=512"))


# --- the tables -------------------------------------------------------------------------


def test_the_confusion_matrix_counts_rows_by_truth():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2])
    lines = report.confusion(labels, predicted, range(3)).splitlines()
    cells = [line.split()[-3:] for line in lines]
    assert cells[:4] == [["0", "1", "2"], ["1", "2", "."], ["1", "1", "."], [".", ".", "1"]]
    assert lines[-1] == "3 of 6 wrong; 0 taken for 1: 2, 1 taken for 0: 1"
    assert report.confusion(labels, labels, range(3)).endswith("0 of 6 wrong")
    assert len(report.confusion(labels, predicted, range(50)).splitlines()) == 1


def test_norms_are_those_of_the_gradient_over_all_data():
    model = minidl.nn.Sequential(minidl.nn.Linear(3, 2, rng=0))
    x = np.random.default_rng(0).normal(size=(2500, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    norms = report.Norms(model, minidl.nn.CrossEntropyLoss(), x, y)
    norms.measure()
    loss = minidl.nn.CrossEntropyLoss()
    loss(model(x), y)
    model.backward(loss.backward())
    expected = report.norm([p.grad for p in model.parameters()])
    assert norms.gradients["0 Linear(3, 2)"] == pytest.approx([expected], rel=1e-4)


def test_a_report_of_gradients_needs_no_terminal(capsys, monkeypatch):
    fake = SimpleNamespace(name="Résidu", worst=1e-9, checked=12345, kinks=3, ok=True, message="")
    monkeypatch.setattr("minidl.gradient_check.gradcheck_all", lambda names: [fake])
    assert main(["check"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["Résidu", "1.0e-09", "12,345", "3", "ok"]
