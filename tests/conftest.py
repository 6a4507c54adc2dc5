"""What all tests share: the backends to run on, and repeatable random examples."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from minidl import _kernels as kernels

settings.register_profile("minidl", derandomize=True, deadline=None, database=None)
settings.load_profile("minidl")


def instruction_sets() -> list[object]:
    """Every set this CPU has, built or not: one that was not built must fail its tests."""
    try:
        dispatch = importlib.import_module("minidl._kernels.dispatch")
    except ImportError:
        return [pytest.param("", marks=pytest.mark.skip(reason="no compiled kernels here"))]
    if os.environ.get("MINIDL_ISA") == "reference":
        return [pytest.param("", marks=pytest.mark.skip(reason="MINIDL_ISA=reference asked for"))]
    return list(dispatch.supported())


def use(name: str) -> Iterator[str]:
    before = kernels.isa
    if name not in kernels.available():
        pytest.fail(f"this CPU has {name}, but its kernels were not built")
    kernels.select(name)
    yield name
    kernels.select(before)


@pytest.fixture(params=instruction_sets())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """One instruction set after the other."""
    yield from use(request.param)


@pytest.fixture(params=["reference", *instruction_sets()])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The NumPy twin, then one instruction set after the other."""
    yield from use(request.param)
