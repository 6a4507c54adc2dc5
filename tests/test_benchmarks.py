"""``benchmarks/peers.py``: who is compared, what counts, and what the command prints.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import _kernels
from minidl.profiling.measuring import Effort
from minidl.recording.plan import flops_of_products

ROOT = Path(__file__).resolve().parents[1]
BRIEFLY = Effort(rounds=3, seconds=1e-6)


def peers(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which looks for modules in ``path`` first."""
    places = [path, str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "benchmarks/peers.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that measures."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return pytest.importorskip("comparison.measuring")


@pytest.fixture
def report(measuring: ModuleType) -> ModuleType:
    """The module that prints."""
    return pytest.importorskip("comparison.report")


# --- the command ------------------------------------------------------------------------


def test_kernels_beside_numpy(tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    done = peers("--quick", "--peers", "NumPy", "--rows", " 64x64x64", "--json", str(file))
    assert done.returncode == 0, done.stderr
    names = [f"matmul {form} 64x64x64" for form in ("A@B", "A.T@B", "A@B.T")]
    lines = done.stdout.splitlines()
    for name in names:
        ratios, microseconds = (line for line in lines if line.startswith(f"{name} "))
        assert ratios.split()[-1].endswith("x")
        assert all(float(cell) > 0 for cell in microseconds.split()[-2:])
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert [result["task"] for result in saved["results"]] == names
    assert all(len(result["rounds"]["NumPy"]) == 3 for result in saved["results"])
    assert "left out" not in done.stdout


def test_a_library_that_is_not_installed_is_left_out_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "scipy.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    arguments = ("--quick", "--peers", "NumPy", "SciPy", "--rows", "tanh")
    done = peers(*arguments, path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SciPy") == 1
    assert "SciPy is left out: not here" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--peers", "Caffe"], "no peer 'Caffe' here; there are NumPy"),
        (["--rows", "nothing"], "no task has 'nothing' in its name"),
        (["steps", "--dtype", "float64"], "float32 only"),
        (["--json", "no/such/folder/file"], "there is no folder"),
    ],
)
def test_what_cannot_be_done_is_said_first(arguments: list[str], complaint: str) -> None:
    done = peers(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.parametrize("isa", [None, "avx2"])
def test_openblas_is_held_to_an_older_processor_only_with_all_others(
    measuring: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, isa: str | None
) -> None:
    program = pytest.importorskip("peers")
    heard: list[dict[str, str]] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            heard.append(env)

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(program.subprocess, "Popen", Process)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    assert program._start(1, isa, tmp_path) == 0
    assert heard[0].get("OPENBLAS_CORETYPE") == (None if isa is None else "Haswell")
    assert "OPENBLAS_L2_SIZE" not in heard[0]


# --- measuring --------------------------------------------------------------------------


def test_all_contenders_run_in_every_round(measuring: ModuleType) -> None:
    calls: list[str] = []

    def contender(name: str) -> Any:
        return measuring.Contender(name, lambda: None, prepare=lambda: calls.append(name))

    contenders = [contender(name) for name in "abc"]
    seconds = measuring.measure(contenders, BRIEFLY)
    assert "".join(calls) == "abc" * 3 + "bca" + "cab"
    assert [len(rounds) for rounds in seconds] == [3, 3, 3]


def test_a_call_that_does_the_work_many_times_is_divided(
    measuring: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "from_python", lambda call, count: 6.0)
    many = measuring.Contender("many", lambda: None, units=3)
    assert measuring.measure([many], BRIEFLY) == [[2.0] * 3]


def test_the_fastest_setting_counts_in_the_median(measuring: ModuleType) -> None:
    contenders = [measuring.Contender(name, print) for name in ("a", "b", "a")]
    seconds = [[2.0, 2.0, 0.1], [9.0, 9.0, 9.0], [1.0, 1.0, 8.0]]
    assert measuring.fastest(contenders, seconds) == {"a": 2, "b": 1}


def test_who_answers_otherwise_or_fails_is_left_out(measuring: ModuleType) -> None:
    def contender(name: str, answer: Any) -> Any:
        return measuring.Contender(name, lambda: None, check=lambda: {"loss": answer})

    def fail() -> None:
        raise OSError("no compiler\nat all")

    right = np.array([1.0, 100.0])
    sent = [
        contender("first", right),
        contender("close", np.array([1.0, 100.009])),
        contender("wrong", np.array([1.0, 100.011])),
        contender("not a number", right * math.nan),
        measuring.Contender("failing", fail),
        measuring.Contender("without a check", lambda: None),
    ]
    out: list[tuple[str, str]] = []
    agreed = measuring.agreeing(sent, lambda who, why: out.append((who.name, why)))
    assert [contender.name for contender in agreed] == ["first", "close", "without a check"]
    assert [name for name, _ in out] == ["wrong", "not a number", "failing"]
    assert "another loss" in out[0][1]
    assert out[2][1] == "OSError: no compiler"


# --- the tables -------------------------------------------------------------------------


def test_ratios_are_formed_within_rounds(measuring: ModuleType) -> None:
    rounds = {"ours": [1.0, 10.0, 2.0], "theirs": [3.0, 20.0, 2.0]}
    result = measuring.Result("task", [], 1, rounds, {})
    assert result.seconds("ours") == 2.0
    assert result.ratio("theirs", "ours") == 2.0  # of 3, 2 and 1; the medians have 1.5


def test_the_best_number_of_threads_counts(measuring: ModuleType, report: ModuleType) -> None:
    one = measuring.Result("task", [], 1, {"epoch": [1.0], "PyTorch": [8.0]}, {})
    two = measuring.Result("task", [], 2, {"epoch": [2.0], "PyTorch": [10.0]}, {})
    assert report.ratio([one, two], "PyTorch", "epoch") == 5.0
    assert report.seconds([one, two], "PyTorch", "epoch") == 10.0
    assert report.seconds([one, two], "epoch", "epoch") == 1.0
    assert report.ratio([one, two], "Thinc", "epoch") is None


def test_what_nobody_can_go_below(measuring: ModuleType, report: ModuleType) -> None:
    suite = pytest.importorskip("comparison.suites").SUITES["steps"]
    one = measuring.Result("net", [], 1, {"epoch": [3.0], "PyTorch": [9.0]}, {}, limit=1.0)
    two = measuring.Result("net", [], 2, {"epoch": [1.5], "PyTorch": [8.0]}, {}, limit=0.5)
    assert report.limit([one, two]) == 0.5
    assert report.tables(suite, ["epoch", "PyTorch"], [one, two]).splitlines()[1].endswith("limit")
    *_, heading, line = report.means(suite, ["epoch", "PyTorch"], [one, two]).splitlines()
    assert heading.startswith("time of the fastest peer / FMA limit")
    assert "  16.00x  " in line  # its 8 seconds, to half a second; not those of the least ratio
    one = measuring.Result("net", [], 1, {"epoch": [2.0], "PyTorch": [8.0]}, {})
    assert "limit" not in report.conclusion(suite, [one])


def convolutional(convolutions: ModuleType) -> list[Any]:
    """The convolutional networks of the suite, with one small batch each."""
    networks = convolutions.CONVOLUTIONAL
    return [replace(network, batch=2, batches=1, trains=True) for network in networks]


@pytest.mark.skipif(_kernels.isa == "reference", reason="recorded products need compiled kernels")
def test_flops_of_networks_are_those_of_their_steps(measuring: ModuleType) -> None:
    """Of the products, as the recorded step has them."""
    ours = pytest.importorskip("comparison.libraries.ours")
    networks = pytest.importorskip("comparison.networks")
    sequences = pytest.importorskip("comparison.sequences")
    convolutions = pytest.importorskip("comparison.convolutions")
    perceptron = networks.Network((4, 8, 6, 2), "tanh", 3, batches=1)
    for network, model in [
        (perceptron, ours._model),
        *((sequences.Sequences(kind, 3, 4, 5, 2, 1), ours._recurrent) for kind in sequences.GATES),
        *((network, ours._convolutional) for network in convolutional(convolutions)),
    ]:
        step = minidl.record(ours._step(model(network)))
        step(*network.data)
        assert sum(map(flops_of_products, step._latest.calls)) == network.step_flops, network.name
    lenet5 = convolutions.lenet5(2, batches=1)
    for network, model in ((perceptron, ours._model), (lenet5, ours._convolutional)):
        predict = minidl.record(model(network).eval())
        predict(network.data[0])
        assert sum(map(flops_of_products, predict._latest.calls)) == network.forward_flops


def test_tasks_of_two_kinds_have_bases_of_their_own(
    measuring: ModuleType, report: ModuleType
) -> None:
    suite = pytest.importorskip("comparison.suites").SUITES["convolution"]
    found = [
        measuring.Result(task, [task], threads, {base: [seconds], "PyTorch": [8.0]}, {})
        for task, base in (("training", "epoch"), ("inference", "step"))
        for threads, seconds in ((1, 2.0), (2, 1.0))
    ]
    table = report.tables(suite, ["epoch", "step", "PyTorch"], found)
    *_, heading, _, training, inference = table.splitlines()
    assert heading == "ratio to minidl, epoch or step"
    assert training.split() == ["training", "1.00x", "-", "4.00x"]
    assert inference.split() == ["inference", "-", "1.00x", "4.00x"]


def test_convolutional_networks_are_the_same_elsewhere(measuring: ModuleType) -> None:
    """PyTorch's layouts give minidl's losses, so weights and images are turned rightly."""
    pytest.importorskip("torch")
    ours = pytest.importorskip("comparison.libraries.ours")
    theirs = pytest.importorskip("comparison.libraries.pytorch_convolution")
    for network in convolutional(pytest.importorskip("comparison.convolutions")):
        x, y = network.data
        expected = float(ours._step(ours._convolutional(network))(x, y))
        for layout in (theirs.NCHW, theirs.CHANNELS_LAST):
            images = theirs.images(theirs.torch.from_numpy(x), layout)
            step = theirs.eager_training(theirs.Model(network, layout))
            found = float(step(images, theirs.torch.from_numpy(y)))
            assert found == pytest.approx(expected, rel=1e-5), (network.name, layout)


def test_means_of_peers_and_of_the_best_peer(measuring: ModuleType, report: ModuleType) -> None:
    suites = pytest.importorskip("comparison.suites")
    found = [
        measuring.Result("large", ["products"], 1, {"minidl": [1], "NumPy": [4], "JAX": [1]}, {}),
        measuring.Result("small", [], 1, {"minidl": [1], "NumPy": [1], "JAX": [16]}, {}),
    ]
    columns = ["minidl", "NumPy", "JAX"]
    lines = report.means(suites.SUITES["kernels"], columns, found).splitlines()
    cells = {line.split("  ")[0]: line.split()[-5:] for line in lines[2:]}
    assert cells == {
        "NumPy": ["2.00x", "4.00x", "1.00x", "2", "small"],
        "JAX": ["4.00x", "1.00x", "1.00x", "2", "large"],
        "the best peer": ["1.00x", "1.00x", "1.00x", "2", "large"],
    }
