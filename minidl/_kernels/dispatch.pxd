cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.kernel_table cimport KernelTable, MatmulArgs, kernel_fn

cdef const KernelTable *table_of(ndarray x) except NULL
cdef ndarray dense(ndarray x)
cdef ndarray copied(ndarray x)
cdef ndarray same(ndarray x, ndarray like, str name)
cdef void *data_of(ndarray x) noexcept
cdef ndarray shaped(ndarray x, ndarray like, tuple shape, str name)
cdef ndarray empty(ndarray like, tuple shape)
cdef ndarray updated(ndarray x, ndarray like, str name)
cdef int apart(ndarray changed, tuple others, str name) except -1
cdef ndarray new(int ndim, cnp.npy_intp *shape, int typenum)
cdef ndarray empty_like(ndarray x)
cdef Py_ssize_t run(
    str name, str roles, kernel_fn kernel, void *args, size_t size, size_t scratch=*
) except -1
cdef Py_ssize_t run_with_scratch(
    str name, str roles, kernel_fn kernel, void *args, size_t size, void **scratch,
    Py_ssize_t *step, size_t needed
) except -1
cdef int run_matmul(const KernelTable *table, MatmulArgs *args) except -1
cdef long change_count() noexcept
cdef bint is_recording() noexcept
