"""Time every kernel and its NumPy twin by pytest-benchmark: the cases of ``minidl bench``.

    pytest benchmarks --benchmark-group-by=group -k "adam or matmul"
    pytest benchmarks --benchmark-save=before; ...; pytest benchmarks --benchmark-compare

Each figure includes the call from Python, which ``minidl bench`` leaves out.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from minidl import kernels
from minidl._kernels import twins as reference
from minidl.profiling import Case, cases


@pytest.mark.benchmark(max_time=0.2)
@pytest.mark.parametrize("backend", [kernels, reference], ids=["minidl", "twin"])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_kernel(benchmark: Any, case: Case, backend: ModuleType) -> None:
    benchmark.group = case.name
    benchmark(case.call(backend))
