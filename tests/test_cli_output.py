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
    assert b"Residual(Linear ? ReLU" in done.stdout
    assert b"\r" not in done.stdout
    assert accuracy_in(done.stdout.decode("ascii")) > 0.6


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


# --- the tables -------------------------------------------------------------------------


def test_the_confusion_matrix_counts_rows_by_truth():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2])
    lines = report.confusion(labels, predicted, 3).splitlines()
    cells = [line.split()[-3:] for line in lines]
    assert cells[:4] == [["0", "1", "2"], ["1", "2", "."], ["1", "1", "."], [".", ".", "1"]]
    assert lines[-1] == "3 of 6 wrong; 0 taken for 1: 2, 1 taken for 0: 1"
    assert report.confusion(labels, labels, 3).endswith("0 of 6 wrong")
    assert len(report.confusion(labels, predicted, 50).splitlines()) == 1


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
    monkeypatch.setattr(sys.modules["minidl.gradcheck"], "gradcheck_all", lambda names: [fake])
    assert main(["check"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["Résidu", "1.0e-09", "12,345", "3", "ok"]
