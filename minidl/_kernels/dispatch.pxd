from minidl._kernels.arguments cimport ConvArgs, MatmulArgs

cdef Py_ssize_t product_scratch_of(int real, const MatmulArgs *args) noexcept
cdef Py_ssize_t conv_scratch_of(int real, const ConvArgs *args) noexcept
