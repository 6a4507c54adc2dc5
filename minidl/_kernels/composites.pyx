"""Calls that consist of several kernels, or whose arrays a signature cannot describe.

These are matrix products of any strides, losses with weights and their totals, and whole
sequences. Each fills the argument structs of declared kernels by hand, and runs these
(``call.pyx``). Their twins have the same names.
"""

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.string cimport memcpy
from numpy cimport ndarray

from minidl._kernels.arguments cimport *
from minidl._kernels.call cimport (
    Call, allocate, allocate_like, allocate_shape, check_like, check_no_overlap, check_shape,
    check_writable, contiguous, data_of, lengths_of, real_of, run, run_with_scratch, whole_numbers
)
from minidl._kernels.dispatch cimport product_scratch_of

from minidl._kernels.call import CALLS
from minidl._kernels.signature import KERNELS
from minidl._kernels.twins.errors import MEAN_MAY_BE_EMPTY, RowError, WeightError
from minidl._kernels.twins.optimizers import OPTIMIZER_STATE

cnp.import_array()

assert OPTIMIZER_STATE.itemsize == sizeof(OptimizerState)

cdef Call MATMUL = CALLS["matmul"], COLUMN_SUM = CALLS["column_sum"], TOTAL = CALLS["total"]
cdef Call WEIGHT_TOTAL = CALLS["weight_total"], SQUARED_NORM = CALLS["squared_norm"]
cdef Call MOMENT_PARTS = CALLS["moment_parts"], NORM_PARTS = CALLS["norm_parts"]
cdef Call PRELU_GRAD = CALLS["prelu_grad"], CLIP = CALLS["clip"]
cdef Call TIME_FIRST = CALLS["time_first"], BATCH_FIRST = CALLS["batch_first"]
cdef Call CONCAT = CALLS["concat"]
# Codes by name. Gradients have codes as well, but only products of recorded steps use these.
ACTIVATIONS = {
    None: NO_ACTIVATION,
    **{k.name: k.activation for k in KERNELS.values() if k.activation and len(k.parameters) == 1},
}


cdef ndarray allocate_as(ndarray like, tuple shape):
    """Allocate an array of this shape, of the dtype of another."""
    return allocate_shape(shape, cnp.PyArray_TYPE(like))


cdef ndarray doubles(tuple shape):
    """Allocate an array of float64."""
    return allocate_shape(shape, cnp.NPY_FLOAT64)


# --- products ---------------------------------------------------------------------------

cdef int run_matmul(int real, MatmulArgs *args) except -1:
    """Run a matrix product without a second one."""
    args.a2, args.c2, args.m2, args.a2_col, args.partials = NULL, NULL, 0, 0, NULL
    run_with_scratch(
        MATMUL, real, args, &args.scratch, &args.scratch_step, product_scratch_of(real, args)
    )
    return 0


cdef int add_column_sum(
    int real, ndarray x, Py_ssize_t rows, Py_ssize_t columns, ndarray sums
) except -1:
    """Add the sum of every column of x to an element of ``sums``."""
    cdef ColumnSumArgs args
    args.x, args.sums, args.partials = cnp.PyArray_DATA(x), cnp.PyArray_DATA(sums), NULL
    args.rows, args.columns, args.accumulate = rows, columns, ADD
    run(COLUMN_SUM, real, &args)
    return 0


cdef int one_dtype(ndarray a, ndarray b, str name) except -1:
    """Return the index of the dtype of both arrays; raise TypeError if they differ."""
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b):
        raise TypeError(f"{name}: dtypes {a.dtype} and {b.dtype} differ")
    return real_of(a)


cdef ndarray strided(ndarray x):
    """Return x if its elements are aligned, in native byte order, and whole elements apart, else a
    contiguous copy. The loops take any strides in elements."""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(x)
    if (
        cnp.PyArray_ISALIGNED(x) and cnp.PyArray_ISNOTSWAPPED(x)
        and x.strides[0] % size == 0 and x.strides[1] % size == 0
    ):
        return x
    return contiguous(x)


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
    cdef int real = one_dtype(a, b, "matmul")
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
        out = allocate(2, shape, cnp.PyArray_TYPE(a))
    else:
        one_dtype(a, out, "matmul")
        if out.ndim != 2 or out.shape[0] != args.m or out.shape[1] != args.n:
            raise ValueError(f"matmul: out must be {(args.m, args.n)}, got {(<object>out).shape}")
        out = check_writable(out, a, "matmul: out")
        check_no_overlap(out, (a, b), "matmul: out")
    args.a, args.b, args.c = cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_DATA(out)
    args.a_row, args.a_col = a.strides[transpose_a] // size, a.strides[not transpose_a] // size
    args.b_row, args.b_col = b.strides[transpose_b] // size, b.strides[not transpose_b] // size
    args.bias, args.gate, args.c_row = NULL, NULL, args.n
    args.accumulate, args.activation = WRITE, NO_ACTIVATION
    if args.m > 0 and args.n > 0:
        run_matmul(real, &args)
    return out


def linear(ndarray x not None, ndarray weight not None, ndarray bias=None, activation=None):
    """y = activation(x · W + b)."""
    cdef MatmulArgs args
    cdef int real = one_dtype(x, weight, "linear")
    cdef ndarray y
    code = ACTIVATIONS.get(activation)
    if code is None:
        raise ValueError(f"linear: unknown activation {activation!r}")
    args.activation = code
    x, weight = contiguous(x), contiguous(weight)
    describe(&args, x, weight.shape[0] if weight.ndim == 2 else -1, "linear: x")
    args.k, args.n = weight.shape[0], weight.shape[1]
    if args.n < 1:
        raise ValueError("linear: the weight must be a matrix of widths >= 1")
    args.bias = args.gate = NULL
    if bias is not None:
        one_dtype(x, bias, "linear")
        bias = contiguous(bias)
        if bias.ndim != 1 or bias.shape[0] != args.n:
            raise ValueError(f"linear: bias must be {(args.n,)}, got {(<object>bias).shape}")
        args.bias = cnp.PyArray_DATA(bias)
    y = with_last(x, args.n)
    args.a, args.a_row, args.a_col = cnp.PyArray_DATA(x), args.k, 1
    args.b, args.b_row, args.b_col = cnp.PyArray_DATA(weight), args.n, 1
    args.c, args.c_row = cnp.PyArray_DATA(y), args.n
    args.accumulate = WRITE
    run_matmul(real, &args)
    return y


