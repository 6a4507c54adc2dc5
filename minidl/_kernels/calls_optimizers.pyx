"""Clipping and updates: the Python-facing calls, twins in reference.py."""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport apart, dense, run, same, table_of, updated
from minidl._kernels.kernel_table cimport *

from minidl._kernels.twins import OPTIMIZER_STATE

cnp.import_array()

assert OPTIMIZER_STATE.itemsize == sizeof(OptimizerState)


cdef OptimizerState *states_of(ndarray state) except NULL:
    """One OPTIMIZER_STATE, or an array of them."""
    if state.dtype != OPTIMIZER_STATE or state.ndim > 1 or not cnp.PyArray_ISCARRAY(state):
        raise TypeError(f"state must be of dtype OPTIMIZER_STATE, got {state!r}")
    return <OptimizerState *>cnp.PyArray_DATA(state)


cdef OptimizerState *state_of(ndarray state) except NULL:
    if state.dtype != OPTIMIZER_STATE or state.ndim != 0 or not cnp.PyArray_ISCARRAY(state):
        raise TypeError(f"state must be one OPTIMIZER_STATE, got {state!r}")
    return <OptimizerState *>cnp.PyArray_DATA(state)


def clip(ndarray squared_norm not None, ndarray state not None, ndarray grad=None):
    """Count the step and find the factor that brings the norm down to max_norm.

    ``state`` may be an array, of one for each group of parameters. ``grad`` is what the squared
    norm is of: in float64 the norm may be a number where its square is none. Returns whether the
    norm is finite; when it is not, nothing is changed but the ``norm`` of the first.
    """
    cdef ClipArgs args
    cdef const KernelTable *table = table_of(squared_norm if grad is None else grad)
    if cnp.PyArray_TYPE(squared_norm) != cnp.NPY_FLOAT64 or cnp.PyArray_SIZE(squared_norm) != 1:
        raise TypeError(f"clip: squared_norm must be one float64, got {squared_norm!r}")
    squared_norm = dense(squared_norm)
    args.squared_norm = <const double *>cnp.PyArray_DATA(squared_norm)
    args.state, args.groups = states_of(state), cnp.PyArray_SIZE(state)
    if args.groups == 0:
        raise ValueError("clip: no state")
    args.grad, args.n = NULL, 0
    if grad is not None and cnp.PyArray_TYPE(grad) == cnp.NPY_FLOAT64:
        grad = dense(grad)
        args.grad, args.n = cnp.PyArray_DATA(grad), cnp.PyArray_SIZE(grad)
    return run("clip", "rru", table.clip, &args, sizeof(args)) == 0


cdef int fill(UpdateArgs *args, ndarray data, ndarray grad, ndarray state) except -1:
    args.data = cnp.PyArray_DATA(updated(data, data, "data"))
    args.grad = cnp.PyArray_DATA(grad)
    args.n = cnp.PyArray_SIZE(data)
    args.state = state_of(state)
    return 0


cdef void *moment(ndarray x, ndarray data, str name) except NULL:
    if cnp.PyArray_SIZE(x) != cnp.PyArray_SIZE(data):
        raise ValueError(f"{name} must have the size of data")
    return cnp.PyArray_DATA(updated(x, data, name))


def clamp(ndarray x not None, double limit):
    """x ← min(max(x, -limit), limit), in place."""
    cdef ScaleArgs args
    cdef const KernelTable *table = table_of(x)
    if not 0 <= limit:
        raise ValueError(f"clamp: limit must be >= 0, got {limit}")
    args.x = cnp.PyArray_DATA(updated(x, x, "clamp: x"))
    args.n, args.factor = cnp.PyArray_SIZE(x), limit
    run("clamp", "u", table.clamp, &args, sizeof(args))


def follow(ndarray average not None, ndarray x not None, double weight):
    """average ← average + weight · (x - average), in place."""
    cdef FollowArgs args
    cdef const KernelTable *table = table_of(average)
    x = same(x, average, "x")    # a copy must live until the kernel has run
    args.y = cnp.PyArray_DATA(updated(average, average, "average"))
    apart(average, (x,), "follow: average")
    args.x, args.n, args.weight = cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), weight
    run("follow", "ru", table.follow, &args, sizeof(args))


