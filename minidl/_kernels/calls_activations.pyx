"""Activations beyond those of calls_elementwise.pyx: the Python-facing calls.

Their twins are in reference_activations.py.
"""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport (
    apart, dense, empty_like, new, run, same, table_of, updated
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


cdef ndarray binary(str name, kernel_fn kernel, ndarray dy, ndarray x):
    cdef BinaryArgs args
    cdef ndarray dx
    dy, x = dense(dy), same(x, dy, name)
    dx = empty_like(dy)
    args.a, args.b, args.y = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x), cnp.PyArray_DATA(dx)
    args.n = cnp.PyArray_SIZE(dy)
    run(name, "rrw", kernel, &args, sizeof(args))
    return dx


cdef ndarray unary_with(str name, kernel_fn kernel, ndarray x, double parameter):
    cdef UnaryWithArgs args
    cdef ndarray y
    x = dense(x)
    y = empty_like(x)
    args.x, args.y, args.n = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(x)
    args.parameter = parameter
    run(name, "rw", kernel, &args, sizeof(args))
    return y


cdef ndarray binary_with(str name, kernel_fn kernel, ndarray dy, ndarray x, double parameter):
    cdef BinaryWithArgs args
    cdef ndarray dx
    dy, x = dense(dy), same(x, dy, name)
    dx = empty_like(dy)
    args.a, args.b, args.y = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x), cnp.PyArray_DATA(dx)
    args.n, args.parameter = cnp.PyArray_SIZE(dy), parameter
    run(name, "rrw", kernel, &args, sizeof(args))
    return dx


cdef Py_ssize_t columns_of(ndarray x, str name) except -1:
    if x.ndim < 1 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(f"{name} must have rows and columns, got shape {(<object>x).shape}")
    return x.shape[x.ndim - 1]


cdef ndarray along_rows(str name, kernel_fn kernel, ndarray x):
    cdef RowsArgs args
    cdef ndarray y
    args.columns = columns_of(x, name)
    x = dense(x)
    y = empty_like(x)
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    args.rows = cnp.PyArray_SIZE(x) // args.columns
    run(name, "rw", kernel, &args, sizeof(args))
    return y


cdef ndarray along_rows_grad(str name, kernel_fn kernel, ndarray dy, ndarray y):
    cdef RowsGradArgs args
    cdef ndarray dx
    args.columns = columns_of(dy, name)
    dy, y = dense(dy), same(y, dy, name)
    dx = empty_like(dy)
    args.dy, args.y, args.dx = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(y), cnp.PyArray_DATA(dx)
    args.rows = cnp.PyArray_SIZE(dy) // args.columns
    run(name, "rrw", kernel, &args, sizeof(args))
    return dx


def leaky_relu(ndarray x not None, double slope):
    """y = x where x > 0, else slope · x."""
    return unary_with("leaky_relu", table_of(x).leaky_relu, x, slope)


def leaky_relu_grad(ndarray dy not None, ndarray y not None, double slope):
    """dx = dy where y > 0, else slope · dy."""
    return binary_with("leaky_relu_grad", table_of(dy).leaky_relu_grad, dy, y, slope)


def elu(ndarray x not None, double alpha):
    """y = x where x ≥ 0, else α · (exp(x) - 1)."""
    return unary_with("elu", table_of(x).elu, x, alpha)


def elu_grad(ndarray dy not None, ndarray y not None, double alpha):
    """dx = dy where y ≥ 0, else dy · (y + α)."""
    return binary_with("elu_grad", table_of(dy).elu_grad, dy, y, alpha)


def silu(ndarray x not None):
    """y = x · sigmoid(x), which is 0 at -∞."""
    return unary("silu", table_of(x).silu, x)


def silu_grad(ndarray dy not None, ndarray x not None):
    """dx = dy · s · (1 + x · (1 - s)), s = sigmoid(x)."""
    return binary("silu_grad", table_of(dy).silu_grad, dy, x)


def softplus(ndarray x not None, double beta):
    """y = log(1 + exp(β · x)) / β."""
    return unary_with("softplus", table_of(x).softplus, x, beta)


def softplus_grad(ndarray dy not None, ndarray x not None, double beta):
    """dx = dy · sigmoid(β · x)."""
    return binary_with("softplus_grad", table_of(dy).softplus_grad, dy, x, beta)


