"""Argument structs of recorded kernels, as Python sees and changes them."""

from minidl._kernels.kernel_table cimport *

cdef dict ACTIVATIONS = {
    "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH,
    "relu_grad": RELU_GRAD, "sigmoid_grad": SIGMOID_GRAD, "tanh_grad": TANH_GRAD,
}


cdef MatmulArgs *product(bytearray args) noexcept:
    return <MatmulArgs *><char *>args


def product_shape(bytearray args not None):
    """(m, k, n) of a matrix product."""
    return product(args).m, product(args).k, product(args).n


def is_plain(bytearray args not None):
    """Whether a matrix product only writes its output, with no activation."""
    return not product(args).accumulate and product(args).activation == NO_ACTIVATION


def set_activation(bytearray args not None, str name not None):
    """Have a matrix product apply this activation, or this gradient of one, to its output."""
    product(args).activation = ACTIVATIONS[name]


def set_scratch(bytearray args not None, size_t address, Py_ssize_t step):
    """Where a matrix product finds its scratch memory: `step` bytes for each thread."""
    product(args).scratch = <void *>address
    product(args).scratch_step = step


def write_whole(str kernel not None, bytearray args not None, int slot, Py_ssize_t size):
    """If this kernel adds to all `size` elements behind a slot, have it add to zero instead, and
    return True."""
    cdef MatmulArgs *matmul = product(args)
    cdef ColumnSumArgs *sums = <ColumnSumArgs *><char *>args
    cdef BatchNormGradArgs *norm = <BatchNormGradArgs *><char *>args
    if kernel == "matmul" and matmul.m * matmul.n == size and matmul.c_row == matmul.n:
        matmul.accumulate = ADD_TO_ZERO
        return True
    if kernel == "column_sum" and slot == 1 and sums.columns == size:
        sums.accumulate = ADD_TO_ZERO
        return True
    if kernel == "batch_norm_grad" and norm.columns == size and slot == 6:
        norm.accumulate_gamma = ADD_TO_ZERO
        return True
    if kernel == "batch_norm_grad" and norm.columns == size and slot == 7:
        norm.accumulate_beta = ADD_TO_ZERO
        return True
    return False


def cleared_bytes(bytearray args not None, Py_ssize_t itemsize):
    """How much memory a `clear` sets to zero."""
    return (<ClearArgs *><char *>args).n * itemsize


def with_count(bytearray args not None, Py_ssize_t n):
    """A copy of the arguments of a `clear`, for n elements."""
    cdef bytearray copy = bytearray(args)
    (<ClearArgs *><char *>copy).n = n
    return copy
