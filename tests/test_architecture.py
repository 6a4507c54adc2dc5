"""The rules of the house: who may import whom, how long a function is, what is documented."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import _kernels, kernels
from minidl._kernels import twins
from minidl._kernels.signature import KERNELS
from minidl.augment import Transform
from minidl.nn.container import Container
from minidl.nn.recurrent.sequence import Recurrent

PACKAGE = Path(minidl.__file__).parent
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h"}
FILES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in SUFFIXES)
SOURCES = [path for path in FILES if path.suffix == ".py"]

# Imports run down these floors: a module may import from its own room and from floors below.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"lab", "c", "onnx", "sklearn", "torch"},
    {"diagnosis"},
    {"training", "gradient_check", "datasets", "tables"},
    {"recording", "saving"},
    {"profiling", "analysis"},
    {"optim", "threads", "models", "augment"},
    {"diagnosis.rules"},
    {"nn"},
    {"kernels"},
    {"_kernels"},
    {
        *("_kernels.twins", "_version", "monitor", "pictures", "seeds", "settings", "signals"),
        "warnings",
    },
    {"_kernels.signature", "typing", "files"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What ``Trainer.fit`` asks of the diagnosis: the rules that need no training.
RULES_OF_FIT = (
    *("diagnosis.rules.static", "diagnosis.rules.closing", "diagnosis.rules.ending"),
    *("diagnosis.remedies.actions", "diagnosis.task", "diagnosis.verdict", "diagnosis.words"),
)
# Circles of imports that are still there.
CIRCLES: list[set[str]] = []
DOCUMENTED_IN_BASE = {
    name
    for base in (
        *(minidl.nn.Layer, minidl.nn.Loss, minidl.optim.Optimizer),
        *(Recurrent, Container, Transform),
    )
    for name in (*vars(base), "forward", "backward")
}
PUBLIC = [
    "minidl",
    "minidl.analysis",
    "minidl.augment",
    "minidl.c",
    "minidl.models",
    "minidl.nn",
    "minidl.nn.init",
    "minidl.optim",
    "minidl.datasets",
    "minidl.training",
    "minidl.diagnosis",
    "minidl.onnx",
    "minidl.sklearn",
    "minidl.torch",
]


# --- imports ----------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str:
    """The room a module belongs to: nn.linear -> nn; twins, signatures, rules have their own."""
    for room in ("_kernels.twins", "_kernels.signature"):
        if module.startswith(room):
            return room
    if any(module == name or module.startswith(f"{name}.") for name in RULES_OF_FIT):
        return "diagnosis.rules"
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
    assert rooms == FLOOR_OF.keys(), "FLOORS names each room there is"


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


def imports() -> dict[str, set[str]]:
    """The modules that each imports, in functions and for annotations included."""
    modules = {module_name(path): path for path in SOURCES}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {
            name if name in modules else name.rpartition(".")[0] for name in imported_modules(path)
        }
        found[module] = {name for name in names if name in modules} - {module, ""}
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules each of which comes to all others of its group."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        reached[start], ahead = set(), [start]
        while ahead:
            new = graph[ahead.pop()] - reached[start]
            reached[start] |= new
            ahead += new
    groups = {frozenset({b for b in reached[a] if a in reached[b]}) for a in graph}
    return [set(group) for group in groups if group]


def test_no_import_goes_round_in_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [{"b", "c"}]
    assert circles(imports()) == CIRCLES


TWINS = [path for path in SOURCES if room_of(module_name(path)) == "_kernels.twins"]


@pytest.mark.parametrize("path", TWINS, ids=module_name)
def test_the_twin_imports_numpy_only(path: Path) -> None:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    of_python = {"__future__", "collections", "contextvars", "typing", "math"}
    assert roots <= of_python | {"numpy", "minidl"}


def test_no_attribute_is_computed_under_a_lock() -> None:
    """A child that is forked while another thread holds it would wait for ever."""
    for path in PACKAGE.rglob("*.py"):
        assert "import cached_property" not in path.read_text(), path


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
    compiled, twin = getattr(kernels, name), getattr(twins, name)
    assert compiled is not twin
    assert parameters_of(compiled) == parameters_of(twin)


def parameters_of(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default, p.kind) for p in parameters]


@pytest.mark.parametrize("name", _kernels.NAMES)
def test_first_line_of_the_docstrings_is_the_same_formula(isa: str, name: str) -> None:
    twin = inspect.getdoc(getattr(twins, name)).split("\n")[0]
    compiled = inspect.getdoc(getattr(kernels, name)).split("\n")[0]
    assert twin.split(" ")[:2] == compiled.split(" ")[:2], (twin, compiled)


def test_every_public_function_of_the_twin_is_a_kernel() -> None:
    functions = {
        name
        for path in TWINS
        for name, value in vars(importlib.import_module(f"minidl.{module_name(path)}")).items()
        if inspect.isfunction(value) and not name.startswith("_")
        if value.__module__.startswith("minidl._kernels.twins")
    }
    assert functions == set(_kernels.NAMES)
    assert len(_kernels.NAMES) == len(set(_kernels.NAMES))


FIELD = {"d": "double", "n": "Py_ssize_t", "P": "*"}
LAYOUT = {"Accumulate": "Py_ssize_t", "Activation": "Py_ssize_t"}


def structs() -> dict[str, list[str]]:
    """The kinds of the fields of every argument struct: double, Py_ssize_t, or * for a pointer."""
    text = (PACKAGE / "_kernels" / "arguments.pxd").read_text(encoding="utf-8")
    found = {}
    for name, body in re.findall(r"cdef struct (\w+):\n((?:    .*\n|\n)+)", text):
        kinds = found[name] = []
        for line in (line.split("#")[0].strip() for line in body.splitlines()):
            if "*" in line:
                kinds.append("*")
            elif line:
                kind, fields = line.split(" ", 1)
                sizes = [re.search(r"\[(\w+)\]", field) for field in fields.split(",")]
                for size in sizes:
                    kinds += [LAYOUT.get(kind, kind)] * (8 if size else 1)
    return found


def registered() -> dict[str, str]:
    """The argument struct of the loop that serves each kernel."""
    text = "".join(
        path.read_text("utf-8") for path in (PACKAGE / "_kernels" / "loops").rglob("*.pxi")
    )
    return dict(re.findall(r'KERNELS\["(\w+)"\] = entry\(\w+, sizeof\((\w+)\)\)', text))


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.signature])
def test_struct_of_a_loop_has_the_layout_of_the_signature(name: str) -> None:
    kernel = KERNELS[name]
    kinds = structs()[registered()[name]]
    layout = ["*" for _ in kernel.operands] + ["Py_ssize_t" for _ in kernel.sizes]
    for scalar in kernel.scalars:
        layout += ["double" if scalar.kind == "double" else "Py_ssize_t"] * scalar.count
    layout += ["Py_ssize_t" for _ in kernel.accumulates]
    assert kinds == layout


def test_every_struct_is_used() -> None:
    text = "".join(
        path.read_text("utf-8")
        for path in (PACKAGE / "_kernels").rglob("*.p*x*")
        if path.name != "arguments.pxd"
    )
    assert all(re.search(rf"\b{name}\b", text) for name in structs())


def test_optimizer_state_has_the_layout_of_the_struct() -> None:
    text = (PACKAGE / "_kernels" / "arguments.pxd").read_text(encoding="utf-8")
    body = re.search(r"cdef struct OptimizerState:\n((?:    .*\n)+)", text).group(1)
    code = [line.split("#")[0].strip() for line in body.splitlines()]
    lines = [line for line in code if line]
    assert all(line.startswith("double ") for line in lines)
    fields = [name.strip() for line in lines for name in line.removeprefix("double ").split(",")]
    assert tuple(fields) == twins.OPTIMIZER_STATE.names
    offsets = [twins.OPTIMIZER_STATE.fields[name][1] for name in fields]
    assert offsets == [8 * i for i in range(len(fields))]


def files_that_name(kernel: str) -> list[str]:
    """The files that know a kernel: by a definition, by its quoted name, as what a module has.

    Docstrings and comments do not count, nor do the operators of NumPy that `guards.py` refuses.
    """
    known = rf"""\b(?:def|Py_ssize_t) {kernel}\(|["']{kernel}["']|\b(?:kernels|twins)\.{kernel}\b"""
    rooms = ("_kernels", "recording", "profiling")
    files = [path for path in FILES if path.relative_to(PACKAGE).parts[0] in rooms]
    return [
        path.name
        for path in (*files, PACKAGE / "kernels.py")
        if path.name != "guards.py" and re.search(known, code_of(path))
    ]


@functools.cache
def code_of(path: Path) -> str:
    """A file without docstrings and comments."""
    text = re.sub(r"\"{3}.*?\"{3}", "", path.read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r"^\s*#.*$|  #.*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_stands_in_four_files_at_most(name: str) -> None:
    assert len(files_that_name(name)) <= 4, files_that_name(name)


def test_no_fragment_is_compiled_into_one_module_only() -> None:
    """A file that is included must be so by several modules; else it is a part of one."""
    cython = [path for path in FILES if path.suffix in (".pyx", ".pxi", ".pxd")]
    includes = {
        path: re.findall(r'^include "(?:.*/)?([\w.]+)"', path.read_text("utf-8"), re.MULTILINE)
        for path in cython
    }

    def reached(path: Path) -> set[str]:
        inner = [other for other in cython if other.name in includes[path]]
        return set(includes[path]).union(*(reached(other) for other in inner))

    counts = Counter(name for path in cython if path.suffix == ".pyx" for name in reached(path))
    fragments = {path.name for path in cython if path.suffix == ".pxi"}
    assert fragments == counts.keys()
    assert min(counts.values()) > 1


# --- files and docstrings -----------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_is_too_long(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1  # type: ignore[operator]
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1  # type: ignore[operator]
            assert lines <= 45, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_class_has_too_many_attributes(path: Path) -> None:
    for cls in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(cls, ast.ClassDef):
            names = {
                node.attr
                for node in ast.walk(cls)
                if isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            }
            assert len(names) <= 14, f"{cls.name} has {sorted(names)}"


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


# What the tests do without, where it is not installed.
NOT_FOR_TESTS = {"torch"}


def modules() -> list[ModuleType]:
    names = {f"minidl.{module_name(path)}".rstrip(".") for path in SOURCES}
    found = []
    for name in sorted(names - {"minidl.__main__"}):
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError as missing:
            if missing.name not in NOT_FOR_TESTS:
                raise
    return found


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
        "import minidl.kernels as k, numpy as np; k.relu(np.ones(100, np.float32));"
        "x = np.array([1e-310]); y = np.array([1e-40], np.float32);"
        "assert 1e-310 / 2 > 0 and (x / 2 > 0).all() and (y / 2 > 0).all()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


def test_import_needs_numpy_only() -> None:
    program = (
        "import sys, minidl.cli.train, minidl.profiling.step_profile; from minidl import *;"
        "others = {m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'onnx', 'google', 'sklearn', 'scipy', 'pandas', 'polars', 'matplotlib', 'tqdm',"
        "'Cython'};"
        "assert 'pytest' not in sys.modules;"
        "assert not others, others"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


def test_public_names_exist() -> None:
    for module_path in PUBLIC:
        module = importlib.import_module(module_path)
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{module_path}.{name}"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", minidl.__version__)
    assert np.dtype(np.float32) == twins.relu(np.zeros(1, np.float32)).dtype
