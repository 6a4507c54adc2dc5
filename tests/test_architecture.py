"""The rules of the house: who may import whom, how long a function is, what is documented."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import _kernels, kernels
from minidl._kernels import twins as reference
from minidl.nn.recurrent.sequence import Recurrent

PACKAGE = Path(minidl.__file__).parent
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h"}
FILES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in SUFFIXES)
SOURCES = [path for path in FILES if path.suffix == ".py"]

# Imports run down these floors: a module may import from its own room and from floors below.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"lab"},
    {"training", "diagnostics", "gradient_check", "saving", "datasets"},
    {"recording"},
    {"bench"},
    {"optim", "threads"},
    {"nn"},
    {"_kernels"},
    {"_kernels.reference", "_version", "pictures", "settings", "signals", "warnings"},
    {"files"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
DOCUMENTED_IN_BASE = {
    name
    for base in (minidl.nn.Layer, minidl.nn.Loss, minidl.optim.Optimizer, Recurrent)
    for name in (*vars(base), "forward", "backward")
}
PUBLIC = [
    "minidl",
    "minidl.nn",
    "minidl.nn.init",
    "minidl.optim",
    "minidl.datasets",
    "minidl.training",
]


# --- imports ----------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str:
    """The room a module belongs to: nn.linear -> nn; the twin, _kernels.reference*, is its own."""
    if module.startswith("_kernels.reference"):
        return "_kernels.reference"
    return module.split(".")[0]


def imported_modules(path: Path) -> Iterator[str]:
    """Names of the modules of minidl that a file imports, relative to minidl."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("minidl.") for name in names if name.startswith("minidl."))


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(module_name(path)) for path in SOURCES} - {""}
    assert rooms <= FLOOR_OF.keys(), "give the new room its floor in FLOORS"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(module_name(path))
    if not room:
        return  # minidl/__init__.py gathers the public names of all rooms
    for name in imported_modules(path):
        target = room_of(name)
        if target not in (room, "__version__"):
            assert target in FLOOR_OF, f"{path} imports {name} from minidl itself: name its room"
            assert FLOOR_OF[room] < FLOOR_OF[target], f"{room} must not import {name}"


