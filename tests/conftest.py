"""What all tests share: the backends to run on, and repeatable random examples."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from minidl import _kernels

settings.register_profile("minidl", derandomize=True, deadline=None, database=None)
settings.load_profile("minidl")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ctrl-C raises KeyboardInterrupt, even where a shell has its background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def instruction_sets() -> list[str]:
    """Every set this CPU has, built or not: one that was not built must fail its tests.

    None where nothing compiled is to be tested; test_backend.py says so.
    """
    if os.environ.get("MINIDL_ISA") == "reference":
        return []
    try:
        return list(importlib.import_module("minidl._kernels.dispatch").supported())
    except ImportError:
        return []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what tests compiled kernels where there are none to test."""
    if not instruction_sets():
        without = [item for item in items if "isa" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in set(without)]


def use(name: str) -> Iterator[str]:
    before = _kernels.isa
    if name not in _kernels.available():
        pytest.fail(f"this CPU has {name}, but its kernels were not built")
    _kernels.select(name)
    yield name
    _kernels.select(before)


@pytest.fixture(params=instruction_sets())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """One instruction set after the other."""
    yield from use(request.param)


@pytest.fixture(params=["reference", *instruction_sets()])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The NumPy twin, then one instruction set after the other."""
    yield from use(request.param)


@pytest.fixture
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings of small arrays: the memory of a machine takes long to read."""
    monkeypatch.setattr(
        "minidl.profiling.ceilings.cache_sizes", lambda: {1: 32 << 10, 2: 128 << 10}
    )
    monkeypatch.setattr("minidl.profiling.ceilings.SMALLEST_MEMORY", 1 << 20)
