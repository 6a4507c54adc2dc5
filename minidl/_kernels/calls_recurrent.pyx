"""Sequences and embeddings: the Python-facing calls, twins in reference_recurrent.py."""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport (
    apart, data_of, dense, empty, new, run, run_with_scratch, shaped, table_of, updated
)
from minidl._kernels.kernel_table cimport *

from minidl._kernels.twins.errors import RowError

cnp.import_array()


# --- checks -----------------------------------------------------------------------------

cdef ndarray doubles(Py_ssize_t rows, Py_ssize_t columns):
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = rows, columns
    return new(2, shape, cnp.NPY_FLOAT64)


cdef ndarray whole_numbers(ndarray x, str name):
    """x, dense, as the integers that kernels read."""
    if not cnp.PyArray_ISINTEGER(x):
        raise TypeError(f"{name} must be integers, got {x.dtype}")
    return cnp.PyArray_FROMANY(
        x, cnp.NPY_INTP, 0, 0, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_FORCECAST
    )


cdef ndarray lengths_of(ndarray lengths, Py_ssize_t batch, str name):
    """Checked but for their values; None stays None."""
    if lengths is None:
        return None
    if lengths.ndim != 1 or lengths.shape[0] != batch:
        raise ValueError(
            f"{name}: lengths must have shape ({batch},), got {(<object>lengths).shape}"
        )
    return whole_numbers(lengths, f"{name}: lengths")


cdef int check_sequence(
    ndarray z, ndarray weight, Py_ssize_t gates, str name
) except -1:
    """z (steps, batch, gates * hidden) and weight (hidden, gates * hidden)."""
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


# --- sequences --------------------------------------------------------------------------

