"""The examples of CONTRIBUTING.md: followed to the letter, they work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import instruction_sets

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

# In a copy of minidl that has the new kernel: layer, loss and optimizer, eager and recorded.
PROGRAM = """
from collections.abc import Iterator
from typing import Any
import numpy as np
import minidl
from minidl import _kernels, gradcheck, kernels, nn
from minidl._kernels import twins
from minidl.nn.layer import Examples, Layer
from minidl.nn.losses import Loss
from minidl.optim.optimizer import Optimizer, Parameters, Rate
from minidl.typing import Array
EXAMPLES

for dtype in (np.float32, np.float64):
    for shape in ((3,), (5, 7), (2, 3, 1000)):
        dy, x = np.random.default_rng(0).normal(size=(2, *shape)).astype(dtype)
        assert (kernels.square(x) == twins.square(x)).all()
        np.testing.assert_allclose(kernels.square_grad(dy, x), twins.square_grad(dy, x), rtol=1e-6)
assert all(gradcheck(layer, np.ones(shape) / 3).ok for layer, (shape,) in Square.examples())
for loss, prediction, target in SmoothL1Loss.examples():
    assert gradcheck(loss, prediction, target).ok
model = nn.Sequential(nn.Linear(3, 4), Square(), nn.Linear(4, 1), rng=0)
loss, optimizer = SmoothL1Loss(), TruncatedSGD(model.parameters(), lr=0.05)
x, y = np.random.default_rng(1).normal(size=(2, 64, 3)).astype(np.float32)
y = y[:, :1]

@minidl.record
def step(x, y):
    value = loss(model(x), y)
    optimizer.zero_grad()
    model.backward(loss.backward())
    optimizer.step()
    return value

first = float(step(x, y))
assert [float(step(x, y)) for _ in range(50)][-1] < first
print(_kernels.isa)
"""


def block(start: str) -> str:
    """The fenced block of code that begins so."""
    blocks = re.findall(r"^```(?:python|cython)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    (found,) = [text for text in blocks if text.startswith(start)]
    return found


def test_files_are_where_it_says() -> None:
    table = TEXT.partition("## Where is ...?")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^`|]+ \| (`[^|]+`) \| (`[^|]+`) \|$", table, re.MULTILINE)
    assert len(rows) == table.count("\n|") - 2 >= 10  # all but the head and the line below it
    for files, names in rows:
        for file in re.findall(r"`(.+?)`", files):
            text = (ROOT / file).read_text(encoding="utf-8")
            for name in re.findall(r"`(.+?)`", names):
                assert re.search(rf"\b{name}\b", text), f"{file} has no {name}"


def run(program: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "MINIDL_ISA"} | settings,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not instruction_sets(), reason="no compiled kernels here")
def test_a_twin_whose_loop_is_not_compiled_says_so(tmp_path: Path) -> None:
    generated = shutil.ignore_patterns("*.c", "__pycache__")
    shutil.copytree(ROOT / "minidl", tmp_path / "minidl", ignore=generated)
    twins = tmp_path / "minidl" / "_kernels" / "twins" / "activations.py"
    text = twins.read_text(encoding="utf-8")
    twins.write_text(text + "\n\n" + block("@kernel"), encoding="utf-8")
    failed = run("import minidl.kernels", tmp_path)
    best = instruction_sets()[-1]
    assert failed.stderr.splitlines()[-1] == (
        f"ImportError: kernel 'square' has a twin but no compiled loop in {best}: "
        "build it (python setup.py build_ext --inplace), or set MINIDL_ISA=reference"
    )
    program = "from minidl import kernels; import numpy as np; print(kernels.square(np.ones(2)))"
    assert run(program, tmp_path, MINIDL_ISA="reference").stdout == "[1. 1.]\n"
    declared = "@kernel('', composite=True)\ndef cube(x: Array) -> Array:\n    return x**3\n"
    twins.write_text(text + declared, encoding="utf-8")
    error = run("import minidl.kernels", tmp_path).stderr.splitlines()[-1]
    assert error.startswith("ImportError: kernel 'cube' has a twin with composite=True but no call")
    other = text.replace("x[n] -> y[n]", "x[n] more -> y[n]", 1)
    other = other.replace("def relu(x: Array)", "def relu(x: Array, more: float)")
    twins.write_text(other, encoding="utf-8")
    error = run("import minidl.kernels", tmp_path).stderr.splitlines()[-1]
    assert error.startswith("ImportError: kernel 'relu' has another struct in ")


@pytest.mark.skipif(not instruction_sets(), reason="no compiled kernels here")
def test_kernel_layer_loss_and_optimizer_of_the_examples_work(tmp_path: Path) -> None:
    old_builds = shutil.ignore_patterns("*_f32.*.so", "*_f64.*.so", "__pycache__")
    shutil.copytree(ROOT / "minidl", tmp_path / "minidl", ignore=old_builds)
    shutil.copy2(ROOT / "setup.py", tmp_path)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tmp_path)
    kernels = tmp_path / "minidl" / "_kernels"
    with (kernels / "twins" / "activations.py").open("a", encoding="utf-8") as file:
        file.write("\n\n" + block("@kernel"))
    with (kernels / "loops" / "activations.pxi").open("a", encoding="utf-8") as file:
        file.write("\n\n" + block("cdef inline vec square_vec"))
    environment = {k: v for k, v in os.environ.items() if k != "MINIDL_ISA"}
    environment |= {"MINIDL_BUILDS": "baseline", "MINIDL_REQUIRE_KERNELS": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    examples = "".join(
        block(f"class {name}") for name in ("Square", "SmoothL1Loss", "TruncatedSGD")
    )
    program = [sys.executable, "-c", PROGRAM.replace("EXAMPLES", examples)]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "baseline\n", done.stderr