def gelu(ndarray x not None):
    """y = x · Φ(x), Φ(x) = ½ erfc(-x / √2)."""
    return unary("gelu", table_of(x).gelu, x)


def gelu_grad(ndarray dy not None, ndarray x not None):
    """dx = dy · (Φ(x) + x · φ(x)), φ(x) = exp(-x² / 2) / √(2π)."""
    return binary("gelu_grad", table_of(dy).gelu_grad, dy, x)


def softmax(ndarray x not None):
    """y = exp(x_j) / Σ_k exp(x_k) over the last dimension."""
    return along_rows("softmax", table_of(x).softmax, x)


def softmax_grad(ndarray dy not None, ndarray y not None):
    """dx = y · (dy - Σ_k dy_k · y_k)."""
    return along_rows_grad("softmax_grad", table_of(dy).softmax_grad, dy, y)


def log_softmax(ndarray x not None):
    """y = x_j - log Σ_k exp(x_k) over the last dimension."""
    return along_rows("log_softmax", table_of(x).log_softmax, x)


def log_softmax_grad(ndarray dy not None, ndarray y not None):
    """dx = dy - exp(y) · Σ_k dy_k."""
    return along_rows_grad("log_softmax_grad", table_of(dy).log_softmax_grad, dy, y)


cdef int check_slopes(ndarray slope, ndarray x, str name) except -1:
    if cnp.PyArray_TYPE(slope) != cnp.PyArray_TYPE(x):
        raise TypeError(f"{name} must be {x.dtype}, got {slope.dtype}")
    if slope.ndim != 1 or slope.shape[0] not in (1, x.shape[x.ndim - 1]):
        raise ValueError(
            f"{name} must have shape (1,) or {(x.shape[x.ndim - 1],)}, got {(<object>slope).shape}"
        )
    return 0


def prelu(ndarray x not None, ndarray slope not None):
    """y = x where x > 0, else slope · x; one slope for every feature, or one for all."""
    cdef PreluArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray y
    args.columns = columns_of(x, "prelu: x")
    check_slopes(slope, x, "prelu: slope")
    x, slope = dense(x), dense(slope)
    y = empty_like(x)
    args.x, args.slope, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(slope), cnp.PyArray_DATA(y)
    args.rows, args.slopes = cnp.PyArray_SIZE(x) // args.columns, slope.shape[0]
    run("prelu", "rrw", table.prelu, &args, sizeof(args))
    return y


def prelu_grad(
    ndarray dy not None, ndarray x not None, ndarray slope not None, ndarray dslope not None
):
    """dx = dy where x > 0, else slope · dy; adds to dslope = Σ dy · x over all other x."""
    cdef PreluGradArgs args
    cdef ColumnSumArgs total
    cdef const KernelTable *table = table_of(dy)
    cdef ndarray dx, sums = dslope
    cdef cnp.npy_intp columns
    args.columns = columns = columns_of(dy, "prelu_grad: dy")
    check_slopes(slope, dy, "prelu_grad: slope")
    dy, x, slope = dense(dy), same(x, dy, "prelu_grad: x"), dense(slope)
    dslope = updated(dslope, dy, "prelu_grad: dslope")
    same(dslope, slope, "prelu_grad: dslope")
    apart(dslope, (dy, x, slope), "prelu_grad: dslope")
    dx = empty_like(dy)
    args.slopes, args.accumulate = slope.shape[0], ADD
    if args.slopes != columns:    # a sum for every column, and then their sum
        sums, args.accumulate = new(1, &columns, cnp.PyArray_TYPE(dy)), WRITE
    args.dy, args.x, args.slope = (
        cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x), cnp.PyArray_DATA(slope)
    )
    args.dx, args.dslope = cnp.PyArray_DATA(dx), cnp.PyArray_DATA(sums)
    args.rows = cnp.PyArray_SIZE(dy) // columns
    run(
        "prelu_grad", "rrrwu" if sums is dslope else "rrrww",
        table.prelu_grad, &args, sizeof(args)
    )
    if sums is not dslope:
        total.x, total.sums = cnp.PyArray_DATA(sums), cnp.PyArray_DATA(dslope)
        total.rows, total.columns, total.accumulate = columns, 1, ADD
        run("column_sum", "ru", table.column_sum, &total, sizeof(total))
    return dx