def linear_grad_input(ndarray dy not None, ndarray weight not None):
    """dx = dy · Wᵀ."""
    cdef MatmulArgs args
    cdef int real = one_dtype(dy, weight, "linear_grad_input")
    cdef ndarray dx
    dy, weight = contiguous(dy), contiguous(weight)
    describe(&args, dy, weight.shape[1] if weight.ndim == 2 else -1, "linear_grad_input: dy")
    args.k, args.n = weight.shape[1], weight.shape[0]
    dx = with_last(dy, args.n)
    args.a, args.a_row, args.a_col = cnp.PyArray_DATA(dy), args.k, 1
    args.b, args.b_row, args.b_col = cnp.PyArray_DATA(weight), 1, args.k
    args.c, args.c_row, args.bias, args.gate = cnp.PyArray_DATA(dx), args.n, NULL, NULL
    args.accumulate, args.activation = WRITE, NO_ACTIVATION
    run_matmul(real, &args)
    return dx


def linear_grad_params(
    ndarray x not None, ndarray dy not None, ndarray dweight not None, ndarray dbias=None
):
    """dW += xᵀ · dy and db += Σ dy over the batch."""
    cdef MatmulArgs args
    cdef int real = one_dtype(x, dy, "linear_grad_params")
    cdef Py_ssize_t rows
    x, dy = contiguous(x), contiguous(dy)
    dweight = check_writable(dweight, x, "linear_grad_params: dweight")
    check_no_overlap(dweight, (x, dy), "linear_grad_params: dweight")
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
        dbias = check_writable(dbias, x, "linear_grad_params: dbias")
        check_no_overlap(dbias, (x, dy, dweight), "linear_grad_params: dbias")
        if dbias.ndim != 1 or dbias.shape[0] != args.n:
            raise ValueError(
                f"linear_grad_params: dbias must be {(args.n,)}, got {(<object>dbias).shape}"
            )
    run_matmul(real, &args)
    if dbias is not None:
        add_column_sum(real, dy, rows, args.n, dbias)


cdef int describe(MatmulArgs *args, ndarray x, Py_ssize_t features, str name) except -1:
    """Check that x is a matrix of ``features`` columns, of any dimensions; sets m to its rows."""
    if features < 1:
        raise ValueError(f"{name}: the weight must be a matrix of widths >= 1")
    if x.ndim < 1 or x.shape[x.ndim - 1] != features:
        raise ValueError(
            f"{name} must have shape (..., {features}), got {(<object>x).shape}"
        )
    args.m = cnp.PyArray_SIZE(x) // features
    return 0


cdef ndarray with_last(ndarray x, Py_ssize_t features):
    """Allocate an array of the shape of x, except for its last dimension."""
    cdef cnp.npy_intp shape[64]
    memcpy(shape, cnp.PyArray_DIMS(x), x.ndim * sizeof(cnp.npy_intp))
    shape[x.ndim - 1] = features
    return allocate(x.ndim, shape, cnp.PyArray_TYPE(x))


# --- losses -----------------------------------------------------------------------------
#
# With `each`, they return the loss of every row or element, and neither their sum nor a mean.

cdef ndarray total_of(int real, ndarray parts, double scale):
    """scale · Σ parts, as an array of no dimensions."""
    cdef TotalArgs args
    cdef ndarray total = allocate(0, NULL, cnp.NPY_FLOAT64)
    args.parts, args.total = <double *>cnp.PyArray_DATA(parts), <double *>cnp.PyArray_DATA(total)
    args.n, args.scale = cnp.PyArray_SIZE(parts), scale
    run(TOTAL, real, &args)
    return total


cdef ndarray weights_of(ndarray weight, ndarray like, Py_ssize_t n, str name):
    """A weight for each of n, dense; None stays None."""
    if weight is None:
        return None
    if cnp.PyArray_TYPE(weight) != cnp.PyArray_TYPE(like):
        raise TypeError(f"{name} must be {like.dtype}, got {weight.dtype}")
    if weight.ndim != 1 or weight.shape[0] != n:
        raise ValueError(f"{name} must have shape ({n},), got {(<object>weight).shape}")
    return contiguous(weight)


cdef ndarray weight_total(
    int real, ndarray weight, Py_ssize_t rows, bint for_mean,
    ndarray labels=None, ndarray class_weight=None, Py_ssize_t classes=0,
    double ignore_index=-INFINITY
):
    """What all rows count together, as an array of no dimensions."""
    cdef WeightTotalArgs args
    cdef ndarray total = allocate(0, NULL, cnp.NPY_FLOAT64)
    args.weight, args.class_weight = data_of(weight), data_of(class_weight)
    args.labels = <const Py_ssize_t *>data_of(labels)
    args.total = <double *>cnp.PyArray_DATA(total)
    args.rows, args.classes, args.ignore_index = rows, classes, ignore_index
    args.for_mean = for_mean and not MEAN_MAY_BE_EMPTY.get()
    if run(WEIGHT_TOTAL, real, &args):
        raise WeightError(WEIGHT_TOTAL.kernel.problem)
    return total


