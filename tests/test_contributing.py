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
