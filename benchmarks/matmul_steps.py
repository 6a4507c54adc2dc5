"""Measure the gain of each step towards minidl's matrix product, for docs/kernels.md.

    python benchmarks/matmul_steps.py
    python benchmarks/matmul_steps.py --isa avx2 --dtype float64 --sizes 64 250 1024

It compiles matmul_steps.pyx in a temporary folder, with the compiler flags of the instruction set,
checks every step against float64, and measures all steps and the peak of the core in alternating
rounds, on one thread. It needs a C compiler, Cython and setuptools, as minidl's own kernels do: the
dependency group `dev` has both packages.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from time import process_time
from types import ModuleType
from typing import Any

# NumPy's BLAS reads these when it is imported.
os.environ.pop("OPENBLAS_CORETYPE", None)  # would select the code of an older machine
os.environ.pop("OPENBLAS_L2_SIZE", None)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("VECLIB_MAXIMUM_THREADS", "1")

import numpy as np

from minidl import _kernels, kernels
from minidl.profiling import Probes
from minidl.profiling.ceilings import FMA, aligned
from minidl.profiling.measuring import in_c
from minidl.typing import Array

SOURCE = Path(__file__).with_suffix(".pyx")
HEADERS = Path(_kernels.__file__).parent / "loops" / "vector"  # simd.h and simd.pxd
SIZES = [45, 64, 250, 256, 1024]
SHAPES = [(1, 1, 1), (45, 45, 45), (64, 64, 64), (7, 300, 65), (250, 250, 250), (241, 129, 1030)]
SECONDS = 4e-3  # seconds of one step in a round; longer products run once
BEYOND = 16  # rows of memory behind a result: more than the height of any tile
SLOW = 0.5  # a product that takes more seconds is measured only once
LARGEST_IN_PYTHON = 64  # the largest product by loops in Python
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
}
LABELS = {
    "definition": "1 definition, in Python",
    "numpy": "1 twin: `a @ b`",
    "plain_loops": "2 plain loops",
    "loop_order": "3 loop order",
    "register_tile": "4 register tile",
    "vector_tile": "5 vector type",
    "blocking": "6 blocking",
    "packing": "7 packing",
    "edges": "8 edges",
    "minidl": "9 minidl",
}


class UnavailableError(RuntimeError):
    """The steps cannot be compiled here."""


def definition(a: Array, b: Array) -> Array:
    """Compute c[i, j] = sum over p of a[i, p] * b[p, j], in Python."""
    c = np.zeros((len(a), b.shape[1]), a.dtype)
    for i in range(len(a)):
        for j in range(b.shape[1]):
            for p in range(len(b)):
                c[i, j] += a[i, p] * b[p, j]
    return c


def compile_steps(isa: str, dtype: Any, folder: Path) -> ModuleType:
    """Compile the steps in this folder, with the flags of minidl's kernels."""
    try:
        from Cython.Build import cythonize
        from setuptools import Distribution, Extension
    except ImportError as error:
        raise UnavailableError(f"{error}; try: pip install Cython setuptools") from error
    from minidl._kernels import dispatch

    name = f"matmul_steps_{isa}_{np.dtype(dtype).name}"
    inline = ("CYTHON_INLINE", "inline __attribute__((always_inline, unused))")
    wide = [("MINIDL_FLOAT64", "1")] if np.dtype(dtype) == np.float64 else []
    extension = Extension(
        name,
        [str(SOURCE)],
        include_dirs=[np.get_include(), str(HEADERS)],
        extra_compile_args=dispatch.build(isa)[1].split(),
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), inline, *wide],
    )
    try:
        sources = cythonize(
            [extension],
            build_dir=str(folder),
            include_path=[str(HEADERS)],
            compiler_directives=DIRECTIVES,
            quiet=True,
        )
        build = Distribution({"ext_modules": sources}).get_command_obj("build_ext")
        build.build_lib = build.build_temp = str(folder)
        build.ensure_finalized()
        build.run()
        spec = importlib.util.spec_from_file_location(name, build.get_ext_fullpath(name))
    except Exception as error:  # a compiler fails in many ways
        raise UnavailableError(f"the steps could not be compiled: {error}") from error
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Product:
    """One product, m x k x n, that every step can compute."""

    def __init__(self, steps: ModuleType, dtype: Any, m: int, k: int, n: int) -> None:
        rng = np.random.default_rng(0)
        self.a, self.b = aligned((m, k), dtype), aligned((k, n), dtype)
        self.a[...], self.b[...] = rng.standard_normal((m, k)), rng.standard_normal((k, n))
        self._room = aligned((m + BEYOND, n), dtype)
        self.out = self._room[:m]
        self._scratch = aligned((steps.scratch_bytes() // self.a.itemsize,), dtype)
        self._steps = steps
        self.names = [name for name in LABELS if name != "definition"]
        if max(m, k, n) <= LARGEST_IN_PYTHON:
            self.names.insert(0, "definition")

    def run(self, name: str, repeats: int = 1) -> None:
        """Compute out = a @ b by this step, so many times in a row, inside C if it is compiled."""
        if name == "definition":
            for _ in range(repeats):
                self.out[...] = definition(self.a, self.b)
        elif name == "numpy":
            for _ in range(repeats):
                np.matmul(self.a, self.b, out=self.out)
        elif name == "minidl":
            in_c(lambda: kernels.matmul(self.a, self.b, out=self.out), repeats)
        else:
            self._steps.multiply(name, self.a, self.b, self.out, self._scratch, repeats)

    def seconds(self, name: str, repeats: int) -> float:
        """Measure the CPU seconds of this process for so many runs."""
        start = process_time()
        self.run(name, repeats)
        return process_time() - start

    def error(self, name: str) -> float:
        """Return the largest error of an element of out, relative to the bound of rounding errors.

        It is infinite if something was written beyond out.
        """
        self._room.fill(np.nan)
        self.run(name)
        if not np.isnan(self._room[len(self.out) :]).all():
            return np.inf
        a, b = self.a.astype(np.float64), self.b.astype(np.float64)
        # Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.5.
        bound = (a.shape[1] + 1) * np.finfo(self.a.dtype).eps * (abs(a) @ abs(b))
        worst = np.max(abs(self.out - a @ b) / bound)
        return float(worst)


def check(steps: ModuleType, dtype: Any, shapes: list[tuple[int, int, int]]) -> None:
    """Raise AssertionError if a step is wrong at one of these shapes."""
    for shape in shapes:
        product = Product(steps, dtype, *shape)
        for name in product.names:
            error = product.error(name)
            if not error <= 1:
                raise AssertionError(f"{LABELS[name]} is wrong at {shape}: {error:.3g} bounds off")


def measure(products: list[Product], probes: Probes, rounds: int) -> list[dict[str, float]]:
    """Measure flops per second of every step, and of FMA, the peak: each in its best round.

    All of them run in each round, one after the other, so that other work slows all of them alike.
    Products that take longer than SLOW run once.
    """
    best = [dict.fromkeys([FMA, *product.names], 0.0) for product in products]
    repeats: dict[tuple[int, str], int] = {}
    for _ in range(rounds):
        for i, (product, speeds) in enumerate(zip(products, best, strict=True)):
            flops = 2 * product.a.size * product.b.shape[1]
            for name in product.names:
                count = repeats.get((i, name), 1)
                if speeds[name] and flops / speeds[name] > SLOW:
                    continue
                speeds[FMA] = max(speeds[FMA], probes.flops())
                speeds[name] = max(speeds[name], flops * count / product.seconds(name, count))
                repeats[i, name] = max(count, round(SECONDS * speeds[name] / flops))
    peak = max(speeds[FMA] for speeds in best)
    return [speeds | {FMA: peak} for speeds in best]


def table(figures: dict[int, dict[str, float]], markdown: bool) -> list[str]:
    """Format GFLOP/s, percent of the peak and gain over the step before, by step and size."""
    rows = [["step", *(f"{size}³" for size in figures)]]
    for name, label in LABELS.items():
        rows.append([label, *(cell(name, column) for column in figures.values())])
    if markdown:
        rows.insert(1, ["---"] + ["---:"] * len(figures))
        return ["| " + " | ".join(row) + " |" for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def cell(name: str, speeds: dict[str, float]) -> str:
    """Format the figures of one step at one size."""
    if name not in speeds:
        return ""
    text = f"{two_digits(speeds[name] / 1e9)} ({speeds[name] / speeds[FMA]:.0%})"
    names = list(speeds)
    if (at := names.index(name)) > names.index("plain_loops"):
        text += f" ×{two_digits(speeds[name] / speeds[names[at - 1]])}"
    return text


def two_digits(x: float) -> str:
    """Format a number with at least two digits, without an exponent."""
    return f"{x:.0f}" if x >= 9.95 else f"{x:#.2g}"


def options_of(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="What each step of the matrix product buys.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--isa", default=_kernels.isa, help="avx2, for example (%(default)s)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    options = parser.parse_args(argv)
    if min(*options.sizes, options.rounds) < 1:
        parser.error("sizes and rounds must be at least 1")
    return options


def main(argv: list[str] | None = None) -> None:
    """Compile, check, measure, print."""
    options = options_of(argv)
    if options.isa == "reference" or options.isa not in _kernels.available():
        sys.exit(f"no compiled kernels of {options.isa}; there are {_kernels.available()}")
    _kernels.select(options.isa)
    with tempfile.TemporaryDirectory() as folder:
        try:
            steps = compile_steps(options.isa, options.dtype, Path(folder))
        except UnavailableError as error:
            sys.exit(str(error))
        check(steps, options.dtype, SHAPES)
        products = [Product(steps, options.dtype, size, size, size) for size in options.sizes]
        measured = measure(products, Probes(options.dtype), options.rounds)
        peak = measured[0][FMA] / 1e9
        figures = dict(zip(options.sizes, measured, strict=True))
        print(f"{options.isa} {options.dtype}, one thread; peak: {peak:.0f} GFLOP/s")
        print("GFLOP/s of every step (of the peak) × gain over the step before\n")
        print("\n".join(table(figures, options.markdown)))


if __name__ == "__main__":
    main()
