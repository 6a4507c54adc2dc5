"""Which build of the kernels serves, and how one of them is run.

``select`` asks the CPU and takes one kernel table per dtype. The calls_*.pyx check their
arguments with the functions below, fill an argument struct, and hand it to ``run``.
"""

import importlib
import platform

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from numpy cimport ndarray

from minidl._kernels.kernel_table cimport KernelTable, MatmulArgs, PeakArgs, kernel_fn

cnp.import_array()

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

cdef const KernelTable *FLOAT32 = NULL
cdef const KernelTable *FLOAT64 = NULL
cdef int SHARES = 1
cdef long REPEATS = 1


def supported():
    """Instruction sets this CPU has, worst first."""
    return ["baseline"] + ["avx2"] * cpu_has_avx2() + ["avx512"] * cpu_has_avx512()


def build(isa):
    """The compiler of this build, and its flags for an instruction set."""
    flags = dict(pair.split("=", 1) for pair in MINIDL_FLAGS.decode().split(";"))
    return compiler_version.decode(), f"{flags['all']} {flags.get(isa, '')}".rstrip()


def load(isa):
    """The two modules of one instruction set; ImportError if they were not built."""
    if isa not in supported():
        raise ImportError(f"this CPU ({platform.machine()}) has no {isa}")
    names = [f"minidl._kernels.isa_{isa}_{dtype}" for dtype in ("f32", "f64")]
    return [importlib.import_module(name) for name in names]


def select(isa):
    """Run the kernels of this instruction set from now on."""
    global FLOAT32, FLOAT64
    f32, f64 = load(isa)
    FLOAT32 = <const KernelTable *>PyCapsule_GetPointer(f32.kernel_table, "minidl.kernel_table")
    FLOAT64 = <const KernelTable *>PyCapsule_GetPointer(f64.kernel_table, "minidl.kernel_table")


def set_shares(int shares):
    """Run every kernel as this many shares, one after the other.

    A share is what one thread of a team would compute; the tests use this to show that
    any number of them gives the same bits.
    """
    global SHARES
    if shares < 1:
        raise ValueError(f"shares must be >= 1, got {shares}")
    SHARES = shares


def set_repeats(long repeats):
    """Run every kernel this many times in a row, inside C: for benchmarks, which so measure
    the kernel and not the call from Python."""
    global REPEATS
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    REPEATS = repeats


def fma_peak(ndarray x not None, Py_ssize_t repetitions):
    """Run nothing but multiply-adds in the dtype of x; returns their flops."""
    cdef PeakArgs args
    cdef const KernelTable *table = table_of(x)
    if cnp.PyArray_NBYTES(updated(x, x, "fma_peak: x")) < 64:
        raise ValueError("fma_peak: x must hold 64 bytes")
    args.x, args.n, args.repetitions = cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), repetitions
    run(table.fma_peak, &args)
    return table.peak_flops * repetitions * SHARES * REPEATS


def read_peak(ndarray x not None, Py_ssize_t repetitions):
    """Read all of x, over and over; returns the bytes read. Changes x[0]."""
    cdef PeakArgs args
    cdef const KernelTable *table = table_of(x)
    if cnp.PyArray_NBYTES(updated(x, x, "read_peak: x")) % 512:
        raise ValueError("read_peak: x must hold a multiple of 512 bytes")
    args.x, args.n, args.repetitions = cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), repetitions
    run(table.read_peak, &args)
    return cnp.PyArray_NBYTES(x) * repetitions * SHARES * REPEATS


cdef const KernelTable *table_of(ndarray x) except NULL:
    """The kernels of this array's dtype."""
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        return FLOAT32
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64:
        return FLOAT64
    raise TypeError(f"expected a float32 or float64 array, got {x.dtype}")


cdef ndarray dense(ndarray x):
    """x itself if it is C-contiguous, aligned and in native byte order, else a copy that is."""
    if cnp.PyArray_ISCARRAY_RO(x):
        return x
    return cnp.PyArray_FROMANY(x, cnp.PyArray_TYPE(x), 0, 0, cnp.NPY_ARRAY_CARRAY_RO)


cdef ndarray same(ndarray x, ndarray like, str name):
    """x, dense, after checking that shape and dtype are those of another array."""
    if cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(like):
        raise TypeError(f"{name} must be {like.dtype}, got {x.dtype}")
    if not cnp.PyArray_SAMESHAPE(x, like):
        raise ValueError(f"{name} must have shape {(<object>like).shape}, got {(<object>x).shape}")
    return dense(x)


cdef ndarray updated(ndarray x, ndarray like, str name):
    """x, after checking that it can be changed in place and is of the dtype of another array."""
    if cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(like):
        raise TypeError(f"{name} must be {like.dtype}, got {x.dtype}")
    if not cnp.PyArray_ISCARRAY(x):
        raise ValueError(f"{name} is changed in place: it must be C-contiguous and writeable")
    return x


cdef int apart(ndarray changed, tuple others, str name) except -1:
    """Raise if an array that is changed in place shares memory with another argument."""
    cdef char *begin = <char *>cnp.PyArray_DATA(changed)
    cdef char *end = begin + cnp.PyArray_NBYTES(changed)
    cdef char *low
    cdef char *high
    cdef ndarray other
    cdef int i
    for other in others:
        low = <char *>cnp.PyArray_DATA(other)
        high = low + cnp.PyArray_ITEMSIZE(other)
        for i in range(other.ndim):
            if other.strides[i] < 0:
                low += (other.shape[i] - 1) * other.strides[i]
            else:
                high += (other.shape[i] - 1) * other.strides[i]
        if low < end and begin < high and cnp.PyArray_SIZE(other) > 0:
            raise ValueError(f"{name} is changed in place and overlaps another argument")
    return 0


cdef ndarray empty_like(ndarray x):
    """A new C-contiguous array of this shape and dtype."""
    return cnp.PyArray_EMPTY(
        cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0
    )


cdef Py_ssize_t run(kernel_fn kernel, const void *args) except -1:
    """Run a kernel and return what it returns: 0, or a number that says what is wrong."""
    cdef Py_ssize_t answer, status = 0
    cdef int share
    cdef long _repeat
    with nogil:
        for _repeat in range(REPEATS):
            for share in range(SHARES):
                answer = kernel(args, share, SHARES)
                if answer > 0 and (status == 0 or answer < status):
                    status = answer
    return status


cdef int run_matmul(const KernelTable *table, MatmulArgs *args) except -1:
    """Run the matrix product with scratch memory of its own."""
    args.scratch = PyMem_RawMalloc(table.matmul_scratch(args, SHARES))
    if args.scratch == NULL:
        raise MemoryError
    try:
        run(table.matmul, args)
    finally:
        PyMem_RawFree(args.scratch)
    return 0
