"""``minidl bench``: its table, its files, its picture, and the command.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import ROOT, run
from conftest import instruction_sets

from minidl import _kernels
from minidl.cli import main
from minidl.profiling import Ceilings, Result, cases, measuring
from minidl.profiling import kernel_report as report
from minidl.profiling.kernel_report import Run, Table

pytestmark = pytest.mark.usefixtures("small_caches")
SETS = instruction_sets()
compiled = pytest.mark.skipif(not SETS, reason="no compiled kernels here")
QUICK = ["bench", "--quick", "--rounds", "1", "--kernel", "clip", "add"]


def result_of(name: str, seconds: float = 1e-6, **others: Any) -> Result:
    """A result as if it had been measured."""
    kernel, _, shape = name.partition(" ")
    fields = {"flops": 100, "nbytes": 1000, "call_seconds": 2e-6, "twin_seconds": 4e-6}
    fields |= {"bound": "L1", "ceiling": 2e9, "fraction": 0.5, "best": 0.6} | others
    return Result(kernel, shape, seconds=seconds, **fields)


def run_of(*results: Result, isa: str = "avx2") -> Run:
    roof = Ceilings(1e11, {"L1": 1e11, "L2": 5e10, "memory": 1e10})
    return Run(isa, "float32", roof, {"add": 1e-7}, list(results))


# --- table, files, picture --------------------------------------------------------------


def test_arithmetic_of_a_result() -> None:
    result = result_of("add 4", seconds=1e-6)
    assert result.rate == pytest.approx(1e9)  # bytes
    assert result_of("add 4", bound="FMA").rate == pytest.approx(1e8)  # flops
    assert result.speedup == 2
    assert measuring.geometric_mean([2, 0.5, 1]) == pytest.approx(1)


def test_table() -> None:
    some = cases(names=["add", "clip"])
    table = Table(some, {"add 128x128": 2e-6})
    lines = [
        table.heading(),
        table.line(result_of("add 128x128")),
        table.line(result_of("clip 1", bound="")),
    ]
    assert lines[1].split() == [
        *("add", "128x128", "1.000", "1.0", "GB/s", "2.0", "L1", "50%", "60%", "2.0x", "2.00x")
    ]
    assert lines[2].split() == ["clip", "1", "1.000", "1.0", "GB/s", "2.0x"]
    assert len(lines[0]) == len(lines[1])
    assert lines[0].endswith("old/new")
    assert "GFLOP/s" in Table(some).line(result_of("add 128x128", bound="FMA"))


def test_saved_figures_come_back(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    runs = [run_of(result_of("add 4", 1e-6), result_of("clip 1", 2e-9)), run_of(isa="avx512")]
    report.save(path, runs)
    timings = {"add 4": 1e-6, "clip 1": 2e-9}
    assert report.load(path) == {("avx2", "float32"): timings, ("avx512", "float32"): {}}
    document = json.loads(path.read_text())
    assert {"processor", "minidl", "NumPy", "Python", "platform"} <= document["machine"].keys()
    assert document["runs"][0]["ceilings"]["bandwidths"]["L2"] == 5e10


def damaged() -> Iterator[bytes]:
    """Files that are none of ours, and ours with something else in some place."""
    yield from (b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe{}", b"\x00" * 100, b"{}")
    yield from (b"[" * 100_000, b"9" * 100_000, b'{"format": "minidl bench 2"}', b"\x89PNG\r\n")
    strange = [None, True, -1, 0, 1e400, "x", [], {}, [[]], [None], {"a": 1}, 10**400, "\ud800"]
    for value in strange:
        for path in (
            ("format",),
            ("runs",),
            ("runs", 0),
            ("runs", 0, "isa"),
            ("runs", 0, "results"),
            ("runs", 0, "results", 0),
            ("runs", 0, "results", 0, "seconds"),
            ("runs", 0, "results", 0, "kernel"),
        ):
            if (path[-1] in ("isa", "kernel")) and isinstance(value, str):
                continue  # as good a name as any
            document = {
                "format": report.FORMAT,
                "runs": [
                    {
                        "isa": "avx2",
                        "dtype": "float32",
                        "results": [{"kernel": "add", "shape": "4", "seconds": 1e-6}],
                    }
                ],
            }
            place: Any = document
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            if value not in ([], {}) or path[-1] not in ("runs", "results"):
                yield json.dumps(document).encode()


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    for text in damaged():
        path.write_bytes(text)
        with pytest.raises(ValueError, match=r"figures.json is damaged, or not a file that"):
            report.load(path)


def test_every_truncated_or_changed_file_loads_or_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    report.save(path, [run_of(result_of("add 4"))])
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = bytearray(whole[: rng.integers(len(whole))] if rng.integers(2) else whole)
        for place in rng.integers(max(1, len(text)), size=rng.integers(1, 4)):
            text[place : place + 1] = bytes(rng.integers(256, size=1, dtype=np.uint8))
        path.write_bytes(text)
        with contextlib.suppress(ValueError):
            for timings in report.load(path).values():
                assert all(0 < seconds < math.inf for seconds in timings.values())


def test_files_that_are_none_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(OSError, match="none"):
        report.load(tmp_path / "none")
    with pytest.raises(OSError, match=str(tmp_path)):
        report.load(tmp_path)
    if Path("/dev/zero").exists():
        with pytest.raises(ValueError, match="is not a file"):
            report.load(Path("/dev/zero"))
    monkeypatch.setattr(report, "LARGEST_FILE", 10)
    (tmp_path / "large").write_bytes(b" " * 11)
    with pytest.raises(ValueError, match="too large"):
        report.load(tmp_path / "large")


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from minidl.profiling import kernel_plot

    path = tmp_path / "roofline.png"
    results = [result_of(case.name, 1e-6 + case.flops * 1e-10) for case in cases()[::8]]
    kernel_plot.draw(path, [run_of(*results)])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000
    assert "matplotlib.pyplot" not in sys.modules


# --- the command ------------------------------------------------------------------------


@compiled
def test_bench_prints_ceilings_then_rows(capsys: Any) -> None:
    assert main([*QUICK, "--isa", "all", "--dtype", "float64"]) == 0
    output = capsys.readouterr().out
    blocks = output.split("\n\n")
    assert [block.split(",")[0] for block in blocks[1::2]] == SETS
    for ceiling_block, table in zip(blocks[1::2], blocks[2::2], strict=True):
        assert "float64, one thread; median of 1 rounds" in ceiling_block
        for words in (
            *("multiply-adds", "reads of L1", "reads of memory", "one call from Python"),
            "fraction above 100%: part of the data was found in a nearer level of memory",
        ):
            assert words in ceiling_block
        assert [line.split()[0] for line in table.splitlines()] == ["kernel", "add", "clip"]


@compiled
def test_bench_saves_compares_and_draws(capsys: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    saved, picture = tmp_path / "figures.json", tmp_path / "roofline.png"
    assert main([*QUICK, "--json", str(saved), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    before = _kernels.isa
    assert main([*QUICK, "--compare", str(saved)]) == 0
    output = capsys.readouterr().out
    assert "old/new" in output
    assert "geometric mean of old/new over 2 cases: " in output
    assert main(["bench", "--quick", "--kernel", "scale", "--compare", str(saved)]) == 0
    assert "over 0 cases: -" in capsys.readouterr().out
    assert _kernels.isa == before


@compiled
def test_bench_by_several_threads(capsys: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert main([*QUICK, "--json", str(one)]) == 0
    assert main([*QUICK, "--threads", "2", "--json", str(two)]) == 0
    assert "float32, 2 threads; median of 1 rounds" in capsys.readouterr().out
    assert json.loads(two.read_text())["runs"][0]["threads"] == 2
    assert main([*QUICK, "--threads", "2", "--compare", str(two)]) == 0
    assert "over 2 cases: " in capsys.readouterr().out
    assert main([*QUICK, "--threads", "2", "--compare", str(one)]) == 2
    assert "and float32 by 2 threads" in capsys.readouterr().err


@compiled
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--isa sse9", "instruction set 'sse9' cannot be measured; choose --isa baseline"),
        ("--isa reference", "cannot be measured"),
        ("--dtype float16", "invalid choice"),
        ("--kernel matmull", "no kernel called 'matmull'; known: matmul, "),
        ("--kernel", "expected at least one argument"),
        ("--rounds 0", "expected a whole number >= 1"),
        ("--team 2", "unrecognized arguments"),
        ("--threads 0", "expected a whole number >= 1"),
        ("--threads 65", "there can be 64 at most"),
        ("--json nowhere/a.json", "there is no folder nowhere"),
        ("--json .", "cannot save ."),
        ("--plot roofline.docx", "must end in one of"),
        ("--compare none.json", "No such file"),
        ("--compare README.md", "README.md is damaged, or not a file that minidl bench saved"),
    ],
)
def test_wrong_arguments(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, options: str, words: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert main(["bench", *options.split()]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""
    assert "Traceback" not in output.err


@compiled
def test_figures_of_other_instruction_sets_are_not_compared(capsys: Any, tmp_path: Path) -> None:
    saved = tmp_path / "figures.json"
    report.save(saved, [run_of(result_of("add 4"), isa="mmx")])
    assert main(["bench", "--compare", str(saved)]) == 2
    assert f"has no figures of {_kernels.isa} and float32" in capsys.readouterr().err


def test_without_kernels_or_matplotlib_it_says_so(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    if SETS:
        assert main([*QUICK, "--isa", SETS[0], "--plot", "roofline.png"]) == 2
        assert "pip install 'minidl[plot]'" in capsys.readouterr().err
    monkeypatch.setattr(_kernels, "available", lambda: ["reference"])
    assert main(QUICK) == 2
    assert "no compiled kernels here" in capsys.readouterr().err


@compiled
def test_ctrl_c_ends_cleanly(capsys: Any, monkeypatch: Any) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = _kernels.isa
    monkeypatch.setattr("minidl.cli.bench.measure", interrupt)
    assert main([*QUICK, "--isa", SETS[0]]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert _kernels.isa == before


@pytest.mark.parametrize(
    ("isa", "seen"), [([], ["Nehalem", ""]), (["--isa", "baseline"], ["Nehalem"])]
)
def test_numpy_is_not_held_to_an_older_machine(
    isa: list[str], seen: list[str], tmp_path: Path
) -> None:
    """What would do so is left out in a process of its own, which NumPy has not yet read."""
    told = "import os, sys; print('told', os.environ.get('OPENBLAS_CORETYPE', ''), file=sys.stderr)"
    (tmp_path / "sitecustomize.py").write_text(told)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {"OPENBLAS_CORETYPE": "Nehalem", "PYTHONPATH": path}
    done = run("bench", "--kernel", "nothing", *isa, environment=environment, text=True)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.removeprefix("told").strip() for line in lines if line[:4] == "told"] == seen
    assert sum("no kernel called 'nothing'" in line for line in lines) == 1


@compiled
def test_a_call_of_the_command_says_what_holds_numpy_back(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    main(QUICK)
    assert "OPENBLAS_CORETYPE=Nehalem may hold the twins" in capsys.readouterr().out
