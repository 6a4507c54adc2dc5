# Argument structs of recurrent networks and embeddings: a part of kernel_table.pxd.

cdef struct LstmGatesArgs:
    # Gates follow one another in a row: i, f, g, o.
    const void *z              # rows x 4 hidden
    const void *c
    void *gates                # rows x 4 hidden
    void *new_c
    void *h
    Py_ssize_t rows, hidden

cdef struct LstmGatesGradArgs:
    const void *dh
    const void *dc
    const void *gates
    const void *c
    const void *new_c
    void *dz
    void *dc_before            # may be dc
    Py_ssize_t rows, hidden

cdef struct GruGatesArgs:
    # Gates follow one another in a row: r, z, n.
    const void *z              # rows x 3 hidden
    const void *u              # rows x 3 hidden
    const void *h
    void *gates                # rows x 3 hidden; may be u
    void *new_h
    void *u_n                  # the last third of u, or NULL
    Py_ssize_t rows, hidden

cdef struct GruGatesGradArgs:
    const void *dh
    const void *gates
    const void *u_n            # rows x hidden
    const void *h
    void *dz
    void *du
    void *dh_before            # may be dh
    Py_ssize_t rows, hidden

cdef struct SequenceArgs:
    # Returns 1 + the first row whose length is not in 1 ... steps.
    const void *z              # steps x batch x gates * hidden: what the inputs add
    const void *weight         # hidden x gates * hidden
    const void *bias           # of GRU, or NULL
    const void *h              # the initial state, or NULL: zero
    const void *c              # of LSTM, likewise
    const Py_ssize_t *lengths  # of every sequence, or NULL
    void *states               # (steps + 1) x batch x hidden
    void *cells                # of LSTM, likewise
    void *gates                # of LSTM and GRU: steps x batch x gates * hidden; may be z
    void *u_n                  # of GRU: steps x batch x hidden
    void *scratch              # aligned; `scratch_step` bytes for each thread
    Py_ssize_t scratch_step    # room for the weight, in rows of 64 bytes, and the batch's product
    Py_ssize_t steps, batch, hidden
    bint reverse
    Activation activation      # of RNN

cdef struct SequenceGradArgs:
    const void *dy             # steps x batch x hidden, or NULL: zero
    const void *dh             # of the last state, or NULL: zero
    const void *dc
    const void *states         # and from here on as above
    const void *cells
    const void *gates
    const void *u_n
    const void *weight
    const Py_ssize_t *lengths
    void *dz                   # may be gates
    void *du                   # of GRU
    void *dh0                  # of the initial state
    void *dc0
    double *norms              # steps x batch: the squared norm of the gradient of each state
    void *scratch
    Py_ssize_t scratch_step    # room for the transposed weight, in rows of 64 bytes
    Py_ssize_t steps, batch, hidden
    bint reverse
    Activation activation

cdef struct TimeFirstArgs:
    # y (steps x batch x width) = columns begin ... of x (batch x steps x features)
    const void *x
    const Py_ssize_t *lengths  # or NULL; beyond them y is 0
    void *y
    Py_ssize_t batch, steps, features, begin, width

cdef struct BatchFirstArgs:
    # y (batch x steps x both widths) = x and other, side by side
    const void *x              # steps x batch x width
    const void *other          # or NULL, and other_width 0
    const Py_ssize_t *lengths
    void *y
    Py_ssize_t batch, steps, width, other_width

cdef struct EmbeddingArgs:
    # Returns 1 + the first of `count` indices that is not in [0, rows).
    const Py_ssize_t *indices
    const void *weight         # rows x features
    void *y
    Py_ssize_t count, rows, features

cdef struct EmbeddingGradArgs:
    const Py_ssize_t *indices
    const void *dy
    void *dweight
    Py_ssize_t count, rows, features