cdef tuple class_loss(
    Call call, ndarray logits, ndarray labels,
    bint mean, ndarray weight, ndarray class_weight, double smoothing, ignore_index, bint each
):
    cdef CrossEntropyArgs args
    cdef int real = real_of(logits)
    cdef str name = call.name
    cdef ndarray dlogits, losses, weights, given = labels
    cdef Py_ssize_t bad
    cdef bint plain = weight is None and class_weight is None and ignore_index is None
    # First, because converting it may run Python code.
    args.ignore_index = -INFINITY if ignore_index is None else <Py_ssize_t>ignore_index
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
    logits = contiguous(logits)
    labels = whole_numbers(labels, f"{name}: labels")
    dlogits, losses = allocate_like(logits), doubles((logits.shape[0],))
    args.logits, args.dlogits = cnp.PyArray_DATA(logits), cnp.PyArray_DATA(dlogits)
    args.labels = <const Py_ssize_t *>cnp.PyArray_DATA(labels)
    args.losses = <double *>cnp.PyArray_DATA(losses)
    args.rows, args.classes = logits.shape[0], logits.shape[1]
    mean = mean and not each
    args.scale = 1.0 / args.rows if mean else 1.0
    args.weight, args.class_weight, args.weights = data_of(weight), data_of(class_weight), NULL
    args.smoothing = smoothing
    if not plain:
        weights = weight_total(
            real, weight, args.rows, mean, labels, class_weight, args.classes, args.ignore_index
        )
        if mean:
            args.weights, args.scale = <const double *>cnp.PyArray_DATA(weights), 1.0
    bad = run(call, real, &args)
    if bad:
        raise RowError("label", bad - 1, ndarray.item(given, bad - 1), args.classes)
    if each:
        return losses, dlogits
    # Plain losses are added up first and scaled then; those with weights are scaled row by row.
    if plain and smoothing == 0 and name != "nll":
        return total_of(real, losses, args.scale), dlogits
    return total_of(real, losses, 1.0), dlogits


