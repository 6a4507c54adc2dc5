"""Build of the compiled kernels; everything else is declared in pyproject.toml.

The loops in minidl/_kernels/loops are compiled once per instruction set and dtype. Where an
extension cannot be built, minidl runs on what is left, down to the NumPy twin; with
MINIDL_REQUIRE_KERNELS=1 that is an error instead.
"""

import os
import platform
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

KERNELS = Path("minidl/_kernels")
VECTOR = KERNELS / "loops" / "vector"
X86 = platform.machine().lower() in ("x86_64", "amd64")

# -O3: at -O2 the loops run at half speed. gnu11, because c11 turns contraction off.
# No -ffast-math: it would change the floating-point mode of the whole process.
# prfchw: a cache line that is asked for to be written (weights, tiles of C) is taken from other
# cores, at once and not when the store comes. Processors with AVX2 that lack it do nothing then.
COMMON = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
AVX2 = ["-mavx2", "-mfma", "-mprfchw"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
INSTRUCTION_SETS = {"baseline": []}
if X86:
    INSTRUCTION_SETS |= {"avx2": AVX2, "avx512": [*AVX2, *AVX512]}
# For those who change a kernel: MINIDL_BUILDS="baseline" compiles this instruction set alone.
if chosen := os.environ.get("MINIDL_BUILDS"):
    INSTRUCTION_SETS = {isa: flags for isa, flags in INSTRUCTION_SETS.items() if isa in chosen}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
}


def is_sanitized():
    """Whether this build is for a sanitizer, which checks more, and names functions in reports."""
    return "-fsanitize" in os.environ.get("CFLAGS", "")


def check_flags():
    """Of what Python calls: checks of the stack, and of copies whose room the compiler knows.

    The loops do without. They see only memory whose size has been checked, and a check in the
    innermost of them would cost time.
    """
    if is_sanitized():
        return []
    return ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]


def strip_flags():
    """For the linker: leave out symbols and what debuggers read, nine tenths of the bytes."""
    if is_sanitized() or sys.platform == "win32":
        return []
    return ["-Wl,-S,-x"] if sys.platform == "darwin" else ["-Wl,-s"]


def extension(name, flags=(), macros=(), depends=()):
    """An extension of minidl._kernels that may fail to build."""
    source = (KERNELS / name.replace(".", "/")).with_suffix(".pyx")
    return Extension(
        f"minidl._kernels.{name}",
        [str(source if source.exists() else source.with_suffix(".py"))],
        depends=["setup.py", *map(str, depends)],
        include_dirs=[numpy.get_include(), str(KERNELS / "executor"), str(VECTOR)],
        extra_compile_args=[*COMMON, *flags],
        extra_link_args=strip_flags(),
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), *macros],
    )


def flags_in_words():
    """The flags, for `minidl doctor`."""
    sets = {"all": COMMON, **INSTRUCTION_SETS}
    return ";".join(f"{name}={' '.join(flags)}" for name, flags in sets.items())


def extensions():
    """The Python-facing calls, and one extension per instruction set and dtype."""
    checks = check_flags()
    yield extension("dispatch", checks, [("MINIDL_FLAGS", f'"{flags_in_words()}"')])
    for name in ("hooks", "call", "composites", "windows", "convolution", "pooling"):
        yield extension(name, checks)
    executor = KERNELS / "executor"
    for path in sorted({*executor.glob("*.pyx"), executor / "step_call.py"}):
        yield extension(f"executor.{path.stem}", checks, depends=executor.glob("*.[hp]*"))
    loops = [*KERNELS.glob("loops/**/*.*"), KERNELS / "builds" / "loops.pxi"]
    # The microkernel must be inlined to know its constants, so that they unroll its loops.
    inline = ("CYTHON_INLINE", "inline __attribute__((always_inline, unused))")
    for isa, flags in INSTRUCTION_SETS.items():
        for dtype in ("f32", "f64"):
            real = [("MINIDL_FLOAT64", "1")] if dtype == "f64" else []
            yield extension(f"builds.{isa}_{dtype}", flags, [inline, *real], loops)


class BuildPy(build_py):
    """build_py that takes nothing along which is no longer in the sources.

    ``build`` is used again by the next ``pip install .``, modules that were deleted since included.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        build_ext = self.get_finalized_command("build_ext")
        current = [*self.get_outputs(include_bytecode=False), *build_ext.get_outputs()]
        kept = {Path(path).resolve() for path in current}
        for path in sorted(Path(self.build_lib, "minidl").rglob("*")):
            if path.is_file() and path.resolve() not in kept:
                path.unlink()


class BuildExt(build_ext):
    """build_ext on all cores."""

    def initialize_options(self):
        super().initialize_options()
        self.parallel = os.cpu_count() or 1

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            print("minidl: MSVC has no vector types; the NumPy twin will be used", file=sys.stderr)
            self.extensions = []
        super().build_extensions()

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as error:
            if os.environ.get("MINIDL_REQUIRE_KERNELS") == "1":
                raise
            # Whatever kept it from being built, the package works without it.
            print(f"minidl: {ext.name} could not be built ({error})", file=sys.stderr)
            ext.optional = True  # so that nobody looks for its file


setup(
    ext_modules=cythonize(
        list(extensions()),
        compiler_directives=DIRECTIVES,
        include_path=[str(KERNELS), str(VECTOR)],
    ),
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
)
