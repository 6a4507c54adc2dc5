from minidl._kernels.arguments cimport MatmulArgs

cdef Py_ssize_t product_scratch_of(int real, const MatmulArgs *args) noexcept
