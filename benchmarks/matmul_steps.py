"""What each step towards minidl's matrix product buys: the measurements of docs/kernels.md.

    python benchmarks/matmul_steps.py
    python benchmarks/matmul_steps.py --isa avx2 --dtype float64 --sizes 64 250 1024

Compiles matmul_steps.pyx in a temporary folder, with the compiler flags of the instruction set
that serves; checks every step against the definition; measures them round by round, each beside
the peak of the core. One thread. Needs a C compiler, Cython and setuptools, as minidl's own
kernels do: the extra `dev` has both packages.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from types import ModuleType
from typing import Any

for _library in ("OPENBLAS", "MKL", "OMP", "VECLIB"):  # read when NumPy is imported
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels.reference import Array
from minidl.bench import Probes
from minidl.bench.ceilings import aligned, repeats_for
from minidl.bench.measuring import in_c

SOURCE = Path(__file__).with_suffix(".pyx")
HEADERS = Path(kernels.__file__).parent  # of simd.h and simd.pxd
SIZES = [45, 64, 250, 256, 1024]
SHAPES = [(1, 1, 1), (45, 45, 45), (64, 64, 64), (7, 300, 65), (250, 250, 250), (241, 129, 1030)]
SECONDS = 4e-3  # of one step in one round, or one product
LARGEST_IN_PYTHON = 64  # of a product by loops in Python
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

Figure = tuple[float, float]  # flops per second, and the fraction of the peak


class Unavailable(RuntimeError):
    """The steps cannot be compiled here."""


def definition(a: Array, b: Array) -> Array:
    """c[i, j] = sum over p of a[i, p] * b[p, j], in Python."""
    c = np.zeros((len(a), b.shape[1]), a.dtype)
    for i in range(len(a)):
        for j in range(b.shape[1]):
            for p in range(len(b)):
                c[i, j] += a[i, p] * b[p, j]
    return c


def compile_steps(isa: str, dtype: Any, folder: Path) -> ModuleType:
    """The steps, compiled in this folder as minidl's kernels of this instruction set are."""
    try:
        from Cython.Build import cythonize
        from setuptools import Distribution, Extension
    except ImportError as error:
        raise Unavailable(f'{error}; it comes with: pip install "minidl[dev]"') from error
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
        raise Unavailable(f"the steps could not be compiled: {error}") from error
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Product:
    """One product, m x k x n, that every step can compute."""

    def __init__(self, steps: ModuleType, dtype: Any, m: int, k: int, n: int) -> None:
        rng = np.random.default_rng(0)
        self.a, self.b = aligned((m, k), dtype), aligned((k, n), dtype)
        self.a[...], self.b[...] = rng.standard_normal((m, k)), rng.standard_normal((k, n))
        self.out = aligned((m, n), dtype)
        self._scratch = aligned((steps.scratch_bytes() // self.a.itemsize,), dtype)
        self._steps = steps
        self.names = [name for name in LABELS if name != "definition"]
        if max(m, k, n) <= LARGEST_IN_PYTHON:
            self.names.insert(0, "definition")

    def run(self, name: str, repeats: int = 1) -> None:
        """out = a @ b by this step, so many times in a row; inside C where the step is."""
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
        """Of so many runs."""
        start = perf_counter()
        self.run(name, repeats)
        return perf_counter() - start

    def error(self, name: str) -> float:
        """The largest error of an element of out, in units of what rounding may cause."""
        self.out.fill(np.nan)
        self.run(name)
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


def measure(product: Product, probes: Probes, rounds: int) -> dict[str, Figure]:
    """The median over the rounds; in a round all steps run, each just after a look at the peak."""
    flops = 2 * product.a.size * product.b.shape[1]
    repeats = {
        name: repeats_for(lambda count, name=name: product.seconds(name, count), SECONDS)
        for name in product.names
    }
    speeds: dict[str, list[float]] = {name: [] for name in repeats}
    fractions: dict[str, list[float]] = {name: [] for name in repeats}
    for _ in range(rounds):
        for name, count in repeats.items():
            peak = probes.flops()
            speed = flops * count / product.seconds(name, count)
            speeds[name].append(speed)
            fractions[name].append(speed / peak)
    return {name: (median(speeds[name]), median(fractions[name])) for name in repeats}


def table(figures: dict[int, dict[str, Figure]], markdown: bool) -> list[str]:
    """GFLOP/s, percent of the peak and gain over the step before, of every step and size."""
    head = ["step", *(f"{size}³" for size in figures)]
    rows = []
    for name, label in LABELS.items():
        row = [label]
        for column in figures.values():
            names = list(column)
            if name not in column:
                row.append("")
                continue
            speed, fraction = column[name]
            cell = f"{speed / 1e9:.3g} ({fraction:.0%})" if fraction > 0.001 else f"{speed / 1e9:.1g}"
            at = names.index(name)
            if at > names.index("plain_loops"):
                cell += f" ×{speed / column[names[at - 1]][0]:.2g}"
            row.append(cell)
        rows.append(row)
    if markdown:
        lines = [head, ["---"] + ["---:"] * len(figures), *rows]
        return ["| " + " | ".join(line) + " |" for line in lines]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        f"{line[0]:{widths[0]}}  " + "  ".join(map(str.rjust, line[1:], widths[1:]))
        for line in [head, *rows]
    ]


def main(argv: list[str] | None = None) -> None:
    """Compile, check, measure, print."""
    parser = argparse.ArgumentParser(description="What each step of the matrix product buys.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--isa", default=kernels.isa, help="avx2, for example (%(default)s)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    options = parser.parse_args(argv)
    if min(*options.sizes, options.rounds) < 1:
        parser.error("sizes and rounds must be at least 1")
    if options.isa == "reference" or options.isa not in kernels.available():
        parser.error(f"no compiled kernels for {options.isa}; there are {kernels.available()}")
    kernels.select(options.isa)
    with tempfile.TemporaryDirectory() as folder:
        try:
            steps = compile_steps(options.isa, options.dtype, Path(folder))
        except Unavailable as error:
            sys.exit(str(error))
        check(steps, options.dtype, SHAPES)
        probes = Probes(options.dtype)
        figures = {}
        for size in options.sizes:
            product = Product(steps, options.dtype, size, size, size)
            figures[size] = measure(product, probes, options.rounds)
        print(f"{options.isa} {options.dtype}, one thread: GFLOP/s (of the FMA peak) ×gain")
        print(f"FMA peak: {max(probes.flops() for _ in range(9)) / 1e9:.0f} GFLOP/s\n")
        print("\n".join(table(figures, options.markdown)))


if __name__ == "__main__":
    main()
