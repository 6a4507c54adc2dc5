"""Which kernels serve: the choice at import, the fallback, and two threads at once."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import instruction_sets

import minidl
from minidl import _kernels, kernels, nn, optim

ROOT = Path(minidl.__file__).parent.parent
# What the installed script does.
COMMAND = "import sys; from minidl.cli import main; sys.exit(main(['doctor']))"
WHICH = "import minidl._kernels as k; print(k.isa, '|', k.why)"
SETS = instruction_sets()

# The compiled modules as they look where nothing could be compiled.
NOT_COMPILED = """
import sys, warnings
class Missing:
    def find_spec(self, name, path=None, target=None):
        module = name.removeprefix("minidl._kernels.")  # the rest of them is plain Python
        plain = ("twins", "memory", "signature")
        if module not in (name, "executor") and not module.startswith(plain):
            raise ERROR(name)
sys.meta_path.insert(0, Missing())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import minidl, minidl._kernels as k
    minidl.nn.Sequential(minidl.nn.Linear(3, 2), rng=0)
print(k.isa, "|", k.available(), "|", [str(w.message).split(". ")[0] for w in caught])
print(k.describe()["instruction set"])
print(all(r.ok for r in minidl.gradcheck_all()))
"""


def python(program: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MINIDL_ISA"}
    if isa is not None:
        environment["MINIDL_ISA"] = isa
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True
    )


# --- the choice ---------------------------------------------------------------------------


def test_compiled_kernels_are_tested() -> None:
    if not SETS:
        pytest.skip("no compiled kernels here, or MINIDL_ISA=reference: only the twin is tested")
    assert _kernels.available() == ["reference", *SETS]


def test_cpu_flags_agree_with_the_operating_system() -> None:
    dispatch = pytest.importorskip("minidl._kernels.dispatch")
    info = Path("/proc/cpuinfo")
    if not info.exists() or platform.machine() != "x86_64":
        pytest.skip("no /proc/cpuinfo of an x86 CPU")
    flags = set(info.read_text().split("flags")[1].split("\n")[0].replace(":", " ").split())
    needs = {
        "baseline": set(),
        "avx2": {"avx2", "fma"},
        "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    }
    assert dispatch.supported() == [name for name, needed in needs.items() if needed <= flags]


@pytest.mark.parametrize("name", ["reference", *SETS])
def test_environment_chooses(name: str) -> None:
    result = python(WHICH, name)
    assert result.stdout.strip() == f"{name} | MINIDL_ISA={name}", result.stderr
    assert "Warning" not in result.stderr


def test_best_is_chosen_by_itself() -> None:
    best = SETS[-1] if SETS else _kernels.available()[-1]
    assert python(WHICH).stdout.startswith(f"{best} | ")
    assert python(WHICH, "").stdout.startswith(f"{best} | ")


@pytest.mark.parametrize("name", ["avx9000", "AVX2", "../avx2"])
def test_wrong_choice_names_the_right_ones(name: str) -> None:
    result = python(WHICH, name)
    assert result.returncode != 0
    assert f"MINIDL_ISA={name}" in result.stderr
    assert "'reference'" in result.stderr


@pytest.mark.parametrize(
    "setting", [{"MINIDL_ISA": "avx9000"}, {"MINIDL_NUM_THREADS": "many"}], ids=str
)
@pytest.mark.parametrize(
    "program", [["-m", "minidl", "train", "digits"], ["-c", COMMAND]], ids=["module", "script"]
)
def test_the_command_line_says_in_one_line_which_setting_is_wrong(
    setting: dict[str, str], program: list[str]
) -> None:
    (name, value), *_ = setting.items()
    run = subprocess.run(
        [sys.executable, *program], env=os.environ | setting, cwd=ROOT, capture_output=True
    )
    assert run.returncode == 2
    assert run.stdout == b""
    assert run.stderr.decode().startswith(f"minidl: error: {name}={value}: ")
    assert run.stderr.count(b"\n") == 1


def test_select_rejects_and_keeps() -> None:
    before, call = _kernels.isa, kernels.relu
    with pytest.raises(ValueError, match=r"avx9000.*reference"):
        _kernels.select("avx9000")
    assert _kernels.isa == before
    assert kernels.relu is call


def test_select_switches_every_call(isa: str) -> None:
    compiled = {name: getattr(kernels, name) for name in _kernels.NAMES}
    _kernels.select("reference")
    for name, call in compiled.items():
        assert getattr(kernels, name).__module__.startswith("minidl._kernels.twins")
        assert type(call).__name__ in ("builtin_function_or_method", "cython_function_or_method")


def test_shares_must_be_positive() -> None:
    dispatch = pytest.importorskip("minidl._kernels.dispatch")
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="shares"):
            dispatch.set_shares(wrong)


def test_shares_and_repeats_are_those_of_one_thread() -> None:
    """Of tests and benchmarks, which change nothing that other threads compute."""
    dispatch = pytest.importorskip("minidl._kernels.dispatch")
    totals = np.zeros(3, np.float32)
    ones = np.ones((4, 3), np.float32)

    def elsewhere() -> None:
        kernels.linear_grad_params(ones, ones, np.zeros((3, 3), np.float32), totals)

    dispatch.set_repeats(3)
    dispatch.set_shares(2)
    try:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert totals.tolist() == [4, 4, 4]
        elsewhere()
        assert totals.tolist() == [16, 16, 16]
    finally:
        dispatch.set_repeats(1)
        dispatch.set_shares(1)


# --- the fallback -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("ModuleNotFoundError", "no compiled kernels were found"),
        ("ImportError", "the compiled kernels could not be loaded (minidl._kernels.composites)"),
    ],
)
def test_without_compiled_kernels_the_twin_serves_and_says_so_once(error: str, why: str) -> None:
    result = python(NOT_COMPILED.replace("ERROR", error))
    first, described, checked = result.stdout.splitlines()
    warning = f"minidl runs on its NumPy twin, right but slower: {why}"
    assert first == f"reference | ['reference'] | ['{warning}']", result
    assert described == "reference"
    assert checked == "True"


def test_the_advice_names_the_folder_that_was_imported(tmp_path: Path) -> None:
    folder = tmp_path / "minidl"
    folder.mkdir()
    assert _kernels._advice(folder).endswith(
        f"It was imported from {folder}. Installing from source with a C compiler builds them. "
        "MINIDL_ISA=reference silences this."
    )
    (tmp_path / "setup.py").touch()  # a source folder: it hides an installed minidl
    advice = _kernels._advice(folder)
    assert f"It was imported from {folder}, a source folder" in advice
    assert "run Python from another folder" in advice
    assert f"`pip install --editable {tmp_path}`" in advice


def test_without_compiled_kernels_the_warning_names_the_folder() -> None:
    program = NOT_COMPILED.replace("ERROR", "ModuleNotFoundError")
    result = python(program + "\nprint(caught[0].message)")
    assert f"It was imported from {ROOT / 'minidl'}" in result.stdout.splitlines()[-1]


def test_reference_asked_for_is_no_reason_to_warn() -> None:
    first = python(NOT_COMPILED.replace("ERROR", "ImportError"), "reference").stdout.splitlines()[0]
    assert first == "reference | ['reference'] | []"


# --- two Python threads at once -------------------------------------------------------------


def train(seed: int, barrier: threading.Barrier | None = None) -> bytes:
    """A short training that touches every layer; the bits of all it changed."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(64, 20)).astype(np.float32)
    labels = rng.integers(5, size=64)
    model = nn.Sequential(
        nn.Linear(20, 45),
        nn.BatchNorm(45),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Residual(nn.Sequential(nn.Linear(45, 45), nn.Tanh())),
        nn.Linear(45, 5),
        rng=seed,
    )
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01, max_norm=1.0)
    if barrier:
        barrier.wait()
    for _ in range(60):
        loss(model(x), labels)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    return optimizer.flat.data.tobytes() + b"".join(a.tobytes() for a in model.state().values())