cdef size_t packed_size(ndarray like, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    """Bytes of a weight in rows of whole vectors."""
    return rows * ((columns * <size_t>cnp.PyArray_ITEMSIZE(like) + 63) // 64) * 64


cdef tuple sequence(
    const KernelTable *table, str name, kernel_fn kernel, Py_ssize_t gates, ndarray z,
    ndarray weight, ndarray bias, ndarray h, ndarray c, ndarray lengths, bint reverse,
    Activation activation
):
    """Run a kernel over a whole sequence; returns states, cells, gates and u_n, or None."""
    cdef SequenceArgs args
    cdef ndarray states, cells = None, opened = None, u_n = None
    cdef Py_ssize_t bad
    check_sequence(z, weight, gates, name)
    args.steps, args.batch, args.hidden = z.shape[0], z.shape[1], weight.shape[0]
    state = (args.batch, args.hidden)
    z, weight = dense(z), dense(weight)
    bias = shaped(bias, z, (gates * args.hidden,), f"{name}: bias")
    h, c = shaped(h, z, state, f"{name}: h"), shaped(c, z, state, f"{name}: c")
    lengths = lengths_of(lengths, args.batch, name)
    states = empty(z, (args.steps + 1, *state))
    if gates == 4:
        cells = empty(z, (args.steps + 1, *state))
    if gates > 1:
        opened = empty(z, (<object>z).shape)
    if gates == 3:
        u_n = empty(z, (args.steps, *state))
    args.z, args.weight, args.bias = data_of(z), data_of(weight), data_of(bias)
    args.h, args.c = data_of(h), data_of(c)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    args.states, args.cells = data_of(states), data_of(cells)
    args.gates, args.u_n = data_of(opened), data_of(u_n)
    args.reverse, args.activation = reverse, activation
    bad = run_with_scratch(
        name, "rrrrrrwwwws", kernel, &args, sizeof(args), &args.scratch, &args.scratch_step,
        packed_size(z, args.hidden, gates * args.hidden)
        + (packed_size(z, args.batch, gates * args.hidden) if gates > 1 else 0)
    )
    if bad:
        raise RowError("length", bad - 1, args.lengths[bad - 1], args.steps)
    return states, cells, opened, u_n


cdef tuple sequence_grad(
    const KernelTable *table, str name, kernel_fn kernel, Py_ssize_t gates, ndarray dy,
    ndarray dh, ndarray dc, ndarray states, ndarray cells, ndarray opened, ndarray u_n,
    ndarray weight, ndarray lengths, bint reverse, Activation activation
):
    """Run a kernel back over a whole sequence; returns dz, du, dh, dc, and squared norms."""
    cdef SequenceGradArgs args
    cdef ndarray kept = states if states is not None else cells
    cdef ndarray dz, du = None, dh0, dc0 = None, norms
    if kept.ndim != 3 or kept.shape[0] < 2 or cnp.PyArray_SIZE(kept) == 0:
        raise ValueError(
            f"{name}: states must have shape (steps + 1, batch, hidden), "
            f"got {(<object>kept).shape}"
        )
    args.steps, args.batch, args.hidden = kept.shape[0] - 1, kept.shape[1], kept.shape[2]
    state = (args.batch, args.hidden)
    width = gates * args.hidden
    states = None if states is None else dense(states)
    cells = None if cells is None else dense(cells)
    opened = shaped(opened, kept, (args.steps, args.batch, width), f"{name}: gates")
    u_n = shaped(u_n, kept, (args.steps, *state), f"{name}: u_n")
    weight = shaped(weight, kept, (args.hidden, width), f"{name}: weight")
    dy = shaped(dy, kept, (args.steps, *state), f"{name}: dy")
    dh, dc = shaped(dh, kept, state, f"{name}: dh"), shaped(dc, kept, state, f"{name}: dc")
    lengths = lengths_of(lengths, args.batch, name)
    dz, dh0 = empty(kept, (args.steps, args.batch, width)), empty(kept, state)
    if gates == 3:
        du = empty(kept, (args.steps, args.batch, width))
    if gates == 4:
        dc0 = empty(kept, state)
    norms = doubles(args.steps, args.batch)
    args.dy, args.dh, args.dc = data_of(dy), data_of(dh), data_of(dc)
    args.states, args.cells = data_of(states), data_of(cells)
    args.gates, args.u_n, args.weight = data_of(opened), data_of(u_n), data_of(weight)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    args.dz, args.du, args.dh0, args.dc0 = data_of(dz), data_of(du), data_of(dh0), data_of(dc0)
    args.norms = <double *>data_of(norms)
    args.reverse, args.activation = reverse, activation
    run_with_scratch(
        name, "rrrrrrrrrwwwwws", kernel, &args, sizeof(args), &args.scratch, &args.scratch_step,
        packed_size(kept, width, args.hidden)
    )
    return dz, du, dh0, dc0, norms


cdef Activation activation_of(str name, object activation) except *:
    if activation == "tanh":
        return TANH
    if activation == "relu":
        return RELU
    raise ValueError(f"{name}: activation must be 'tanh' or 'relu', got {activation!r}")


def rnn_sequence(
    ndarray z not None, ndarray weight not None, ndarray h=None, ndarray lengths=None,
    bint reverse=False, activation="tanh",
):
    """h_t = activation(z_t + h_{t-1} · W). Returns the states."""
    cdef const KernelTable *table = table_of(z)
    return sequence(
        table, "rnn_sequence", table.rnn_sequence, 1, z, weight, None, h, None, lengths, reverse,
        activation_of("rnn_sequence", activation),
    )[0]


def rnn_sequence_grad(
    ndarray dy, ndarray dh, ndarray states not None, ndarray weight not None,
    ndarray lengths=None, bint reverse=False, activation="tanh",
):
    """The gradients of z and of the initial state, from those of the outputs and of the last
    state; and the squared norm of that of every state."""
    cdef const KernelTable *table = table_of(states)
    dz, _, dh, _, norms = sequence_grad(
        table, "rnn_sequence_grad", table.rnn_sequence_grad, 1, dy, dh, None, states, None, None,
        None, weight, lengths, reverse, activation_of("rnn_sequence_grad", activation),
    )
    return dz, dh, norms


def lstm_sequence(
    ndarray z not None, ndarray weight not None, ndarray h=None, ndarray c=None,
    ndarray lengths=None, bint reverse=False,
):
    """``lstm_gates`` of z_t + h_{t-1} · W, step after step. Returns states, cells and gates."""
    cdef const KernelTable *table = table_of(z)
    return sequence(
        table, "lstm_sequence", table.lstm_sequence, 4, z, weight, None, h, c, lengths, reverse,
        NO_ACTIVATION,
    )[:3]


def lstm_sequence_grad(
    ndarray dy, ndarray dh, ndarray dc, ndarray cells not None, ndarray gates not None,
    ndarray weight not None, ndarray lengths=None, bint reverse=False,
):
    """The gradients of z and of the initial h and c, from those of the outputs and of the last h
    and c; and the squared norm of that of every state."""
    cdef const KernelTable *table = table_of(cells)
    dz, _, dh, dc, norms = sequence_grad(
        table, "lstm_sequence_grad", table.lstm_sequence_grad, 4, dy, dh, dc, None, cells, gates,
        None, weight, lengths, reverse, NO_ACTIVATION,
    )
    return dz, dh, dc, norms


def gru_sequence(
    ndarray z not None, ndarray weight not None, ndarray bias=None, ndarray h=None,
    ndarray lengths=None, bint reverse=False,
):
    """``gru_gates`` of z_t and u_t = h_{t-1} · W + b. Returns states, gates and u_n."""
    cdef const KernelTable *table = table_of(z)
    states, _, gates, u_n = sequence(
        table, "gru_sequence", table.gru_sequence, 3, z, weight, bias, h, None, lengths, reverse,
        NO_ACTIVATION,
    )
    return states, gates, u_n


def gru_sequence_grad(
    ndarray dy, ndarray dh, ndarray states not None, ndarray gates not None,
    ndarray u_n not None, ndarray weight not None, ndarray lengths=None, bint reverse=False,
):
    """The gradients of z, u and the initial state, from those of the outputs and of the last
    state; and the squared norm of that of every state."""
    cdef const KernelTable *table = table_of(states)
    dz, du, dh, _, norms = sequence_grad(
        table, "gru_sequence_grad", table.gru_sequence_grad, 3, dy, dh, None, states, None, gates,
        u_n, weight, lengths, reverse, NO_ACTIVATION,
    )
    return dz, du, dh, norms


# --- between (batch, time, features) and (time, batch, features) --------------------------

def time_first(ndarray x not None, ndarray lengths=None, Py_ssize_t begin=0, width=None):
    """y_tbj = x_bt(begin + j), and 0 beyond the length of b."""
    cdef TimeFirstArgs args
    cdef const KernelTable *table = table_of(x)
    cdef ndarray y
    if x.ndim != 3 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(
            f"time_first: x must have shape (batch, time, features) with no empty dimension, "
            f"got {(<object>x).shape}"
        )
    args.batch, args.steps, args.features = x.shape[0], x.shape[1], x.shape[2]
    args.begin, args.width = begin, args.features - begin if width is None else width
    if not (0 <= begin and 1 <= args.width <= args.features - begin):
        raise ValueError(
            f"time_first: columns {begin} to {begin + args.width} are not among {args.features}"
        )
    x, lengths = dense(x), lengths_of(lengths, args.batch, "time_first")
    y = empty(x, (args.steps, args.batch, args.width))
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    run("time_first", "rrw", table.time_first, &args, sizeof(args))
    return y


def batch_first(ndarray x not None, ndarray lengths=None, ndarray other=None):
    """y_btj = x_tbj, followed by the features of ``other``, and 0 beyond the length of b."""
    cdef BatchFirstArgs args
    cdef const KernelTable *table = table_of(x)
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
        other = shaped(other, x, shape, "batch_first: other")
    x, lengths = dense(x), lengths_of(lengths, args.batch, "batch_first")
    y = empty(x, (args.batch, args.steps, args.width + args.other_width))
    args.x, args.other, args.y = data_of(x), data_of(other), data_of(y)
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    run("batch_first", "rrrw", table.batch_first, &args, sizeof(args))
    return y


# --- embedding --------------------------------------------------------------------------

def embedding(ndarray indices not None, ndarray weight not None):
    """y = the rows of W that the indices name."""
    cdef EmbeddingArgs args
    cdef const KernelTable *table = table_of(weight)
    cdef ndarray y
    cdef Py_ssize_t bad
    indices, weight = whole_numbers(indices, "embedding: indices"), dense(weight)
    args.count = cnp.PyArray_SIZE(indices)
    if weight.ndim != 2 or cnp.PyArray_SIZE(weight) == 0 or args.count == 0:
        raise ValueError(
            f"embedding takes indices and a weight (rows, features), none of them empty, got "
            f"{(<object>indices).shape} and {(<object>weight).shape}"
        )
    args.rows, args.features = weight.shape[0], weight.shape[1]
    y = empty(weight, (*(<object>indices).shape, args.features))
    args.indices = <const Py_ssize_t *>cnp.PyArray_DATA(indices)
    args.weight, args.y = cnp.PyArray_DATA(weight), cnp.PyArray_DATA(y)
    bad = run("embedding", "rrw", table.embedding, &args, sizeof(args))
    if bad:
        raise RowError(
            "index", bad - 1, args.indices[bad - 1], args.rows, (<object>indices).shape
        )
    return y


def embedding_grad(ndarray indices not None, ndarray dy not None, ndarray dweight not None):
    """Adds every row of dy to the row of dW that its index names."""
    cdef EmbeddingGradArgs args
    cdef const KernelTable *table = table_of(dweight)
    cdef Py_ssize_t bad
    indices = whole_numbers(indices, "embedding_grad: indices")
    dweight = updated(dweight, dweight, "embedding_grad: dweight")
    if dweight.ndim != 2 or cnp.PyArray_SIZE(dweight) == 0:
        raise ValueError("embedding_grad: dweight must have shape (rows, features)")
    args.count, args.rows, args.features = (
        cnp.PyArray_SIZE(indices), dweight.shape[0], dweight.shape[1]
    )
    dy = shaped(dy, dweight, (*(<object>indices).shape, args.features), "embedding_grad: dy")
    apart(dweight, (dy,), "embedding_grad: dweight")
    args.indices = <const Py_ssize_t *>cnp.PyArray_DATA(indices)
    args.dy, args.dweight = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(dweight)
    bad = run("embedding_grad", "rru", table.embedding_grad, &args, sizeof(args))
    if bad:
        raise RowError(
            "index", bad - 1, args.indices[bad - 1], args.rows, (<object>indices).shape
        )
