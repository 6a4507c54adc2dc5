"""Losses and norms: the Python-facing calls, twins in reference.py."""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport data_of, dense, empty_like, new, run, same, table_of
from minidl._kernels.kernel_table cimport *

from minidl._kernels.twins.errors import RowError

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


cdef ndarray weights_of(ndarray weight, ndarray like, Py_ssize_t n, str name):
    """A weight for each of n, dense; None stays None."""
    if weight is None:
        return None
    if cnp.PyArray_TYPE(weight) != cnp.PyArray_TYPE(like):
        raise TypeError(f"{name} must be {like.dtype}, got {weight.dtype}")
    if weight.ndim != 1 or weight.shape[0] != n:
        raise ValueError(f"{name} must have shape ({n},), got {(<object>weight).shape}")
    return dense(weight)


cdef ndarray weight_total(
    const KernelTable *table, ndarray weight, Py_ssize_t rows,
    ndarray labels=None, ndarray class_weight=None, Py_ssize_t classes=0
):
    """What all rows count together, as an array of no dimensions."""
    cdef WeightTotalArgs args
    cdef ndarray total = new(0, NULL, cnp.NPY_FLOAT64)
    args.weight, args.class_weight = data_of(weight), data_of(class_weight)
    args.labels = <const Py_ssize_t *>data_of(labels)
    args.total = <double *>cnp.PyArray_DATA(total)
    args.rows, args.classes = rows, classes
    if run("weight_total", "rrrw", table.weight_total, &args, sizeof(args)):
        raise ValueError("weights must be finite and >= 0, and not all zero")
    return total


cdef tuple class_loss(
    const KernelTable *table, str name, kernel_fn kernel, ndarray logits, ndarray labels,
    bint mean, ndarray weight, ndarray class_weight, double smoothing
):
    cdef CrossEntropyArgs args
    cdef ndarray dlogits, losses, weights, given = labels
    cdef Py_ssize_t bad
    if logits.ndim != 2 or labels.ndim != 1 or labels.shape[0] != logits.shape[0]:
        raise ValueError(
            f"{name} takes predictions (rows, classes) and labels (rows), got "
            f"{(<object>logits).shape} and {(<object>labels).shape}"
        )
    if logits.shape[0] == 0 or logits.shape[1] == 0:
        raise ValueError(f"{name}: empty predictions of shape {(<object>logits).shape}")
    if not cnp.PyArray_ISINTEGER(labels):
        raise ValueError(f"{name}: labels must be integers, got {labels.dtype}")
    weight = weights_of(weight, logits, logits.shape[0], "weight")
    class_weight = weights_of(class_weight, logits, logits.shape[1], "class_weight")
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
    args.weight, args.class_weight, args.weights = data_of(weight), data_of(class_weight), NULL
    args.smoothing = smoothing
    if weight is not None or class_weight is not None:
        weights = weight_total(table, weight, args.rows, labels, class_weight, args.classes)
        if mean:
            args.weights, args.scale = <const double *>cnp.PyArray_DATA(weights), 1.0
    bad = run(name, "rrwwrrr", kernel, &args, sizeof(args))
    if bad:
        raise RowError("label", bad - 1, ndarray.item(given, bad - 1), args.classes)
    # Plain losses are added up first and scaled then; those with weights are scaled row by row.
    if weight is None and class_weight is None and smoothing == 0 and name != "nll":
        return total_of(table, losses, args.scale), dlogits
    return total_of(table, losses, 1.0), dlogits


def softmax_cross_entropy(
    ndarray logits not None,
    ndarray labels not None,
    bint mean=True,
    ndarray weight=None,
    ndarray class_weight=None,
    double smoothing=0.0,
):
    """L_i = log Σ_j exp(z_ij) - z_i,label; returns the loss and dz = softmax(z) - onehot(label)."""
    cdef const KernelTable *table = table_of(logits)
    if not 0 <= smoothing < 1:
        raise ValueError(f"softmax_cross_entropy: smoothing must be in [0, 1), got {smoothing}")
    return class_loss(
        table, "softmax_cross_entropy", table.softmax_cross_entropy,
        logits, labels, mean, weight, class_weight, smoothing
    )


