"""Column sums and batch normalization: the Python-facing calls, twins in reference.py."""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport (
    apart, dense, empty_like, new, run, same, table_of, updated
)
from minidl._kernels.kernel_table cimport *

cnp.import_array()


cdef Py_ssize_t columns_of(ndarray x, str name) except -1:
    if x.ndim < 1 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(f"{name} must have rows and columns, got shape {(<object>x).shape}")
    return x.shape[x.ndim - 1]


cdef ndarray per_column(ndarray v, ndarray x, str name):
    """v, dense, after checking that it has one value per column of x, of its dtype."""
    if cnp.PyArray_TYPE(v) != cnp.PyArray_TYPE(x):
        raise TypeError(f"{name} must be {x.dtype}, got {v.dtype}")
    if v.ndim != 1 or v.shape[0] != x.shape[x.ndim - 1]:
        raise ValueError(
            f"{name} must have shape {(x.shape[x.ndim - 1],)}, got {(<object>v).shape}"
        )
    return dense(v)


def column_sum(ndarray x not None):
    """s_j = Σ_i x_ij."""
    cdef ColumnSumArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray sums
    cdef cnp.npy_intp columns = columns_of(x, "column_sum: x")
    x = dense(x)
    sums = new(1, &columns, cnp.PyArray_TYPE(x))
    args.x, args.sums = cnp.PyArray_DATA(x), cnp.PyArray_DATA(sums)
    args.rows, args.columns, args.accumulate = cnp.PyArray_SIZE(x) // columns, columns, WRITE
    run("column_sum", "rw", table.column_sum, &args, sizeof(args))
    return sums


def batch_norm(
    ndarray x not None,
    ndarray gamma not None,
    ndarray beta not None,
    ndarray running_mean not None,
    ndarray running_var not None,
    double momentum,
    double eps,
    bint training,
):
    """y = γ · (x - μ) / √(σ² + ε) + β; returns y, μ and 1/√(σ² + ε)."""
    cdef BatchNormArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray y, mean, rstd
    args.columns = columns_of(x, "batch_norm: x")
    args.rows = cnp.PyArray_SIZE(x) // args.columns
    if training and args.rows < 2:
        raise ValueError("batch_norm: one row has no variance")
    x = dense(x)
    gamma = per_column(gamma, x, "batch_norm: gamma")
    beta = per_column(beta, x, "batch_norm: beta")
    per_column(running_mean, x, "batch_norm: running_mean")
    per_column(running_var, x, "batch_norm: running_var")
    running_mean = updated(running_mean, x, "batch_norm: running_mean")
    running_var = updated(running_var, x, "batch_norm: running_var")
    apart(running_mean, (x, gamma, beta, running_var), "batch_norm: running_mean")
    apart(running_var, (x, gamma, beta), "batch_norm: running_var")
    y, mean, rstd = empty_like(x), empty_like(gamma), empty_like(gamma)
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    args.gamma, args.beta = cnp.PyArray_DATA(gamma), cnp.PyArray_DATA(beta)
    args.running_mean = cnp.PyArray_DATA(running_mean)
    args.running_var = cnp.PyArray_DATA(running_var)
    args.mean, args.rstd = cnp.PyArray_DATA(mean), cnp.PyArray_DATA(rstd)
    args.momentum, args.eps, args.training = momentum, eps, training
    run(
        "batch_norm", "rrruuwww" if training else "rrrrrwww", table.batch_norm, &args, sizeof(args)
    )
    return y, mean, rstd


def batch_norm_grad(
    ndarray dy not None,
    ndarray x not None,
    ndarray gamma not None,
    ndarray mean not None,
    ndarray rstd not None,
    ndarray dgamma not None,
    ndarray dbeta not None,
    bint training,
):
    """dx = γ/σ · (dy - mean(dy) - x̂ · mean(dy · x̂)); adds to dγ = Σ dy · x̂ and dβ = Σ dy."""
    cdef BatchNormGradArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray dx
    args.columns = columns_of(x, "batch_norm_grad: x")
    args.rows = cnp.PyArray_SIZE(x) // args.columns
    x, dy = dense(x), same(dy, x, "batch_norm_grad: dy")
    gamma = per_column(gamma, x, "batch_norm_grad: gamma")
    mean = per_column(mean, x, "batch_norm_grad: mean")
    rstd = per_column(rstd, x, "batch_norm_grad: rstd")
    per_column(dgamma, x, "batch_norm_grad: dgamma")
    per_column(dbeta, x, "batch_norm_grad: dbeta")
    dgamma = updated(dgamma, x, "batch_norm_grad: dgamma")
    dbeta = updated(dbeta, x, "batch_norm_grad: dbeta")
    apart(dgamma, (dy, x, gamma, mean, rstd, dbeta), "batch_norm_grad: dgamma")
    apart(dbeta, (dy, x, gamma, mean, rstd), "batch_norm_grad: dbeta")
    dx = empty_like(x)
    args.dy, args.x, args.dx = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x), cnp.PyArray_DATA(dx)
    args.gamma, args.mean = cnp.PyArray_DATA(gamma), cnp.PyArray_DATA(mean)
    args.rstd = cnp.PyArray_DATA(rstd)
    args.dgamma, args.dbeta = cnp.PyArray_DATA(dgamma), cnp.PyArray_DATA(dbeta)
    args.accumulate_gamma = args.accumulate_beta = ADD
    args.training = training
    run("batch_norm_grad", "rrrrrwuu", table.batch_norm_grad, &args, sizeof(args))
    return dx


