"""Run SciPy's BLAS, and expit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy
from scipy.linalg import blas
from scipy.special import expit

from comparison.measuring import Contender
from comparison.suites import KernelTask


def about() -> str:
    """Return name and version."""
    return f"SciPy {scipy.__version__}"


def kernels(task: KernelTask, threads: list[int]) -> Iterator[Contender]:
    """Call gemm without a copy, and the logistic function."""
    arguments = task.case.arguments()
    if task.case.kernel == "matmul":
        call = _product(**arguments)
        yield Contender("SciPy", call, check=lambda: {"result": call().T.copy()})
    elif task.case.kernel == "sigmoid":
        x = arguments["x"]
        y = np.empty_like(x)
        yield Contender("SciPy", partial(expit, x, y), check=lambda: {"result": expit(x)})


def _product(a: Any, b: Any, out: Any, transpose_a: bool, transpose_b: bool) -> Any:
    """Compute Cᵀ = op(B)ᵀ · op(A)ᵀ: BLAS takes transposes of NumPy's arrays without a copy."""
    gemm = blas.sgemm if a.dtype == np.float32 else blas.dgemm
    # alpha, a, b, beta, c, trans_a, trans_b, overwrite_c
    return partial(gemm, 1.0, b.T, a.T, 0.0, out.T, int(transpose_b), int(transpose_a), 1)
