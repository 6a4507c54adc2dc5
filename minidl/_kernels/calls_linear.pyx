"""Matrix products: the Python-facing calls, twins in reference.py."""

cimport numpy as cnp
from libc.string cimport memcpy
from numpy cimport ndarray

from minidl._kernels.dispatch cimport (
    apart, dense, new, run, run_matmul, table_of, updated
)
from minidl._kernels.kernel_table cimport *

cnp.import_array()

cdef dict ACTIVATIONS = {None: NO_ACTIVATION, "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}


cdef const KernelTable *one_table(ndarray a, ndarray b, str name) except NULL:
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b):
        raise TypeError(f"{name}: dtypes {a.dtype} and {b.dtype} differ")
    return table_of(a)


cdef ndarray strided(ndarray x):
    """x itself if its elements are aligned, native and whole elements apart: the loops take
    any strides."""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(x)
    if (
        cnp.PyArray_ISALIGNED(x) and cnp.PyArray_ISNOTSWAPPED(x)
        and x.strides[0] % size == 0 and x.strides[1] % size == 0
    ):
        return x
    return dense(x)


def matmul(
    ndarray a not None,
    ndarray b not None,
    ndarray out=None,
    bint transpose_a=False,
    bint transpose_b=False,
):
    """C = op(A) · op(B), where op transposes if asked to.

    Matrices of any strides, float32 or float64. ``out``, if given, is C-contiguous and overlaps
    neither input.
    """
    cdef MatmulArgs args
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    cdef const KernelTable *table = one_table(a, b, "matmul")
    cdef cnp.npy_intp shape[2]
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"matmul takes two matrices, got {a.ndim} and {b.ndim} dimensions")
    a, b = strided(a), strided(b)
    args.m, args.k = a.shape[transpose_a], a.shape[not transpose_a]
    args.n = b.shape[not transpose_b]
    if b.shape[transpose_b] != args.k:
        raise ValueError(
            f"matmul: shapes {(<object>a).shape} and {(<object>b).shape} do not fit"
            + (", the first transposed" if transpose_a else "")
            + (", the second transposed" if transpose_b else "")
        )
    shape[0], shape[1] = args.m, args.n
    if out is None:
        out = new(2, shape, cnp.PyArray_TYPE(a))
    else:
        one_table(a, out, "matmul")
        if out.ndim != 2 or out.shape[0] != args.m or out.shape[1] != args.n:
            raise ValueError(f"matmul: out must be {(args.m, args.n)}, got {(<object>out).shape}")
        out = updated(out, a, "matmul: out")
        apart(out, (a, b), "matmul: out")
    args.a, args.b, args.c = cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_DATA(out)
    args.a_row, args.a_col = a.strides[transpose_a] // size, a.strides[not transpose_a] // size
    args.b_row, args.b_col = b.strides[transpose_b] // size, b.strides[not transpose_b] // size
    args.bias, args.gate, args.c_row = NULL, NULL, args.n
    args.accumulate, args.activation = WRITE, NO_ACTIVATION
    if args.m > 0 and args.n > 0:
        run_matmul(table, &args)
    return out


def linear(ndarray x not None, ndarray weight not None, ndarray bias=None, activation=None):
    """y = activation(x · W + b)."""
    cdef MatmulArgs args
    cdef const KernelTable *table = one_table(x, weight, "linear")
    cdef ndarray y
    if activation not in ACTIVATIONS:
        raise ValueError(f"linear: unknown activation {activation!r}")
    x, weight = dense(x), dense(weight)
    describe(&args, x, weight.shape[0] if weight.ndim == 2 else -1, "linear: x")
    args.k, args.n = weight.shape[0], weight.shape[1]
    if args.n < 1:
        raise ValueError("linear: the weight must be a matrix of widths >= 1")
    args.bias = args.gate = NULL
    if bias is not None:
        one_table(x, bias, "linear")
        bias = dense(bias)
        if bias.ndim != 1 or bias.shape[0] != args.n:
            raise ValueError(f"linear: bias must be {(args.n,)}, got {(<object>bias).shape}")
        args.bias = cnp.PyArray_DATA(bias)
    y = with_last(x, args.n)
    args.a, args.a_row, args.a_col = cnp.PyArray_DATA(x), args.k, 1
    args.b, args.b_row, args.b_col = cnp.PyArray_DATA(weight), args.n, 1
    args.c, args.c_row = cnp.PyArray_DATA(y), args.n
    args.accumulate, args.activation = WRITE, ACTIVATIONS[activation]
    run_matmul(table, &args)
    return y


