"""``setup.py``: what goes into a wheel, and how it is compiled and linked."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import minidl
from minidl import kernels

ROOT = Path(minidl.__file__).parents[1]


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of setup.py, which here neither translates nor builds anything."""
    build = pytest.importorskip("Cython.Build")
    setuptools = pytest.importorskip("setuptools")
    if not (ROOT / "setup.py").exists():
        pytest.skip("no sources here")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(build, "cythonize", lambda extensions, **_: extensions)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    return runpy.run_path("setup.py")


def test_a_second_build_drops_what_was_deleted(
    setup: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from setuptools import Distribution, Extension

    monkeypatch.chdir(tmp_path)
    for name in ("minidl", "minidl/nn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "minidl" / "data.txt").touch()
    distribution = Distribution(
        {
            "name": "minidl",
            "packages": ["minidl", "minidl.nn"],
            "package_data": {"minidl": ["*.txt"]},
            "ext_modules": [Extension("minidl.fast", ["fast.c"])],
        }
    )
    distribution.script_name = "setup.py"
    command = setup["BuildPy"](distribution)
    command.build_lib = "build/lib"
    build_ext = distribution.get_command_obj("build_ext")
    build_ext.build_lib = "build/lib"
    build_ext.ensure_finalized()
    fast = Path(build_ext.get_outputs()[0])
    stale = [
        Path("build/lib/minidl", name)
        for name in ("old.py", "gone/__init__.py", "slow" + fast.suffixes[-1], "nn/old.txt")
    ]
    for path in (*stale, fast):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    command.ensure_finalized()
    command.run()
    left = {path.name for path in Path("build/lib").rglob("*") if path.is_file()}
    assert left == {"__init__.py", "data.txt", fast.name}
    assert not [path for path in stale if path.exists()]
    assert Path("build/lib/minidl/nn/__init__.py").exists()


def test_what_python_calls_is_hardened_and_the_loops_are_not(
    setup: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CFLAGS", raising=False)
    extensions = {e.name.removeprefix("minidl._kernels."): e for e in setup["extensions"]()}
    for name, extension in extensions.items():
        checked = not name.startswith("builds.")
        assert ("-fstack-protector-strong" in extension.extra_compile_args) == checked
        assert ("-D_FORTIFY_SOURCE=2" in extension.extra_compile_args) == checked


def test_symbols_are_left_out_but_for_sanitizers(
    setup: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CFLAGS", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert setup["strip_flags"]() == ["-Wl,-s"]
    monkeypatch.setenv("CFLAGS", "-fsanitize=address,undefined -fno-omit-frame-pointer")
    assert setup["strip_flags"]() == setup["check_flags"]() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_compiled_modules_are_small() -> None:
    """No symbols and nothing for debuggers: else a wheel holds nine times as much."""
    files = sorted(Path(kernels.__file__).parent.glob("*.so"))
    if any(b"__asan" in file.read_bytes() or b"__tsan" in file.read_bytes() for file in files):
        pytest.skip("compiled for a sanitizer, which names functions")
    for file in files:
        content = file.read_bytes()
        assert b".debug_info" not in content, f"{file.name}: built before? rebuild it"
        assert b".symtab" not in content, file.name
    assert sum(file.stat().st_size for file in files) < 6e6