def softmax_cross_entropy(
    ndarray logits not None,
    ndarray labels not None,
    bint mean=True,
    ndarray weight=None,
    ndarray class_weight=None,
    double smoothing=0.0,
    ignore_index=None,
    *,
    bint each=False,
):
    """L_i = log Σ_j exp(z_ij) - z_i,label; returns the loss and dz = softmax(z) - onehot(label)."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"softmax_cross_entropy: smoothing must be in [0, 1), got {smoothing}")
    return class_loss(
        CALLS["softmax_cross_entropy"], logits, labels, mean, weight, class_weight, smoothing,
        ignore_index, each
    )


def nll(
    ndarray log_probabilities not None,
    ndarray labels not None,
    bint mean=True,
    ndarray weight=None,
    ndarray class_weight=None,
    ignore_index=None,
    *,
    bint each=False,
):
    """L_i = -log p_i,label; returns the loss and -onehot(label)."""
    return class_loss(
        CALLS["nll"], log_probabilities, labels, mean, weight, class_weight, 0.0, ignore_index,
        each
    )


cdef tuple element_loss(
    Call call, ndarray prediction, ndarray target, bint mean, ndarray weight, bint each,
    double delta=0.0, ndarray column=None, str column_name="", bint full=False
):
    cdef ElementLossArgs args
    cdef int real = real_of(prediction)
    cdef ndarray dprediction, losses, weights
    cdef bint by_rows
    prediction, target = contiguous(prediction), check_like(target, prediction, "target")
    args.n = cnp.PyArray_SIZE(prediction)
    if args.n == 0:
        raise ValueError(f"empty prediction of shape {(<object>prediction).shape}")
    args.rows = prediction.shape[0] if prediction.ndim else 1
    weight = weights_of(weight, prediction, args.rows, "weight")
    mean = mean and not each
    args.scale, args.full, args.each = 1.0 / args.n if mean else 1.0, full, each
    args.weight, args.weights, args.delta = data_of(weight), NULL, delta
    column = weights_of(column, prediction, args.n // args.rows, column_name)
    args.column = data_of(column)
    by_rows = weight is not None or column is not None
    if each and not by_rows:
        args.rows = 1    # no element needs to know its row, and one long row is fastest
    if each:
        losses = doubles((<object>prediction).shape)
    else:
        losses = doubles((args.rows if by_rows else (args.n + LOSS_BLOCK - 1) // LOSS_BLOCK,))
    if weight is not None:
        weights = weight_total(real, weight, args.rows, mean)
        if mean:
            args.scale = <double>args.rows / args.n
            args.weights = <const double *>cnp.PyArray_DATA(weights)
    dprediction = allocate_like(prediction)
    args.prediction, args.target = cnp.PyArray_DATA(prediction), cnp.PyArray_DATA(target)
    args.dprediction = cnp.PyArray_DATA(dprediction)
    args.losses = <double *>cnp.PyArray_DATA(losses)
    run(call, real, &args)
    if each:
        return losses, dprediction
    return total_of(real, losses, 1.0 if by_rows else args.scale), dprediction


def mse(
    ndarray prediction not None,
    ndarray target not None,
    bint mean=True,
    ndarray weight=None,
    *,
    bint each=False,
):
    """L = (prediction - target)²; returns the loss and 2 · (prediction - target)."""
    return element_loss(CALLS["mse"], prediction, target, mean, weight, each)


def absolute_error(
    ndarray prediction not None,
    ndarray target not None,
    bint mean=True,
    ndarray weight=None,
    *,
    bint each=False,
):
    """L = |prediction - target|; returns the loss and sign(prediction - target)."""
    return element_loss(CALLS["absolute_error"], prediction, target, mean, weight, each)


def huber(
    ndarray prediction not None,
    ndarray target not None,
    double delta=1.0,
    bint mean=True,
    ndarray weight=None,
    *,
    bint each=False,
):
    """L = e²/2 for |e| ≤ δ, δ · (|e| - δ/2) beyond; returns the loss and e within ±δ."""
    if not 0 < delta:
        raise ValueError(f"huber: delta must be > 0, got {delta}")
    return element_loss(CALLS["huber"], prediction, target, mean, weight, each, delta)


def bce_with_logits(
    ndarray logits not None,
    ndarray target not None,
    bint mean=True,
    ndarray weight=None,
    ndarray pos_weight=None,
    *,
    bint each=False,
):
    """L = max(z, 0) - z · t + log(1 + exp(-|z|)); returns the loss and sigmoid(z) - t.

    With a weight w for every column, L = w · t · log(1 + exp(-z)) + (1 - t) · log(1 + exp(z)).
    """
    return element_loss(
        CALLS["bce_with_logits"], logits, target, mean, weight, each, 0.0, pos_weight, "pos_weight"
    )


def pinball(
    ndarray prediction not None,
    ndarray target not None,
    ndarray quantiles not None,
    bint mean=True,
    ndarray weight=None,
    *,
    bint each=False,
):
    """L = q · e for e = target - prediction > 0, else (q - 1) · e; returns the loss and gradient.

    ``quantiles`` has a q for every column.
    """
    return element_loss(
        CALLS["pinball"], prediction, target, mean, weight, each, 0.0, quantiles, "quantiles"
    )


def poisson_nll(
    ndarray log_rate not None,
    ndarray target not None,
    bint mean=True,
    ndarray weight=None,
    bint full=False,
    *,
    bint each=False,
):
    """L = exp(z) - t · z, with ``full`` plus log t!; returns the loss and exp(z) - t."""
    return element_loss(
        CALLS["poisson_nll"], log_rate, target, mean, weight, each, 0.0, None, "", full
    )


def poisson_rate_nll(
    ndarray rate not None,
    ndarray target not None,
    double eps=1e-8,
    bint mean=True,
    ndarray weight=None,
    bint full=False,
    *,
    bint each=False,
):
    """L = r - t · log(r + ε), with ``full`` plus log t!; returns the loss and 1 - t / (r + ε)."""
    return element_loss(
        CALLS["poisson_rate_nll"], rate, target, mean, weight, each, eps, None, "", full
    )


cdef tuple vector_loss(
    Call call, ndarray prediction, ndarray target, Py_ssize_t both, Py_ssize_t columns,
    tuple shape, bint mean, ndarray weight, bint each, double delta=0.0, bint full=False
):
    """Losses of this shape: of every vector of ``both`` numbers, or every number of the target."""
    cdef VectorLossArgs args
    cdef int real = one_dtype(prediction, target, call.name)
    cdef ndarray dprediction, losses, weights
    cdef Py_ssize_t count
    args.both, args.columns = both, columns
    prediction, target = contiguous(prediction), contiguous(target)
    if cnp.PyArray_SIZE(prediction) == 0 or prediction.ndim < 2 or both < 1:
        raise ValueError(
            f"{call.name}: prediction must have rows of numbers, got shape "
            f"{(<object>prediction).shape}"
        )
    args.steps, args.rows = cnp.PyArray_SIZE(prediction) // both, prediction.shape[0]
    if (
        cnp.PyArray_SIZE(prediction) % both or args.steps % args.rows
        or args.steps * columns != cnp.PyArray_SIZE(target)
    ):
        raise ValueError(
            f"{call.name}: prediction {(<object>prediction).shape} and target "
            f"{(<object>target).shape} do not fit"
        )
    weight = weights_of(weight, prediction, args.rows, "weight")
    mean = mean and not each
    losses = doubles(shape)
    count = cnp.PyArray_SIZE(losses)
    args.scale = 1.0 / count if mean else 1.0
    args.weight, args.weights, args.delta = data_of(weight), NULL, delta
    args.full, args.each = full, each
    if not each:
        losses = doubles((args.steps,))
    if weight is not None:
        weights = weight_total(real, weight, args.rows, mean)
        if mean:
            args.scale = <double>args.rows / count
            args.weights = <const double *>cnp.PyArray_DATA(weights)
    dprediction = allocate_like(prediction)
    args.prediction, args.target = cnp.PyArray_DATA(prediction), cnp.PyArray_DATA(target)
    args.dprediction = cnp.PyArray_DATA(dprediction)
    args.losses = <double *>cnp.PyArray_DATA(losses)
    run(call, real, &args)
    return (losses if each else total_of(real, losses, 1.0)), dprediction


def gaussian_nll(
    ndarray prediction not None,
    ndarray target not None,
    double least=-INFINITY,
    bint mean=True,
    ndarray weight=None,
    bint full=False,
    *,
    bint each=False,
):
    """L = (s + (m - t)² · exp(-s)) / 2; returns the loss and its gradient.

    A row of the prediction holds the means m, then the log variances s, which count as ``least``
    where they are less. With ``full``, plus log(2π) / 2.
    """
    cdef Py_ssize_t columns = target.shape[target.ndim - 1] if target.ndim else 1
    return vector_loss(
        CALLS["gaussian_nll"], prediction, target, 2 * columns, columns, (<object>target).shape,
        mean, weight, each, least, full
    )


def cosine_similarity(
    ndarray prediction not None,
    ndarray target not None,
    bint mean=True,
    ndarray weight=None,
    *,
    bint each=False,
):
    """L = 1 - cos(prediction, target) of every row; returns the loss and its gradient."""
    target = check_like(target, prediction, "target")
    cdef Py_ssize_t columns = target.shape[target.ndim - 1] if target.ndim else 1
    return vector_loss(
        CALLS["cosine_similarity"], prediction, target, columns, columns,
        (<object>prediction).shape[: prediction.ndim - 1], mean, weight, each
    )


def cosine_embedding(
    ndarray prediction not None,
    ndarray target not None,
    double margin=0.0,
    bint mean=True,
    ndarray weight=None,
    *,
    bint each=False,
):
    """L = 1 - cos(u, v) where t > 0, else max(0, cos(u, v) - margin); returns loss and gradient.

    The prediction (rows, 2, columns) holds the pairs u, v; the target (rows) is t.
    """
    if prediction.ndim != 3 or prediction.shape[1] != 2:
        raise ValueError(
            "cosine_embedding: prediction must be (rows, 2, columns), got "
            f"{(<object>prediction).shape}"
        )
    return vector_loss(
        CALLS["cosine_embedding"], prediction, target, 2 * prediction.shape[2], 1,
        (<object>target).shape, mean, weight, each, margin
    )


def dot(ndarray x not None, ndarray y not None):
    """Σ x · y, in float64."""
    cdef DotArgs args
    cdef int real = real_of(x)
    cdef ndarray sums
    x, y = contiguous(x), check_like(y, x, "dot: y")
    args.n = cnp.PyArray_SIZE(x)
    sums = doubles(((args.n + NORM_BLOCK - 1) // NORM_BLOCK,))
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    args.sums = <double *>cnp.PyArray_DATA(sums)
    run(CALLS["dot"], real, &args)
    return total_of(real, sums, 1.0)


def squared_norm(ndarray x not None):
    """Σ x², in float64."""
    cdef SquaredNormArgs args
    cdef int real = real_of(x)
    cdef ndarray sums
    x = contiguous(x)
    args.n = cnp.PyArray_SIZE(x)
    sums = doubles(((args.n + NORM_BLOCK - 1) // NORM_BLOCK,))
    args.x, args.sums = cnp.PyArray_DATA(x), <double *>cnp.PyArray_DATA(sums)
    run(SQUARED_NORM, real, &args)
    return total_of(real, sums, 1.0)


# --- what watched steps note ---------------------------------------------------------------

cdef ndarray parts_for(
    ndarray x, Py_ssize_t blocks, Py_ssize_t numbers, ndarray sums, str name
):
    """Where the numbers of all blocks go: new memory, or for a single block these sums."""
    if sums is not None:
        if cnp.PyArray_TYPE(sums) != cnp.NPY_FLOAT64:
            raise TypeError(f"{name}: sums must be float64, got {sums.dtype}")
        if not cnp.PyArray_ISCARRAY(sums) or sums.ndim != 1 or sums.shape[0] != numbers:
            raise ValueError(
                f"{name}: sums are changed in place: they must be {numbers} contiguous numbers"
            )
        check_no_overlap(sums, (x,), f"{name}: sums")
        if blocks == 1:
            return sums
    return doubles((blocks, numbers))


def moment_parts(ndarray x not None, Py_ssize_t groups=1, ndarray sums=None):
    """Of every block of 4096 elements: how many they are, Σ x, Σ x², and how many are zero; of
    several groups of columns, these numbers of each. A single block adds to the sums, if given."""
    cdef MomentPartsArgs args
    cdef int real = real_of(x)
    cdef ndarray parts
    cdef Py_ssize_t size = NORM_BLOCK
    args.columns, args.groups = x.shape[x.ndim - 1] if x.ndim > 0 else 1, groups
    if groups < 1 or args.columns % groups:
        raise ValueError(f"moment_parts: {args.columns} columns are not {groups} groups of columns")
    if groups > 1 and args.columns > 0:
        size = max(1, NORM_BLOCK // args.columns) * args.columns
    x = contiguous(x)
    args.n = cnp.PyArray_SIZE(x)
    parts = parts_for(x, (args.n + size - 1) // size, 4 * groups, sums, "moment_parts")
    args.x, args.parts = cnp.PyArray_DATA(x), <double *>cnp.PyArray_DATA(parts)
    args.accumulate = ADD if parts is sums else WRITE
    run(MOMENT_PARTS, real, &args)
    return None if parts is sums else parts


def norm_parts(ndarray x not None, ndarray before=None, ndarray sums=None):
    """Of every block of 4096 elements: Σ x², and Σ (x - before)², or 0 without ``before``. A single
    block adds to the sums, if given."""
    cdef NormPartsArgs args
    cdef int real = real_of(x)
    cdef ndarray parts
    if before is not None:
        before = check_like(before, x, "norm_parts: before")
    x = contiguous(x)
    args.n = cnp.PyArray_SIZE(x)
    parts = parts_for(x, (args.n + NORM_BLOCK - 1) // NORM_BLOCK, 2, sums, "norm_parts")
    args.x, args.before = cnp.PyArray_DATA(x), data_of(before)
    args.parts = <double *>cnp.PyArray_DATA(parts)
    args.accumulate = ADD if parts is sums else WRITE
    run(NORM_PARTS, real, &args)
    return None if parts is sums else parts


# --- one slope for all, clipping ---------------------------------------------------------

cdef int check_slopes(ndarray slope, ndarray x, str name) except -1:
    if cnp.PyArray_TYPE(slope) != cnp.PyArray_TYPE(x):
        raise TypeError(f"{name} must be {x.dtype}, got {slope.dtype}")
    if slope.ndim != 1 or slope.shape[0] not in (1, x.shape[x.ndim - 1]):
        raise ValueError(
            f"{name} must have shape (1,) or {(x.shape[x.ndim - 1],)}, got {(<object>slope).shape}"
        )
    return 0


def prelu_grad(
    ndarray dy not None, ndarray x not None, ndarray slope not None, ndarray dslope not None
):
    """dx = dy where x > 0, else slope · dy; adds to dslope: Σ dy · x over all x ≤ 0."""
    cdef PreluGradArgs args
    cdef int real = real_of(dy)
    cdef ndarray dx, sums = dslope
    cdef cnp.npy_intp columns
    if dy.ndim < 1 or cnp.PyArray_SIZE(dy) == 0:
        raise ValueError(
            f"prelu_grad: dy must have rows and columns, got shape {(<object>dy).shape}"
        )
    args.columns = columns = dy.shape[dy.ndim - 1]
    check_slopes(slope, dy, "prelu_grad: slope")
    dy, x, slope = contiguous(dy), check_like(x, dy, "prelu_grad: x"), contiguous(slope)
    dslope = check_writable(dslope, dy, "prelu_grad: dslope")
    check_like(dslope, slope, "prelu_grad: dslope")
    check_no_overlap(dslope, (dy, x, slope), "prelu_grad: dslope")
    dx = allocate_like(dy)
    args.slopes, args.accumulate = slope.shape[0], ADD
    if args.slopes != columns:    # a sum for every column, and then their sum
        sums, args.accumulate = allocate(1, &columns, cnp.PyArray_TYPE(dy)), WRITE
    args.dy, args.x, args.slope = (
        cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x), cnp.PyArray_DATA(slope)
    )
    args.dx, args.dslope = cnp.PyArray_DATA(dx), cnp.PyArray_DATA(sums)
    args.rows = cnp.PyArray_SIZE(dy) // columns
    run(PRELU_GRAD, real, &args)
    if sums is not dslope:
        add_column_sum(real, sums, columns, 1, dslope)
    return dx


cdef OptimizerState *states_of(ndarray state) except NULL:
    """Return the address of one OPTIMIZER_STATE, or of an array of them."""
    if state.dtype != OPTIMIZER_STATE:
        raise TypeError(f"clip: state must be of dtype OPTIMIZER_STATE, got {state.dtype}")
    if state.ndim > 1 or not cnp.PyArray_ISCARRAY(state):
        raise ValueError(
            "clip: state is changed in place: it must be C-contiguous and writeable, of one "
            "dimension at most"
        )
    return <OptimizerState *>cnp.PyArray_DATA(state)


def clip(ndarray squared_norm not None, ndarray state not None, ndarray grad=None):
    """Count the step and find the factor that brings the norm down to max_norm.

    ``state`` may be an array with an element for each group of parameters. ``grad`` is the
    gradient: in float64, its norm may be finite although the squared norm overflows. Returns
    whether the norm is finite; when it is not, only the ``norm`` of the first state is changed.
    """
    cdef ClipArgs args
    cdef int real = real_of(squared_norm if grad is None else grad)
    if cnp.PyArray_TYPE(squared_norm) != cnp.NPY_FLOAT64 or cnp.PyArray_SIZE(squared_norm) != 1:
        raise TypeError(f"clip: squared_norm must be one float64, got {squared_norm!r}")
    squared_norm = contiguous(squared_norm)
    args.squared_norm = <const double *>cnp.PyArray_DATA(squared_norm)
    args.state, args.groups = states_of(state), cnp.PyArray_SIZE(state)
    if args.groups == 0:
        raise ValueError("clip: no state")
    args.grad, args.n = NULL, 0
    if grad is not None and cnp.PyArray_TYPE(grad) == cnp.NPY_FLOAT64:
        grad = contiguous(grad)
        args.grad, args.n = cnp.PyArray_DATA(grad), cnp.PyArray_SIZE(grad)
    return run(CLIP, real, &args) == 0


# --- sequences --------------------------------------------------------------------------

cdef int check_sequence(
    ndarray z, ndarray weight, Py_ssize_t gates, str name
) except -1:
    """Check that z is (steps, batch, gates * hidden) and weight (hidden, gates * hidden)."""
    if cnp.PyArray_TYPE(z) != cnp.PyArray_TYPE(weight):
        raise TypeError(f"{name}: weight must be {z.dtype}, got {weight.dtype}")
    if weight.ndim != 2 or weight.shape[0] == 0 or weight.shape[1] != gates * weight.shape[0]:
        raise ValueError(
            f"{name}: weight must have shape (hidden, {gates} * hidden), "
            f"got {(<object>weight).shape}"
        )
    if z.ndim != 3 or cnp.PyArray_SIZE(z) == 0 or z.shape[2] != weight.shape[1]:
        raise ValueError(
            f"{name}: z must have shape (steps, batch, {weight.shape[1]}) with no empty "
            f"dimension, got {(<object>z).shape}"
        )
    return 0


cdef size_t packed_size(ndarray like, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    """Return the bytes of a weight whose rows are padded to whole vectors."""
    return rows * ((columns * <size_t>cnp.PyArray_ITEMSIZE(like) + 63) // 64) * 64


cdef tuple sequence(
    Call call, Py_ssize_t gates, ndarray z,
    ndarray weight, ndarray bias, ndarray h, ndarray c, ndarray lengths, bint reverse,
    Activation activation
):
    """Run a kernel over a whole sequence; returns states, cells, gates and u_n, or None."""
    cdef SequenceArgs args
    cdef str name = call.name
    cdef int real = real_of(z)
    cdef ndarray states, cells = None, opened = None, u_n = None
    cdef Py_ssize_t bad
    check_sequence(z, weight, gates, name)
    args.steps, args.batch, args.hidden = z.shape[0], z.shape[1], weight.shape[0]
    state = (args.batch, args.hidden)
    z, weight = contiguous(z), contiguous(weight)
    bias = check_shape(bias, z, (gates * args.hidden,), f"{name}: bias")
    h, c = check_shape(h, z, state, f"{name}: h"), check_shape(c, z, state, f"{name}: c")
    lengths = lengths_of(lengths, args.batch, name)
    states = allocate_as(z, (args.steps + 1, *state))
    if gates == 4:
        cells = allocate_as(z, (args.steps + 1, *state))
    if gates > 1:
        opened = allocate_as(z, (<object>z).shape)
    if gates == 3:
        u_n = allocate_as(z, (args.steps, *state))
    args.z, args.weight, args.bias = data_of(z), data_of(weight), data_of(bias)
    args.h, args.c = data_of(h), data_of(c)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    args.states, args.cells = data_of(states), data_of(cells)
    args.gates, args.u_n = data_of(opened), data_of(u_n)
    args.reverse, args.activation = reverse, activation
    bad = run_with_scratch(
        call, real, &args, &args.scratch, &args.scratch_step,
        packed_size(z, args.hidden, gates * args.hidden)
        + (packed_size(z, args.batch, gates * args.hidden) if gates > 1 else 0)
    )
    if bad:
        raise RowError("length", bad - 1, args.lengths[bad - 1], args.steps)
    return states, cells, opened, u_n


cdef tuple sequence_grad(
    Call call, Py_ssize_t gates, ndarray dy,
    ndarray dh, ndarray dc, ndarray states, ndarray cells, ndarray opened, ndarray u_n,
    ndarray weight, ndarray lengths, bint reverse, Activation activation, bint cell_norms=False
):
    """Run a kernel back over a whole sequence; returns dz, du, dh, dc, and squared norms of the
    gradients of states, and of cells."""
    cdef SequenceGradArgs args
    cdef str name = call.name
    cdef ndarray kept = states if states is not None else cells
    cdef int real = real_of(kept)
    cdef ndarray dz, du = None, dh0, dc0 = None, norms, of_cells = None
    if kept.ndim != 3 or kept.shape[0] < 2 or cnp.PyArray_SIZE(kept) == 0:
        raise ValueError(
            f"{name}: states must have shape (steps + 1, batch, hidden), "
            f"got {(<object>kept).shape}"
        )
    args.steps, args.batch, args.hidden = kept.shape[0] - 1, kept.shape[1], kept.shape[2]
    state = (args.batch, args.hidden)
    width = gates * args.hidden
    states = None if states is None else contiguous(states)
    cells = None if cells is None else contiguous(cells)
    opened = check_shape(opened, kept, (args.steps, args.batch, width), f"{name}: gates")
    u_n = check_shape(u_n, kept, (args.steps, *state), f"{name}: u_n")
    weight = check_shape(weight, kept, (args.hidden, width), f"{name}: weight")
    dy = check_shape(dy, kept, (args.steps, *state), f"{name}: dy")
    dh = check_shape(dh, kept, state, f"{name}: dh")
    dc = check_shape(dc, kept, state, f"{name}: dc")
    lengths = lengths_of(lengths, args.batch, name)
    dz, dh0 = allocate_as(kept, (args.steps, args.batch, width)), allocate_as(kept, state)
    if gates == 3:
        du = allocate_as(kept, (args.steps, args.batch, width))
    if gates == 4:
        dc0 = allocate_as(kept, state)
    norms = doubles((args.steps, args.batch))
    args.dy, args.dh, args.dc = data_of(dy), data_of(dh), data_of(dc)
    args.states, args.cells = data_of(states), data_of(cells)
    args.gates, args.u_n, args.weight = data_of(opened), data_of(u_n), data_of(weight)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    args.dz, args.du, args.dh0, args.dc0 = data_of(dz), data_of(du), data_of(dh0), data_of(dc0)
    if cell_norms:
        of_cells = doubles((args.steps, args.batch))
    args.norms, args.cell_norms = <double *>data_of(norms), <double *>data_of(of_cells)
    args.reverse, args.activation = reverse, activation
    run_with_scratch(
        call, real, &args, &args.scratch, &args.scratch_step,
        packed_size(kept, width, args.hidden)
    )
    return dz, du, dh0, dc0, norms, of_cells


cdef Activation activation_of(str name, object activation) except *:
    code = ACTIVATIONS.get(activation)
    if code not in (TANH, RELU):
        known = " or ".join([repr(a) for a, code in ACTIVATIONS.items() if code in (TANH, RELU)])
        raise ValueError(f"{name}: activation must be {known}, got {activation!r}")
    return code


def rnn_sequence(
    ndarray z not None, ndarray weight not None, ndarray h=None, ndarray lengths=None,
    bint reverse=False, activation="tanh",
):
    """h_t = activation(z_t + h_{t-1} · W). Returns the states."""
    return sequence(
        CALLS["rnn_sequence"], 1, z, weight, None, h, None, lengths, reverse,
        activation_of("rnn_sequence", activation),
    )[0]


def rnn_sequence_grad(
    ndarray dy, ndarray dh, ndarray states not None, ndarray weight not None,
    ndarray lengths=None, bint reverse=False, activation="tanh",
):
    """Return the gradients of z and of the initial state, and ‖∂L/∂h_t‖² of every step."""
    dz, _, dh, _, norms, _ = sequence_grad(
        CALLS["rnn_sequence_grad"], 1, dy, dh, None, states, None, None,
        None, weight, lengths, reverse, activation_of("rnn_sequence_grad", activation),
    )
    return dz, dh, norms


def lstm_sequence(
    ndarray z not None, ndarray weight not None, ndarray h=None, ndarray c=None,
    ndarray lengths=None, bint reverse=False,
):
    """``lstm_gates`` of z_t + h_{t-1} · W, step after step. Returns states, cells and gates."""
    return sequence(
        CALLS["lstm_sequence"], 4, z, weight, None, h, c, lengths, reverse,
        NO_ACTIVATION,
    )[:3]


def lstm_sequence_grad(
    ndarray dy, ndarray dh, ndarray dc, ndarray cells not None, ndarray gates not None,
    ndarray weight not None, ndarray lengths=None, bint reverse=False, bint cell_norms=False,
):
    """Return the gradients of z and of the initial h and c, and ‖∂L/∂h_t‖² of every step; with
    ``cell_norms`` also ‖∂L/∂c_t‖²."""
    dz, _, dh, dc, norms, of_cells = sequence_grad(
        CALLS["lstm_sequence_grad"], 4, dy, dh, dc, None, cells, gates,
        None, weight, lengths, reverse, NO_ACTIVATION, cell_norms,
    )
    return (dz, dh, dc, norms, of_cells) if cell_norms else (dz, dh, dc, norms)


def gru_sequence(
    ndarray z not None, ndarray weight not None, ndarray bias=None, ndarray h=None,
    ndarray lengths=None, bint reverse=False,
):
    """``gru_gates`` of z_t and u_t = h_{t-1} · W + b. Returns states, gates and u_n."""
    states, _, gates, u_n = sequence(
        CALLS["gru_sequence"], 3, z, weight, bias, h, None, lengths, reverse,
        NO_ACTIVATION,
    )
    return states, gates, u_n


def gru_sequence_grad(
    ndarray dy, ndarray dh, ndarray states not None, ndarray gates not None,
    ndarray u_n not None, ndarray weight not None, ndarray lengths=None, bint reverse=False,
):
    """Return the gradients of z, of u and of the initial state, and ‖∂L/∂h_t‖² of every step."""
    dz, du, dh, _, norms, _ = sequence_grad(
        CALLS["gru_sequence_grad"], 3, dy, dh, None, states, None, gates,
        u_n, weight, lengths, reverse, NO_ACTIVATION,
    )
    return dz, du, dh, norms


def time_first(ndarray x not None, ndarray lengths=None, Py_ssize_t begin=0, width=None):
    """y_tbj = x_bt(begin + j), and 0 from the length of sequence b on."""
    cdef TimeFirstArgs args
    cdef int real = real_of(x)
    cdef ndarray y
    cdef Py_ssize_t columns = -1 if width is None else width    # first: it may run Python code
    if x.ndim != 3 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(
            f"time_first: x must have shape (batch, time, features) with no empty dimension, "
            f"got {(<object>x).shape}"
        )
    args.batch, args.steps, args.features = x.shape[0], x.shape[1], x.shape[2]
    args.begin, args.width = begin, args.features - begin if width is None else columns
    if not (0 <= begin and 1 <= args.width <= args.features - begin):
        raise ValueError(
            f"time_first: columns {begin} to {begin + args.width} are not among {args.features}"
        )
    x, lengths = contiguous(x), lengths_of(lengths, args.batch, "time_first")
    y = allocate_as(x, (args.steps, args.batch, args.width))
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    run(TIME_FIRST, real, &args)
    return y


def batch_first(ndarray x not None, ndarray lengths=None, ndarray other=None):
    """y_btj = x_tbj, then the features of ``other``; 0 from the length of sequence b on."""
    cdef BatchFirstArgs args
    cdef int real = real_of(x)
    cdef ndarray y
    if x.ndim != 3 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(
            f"batch_first: x must have shape (time, batch, features) with no empty dimension, "
            f"got {(<object>x).shape}"
        )
    args.steps, args.batch, args.width, args.other_width = x.shape[0], x.shape[1], x.shape[2], 0
    if other is not None:
        if other.ndim != 3:
            raise ValueError("batch_first: other must have three dimensions")
        args.other_width = other.shape[2]
        shape = (args.steps, args.batch, args.other_width)
        other = check_shape(other, x, shape, "batch_first: other")
    x, lengths = contiguous(x), lengths_of(lengths, args.batch, "batch_first")
    y = allocate_as(x, (args.batch, args.steps, args.width + args.other_width))
    args.x, args.other, args.y = data_of(x), data_of(other), data_of(y)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    run(BATCH_FIRST, real, &args)
    return y


# --- side by side -----------------------------------------------------------------------

cdef ndarray beside(ndarray x, ndarray first, str name):
    """Check that an array may stand beside the first one: all but the last dimension is alike."""
    cdef int axis
    if x is None:
        return None
    if x.ndim != first.ndim:
        raise ValueError(f"concat: {name} has {x.ndim} dimensions, a has {first.ndim}")
    for axis in range(first.ndim - 1):
        if x.shape[axis] != first.shape[axis]:
            raise ValueError(
                f"concat: {name} of shape {(<object>x).shape} and a of shape "
                f"{(<object>first).shape} differ before the last dimension"
            )
    one_dtype(first, x, "concat")
    return contiguous(x)


def concat(ndarray a not None, ndarray b not None, ndarray c=None, ndarray d=None):
    """y = (a, b, c, d), side by side along the last dimension."""
    cdef ConcatArgs args
    cdef int real = real_of(a)
    cdef ndarray y
    if a.ndim < 1 or cnp.PyArray_SIZE(a) == 0:
        raise ValueError(f"concat: a must not be empty, got shape {(<object>a).shape}")
    b, c, d = beside(b, a, "b"), beside(c, a, "c"), beside(d, a, "d")
    a = contiguous(a)
    args.first, args.second = a.shape[a.ndim - 1], b.shape[b.ndim - 1]
    args.third = 0 if c is None else c.shape[c.ndim - 1]
    args.fourth = 0 if d is None else d.shape[d.ndim - 1]
    args.rows = cnp.PyArray_SIZE(a) // args.first
    y = with_last(a, args.first + args.second + args.third + args.fourth)
    args.a, args.b, args.c = data_of(a), data_of(b), data_of(c)
    args.d, args.y = data_of(d), data_of(y)
    run(CONCAT, real, &args)
    return y