def nll(
    ndarray log_probabilities not None,
    ndarray labels not None,
    bint mean=True,
    ndarray weight=None,
    ndarray class_weight=None,
):
    """L_i = -log p_i,label; returns the loss and -onehot(label)."""
    cdef const KernelTable *table = table_of(log_probabilities)
    return class_loss(
        table, "nll", table.nll, log_probabilities, labels, mean, weight, class_weight, 0.0
    )


cdef tuple element_loss(
    const KernelTable *table, str name, kernel_fn kernel,
    ndarray prediction, ndarray target, bint mean, ndarray weight, double delta=0.0,
    ndarray pos_weight=None
):
    cdef ElementLossArgs args
    cdef ndarray dprediction, losses, weights
    cdef bint by_rows
    prediction, target = dense(prediction), same(target, prediction, "target")
    args.n = cnp.PyArray_SIZE(prediction)
    if args.n == 0:
        raise ValueError(f"empty prediction of shape {(<object>prediction).shape}")
    args.rows = prediction.shape[0] if prediction.ndim else 1
    weight = weights_of(weight, prediction, args.rows, "weight")
    args.scale = 1.0 / args.n if mean else 1.0
    args.weight, args.weights, args.delta = data_of(weight), NULL, delta
    pos_weight = weights_of(pos_weight, prediction, args.n // args.rows, "pos_weight")
    args.pos_weight = data_of(pos_weight)
    by_rows = weight is not None or pos_weight is not None
    losses = doubles(args.rows if by_rows else (args.n + LOSS_BLOCK - 1) // LOSS_BLOCK)
    if weight is not None:
        weights = weight_total(table, weight, args.rows)
        if mean:
            args.scale = <double>args.rows / args.n
            args.weights = <const double *>cnp.PyArray_DATA(weights)
    dprediction = empty_like(prediction)
    args.prediction, args.target = cnp.PyArray_DATA(prediction), cnp.PyArray_DATA(target)
    args.dprediction = cnp.PyArray_DATA(dprediction)
    args.losses = <double *>cnp.PyArray_DATA(losses)
    run(name, "rrwwrrr", kernel, &args, sizeof(args))
    return total_of(table, losses, 1.0 if by_rows else args.scale), dprediction


def mse(
    ndarray prediction not None, ndarray target not None, bint mean=True, ndarray weight=None
):
    """L = (prediction - target)²; returns the loss and 2 · (prediction - target)."""
    cdef const KernelTable *table = table_of(prediction)
    return element_loss(table, "mse", table.mse, prediction, target, mean, weight)


def absolute_error(
    ndarray prediction not None, ndarray target not None, bint mean=True, ndarray weight=None
):
    """L = |prediction - target|; returns the loss and sign(prediction - target)."""
    cdef const KernelTable *table = table_of(prediction)
    return element_loss(
        table, "absolute_error", table.absolute_error, prediction, target, mean, weight
    )


def huber(
    ndarray prediction not None,
    ndarray target not None,
    double delta=1.0,
    bint mean=True,
    ndarray weight=None,
):
    """L = e²/2 for |e| ≤ δ, δ · (|e| - δ/2) beyond; returns the loss and e within ±δ."""
    cdef const KernelTable *table = table_of(prediction)
    if not 0 < delta:
        raise ValueError(f"huber: delta must be > 0, got {delta}")
    return element_loss(table, "huber", table.huber, prediction, target, mean, weight, delta)


def bce_with_logits(
    ndarray logits not None,
    ndarray target not None,
    bint mean=True,
    ndarray weight=None,
    ndarray pos_weight=None,
):
    """L = max(z, 0) - z · t + log(1 + exp(-|z|)); returns the loss and sigmoid(z) - t.

    With a weight w for every column, L = w · t · log(1 + exp(-z)) + (1 - t) · log(1 + exp(z)).
    """
    cdef const KernelTable *table = table_of(logits)
    return element_loss(
        table, "bce_with_logits", table.bce_with_logits, logits, target, mean, weight, 0.0,
        pos_weight
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
