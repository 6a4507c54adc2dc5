"""What ``import minidl`` loads, and what is loaded when it is first needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import minidl
from minidl import _kernels

ROOT = Path(minidl.__file__).parents[1]
# What takes long to load, and only some programs need.
ON_DEMAND = {
    *("gzip", "bz2", "lzma", "tempfile", "shutil", "zipfile", "json", "doctest", "unittest"),
    *("importlib.resources", "argparse", "tqdm", "matplotlib", "tensorboard", "torch"),
}


def loaded_by(*statements: str, before: str = "import sys") -> set[str]:
    """The modules that these statements load in a new process, after others."""
    program = [before, "import sys, json; known = set(sys.modules)", *statements]
    program.append("print(json.dumps(sorted(set(sys.modules) - known)))")
    command = [sys.executable, "-c", ";".join(program)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_import_alone_loads_next_to_nothing() -> None:
    loaded = loaded_by("import minidl")
    assert {name for name in loaded if "minidl" in name} == {"minidl", "minidl._version"}
    assert not loaded & {"numpy", *ON_DEMAND}


def test_a_program_that_trains_loads_what_it_needs() -> None:
    loaded = loaded_by(
        "from minidl import nn, optim, record",
        "model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), rng=0)",
        "loss, optimizer = nn.MSELoss(), optim.Adam(model.parameters(), max_norm=1.0)",
        "step = record(lambda x, y: (loss(model(x), y), optimizer.zero_grad(), "
        "model.backward(loss.backward()), optimizer.step()))",
        "import numpy as np",
        "x = np.ones((4, 3), 'f4')",
        "[step(x, x[:, :1].copy()) for _ in range(3)]",
        before="import numpy, numpy.random, json",
    )
    assert not loaded & ON_DEMAND
    rooms = {name.split(".")[1] for name in loaded if name.startswith("minidl.")}
    assert not rooms & {"bench", "cli", "datasets", "gradient_check", "lab", "saving", "training"}


def test_one_instruction_set_is_loaded() -> None:
    loaded = loaded_by("import minidl._kernels")
    sets = {name for name in loaded if name.startswith("minidl._kernels.builds.")}
    names = () if _kernels.isa == "reference" else ("f32", "f64")
    assert sets == {f"minidl._kernels.builds.{_kernels.isa}_{dtype}" for dtype in names}


@pytest.mark.parametrize(
    "statement", ["from minidl import Trainer, save, load", "from minidl import datasets"]
)
def test_no_picture_or_progress_bar_is_loaded_before_it_is_shown(statement: str) -> None:
    assert not loaded_by(statement, before="import numpy") & {"matplotlib", "tqdm", "tensorboard"}


# --- public names -------------------------------------------------------------------------------


def test_every_public_name_is_there_after_import() -> None:
    names = minidl.__all__
    loaded_by("import minidl", *(f"minidl.{name}" for name in names))
    loaded_by(*(f"from minidl import {name}" for name in names))
    assert set(names) <= set(dir(minidl))


def test_rooms_are_attributes() -> None:
    rooms = "nn", "optim", "datasets", "training", "recording", "saving", "threads"
    loaded_by("import minidl", *(f"assert minidl.{room}.__name__" for room in rooms))


@pytest.mark.parametrize("first", ["gradient_check", "training", "recording", "saving", "cli"])
def test_a_public_function_is_itself_whatever_was_imported_first(first: str) -> None:
    names = "gradcheck", "gradcheck_all", "record", "save", "load", "batches"
    loaded_by(f"import minidl.{first}", *(f"assert callable(minidl.{name})" for name in names))


def test_star_import_gives_all_public_names() -> None:
    names: dict[str, Any] = {}
    exec("from minidl import *", names)
    assert set(minidl.__all__) <= names.keys()


def test_a_name_that_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'minidl' has no attribute 'Sequential'"):
        _ = minidl.Sequential