def test_two_trainings_at_once_give_the_same_bits(backend: str) -> None:
    alone = [train(seed) for seed in (0, 1)]
    barrier = threading.Barrier(2)
    together: dict[int, bytes] = {}

    def run(seed: int) -> None:
        together[seed] = train(seed, barrier)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[0], together[1]] == alone


def test_a_training_is_repeatable(backend: str) -> None:
    assert train(3) == train(3) != train(4)


# --- pickled kernels ----------------------------------------------------------------------


class Own(nn.Layer):
    """A layer that holds a kernel."""

    def __init__(self) -> None:
        self.f = kernels.relu

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.f(x)


def test_kernels_are_pickled_by_name(isa: str) -> None:
    """What is loaded is served by the build that is selected then."""
    pickled = {name: pickle.dumps(getattr(kernels, name)) for name in _kernels.NAMES}
    for name, data in pickled.items():
        call = pickle.loads(data)
        assert call is getattr(kernels, name)
        assert call.__module__ == "minidl.kernels"
        assert copy.deepcopy(call) is call
    _kernels.select("reference")
    for name in _kernels.NAMES:
        if not _kernels.KERNELS[name].composite:
            assert pickle.loads(pickled[name]) is getattr(kernels, name)


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_what_holds_a_kernel_can_be_copied(isa: str, make_copy: Callable[[Any], Any]) -> None:
    x = np.array([[-1.0, 2.0]], np.float32)
    again = make_copy(functools.partial(kernels.elu, alpha=2.0))
    assert again(x).tobytes() == kernels.elu(x, 2.0).tobytes()
    assert make_copy(Own())(x).tolist() == [[0, 2]]