@pytest.mark.parametrize("name", sorted(path.stem for path in SOURCES if "reference" in path.stem))
def test_the_twin_imports_numpy_only(name: str) -> None:
    tree = ast.parse((PACKAGE / "_kernels" / f"{name}.py").read_text(encoding="utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
            assert room_of(node.module.removeprefix("minidl.")) in (*roots, "_kernels.reference")
    assert roots <= {"__future__", "collections", "typing", "math", "numpy", "minidl"}


def test_layers_do_no_arithmetic_but_through_kernels() -> None:
    """No layer loops over numbers or calls a NumPy function in forward or backward."""
    for cls in nn_classes():
        for method in (cls.forward, cls.backward):
            source = inspect.getsource(method)
            assert not re.search(r"\bnp\.(?!ndarray)", source), f"{method.__qualname__} uses NumPy"


def nn_classes() -> list[Any]:
    registered = [*minidl.nn.Layer.registry, *minidl.nn.Loss.registry]
    return [cls for cls in registered if cls.__module__.startswith("minidl.")]


# --- kernels and their twins --------------------------------------------------------------


@pytest.mark.parametrize("name", _kernels.NAMES)
def test_compiled_call_has_the_parameters_of_its_twin(isa: str, name: str) -> None:
    compiled, twin = getattr(kernels, name), getattr(reference, name)
    assert compiled is not twin
    assert parameters_of(compiled) == parameters_of(twin)


def parameters_of(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default, p.kind) for p in parameters]


@pytest.mark.parametrize("name", _kernels.NAMES)
def test_first_line_of_the_docstrings_is_the_same_formula(isa: str, name: str) -> None:
    twin = inspect.getdoc(getattr(reference, name)).split("\n")[0]
    compiled = inspect.getdoc(getattr(kernels, name)).split("\n")[0]
    assert twin.split(" ")[:2] == compiled.split(" ")[:2], (twin, compiled)


def test_every_public_function_of_the_twin_is_a_kernel() -> None:
    functions = {
        name
        for name, value in vars(reference).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert functions == set(_kernels.NAMES)
    assert len(_kernels.NAMES) == len(set(_kernels.NAMES))


def test_optimizer_state_has_the_layout_of_the_struct() -> None:
    text = (PACKAGE / "_kernels" / "kernel_table.pxd").read_text(encoding="utf-8")
    body = re.search(r"cdef struct OptimizerState:\n((?:    .*\n)+)", text).group(1)
    code = [line.split("#")[0].strip() for line in body.splitlines()]
    lines = [line for line in code if line]
    assert all(line.startswith("double ") for line in lines)
    fields = [name.strip() for line in lines for name in line.removeprefix("double ").split(",")]
    assert tuple(fields) == reference.OPTIMIZER_STATE.names
    offsets = [reference.OPTIMIZER_STATE.fields[name][1] for name in fields]
    assert offsets == [8 * i for i in range(len(fields))]


# --- files and docstrings -----------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_is_too_long(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1  # type: ignore[operator]
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1  # type: ignore[operator]
            assert lines <= 45, f"{node.name} has {lines} lines"


def public_objects() -> Iterator[tuple[str, Any]]:
    for module_path in PUBLIC:
        module = importlib.import_module(module_path)
        yield module_path, module
        names = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        for name in names:
            value = getattr(module, name)
            ours = str(getattr(value, "__module__", "")).startswith("minidl")
            if ours and (inspect.isfunction(value) or inspect.isclass(value)):
                yield f"{module_path}.{name}", value


def test_every_public_name_is_documented() -> None:
    bare = [name for name, value in public_objects() if not inspect.getdoc(value)]
    for name, value in public_objects():
        if inspect.isclass(value):
            # A method that a base class documents, or names as a subclass's to write, may be bare.
            bare += [
                f"{name}.{method}"
                for method, function in vars(value).items()
                if inspect.isfunction(function)
                and not (method.startswith("_") or function.__doc__)
                and method not in DOCUMENTED_IN_BASE
            ]
    assert not bare, f"no docstring: {bare}"


@pytest.mark.parametrize("cls", nn_classes(), ids=lambda cls: cls.__name__)
def test_every_layer_shows_formula_and_example(cls: type) -> None:
    text = inspect.getdoc(cls)
    assert "Examples\n--------" in text
    assert " = " in text.split("Examples")[0]


def modules() -> list[ModuleType]:
    names = {f"minidl.{module_name(path)}".rstrip(".") for path in SOURCES}
    return [importlib.import_module(name) for name in sorted(names - {"minidl.__main__"})]


def test_examples_in_docstrings_run(backend: str) -> None:
    attempted = 0
    for module in modules():
        result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
        assert result.failed == 0, module.__name__
        attempted += result.attempted
    assert attempted > 50


# --- what importing does to the process ---------------------------------------------------


def test_import_leaves_the_floating_point_mode_alone() -> None:
    """-ffast-math at link time would make all denormals of the process zero."""
    program = (
        "import minidl, minidl._kernels as k, numpy as np; k.relu(np.ones(100, np.float32));"
        "x = np.array([1e-310]); y = np.array([1e-40], np.float32);"
        "assert 1e-310 / 2 > 0 and (x / 2 > 0).all() and (y / 2 > 0).all()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


def test_import_needs_numpy_only() -> None:
    program = (
        "import sys, minidl.cli.train, minidl.profiling.step_profile; from minidl import *;"
        "others = {m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'sklearn', 'scipy', 'matplotlib', 'tqdm', 'Cython', 'pytest'};"
        "assert not others, others"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


def test_public_names_exist() -> None:
    for module_path in PUBLIC:
        module = importlib.import_module(module_path)
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{module_path}.{name}"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", minidl.__version__)
    assert np.dtype(np.float32) == reference.relu(np.zeros(1, np.float32)).dtype
