"""``minidl bench``: what is measured, how work is counted, how close to which ceiling.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import instruction_sets
from kernel_cases import IN_PLACE, outcome

from minidl import _kernels, kernels
from minidl._kernels import twins as reference
from minidl.profiling import Case, cases, ceilings, measuring

SETS = instruction_sets()
PRODUCTS = ["matmul", "linear", "linear_grad_input", "linear_grad_params"]
compiled = pytest.mark.skipif(not SETS, reason="no compiled kernels here")
SMALL = [case for case in cases() if case.flops < 1.3e6]
ORIGINAL_CACHE_SIZES = ceilings.cache_sizes
pytestmark = pytest.mark.usefixtures("small_caches")
EVERY_NAME = [case.name for case in cases()]


# --- cases ------------------------------------------------------------------------------


def test_every_kernel_has_a_case_and_every_case_a_name() -> None:
    assert {case.kernel for case in cases()} == set(_kernels.NAMES)
    assert len(EVERY_NAME) == len(set(EVERY_NAME))
    assert [case.kernel for case in cases(names=["adam", "add"])] == ["add", "adam", "adam"]


def test_products_come_in_three_forms_at_every_size() -> None:
    shapes = {case.shape for case in cases(names=["matmul"])}
    for size in (32, 64, 128, 256, 512, 1024):
        for form in ("A@B", "A.T@B", "A@B.T"):
            assert f"{form} {size}x{size}x{size}" in shapes
    assert {"A@B 32x784x128", "A.T@B 784x32x128", "A@B.T 32x128x784"} <= shapes
    assert {"A@B 1x256x256", "A@B 1x1024x1024"} <= shapes
    assert len(shapes) == 48


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", range(len(EVERY_NAME)), ids=EVERY_NAME)
def test_bytes_are_those_of_the_arrays(index: int, dtype: str) -> None:
    case = cases(dtype)[index]
    arguments = case.arguments()
    arrays = {name: x for name, x in arguments.items() if isinstance(x, np.ndarray)}
    changed = {name for name in IN_PLACE.get(case.kernel, set()) if name in arrays}
    if case.kernel == "batch_norm" and not arguments["training"]:
        changed = set()
    written = {"out"} & changed
    updated = changed - written
    assert case.updated == sum(arrays[name].nbytes for name in updated)
    assert case.read == sum(x.nbytes for name, x in arrays.items() if name not in changed)
    assert case.nbytes == case.read + case.written + 2 * case.updated
    assert case.footprint == case.read + case.written + case.updated
    if case.flops < 1.3e6:
        returned = [x for x in outcome(case.twin(), {}) if isinstance(x, np.ndarray)]
        assert case.written == sum(x.nbytes for x in returned)


@pytest.mark.parametrize("case", cases(names=PRODUCTS), ids=lambda case: case.name)
def test_flops_of_products_are_two_for_each_pair(case: Case) -> None:
    m, k, n = (int(size) for size in case.shape.removesuffix(" relu").split(" ")[-1].split("x"))
    more = {"linear": 2 * m * n, "linear_grad_params": m * n}.get(case.kernel, 0)
    assert case.flops == 2 * m * k * n + more


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("add 128x128", 128 * 128),
        ("sigmoid_grad 128x128", 3 * 128 * 128),
        ("tanh_grad 128x128", 3 * 128 * 128),
        ("column_sum 32x64", 32 * 64),
        ("batch_norm 32x64 eval", 4 * 32 * 64),
        ("mse 128x128", 4 * 128 * 128),
        ("squared_norm 17,226", 2 * 17226),
        ("sgd 17,226", 7 * 17226),
        ("adam 17,226", 16 * 17226),
        ("dropout_key 2", 0),
    ],
)
def test_flops_of_others(name: str, flops: int) -> None:
    (case,) = [case for case in cases() if case.name == name]
    assert case.flops == flops


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_arrays_begin_on_cache_lines_and_are_the_same_each_time(case: Case) -> None:
    first, second = case.arguments(), case.arguments()
    for name, x in first.items():
        if isinstance(x, np.ndarray):
            assert np.array_equal(x, second[name]), name
            assert not np.shares_memory(x, second[name]), name
            if x.nbytes > 100:
                assert x.ctypes.data % 64 == 0, name


@compiled
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_kernel_and_twin_of_a_case_agree(case: Case, isa: str) -> None:
    ours, twins = case.arguments(), case.arguments()
    for mine, other in zip(
        outcome(getattr(kernels, case.kernel), ours),
        outcome(getattr(reference, case.kernel), twins),
        strict=True,
    ):
        if isinstance(mine, np.ndarray) and mine.dtype.names:
            mine, other = (np.array(x.tolist()) for x in (mine, other))
        if mine is not None and not isinstance(mine, str):
            np.testing.assert_allclose(mine, other, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_no_sequence_overflows_in_its_twin(kind: str) -> None:
    for case in cases(names=[f"{kind}_sequence", f"{kind}_sequence_grad"]):
        with np.errstate(over="raise", invalid="raise"):
            case.twin()()


@compiled
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_repeated_kernels_stay_finite(case: Case) -> None:
    arguments = case.arguments()
    kernel = getattr(kernels, case.kernel)
    measuring.in_c(lambda: kernel(**arguments), 50)
    for x in arguments.values():
        if isinstance(x, np.ndarray):
            assert np.isfinite(np.array(x.tolist(), float)).all()


# --- ceilings ---------------------------------------------------------------------------


def test_roofline() -> None:
    roof = {"peak": 100.0, "bandwidth": 10.0}
    assert ceilings.least_seconds(1000, 1, **roof) == 10
    assert ceilings.least_seconds(1, 1000, **roof) == 100
    assert ceilings.least_seconds(0, 50, **roof) == 5
    assert ceilings.binding(1000, 1, **roof, level="L2") == "FMA"
    assert ceilings.binding(1, 1000, **roof, level="L2") == "L2"
    for flops, nbytes in itertools.product((1, 7, 1e4), (1, 30, 1e5)):  # as it is usually written
        speed = min(roof["peak"], flops / nbytes * roof["bandwidth"])
        assert ceilings.least_seconds(flops, nbytes, **roof) == pytest.approx(flops / speed)


def test_levels_hold_what_fits() -> None:
    probes = ceilings.Probes("float32", {1: 32 << 10, 2: 1 << 20, 3: 96 << 20})
    assert [level.name for level in probes.levels] == ["L1", "L2", "L3", "memory"]
    sizes = [level.probe for level in probes.levels]
    assert sizes == sorted(sizes)
    assert all(size % 512 == 0 for size in sizes)
    assert sizes[0] <= 32 << 10 < sizes[1] <= 1 << 20 < sizes[2] <= 96 << 20 < sizes[3]
    for nbytes, name in [
        (1, "L1"),
        (32 << 10, "L1"),
        ((32 << 10) + 1, "L2"),
        (2 << 20, "L3"),
        (1 << 40, "memory"),
    ]:
        assert probes.level_of(nbytes) == name


def test_cache_sizes_are_those_of_linux_or_usual_ones(tmp_path: Path) -> None:
    sizes = ORIGINAL_CACHE_SIZES
    assert sizes(tmp_path / "none") == ceilings.USUAL_CACHES
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"), ("3", "", "")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    assert sizes(tmp_path) == {1: 48 << 10, 2: 2 << 20}
    for path in tmp_path.glob("*/size"):
        path.write_text("many\n")
    assert sizes(tmp_path) == ceilings.USUAL_CACHES


@compiled
def test_ceilings_are_measured(isa: str) -> None:
    found = ceilings.Probes("float64").best(rounds=1)
    assert list(found.bandwidths) == ["L1", "L2", "memory"]
    assert all(1e6 < rate < 1e15 for rate in (found.flops, *found.bandwidths.values()))


# --- measuring --------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", ["matmul A@B 32x32x32", "add 128x128", "clip 1"])
def test_measure(name: str) -> None:
    (case,) = [case for case in cases() if case.name == name]
    effort = measuring.Effort(rounds=2, seconds=1e-4)
    result = measuring.measure(case, ceilings.Probes("float32"), effort)
    assert result.name == name
    assert (result.flops, result.nbytes) == (case.flops, case.nbytes)
    assert min(result.seconds, result.call_seconds, result.twin_seconds) > 0
    assert 0 <= result.fraction <= result.best < math.inf
    assert (result.bound == "") == (name == "clip 1")


@compiled
def test_repeats_are_put_back_after_an_error() -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measuring.in_c(fail, 1000)
    counter = np.zeros(2, np.uint64)
    kernels.dropout_key(counter)
    assert counter[1] == 1
    measuring.in_c(lambda: kernels.dropout_key(counter), 10)
    assert counter[1] == 11


def test_repeats_for() -> None:
    assert measuring.repeats_for(lambda count: count * 1e-3, 0.1) == 100
    assert measuring.repeats_for(lambda count: 5.0, 0.1) == 1
    assert measuring.repeats_for(lambda count: 0.0, 1e-6) > 1  # a clock that stands still