def sgd(ndarray data not None, ndarray grad not None, ndarray velocity, ndarray state not None):
    """g ← scale · grad + λ · w; v ← μ · v + g; w ← w - η · v (Nesterov: g + μ · v)."""
    cdef UpdateArgs args
    cdef const KernelTable *table = table_of(data)
    grad = same(grad, data, "grad")    # a copy must live until the kernel has run
    fill(&args, data, grad, state)
    apart(data, (grad,), "sgd: data")
    args.moment1 = args.moment2 = NULL
    if velocity is not None:
        args.moment1 = moment(velocity, data, "velocity")
        apart(velocity, (data, grad), "sgd: velocity")
    run("sgd", "rruu", table.sgd, &args, sizeof(args))


def adam(
    ndarray data not None,
    ndarray grad not None,
    ndarray m not None,
    ndarray v not None,
    ndarray state not None,
):
    """m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; w ← w - η · m̂ / (√v̂ + ε)."""
    cdef UpdateArgs args
    cdef const KernelTable *table = table_of(data)
    grad = same(grad, data, "grad")    # a copy must live until the kernel has run
    fill(&args, data, grad, state)
    args.moment1, args.moment2 = moment(m, data, "m"), moment(v, data, "v")
    apart(data, (grad, m, v), "adam: data")
    apart(m, (grad, v), "adam: m")
    apart(v, (grad,), "adam: v")
    run("adam", "rruuu", table.adam, &args, sizeof(args))


def nadam(
    ndarray data not None,
    ndarray grad not None,
    ndarray m not None,
    ndarray v not None,
    ndarray state not None,
):
    """m, v as in adam; w ← w - (η₁ · m + η₂ · g) / (√v̂ + ε)."""
    cdef UpdateArgs args
    cdef const KernelTable *table = table_of(data)
    grad = same(grad, data, "grad")    # a copy must live until the kernel has run
    fill(&args, data, grad, state)
    args.moment1, args.moment2 = moment(m, data, "m"), moment(v, data, "v")
    apart(data, (grad, m, v), "nadam: data")
    apart(m, (grad, v), "nadam: m")
    apart(v, (grad,), "nadam: v")
    run("nadam", "rruuu", table.nadam, &args, sizeof(args))


def rmsprop(
    ndarray data not None,
    ndarray grad not None,
    ndarray square not None,
    ndarray mean not None,
    ndarray velocity not None,
    ndarray state not None,
):
    """s ← α · s + (1-α) · g²; w ← w - η · g / (√s + ε), or along a velocity of such steps."""
    cdef UpdateArgs args
    cdef const KernelTable *table = table_of(data)
    grad = same(grad, data, "grad")    # a copy must live until the kernel has run
    fill(&args, data, grad, state)
    args.moment1 = moment(mean, data, "mean")
    args.moment2 = moment(square, data, "square")
    args.moment3 = moment(velocity, data, "velocity")
    apart(data, (grad, square, mean, velocity), "rmsprop: data")
    apart(square, (grad, mean, velocity), "rmsprop: square")
    apart(mean, (grad, velocity), "rmsprop: mean")
    apart(velocity, (grad,), "rmsprop: velocity")
    run("rmsprop", "rruuuu", table.rmsprop, &args, sizeof(args))


def adagrad(
    ndarray data not None, ndarray grad not None, ndarray square not None, ndarray state not None
):
    """s ← s + g²; w ← w - η · g / (√s + ε)."""
    cdef UpdateArgs args
    cdef const KernelTable *table = table_of(data)
    grad = same(grad, data, "grad")    # a copy must live until the kernel has run
    fill(&args, data, grad, state)
    args.moment1, args.moment2 = NULL, moment(square, data, "square")
    apart(data, (grad, square), "adagrad: data")
    apart(square, (grad,), "adagrad: square")
    run("adagrad", "rruuu", table.adagrad, &args, sizeof(args))
