"""Elementwise kernels: the Python-facing calls, twins in reference.py."""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport (
    copied, dense, empty_like, new, run, same, table_of, updated
)
from minidl._kernels.kernel_table cimport *

cnp.import_array()


cdef ndarray unary(str name, kernel_fn kernel, ndarray x):
    cdef UnaryArgs args
    cdef ndarray y
    x = dense(x)
    y = empty_like(x)
    args.x, args.y, args.n = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(x)
    run(name, "rw", kernel, &args, sizeof(args))
    return y


cdef ndarray binary(str name, kernel_fn kernel, ndarray a, ndarray b, str second):
    cdef BinaryArgs args
    cdef ndarray y
    a, b = dense(a), same(b, a, second)
    y = empty_like(a)
    args.a, args.b, args.y = cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_DATA(y)
    args.n = cnp.PyArray_SIZE(a)
    run(name, "rrw", kernel, &args, sizeof(args))
    return y


def copy(ndarray x not None):
    """y = x, C-contiguous."""
    return copied(x)


def clear(ndarray x not None):
    """x ← 0, in place."""
    cdef ClearArgs args
    cdef const KernelTable *table = table_of(x)
    x = updated(x, x, "clear: x")
    args.x, args.n = cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x)
    run("clear", "w", table.clear, &args, sizeof(args))


def add(ndarray a not None, ndarray b not None):
    """y = a + b."""
    return binary("add", table_of(a).add, a, b, "add: b")


def scale(ndarray x not None, double factor):
    """x ← factor · x, in place."""
    cdef ScaleArgs args
    cdef const KernelTable *table = table_of(x)
    x = updated(x, x, "scale: x")
    args.x, args.n, args.factor = cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), factor
    run("scale", "u", table.scale, &args, sizeof(args))


def relu(ndarray x not None):
    """y = max(0, x)."""
    return unary("relu", table_of(x).relu, x)


def relu_grad(ndarray dy not None, ndarray y not None):
    """dx = dy where y > 0, else 0."""
    return binary("relu_grad", table_of(dy).relu_grad, dy, y, "relu_grad: y")


def exp(ndarray x not None):
    """y = exp(x)."""
    return unary("exp", table_of(x).exp, x)


def log(ndarray x not None):
    """y = log(x), the natural logarithm."""
    return unary("log", table_of(x).log, x)


def sigmoid(ndarray x not None):
    """y = 1 / (1 + exp(-x))."""
    return unary("sigmoid", table_of(x).sigmoid, x)


def sigmoid_grad(ndarray dy not None, ndarray y not None):
    """dx = dy · y · (1 - y)."""
    return binary("sigmoid_grad", table_of(dy).sigmoid_grad, dy, y, "sigmoid_grad: y")


def tanh(ndarray x not None):
    """y = tanh(x)."""
    return unary("tanh", table_of(x).tanh, x)


def tanh_grad(ndarray dy not None, ndarray y not None):
    """dx = dy · (1 - y²)."""
    return binary("tanh_grad", table_of(dy).tanh_grad, dy, y, "tanh_grad: y")


def dropout_key(ndarray state not None):
    """Draw the two 32-bit words that decide a mask; ``state`` is uint64 {seed, calls so far}."""
    cdef DropoutKeyArgs args
    cdef const KernelTable *table
    cdef cnp.npy_intp two = 2
    cdef ndarray key = new(1, &two, cnp.NPY_UINT32)
    if cnp.PyArray_TYPE(state) != cnp.NPY_UINT64 or cnp.PyArray_SIZE(state) != 2:
        raise TypeError(f"dropout_key: state must be two uint64, got {state!r}")
    if not cnp.PyArray_ISCARRAY(state):
        raise ValueError("dropout_key: state must be C-contiguous and writeable")
    args.state = <unsigned long long *>cnp.PyArray_DATA(state)
    args.key = <unsigned int *>cnp.PyArray_DATA(key)
    # The same for either dtype: it touches integers only.
    table = table_of(cnp.PyArray_EMPTY(0, NULL, cnp.NPY_FLOAT32, 0))
    run("dropout_key", "uw", table.dropout_key, &args, sizeof(args))
    return key


def dropout(ndarray x not None, ndarray key not None, double p):
    """y = x / (1 - p) with probability 1 - p, else 0, decided by the key."""
    cdef DropoutArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray y
    if cnp.PyArray_TYPE(key) != cnp.NPY_UINT32 or cnp.PyArray_SIZE(key) != 2:
        raise TypeError(f"dropout: key must be two uint32, got {key!r}")
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), got {p}")
    x, key = dense(x), dense(key)
    y = empty_like(x)
    args.x, args.y, args.n = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(x)
    args.key, args.p = <const unsigned int *>cnp.PyArray_DATA(key), p
    run("dropout", "rrw", table.dropout, &args, sizeof(args))
    return y
