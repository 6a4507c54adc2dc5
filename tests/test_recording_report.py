"""What a recorded step shows of itself. Nothing here depends on how long anything takes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import instruction_sets

import minidl
from minidl import _kernels, kernels, nn, optim
from minidl._kernels import twins
from minidl._kernels.signature import KERNELS, Kernel
from minidl.profiling import Case, Probes, cases

if not instruction_sets():
    pytest.skip("no compiled kernels here, and so nothing is recorded", allow_module_level=True)

from minidl.profiling import step_profile as profile
from minidl.profiling.step_report import WIDTH, rows_of
from minidl.profiling.teamwork import TeamCall, stamp_seconds
from minidl.recording import Step

# Without those that run another kernel: a product, or a pool of means.
OTHERS = ("linear", "upsample")
SMALL = [case for case in cases() if case.flops < 1.3e6 and not case.kernel.startswith(OTHERS)]
pytestmark = pytest.mark.usefixtures("small_caches")


@pytest.fixture(autouse=True)
def fresh_ceilings() -> None:
    for measured in (profile._probes, profile._peak, profile._bandwidth):
        measured.cache_clear()


def training_step(*layers: nn.Layer) -> Step:
    model = nn.Sequential(*layers, rng=0)
    loss = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-3, max_norm=1.0)

    @minidl.record
    def step(x: Any, y: Any) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    return step


def mlp() -> Step:
    return training_step(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))


def batch(rows: int = 5, width: int = 12, classes: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, width)).astype(np.float32)
    return x, rng.integers(classes, size=rows)


# --- print(step) ------------------------------------------------------------------------


def test_listing_shows_kernels_layers_and_operands() -> None:
    step = mlp()
    assert "nothing recorded" in str(step)
    step(*batch())
    lines = str(step).splitlines()
    for line in lines:
        assert len(line) <= WIDTH, line
    program = step._latest
    assert lines[0].startswith("program for input 0 float32 (5x12), input 1 int64 (5), training:")
    assert f"{len(program.calls)} kernels, 1 thread" in lines[0]
    assert f"{program.workspace.least_nbytes / 1e3:.1f} kB)" in lines[1]
    table = [" ".join(line.split()) for line in lines[4:-1]]
    assert table[0] == (
        "0 matmul + relu 0 Linear forward 1 input 0 (5x12), weight (12x7), bias (7) -> t0 (5x7)"
    )
    assert "1 matmul 2 Linear forward 1 t0, weight (7x3), bias (3) -> t1 (5x3)" in table
    text = "\n".join(lines)
    assert "CrossEntropyLoss" in text
    assert "states*" in text
    assert "parameters*" in text
    assert "\xa0" not in text
    assert text.isascii()


def test_a_second_batch_size_is_a_second_program() -> None:
    step = mlp()
    step(*batch(5))
    step(*batch(2))
    assert str(step).count("program for") == 2


def test_layers_with_long_names_fit_into_the_table() -> None:
    class Twice(nn.Sequential):
        def forward(self, x: Any) -> Any:
            y = super().forward(x)
            return kernels.add(y, y)

    body: nn.Layer = nn.Linear(4, 4)
    for _ in range(6):
        body = nn.Residual(nn.Sequential(body))
    model = nn.Sequential(Twice(body), rng=0).eval()
    apply = minidl.record(lambda x: model(x))
    apply(np.ones((2, 4), np.float32))
    text = str(apply)
    assert "0 Twice" in text  # whose repr is a table of its layers
    (deepest,) = [line for line in text.splitlines() if "matmul" in line]
    assert "  ...0.body.0.body.0 Linear " in deepest
    assert "evaluating" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_waits_and_threads_are_shown() -> None:
    before = minidl.get_num_threads()
    minidl.set_num_threads(2)
    try:
        step = training_step(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10))
        step(*batch(128, 128, 10))
        text = str(step)
        rows = rows_of(step._latest)
    finally:
        minidl.set_num_threads(before)
    assert "up to 2 threads" in text
    assert {row.threads for row in rows} == {1, 2}
    marked = [line for line in text.splitlines() if line[:5].strip().endswith("|")]
    assert len(marked) == sum(row.waits for row in rows) > 3


# --- counts -----------------------------------------------------------------------------


def test_rows_count_as_the_bench_does() -> None:
    step = mlp()
    step(*batch())
    rows = rows_of(step._latest)
    first, second = rows[0], rows[1]
    assert first.flops == 2 * 5 * 12 * 7 + 2 * 5 * 7  # the product; bias and relu
    assert first.nbytes == 4 * (5 * 12 + 12 * 7 + 7 + 5 * 7)
    assert second.flops == 2 * 5 * 7 * 3 + 5 * 3
    assert (first.shape, first.layer) == ("5x12x7", "0 Linear")
    adam = rows[-1]
    size = step._latest.participants.optimizers[0].flat.size
    assert (adam.kernel, adam.layer, adam.phase) == ("adam", "Adam", "update")
    assert adam.flops == KERNELS["adam"].flops * size
    state = twins.OPTIMIZER_STATE.itemsize
    assert adam.footprint - 4 * 4 * size <= state
    assert adam.nbytes - adam.footprint == 3 * 4 * size  # updates three vectors in place
    assert {row.phase for row in rows} == {"forward", "backward", "update"}
    total = [row for row in rows if row.kernel == "total"]
    assert [row.phase for row in total] == ["forward", "update"]  # of the loss, and of the norm


def test_a_merged_product_counts_as_two_that_read_dz_once() -> None:
    features, hidden, batch_size, time = 5, 16, 3, 7
    step = training_step(nn.LSTM(features, hidden, return_sequences=False), nn.Linear(hidden, 3))
    x = np.random.default_rng(0).standard_normal((batch_size, time, features)).astype(np.float32)
    step(x, np.arange(batch_size) % 3)
    (merged,) = (row for row in rows_of(step._latest) if row.kernel == "matmul + matmul")
    m, k, n = features + hidden, batch_size * time, 4 * hidden
    assert (merged.extent, merged.layer, merged.phase) == ((m, k, n), "0 LSTM", "backward")
    assert merged.flops == 2 * m * k * n
    assert merged.nbytes == merged.footprint == 4 * (m * k + k * n + m * n)


def test_part_of_an_array_counts_as_the_part() -> None:
    @minidl.record
    def first_columns(x: Any) -> Any:
        return kernels.relu(x[:, :3])

    first_columns(np.ones((10, 100), np.float32))
    copy, relu = rows_of(first_columns._latest)
    assert (copy.kernel, copy.extent, copy.footprint) == ("copy", (10, 3), 2 * 10 * 3 * 4)
    assert (relu.extent, relu.nbytes) == ((30,), 2 * 30 * 4)


def test_batch_norm_counts_by_mode() -> None:
    layer = nn.BatchNorm(6)
    normalize = minidl.record(lambda x: layer(x))
    x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    counts = []
    for mode in (True, False):
        layer.train(mode)
        normalize(x)
        counts.append(rows_of(normalize._latest)[0].flops)
    assert counts == [8 * 8 * 6, 4 * 8 * 6]
    assert counts[0] > counts[1]


def test_every_kernel_has_a_count() -> None:
    copying = {"copy", "clear", "time_first", "batch_first", "embedding", "dropout_key"}
    copying |= {"concat", "note_state", "store_record", "count_record"}
    judging = {"clip", "weight_total", "reduce_partials", "fma_peak", "read_peak"}
    for name, kernel in KERNELS.items():
        counted = kernel.flops or kernel.products or not kernel.signature
        assert counted or name in copying | judging, name


class Ears:
    """Hears which kernels a call runs, and on what."""

    def __init__(self) -> None:
        self.heard: dict[str, int] = {}

    def allocated(self, array: Any) -> Any:
        return array

    def called(self, kernel: Kernel, function: int, args: bytes, scratch: int) -> None:
        self.heard[kernel.name] = kernel.count_flops(kernel.values(args))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_arguments_give_the_flops_that_the_bench_counts(case: Case) -> None:
    ears = Ears()
    _kernels.set_recorder(ears)
    try:
        case.call()()
    finally:
        _kernels.set_recorder(None)
    counted = ears.heard[case.kernel]
    assert counted == case.flops or case.kernel == "clip"


# --- profile ----------------------------------------------------------------------------


def test_profile() -> None:
    step = mlp()
    x, y = batch()
    found = step.profile(x, y, rounds=3)
    assert [row.kernel for row in found.rows] == [row.title for row in step._latest.calls]
    assert all(row.seconds > 0 for row in found.rows)
    assert found.flops == sum(row.flops for row in found.rows)
    assert found.fraction == pytest.approx(found.flops / found.seconds / found.peak)
    for row in found.rows:
        assert (row.bound in ("FMA", "L1", "L2", "memory")) == (row.nbytes >= 512)
    lines = str(found).splitlines()
    assert lines[0].startswith("step on float32 (5x12), int64 (5);")
    assert lines[0].endswith("median of 3 rounds")
    assert len(lines[3].split()) > 8
    assert max(map(len, lines)) < 120
    assert "whole step, as replayed" in lines[-1] or "whole step" in str(found)
    assert "0 Linear" in lines[3]
    json.dumps(found.to_dict())  # plain numbers only
    assert found.to_dict()["rows"][0]["layer"] == "0 Linear"


def test_profile_trains_and_repeats_the_step_as_often_as_it_says() -> None:
    profiled, called = mlp(), mlp()
    x, y = batch()
    profiled.profile(x, y, rounds=2)  # once before; then each round with the clock and without
    losses = [float(called(x, y)) for _ in range(6)]
    assert float(profiled(x, y)) == losses[5]


def test_profile_of_a_step_that_fails() -> None:
    step = mlp()
    x, y = batch()
    step(x, y)
    y[1] = 7
    with pytest.raises(ValueError, match="row 1"):
        step.profile(x, y)
    with pytest.raises(ValueError, match="rounds"):
        step.profile(*batch(), rounds=0)


def test_ceilings_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    step = mlp()
    step.profile(*batch(), rounds=1)
    monkeypatch.setattr(Probes, "_rate", lambda *_: pytest.fail("measured again"))
    step.profile(*batch(), rounds=1)


def test_times_are_without_what_noting_them_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "stamp_seconds", lambda threads: 0.0)
    step = mlp()
    with_it = step.profile(*batch(), rounds=3)
    assert with_it.telling
    monkeypatch.setattr(profile, "stamp_seconds", lambda threads: 1.0)
    without = step.profile(*batch(), rounds=3)
    assert max(row.seconds for row in without.rows) == 1e-9  # nothing is left
    assert not without.telling


def profile_of(seconds: float, stamp: float) -> profile.Profile:
    """Two kernels that took as long, as if they had been timed."""
    row = {"layer": "0 Linear", "phase": "forward", "extent": (8, 8), "threads": 1, "waits": False}
    row |= {"flops": 10_000, "nbytes": 4096, "footprint": 4096, "bound": "FMA", "fraction": 0.5}
    rows = [profile.Timed(kernel=name, seconds=seconds, **row) for name in ("matmul", "relu")]
    return profile.Profile(rows, 1e-6, stamp, 2, 1e11, ["float32 (8x8)"], "avx2", 3)


def test_shares_are_left_out_where_noting_the_time_took_longer_than_the_kernels() -> None:
    told, untold = profile_of(2e-6, stamp=1e-6), profile_of(0.5e-6, stamp=1e-6)
    assert (told.telling, untold.telling) == (True, False)
    assert "50.0%" in str(told)
    assert "GFLOP/s  " in str(told)
    assert "4.0 us, and 2.0 us for noting the time (1.00 us each)" in str(told)
    table, sentences = str(untold).split("whole step")[0].rsplit("\n\n", 1)
    assert "%" not in table
    assert "share" not in table
    assert "matmul" in table
    assert sentences.startswith("Noting the time between kernels took 2.0 us, longer than the kern")
    assert "more rows, or after set_num_threads(1)" in sentences
    assert untold.to_dict()["telling"] is False


@pytest.mark.parametrize("stamp", [1e-9, 1e-3])
def test_the_picture_of_a_profile_says_the_same(stamp: float) -> None:
    pytest.importorskip("matplotlib")
    figure = profile_of(1e-6, stamp).plot()
    (axes,) = figure.axes
    notes = [text.get_text() for text in axes.texts if text.get_text()]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert notes == (["50%:  50% of FMA"] * 2 if stamp < 1e-6 else [])
    assert legend == (["forward 100%"] if stamp < 1e-6 else ["forward"])
    assert ("longer than the kernels" in figure.get_suptitle()) == (stamp > 1e-6)


def test_a_notebook_shows_the_picture_of_a_step() -> None:
    pytest.importorskip("matplotlib")
    figure = mlp().plot(None, *batch(), rounds=1)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "step.png"
    mlp().plot(path, *batch(), rounds=1)
    assert path.stat().st_size > 10_000


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"minidl\[plot\]"):
        mlp().plot(tmp_path / "step.png", *batch(), rounds=1)


# --- several threads --------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_team_computes_what_a_call_does(threads: int) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((40, 30)), rng.standard_normal((40, 20))
    once = np.zeros((30, 20)), np.zeros(20)
    kernels.linear_grad_params(x, dy, *once)
    sums = np.zeros((30, 20)), np.zeros(20)
    team = TeamCall(lambda: kernels.linear_grad_params(x, dy, *sums), threads)
    made = 1 + team(5)  # and one call to hear what it runs
    assert made >= 6
    for mine, one in zip(sums, once, strict=True):
        np.testing.assert_allclose(mine, made * one, rtol=1e-12, atol=1e-12)


def test_ceilings_of_two_threads(isa: str) -> None:
    found = Probes("float32", threads=2)
    assert [level.size for level in found.levels[:2]] == [64 << 10, 256 << 10]  # of both cores
    best = found.best(rounds=1)
    assert all(1e6 < rate < 1e15 for rate in (best.flops, *best.bandwidths.values()))


def test_each_share_of_a_ceiling_is_told_apart(isa: str) -> None:
    dispatch = pytest.importorskip("minidl._kernels.dispatch")
    x = np.ones(1024, np.float32)
    flops, nbytes = dispatch.fma_peak(x, 3), dispatch.read_peak(x, 3)
    dispatch.set_shares(4)
    try:
        x[:] = 1
        assert dispatch.fma_peak(x, 3) == 4 * flops  # everyone does all of it
        changed = np.flatnonzero(x != 1)
        assert {0, 1, 2, 3} == set((changed // 16).tolist())  # on a cache line of his own
        x[:] = 1
        assert dispatch.read_peak(x, 3) == nbytes  # everyone reads his part
        assert np.flatnonzero(x != 1).tolist() == [0, 256, 512, 768]
        assert x[::256].tolist() == [3 * 256] * 4
        with pytest.raises(ValueError, match="every share"):
            dispatch.fma_peak(x[:32], 1)
    finally:
        dispatch.set_shares(1)


def test_looking_at_the_clock_takes_time() -> None:
    assert 0 < stamp_seconds(1) < 1e-3


# --- the sweep over widths --------------------------------------------------------------


def test_width_sweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = Path(__file__).parents[1] / "benchmarks" / "width_sweep.py"
    spec = importlib.util.spec_from_file_location("width_sweep", path)
    assert spec is not None
    assert spec.loader is not None
    sweep = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sweep)
    picture = tmp_path / "widths.png"
    arguments = ["--widths", "8:10:1", "--passes", "1", "--batch", "4", "--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", ["width_sweep.py", *arguments])
    sweep.main()
    lines = capsys.readouterr().out.splitlines()
    widths = [line.split()[0] for line in lines if line[:5].strip().isdigit()]
    assert widths == ["8", "9", "10"]
    assert sum("worst step up" in line for line in lines) == 3
    assert picture.stat().st_size > 10_000
    monkeypatch.setattr(sys, "argv", ["width_sweep.py", "--widths", "9:8:1"])
    with pytest.raises(SystemExit):
        sweep.main()
    assert sweep.neighbours({8: 1.0, 10: 3.0, 9: 2.0}) == {8: 2.0, 9: 1.5}
