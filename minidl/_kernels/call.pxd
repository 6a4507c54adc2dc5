cimport numpy as cnp
from cpython.object cimport PyObject
from numpy cimport ndarray

from minidl._kernels.arguments cimport kernel_fn

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc

cdef enum:
    MOST_OPERANDS = 16
    MOST_DIMENSIONS = 4
    MOST_SIZES = 12
    MOST_PARAMETERS = 12
    MOST_WORDS = 40

cdef struct Dimension:
    int size                   # its place among the sizes; -1: literal, -2: any
    int factor
    int other                  # the size that this one equals, if it is not 1; else -1

cdef struct OperandOf:
    # One operand of a declared kernel, parsed.
    int dtype                  # of NumPy; -1: that of the kernel, -2: a struct of an optimizer
    int dimensions
    Dimension dimension[MOST_DIMENSIONS]
    bint leads                 # whether the first stands for all leading dimensions
    bint optional, changed, is_index

cdef struct ScalarOf:
    int word
    bint is_double
    bint bounded, above, below    # low < x instead of low <= x, and x < high
    double low, high

cdef class Call:
    """The compiled call of a declared kernel."""
    cdef readonly object kernel
    cdef readonly str name
    cdef readonly size_t nbytes
    cdef kernel_fn functions[2]    # for float32 and float64
    cdef int count, operand_count, result_count, size_count
    cdef int parameter[MOST_PARAMETERS]    # an operand, or -1 - a scalar
    cdef OperandOf operands[MOST_OPERANDS]
    cdef ScalarOf scalars[MOST_PARAMETERS]
    cdef bint matrices             # whether no dimension may be empty
    cdef bint changes              # whether any operand is changed in place
    cdef int words, adding, accumulate    # from word `adding` on, all are `accumulate`
    cdef tuple parameters, defaults
    cdef bytes doc, method_name
    cdef PyMethodDef method
    cdef int parse(self, int place, operand, dict places, str lead, int widest) except -1
    cdef int parse_scalar(self, int place, scalar) except -1
    cdef int bind(
        self, PyObject **places, PyObject **given, Py_ssize_t count, PyObject *names
    ) except -1
    cdef int take_number(self, ScalarOf *of, object value, size_t *words) except -1
    cdef int check_dtype(self, int place, ndarray array, int real) except -1
    cdef bint fits(
        self, OperandOf *of, ndarray array, Py_ssize_t *sizes, ndarray first, int leading
    ) noexcept
    cdef misfit(self, int place, ndarray array, Py_ssize_t *sizes, ndarray first, int leading)
    cdef int check_apart(self, PyObject **arrays) except -1
    cdef ndarray result(
        self, OperandOf *of, Py_ssize_t *sizes, int real, ndarray first, int leading
    )
    cdef refused(self, Py_ssize_t answer, PyObject **given, Py_ssize_t *sizes)

cdef int real_of(ndarray x) except -1
cdef ndarray contiguous(ndarray x)
cdef ndarray copied(ndarray x)
cdef ndarray check_like(ndarray x, ndarray like, str name)
cdef void *data_of(ndarray x) noexcept
cdef ndarray check_shape(ndarray x, ndarray like, tuple shape, str name)
cdef ndarray check_writable(ndarray x, ndarray like, str name)
cdef int check_no_overlap(ndarray changed, tuple others, str name) except -1
cdef ndarray whole_numbers(ndarray x, str name)
cdef ndarray lengths_of(ndarray lengths, Py_ssize_t batch, str name)
cdef ndarray allocate(int ndim, cnp.npy_intp *shape, int typenum)
cdef ndarray allocate_shape(tuple shape, int typenum)
cdef ndarray allocate_like(ndarray x)
cdef Py_ssize_t run(Call call, int real, void *args, size_t scratch=*) except -1
cdef Py_ssize_t run_with_scratch(
    Call call, int real, void *args, void **scratch, Py_ssize_t *step, size_t needed
) except -1
