"""Losses and norms: the Python-facing calls, twins in reference.py."""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport dense, empty_like, new, run, same, table_of
from minidl._kernels.kernel_table cimport *

cnp.import_array()


cdef ndarray doubles(cnp.npy_intp n):
    return new(1, &n, cnp.NPY_FLOAT64)


cdef ndarray total_of(const KernelTable *table, ndarray parts, double scale):
    """scale · Σ parts, as an array of no dimensions."""
    cdef TotalArgs args
    cdef ndarray total = new(0, NULL, cnp.NPY_FLOAT64)
    args.parts, args.total = <double *>cnp.PyArray_DATA(parts), <double *>cnp.PyArray_DATA(total)
    args.n, args.scale = cnp.PyArray_SIZE(parts), scale
    run("total", "rw", table.total, &args, sizeof(args))
    return total


def softmax_cross_entropy(ndarray logits not None, ndarray labels not None, bint mean=True):
    """L_i = log Σ_j exp(z_ij) - z_i,label; returns the loss and dz = softmax(z) - onehot(label)."""
    cdef CrossEntropyArgs args
    cdef const KernelTable *table = table_of(logits)
    cdef ndarray dlogits, losses, given = labels
    cdef Py_ssize_t bad
    if logits.ndim != 2 or labels.ndim != 1 or labels.shape[0] != logits.shape[0]:
        raise ValueError(
            "softmax_cross_entropy takes logits (rows, classes) and labels (rows), got "
            f"{(<object>logits).shape} and {(<object>labels).shape}"
        )
    if logits.shape[0] == 0 or logits.shape[1] == 0:
        raise ValueError(f"softmax_cross_entropy: empty logits of shape {(<object>logits).shape}")
    if not cnp.PyArray_ISINTEGER(labels):
        raise ValueError(f"softmax_cross_entropy: labels must be integers, got {labels.dtype}")
    logits = dense(logits)
    labels = cnp.PyArray_FROMANY(
        labels, cnp.NPY_INTP, 1, 1, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_FORCECAST
    )
    dlogits, losses = empty_like(logits), doubles(logits.shape[0])
    args.logits, args.dlogits = cnp.PyArray_DATA(logits), cnp.PyArray_DATA(dlogits)
    args.labels = <const Py_ssize_t *>cnp.PyArray_DATA(labels)
    args.losses = <double *>cnp.PyArray_DATA(losses)
    args.rows, args.classes = logits.shape[0], logits.shape[1]
    args.scale = 1.0 / args.rows if mean else 1.0
    bad = run(
        "softmax_cross_entropy", "rrww", table.softmax_cross_entropy, &args, sizeof(args)
    )
    if bad:
        raise ValueError(
            f"label {ndarray.item(given, bad - 1)} in row {bad - 1} is outside the "
            f"{args.classes} classes 0 to {args.classes - 1}"
        )
    return total_of(table, losses, args.scale), dlogits


cdef tuple element_loss(
    const KernelTable *table, str name, kernel_fn kernel,
    ndarray prediction, ndarray target, bint mean
):
    cdef ElementLossArgs args
    cdef ndarray dprediction, losses
    prediction, target = dense(prediction), same(target, prediction, "target")
    args.n = cnp.PyArray_SIZE(prediction)
    if args.n == 0:
        raise ValueError(f"empty prediction of shape {(<object>prediction).shape}")
    dprediction, losses = empty_like(prediction), doubles((args.n + LOSS_BLOCK - 1) // LOSS_BLOCK)
    args.prediction, args.target = cnp.PyArray_DATA(prediction), cnp.PyArray_DATA(target)
    args.dprediction = cnp.PyArray_DATA(dprediction)
    args.losses = <double *>cnp.PyArray_DATA(losses)
    args.scale = 1.0 / args.n if mean else 1.0
    run(name, "rrww", kernel, &args, sizeof(args))
    return total_of(table, losses, args.scale), dprediction


def mse(ndarray prediction not None, ndarray target not None, bint mean=True):
    """L = (prediction - target)²; returns the loss and 2 · (prediction - target)."""
    cdef const KernelTable *table = table_of(prediction)
    return element_loss(table, "mse", table.mse, prediction, target, mean)


def bce_with_logits(ndarray logits not None, ndarray target not None, bint mean=True):
    """L = max(z, 0) - z · t + log(1 + exp(-|z|)); returns the loss and sigmoid(z) - t."""
    cdef const KernelTable *table = table_of(logits)
    return element_loss(
        table, "bce_with_logits", table.bce_with_logits, logits, target, mean
    )


def squared_norm(ndarray x not None):
    """Σ x², in float64."""
    cdef SquaredNormArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray sums
    x = dense(x)
    args.n = cnp.PyArray_SIZE(x)
    sums = doubles((args.n + NORM_BLOCK - 1) // NORM_BLOCK)
    args.x, args.sums = cnp.PyArray_DATA(x), <double *>cnp.PyArray_DATA(sums)
    run("squared_norm", "rw", table.squared_norm, &args, sizeof(args))
    return total_of(table, sums, 1.0)