cdef ndarray per_row(ndarray v, ndarray x, str name):
    """v, dense, after checking that it has one value per row of x, of its dtype."""
    cdef Py_ssize_t rows = cnp.PyArray_SIZE(x) // x.shape[x.ndim - 1]
    if cnp.PyArray_TYPE(v) != cnp.PyArray_TYPE(x):
        raise TypeError(f"{name} must be {x.dtype}, got {v.dtype}")
    if v.ndim != 1 or v.shape[0] != rows:
        raise ValueError(f"{name} must have shape {(rows,)}, got {(<object>v).shape}")
    return dense(v)


def layer_norm(ndarray x not None, ndarray gamma not None, ndarray beta not None, double eps):
    """y = γ · (x - μ) / √(σ² + ε) + β, μ and σ² those of a row; returns y, μ and 1/√(σ² + ε)."""
    cdef LayerNormArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray y, mean, rstd
    cdef cnp.npy_intp rows
    args.columns = columns_of(x, "layer_norm: x")
    args.rows = rows = cnp.PyArray_SIZE(x) // args.columns
    x = dense(x)
    gamma = per_column(gamma, x, "layer_norm: gamma")
    beta = per_column(beta, x, "layer_norm: beta")
    y = empty_like(x)
    mean = new(1, &rows, cnp.PyArray_TYPE(x))
    rstd = new(1, &rows, cnp.PyArray_TYPE(x))
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    args.gamma, args.beta = cnp.PyArray_DATA(gamma), cnp.PyArray_DATA(beta)
    args.mean, args.rstd, args.eps = cnp.PyArray_DATA(mean), cnp.PyArray_DATA(rstd), eps
    run("layer_norm", "rrrwww", table.layer_norm, &args, sizeof(args))
    return y, mean, rstd


def layer_norm_grad_input(
    ndarray dy not None,
    ndarray x not None,
    ndarray gamma not None,
    ndarray mean not None,
    ndarray rstd not None,
):
    """dx = 1/σ · (g - mean(g) - x̂ · mean(g · x̂)), g = γ · dy, means over a row."""
    cdef LayerNormGradInputArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray dx
    args.columns = columns_of(x, "layer_norm_grad_input: x")
    args.rows = cnp.PyArray_SIZE(x) // args.columns
    x, dy = dense(x), same(dy, x, "layer_norm_grad_input: dy")
    gamma = per_column(gamma, x, "layer_norm_grad_input: gamma")
    mean = per_row(mean, x, "layer_norm_grad_input: mean")
    rstd = per_row(rstd, x, "layer_norm_grad_input: rstd")
    dx = empty_like(x)
    args.dy, args.x, args.dx = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x), cnp.PyArray_DATA(dx)
    args.gamma, args.mean = cnp.PyArray_DATA(gamma), cnp.PyArray_DATA(mean)
    args.rstd = cnp.PyArray_DATA(rstd)
    run(
        "layer_norm_grad_input", "rrrrrw", table.layer_norm_grad_input, &args, sizeof(args)
    )
    return dx


def layer_norm_grad_params(
    ndarray dy not None,
    ndarray x not None,
    ndarray mean not None,
    ndarray rstd not None,
    ndarray dgamma not None,
    ndarray dbeta not None,
):
    """dγ += Σ dy · x̂ and dβ += Σ dy over the rows."""
    cdef LayerNormGradParamsArgs args
    cdef const KernelTable *table = table_of(x)
    args.columns = columns_of(x, "layer_norm_grad_params: x")
    args.rows = cnp.PyArray_SIZE(x) // args.columns
    x, dy = dense(x), same(dy, x, "layer_norm_grad_params: dy")
    mean = per_row(mean, x, "layer_norm_grad_params: mean")
    rstd = per_row(rstd, x, "layer_norm_grad_params: rstd")
    per_column(dgamma, x, "layer_norm_grad_params: dgamma")
    per_column(dbeta, x, "layer_norm_grad_params: dbeta")
    dgamma = updated(dgamma, x, "layer_norm_grad_params: dgamma")
    dbeta = updated(dbeta, x, "layer_norm_grad_params: dbeta")
    apart(dgamma, (dy, x, mean, rstd, dbeta), "layer_norm_grad_params: dgamma")
    apart(dbeta, (dy, x, mean, rstd), "layer_norm_grad_params: dbeta")
    args.dy, args.x = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x)
    args.mean, args.rstd = cnp.PyArray_DATA(mean), cnp.PyArray_DATA(rstd)
    args.dgamma, args.dbeta = cnp.PyArray_DATA(dgamma), cnp.PyArray_DATA(dbeta)
    args.accumulate_gamma = args.accumulate_beta = ADD
    run(
        "layer_norm_grad_params", "rrrruu", table.layer_norm_grad_params, &args, sizeof(args)
    )


def standardize(ndarray x not None, ndarray mean, ndarray std not None):
    """y = (x - μ) / σ, column by column; without μ, y = x / σ, which is the gradient."""
    cdef StandardizeArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray y
    args.columns = columns_of(x, "standardize: x")
    args.rows, args.mean = cnp.PyArray_SIZE(x) // args.columns, NULL
    x = dense(x)
    if mean is not None:
        mean = per_column(mean, x, "standardize: mean")
        args.mean = cnp.PyArray_DATA(mean)
    std = per_column(std, x, "standardize: std")
    y = empty_like(x)
    args.x, args.std, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(std), cnp.PyArray_DATA(y)
    run("standardize", "rrrw", table.standardize, &args, sizeof(args))
    return y
