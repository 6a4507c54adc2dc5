from numpy cimport ndarray

cdef dict ACTIVATIONS    # codes by name
cdef int one_dtype(ndarray a, ndarray b, str name) except -1
cdef int add_column_sum(
    int real, ndarray x, Py_ssize_t rows, Py_ssize_t columns, ndarray sums
) except -1
