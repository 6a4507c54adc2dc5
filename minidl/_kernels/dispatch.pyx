"""Select the build of the loops that serves calls: one that this CPU has and that was compiled."""

import importlib
import platform

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.arguments cimport (
    ColumnSumArgs, ConvArgs, MatmulArgs, PeakArgs, ReducePartialsArgs
)
from minidl._kernels.call cimport Call, check_writable, real_of, run

from minidl._kernels import call

cnp.import_array()

set_shares, set_repeats = call.set_shares, call.set_repeats

cdef extern from *:
    """
    #ifdef __clang__
    #define COMPILER __VERSION__
    #else
    #define COMPILER "GCC " __VERSION__
    #endif
    #if defined(__x86_64__) || defined(_M_X64)
    static int cpu_has_avx2(void) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    static int cpu_has_avx512(void) {
        return cpu_has_avx2()
            && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int cpu_has_avx2(void) { return 0; }
    static int cpu_has_avx512(void) { return 0; }
    #endif
    """
    bint cpu_has_avx2()
    bint cpu_has_avx512()
    const char *MINIDL_FLAGS
    const char *compiler_version "COMPILER"

# Functions and numbers of a build beside its kernels, for float32 and float64.
cdef enum:
    FLOPS_OF_PEAK, SCRATCH, PRODUCT_REDUCTION, SUM_REDUCTION, PRODUCT_SPLIT_K, SUM_SPLIT_K,
    CONV_SCRATCH, EXTRAS

cdef size_t extras[2][EXTRAS]

ctypedef Py_ssize_t (*scratch_fn)(const MatmulArgs *args) noexcept nogil
ctypedef Py_ssize_t (*conv_scratch_fn)(const ConvArgs *args) noexcept nogil
ctypedef bint (*product_reduction_fn)(
    const MatmulArgs *args, ReducePartialsArgs *reduction
) noexcept nogil
ctypedef bint (*sum_reduction_fn)(
    const ColumnSumArgs *args, ReducePartialsArgs *reduction
) noexcept nogil


def supported():
    """List the instruction sets that this CPU has, worst first."""
    return ["baseline"] + ["avx2"] * cpu_has_avx2() + ["avx512"] * cpu_has_avx512()


def build(isa):
    """Return the compiler of this build, and its flags for an instruction set."""
    flags = dict(pair.split("=", 1) for pair in MINIDL_FLAGS.decode().split(";"))
    return compiler_version.decode(), f"{flags['all']} {flags.get(isa, '')}".rstrip()


def load(isa):
    """Import the two modules of an instruction set; raises ImportError if they were not built."""
    if isa not in supported():
        raise ImportError(f"this CPU ({platform.machine()}) has no {isa}")
    names = [f"minidl._kernels.builds.{isa}_{dtype}" for dtype in ("f32", "f64")]
    return [importlib.import_module(name) for name in names]


def select(isa):
    """Run the kernels of this instruction set from now on.

    Raises ImportError, before anything changes, if the loop of a declared kernel was not compiled,
    or was for another argument struct.
    """
    cdef int real
    builds = [module.KERNELS for module in load(isa)]
    cure = "build it (python setup.py build_ext --inplace), or set MINIDL_ISA=reference"
    for name, kernel in call.CALLS.items():
        for loops in builds:
            if name not in loops:
                raise ImportError(
                    f"kernel {name!r} has a twin but no compiled loop in {isa}: {cure}"
                )
            if loops[name][1] != kernel.nbytes:
                raise ImportError(
                    f"kernel {name!r} has another struct in {isa} than in its signature: {cure}"
                )
    for real, kernels in enumerate(builds):
        for place, name in enumerate((
            "peak_flops", "matmul_scratch", "matmul_reduction", "column_sum_reduction",
            "matmul_split_k", "column_sum_split_k", "conv_scratch",
        )):
            extras[real][place] = kernels[name][0]
    for name, kernel in call.CALLS.items():
        kernel.set_functions(*[kernels[name][0] for kernels in builds])


def fma_peak(ndarray x not None, Py_ssize_t repetitions):
    """Run only multiply-adds in the dtype of x; returns their flops."""
    cdef PeakArgs args
    cdef int real = real_of(x)
    shares, repeats = call.shares_and_repeats()
    if cnp.PyArray_NBYTES(check_writable(x, x, "fma_peak: x")) < 64 * shares:
        raise ValueError("fma_peak: x must hold 64 bytes for every share")
    args.x, args.n, args.repetitions = cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), repetitions
    run(call.CALLS["fma_peak"], real, &args)
    return extras[real][FLOPS_OF_PEAK] * repetitions * shares * repeats


def read_peak(ndarray x not None, Py_ssize_t repetitions):
    """Read all of x, ``repetitions`` times; returns the bytes read. Changes x[0]."""
    cdef PeakArgs args
    _, repeats = call.shares_and_repeats()
    if cnp.PyArray_NBYTES(check_writable(x, x, "read_peak: x")) % 512:
        raise ValueError("read_peak: x must hold a multiple of 512 bytes")
    args.x, args.n, args.repetitions = cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), repetitions
    run(call.CALLS["read_peak"], real_of(x), &args)
    return cnp.PyArray_NBYTES(x) * repetitions * repeats


cdef Py_ssize_t product_scratch_of(int real, const MatmulArgs *args) noexcept:
    """Return the bytes of scratch memory that each thread needs for a product."""
    return (<scratch_fn>extras[real][SCRATCH])(args)


cdef Py_ssize_t conv_scratch_of(int real, const ConvArgs *args) noexcept:
    """Return the bytes of scratch memory that each thread needs for a convolution."""
    return (<conv_scratch_fn>extras[real][CONV_SCRATCH])(args)


def product_scratch(bytearray args not None, ndarray like not None):
    """Return the bytes of scratch memory that each thread needs for a recorded product."""
    return product_scratch_of(real_of(like), <const MatmulArgs *><char *>args)


def split_k(kernel, bytearray args not None, ndarray like not None):
    """Split a recorded sum along its rows between threads, if that pays (split_k.pxi).

    Returns the function that does so, the arguments of the kernel that adds the partial sums, and
    how many elements of memory both need; None if it does not pay.
    """
    cdef ReducePartialsArgs reduction
    cdef char *at = args
    cdef int real = real_of(like)
    cdef size_t function = 0
    if kernel.fuses and (<product_reduction_fn>extras[real][PRODUCT_REDUCTION])(
        <MatmulArgs *>at, &reduction
    ):
        function = extras[real][PRODUCT_SPLIT_K]
    if not kernel.fuses and (<sum_reduction_fn>extras[real][SUM_REDUCTION])(
        <ColumnSumArgs *>at, &reduction
    ):
        function = extras[real][SUM_SPLIT_K]
    if function == 0:
        return None
    reduction.out = reduction.partials = NULL
    args = bytearray((<char *>&reduction)[:sizeof(reduction)])
    return function, args, reduction.n * (reduction.count + 1)


def function_of(str kernel not None, ndarray like not None):
    """Return the address of the loop that serves a kernel for arrays of this dtype."""
    return (<Call>call.CALLS[kernel]).function(real_of(like))