def linear_grad_input(ndarray dy not None, ndarray weight not None):
    """dx = dy · Wᵀ."""
    cdef MatmulArgs args
    cdef const KernelTable *table = one_table(dy, weight, "linear_grad_input")
    cdef ndarray dx
    dy, weight = dense(dy), dense(weight)
    describe(&args, dy, weight.shape[1] if weight.ndim == 2 else -1, "linear_grad_input: dy")
    args.k, args.n = weight.shape[1], weight.shape[0]
    dx = with_last(dy, args.n)
    args.a, args.a_row, args.a_col = cnp.PyArray_DATA(dy), args.k, 1
    args.b, args.b_row, args.b_col = cnp.PyArray_DATA(weight), 1, args.k
    args.c, args.c_row, args.bias, args.gate = cnp.PyArray_DATA(dx), args.n, NULL, NULL
    args.accumulate, args.activation = WRITE, NO_ACTIVATION
    run_matmul(table, &args)
    return dx


def linear_grad_params(
    ndarray x not None, ndarray dy not None, ndarray dweight not None, ndarray dbias=None
):
    """dW += xᵀ · dy and db += Σ dy over the batch."""
    cdef MatmulArgs args
    cdef ColumnSumArgs sums
    cdef const KernelTable *table = one_table(x, dy, "linear_grad_params")
    cdef Py_ssize_t rows
    x, dy = dense(x), dense(dy)
    dweight = updated(dweight, x, "linear_grad_params: dweight")
    apart(dweight, (x, dy), "linear_grad_params: dweight")
    if dweight.ndim != 2:
        raise ValueError(f"linear_grad_params: dweight has {dweight.ndim} dimensions, not 2")
    describe(&args, x, dweight.shape[0], "linear_grad_params: x")
    rows = args.m
    describe(&args, dy, dweight.shape[1], "linear_grad_params: dy")
    if rows != args.m:
        raise ValueError(f"linear_grad_params: x has {rows} rows, dy {args.m}")
    args.m, args.n, args.k = dweight.shape[0], dweight.shape[1], rows
    args.a, args.a_row, args.a_col = cnp.PyArray_DATA(x), 1, args.m
    args.b, args.b_row, args.b_col = cnp.PyArray_DATA(dy), args.n, 1
    args.c, args.c_row = cnp.PyArray_DATA(dweight), args.n
    args.bias = args.gate = NULL
    args.accumulate, args.activation = ADD, NO_ACTIVATION
    if dbias is not None:
        dbias = updated(dbias, x, "linear_grad_params: dbias")
        apart(dbias, (x, dy, dweight), "linear_grad_params: dbias")
        if dbias.ndim != 1 or dbias.shape[0] != args.n:
            raise ValueError(f"linear_grad_params: dbias must be {(args.n,)}")
    run_matmul(table, &args)
    if dbias is not None:
        sums.x, sums.sums = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(dbias)
        sums.rows, sums.columns, sums.accumulate = rows, args.n, ADD
        run("column_sum", "ru", table.column_sum, &sums, sizeof(sums))


cdef int describe(MatmulArgs *args, ndarray x, Py_ssize_t features, str name) except -1:
    """x as a matrix of `features` columns: fills in m, its rows."""
    if features < 1:
        raise ValueError(f"{name}: the weight must be a matrix of widths >= 1")
    if x.ndim < 1 or x.shape[x.ndim - 1] != features:
        raise ValueError(
            f"{name} must have shape (..., {features}), got {(<object>x).shape}"
        )
    args.m = cnp.PyArray_SIZE(x) // features
    return 0


cdef ndarray with_last(ndarray x, Py_ssize_t features):
    """A new array of the shape of x, but for its last dimension."""
    cdef cnp.npy_intp shape[64]
    memcpy(shape, cnp.PyArray_DIMS(x), x.ndim * sizeof(cnp.npy_intp))
    shape[x.ndim - 1] = features
    return new(x.ndim, shape, cnp.PyArray_TYPE(x))
