# Recurrent networks over whole sequences.
#
# A sequence kernel packs the recurrent weight once. Then, for every step, it computes one product
# and the gates, while what they share is in the cache. The rows of a batch do not depend on each
# other, so each thread takes its partition of them through all steps and waits for nobody.
#
# Lengths, if given, are from 1 to `steps`; else a kernel returns 1 + the first row whose length is
# not. Beyond its length a sequence keeps its state, and its gradients are 0. `reverse` runs from
# the last step to the first.

cdef enum Cell:
    RNN_CELL, LSTM_CELL, GRU_CELL

cdef enum:
    NEAR_BYTES = 1 << 20    # of a weight that stays in the L2 cache from step to step


# --- the recurrent product, with a weight that was packed before ---

cdef void pack_whole(
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col, real *packed, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """Pack all of B (k x n): one block of k after the other, each in panels."""
    cdef Py_ssize_t p = 0, kc = kc_of(k)
    while p < k:
        pack(b + p * b_row, b_row, b_col, packed + p * packed_row(n), smaller(kc, k - p), n)
        p += kc


cdef void multiply_packed(
    Tile *block, const real *packed, Py_ssize_t rows, Py_ssize_t k, Py_ssize_t n,
    const real *bias, Accumulate accumulate, const real *needed, Py_ssize_t size
) noexcept nogil:
    """C = A . B + bias, or C += A . B, for a B that `pack_whole` packed.

    `block` points to A and C. These are the three inner loops of `multiply_blocks`. Meanwhile
    tiles fetch the next panel of B, or, if all of B stays near, about `size` elements of what is
    needed after this product.
    """
    cdef Py_ssize_t p = 0, j, kc = kc_of(k)
    cdef const real *a = block.a
    cdef bint stays = k * n * sizeof(real) <= NEAR_BYTES
    cdef Tile tile
    block.ahead, block.ahead_step = needed, size // (ceil_div(k, kc) * n)
    block.b_row, block.a_col = 0, 1
    while p < k:
        block.a, block.b, block.k = a + p, packed + p * packed_row(n), smaller(kc, k - p)
        if not stays:
            block.ahead, block.ahead_step = block.b + block.k * panel_width(n), block.k
        block.accumulate = accumulate if p == 0 else ADD
        block.bias = bias if p + kc >= k else NULL
        tile = block[0]
        j = 0
        while j < n:
            place_panel(block, &tile, PACKED, 1, NULL, j, n)
            multiply_panel(&tile, rows)
            j += tile.columns
        if stays:
            block.ahead = block.ahead + block.ahead_step * n
        p += kc


# --- whole sequences ---

cdef inline void begin_rows(
    const void *given, void *rows, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n
) noexcept nogil:
    """Copy rows begin … end of the initial state that is given, or set them to zero."""
    if given == NULL:
        memset(<real *>rows + begin * n, 0, (end - begin) * n * sizeof(real))
    else:
        memcpy(
            <real *>rows + begin * n, <const real *>given + begin * n,
            (end - begin) * n * sizeof(real)
        )


cdef inline bint is_over(const Py_ssize_t *lengths, Py_ssize_t row, Py_ssize_t t) noexcept nogil:
    """Whether a sequence has ended before time t."""
    return lengths != NULL and t >= lengths[row]


cdef inline void activate_row(
    const real *z, real *h, Py_ssize_t n, Activation activation
) noexcept nogil:
    """h = activation(z + h)"""
    cdef vec sum
    cdef Py_ssize_t j = 0
    while j < n:
        sum = load_columns(z + j, n - j) + load_columns(h + j, n - j)
        store_columns(h + j, tanh_vec(sum) if activation == TANH else relu_vec(sum), n - j)
        j += LANES


cdef inline Py_ssize_t sequence(
    const SequenceArgs *args, int thread, int threads, const Cell cell, const Py_ssize_t count
) noexcept nogil:
    """Run all steps of this thread's rows; `count` is the number of gates."""
    cdef Py_ssize_t row = partition(args.batch, 1, thread, threads), b, s, t, before, after
    cdef Py_ssize_t end = partition(args.batch, 1, thread + 1, threads)
    cdef Py_ssize_t n = args.hidden, width = count * args.hidden, size = args.batch * args.hidden
    cdef real *packed = <real *>(<char *>args.scratch + thread * args.scratch_step)
    cdef real *product = packed + n * packed_row(width)    # near; not in the gates, which may be z
    cdef real *h = <real *>args.states
    cdef real *c = <real *>args.cells
    cdef const real *z
    cdef real *gates = NULL
    cdef Tile tile
    cdef LstmGatesArgs lstm
    cdef GruGatesArgs gru
    if row == end:
        return 0
    for b in range(row, end):
        if args.lengths != NULL and not 1 <= args.lengths[b] <= args.steps:
            return 1 + b
    pack_whole(<const real *>args.weight, width, 1, packed, n, width)
    s = args.steps * size if args.reverse else 0
    begin_rows(args.h, h + s, row, end, n)
    if cell == LSTM_CELL:
        begin_rows(args.c, c + s, row, end, n)
    lstm.hidden = gru.hidden = n
    for s in range(args.steps):
        t = args.steps - 1 - s if args.reverse else s
        before = (t + 1 if args.reverse else t) * size
        after = (t if args.reverse else t + 1) * size
        tile.a, tile.a_row = h + before + row * n, n
        tile.c, tile.c_row = product, width
        if cell == RNN_CELL:
            tile.c = product = h + after + row * n
        z = <const real *>args.z + t * count * size + row * width
        multiply_packed(
            &tile, packed, end - row, n, width, <const real *>args.bias, WRITE,
            z, (end - row) * width
        )
        for b in range(row, end):
            z = <const real *>args.z + t * count * size + b * width
            if cell != RNN_CELL:
                gates = <real *>args.gates + t * count * size + b * width
            if is_over(args.lengths, b, t):
                memcpy(h + after + b * n, h + before + b * n, n * sizeof(real))
                if cell == LSTM_CELL:
                    memcpy(c + after + b * n, c + before + b * n, n * sizeof(real))
                if cell == GRU_CELL:
                    memset(<real *>args.u_n + t * size + b * n, 0, n * sizeof(real))
                if cell != RNN_CELL:
                    memset(gates, 0, width * sizeof(real))
            elif cell == RNN_CELL:
                activate_row(z, h + after + b * n, n, args.activation)
            elif cell == LSTM_CELL:
                lstm.z, lstm.c, lstm.gates = z, c + before + b * n, gates
                lstm.new_c, lstm.h = c + after + b * n, h + after + b * n
                lstm_row(&lstm, product + (b - row) * width)
            else:
                gru.z, gru.u, gru.gates = z, product + (b - row) * width, gates
                gru.h, gru.new_h = h + before + b * n, h + after + b * n
                gru.u_n = <real *>args.u_n + t * size + b * n
                gru_row(&gru)
    return 0


cdef Py_ssize_t rnn_sequence(const void *args, int thread, int threads) noexcept nogil:
    """h_t = activation(z_t + h_{t-1} . W), for every step t; threads partition the batch."""
    return sequence(<const SequenceArgs *>args, thread, threads, RNN_CELL, 1)


cdef Py_ssize_t lstm_sequence(const void *args, int thread, int threads) noexcept nogil:
    """h_t, c_t = lstm_gates(z_t + h_{t-1} . W, c_{t-1}), for every step t."""
    return sequence(<const SequenceArgs *>args, thread, threads, LSTM_CELL, 4)


cdef Py_ssize_t gru_sequence(const void *args, int thread, int threads) noexcept nogil:
    """h_t = gru_gates(z_t, h_{t-1} . W + b, h_{t-1}), for every step t."""
    return sequence(<const SequenceArgs *>args, thread, threads, GRU_CELL, 3)


# --- the gradient of whole sequences ---

cdef inline void activate_grad_row(
    const real *dh, const real *h, real *dz, Py_ssize_t n, Activation activation
) noexcept nogil:
    """dz = dh times the derivative where the activation gave h"""
    cdef vec d, y
    cdef Py_ssize_t j = 0
    while j < n:
        d, y = load_columns(dh + j, n - j), load_columns(h + j, n - j)
        d = tanh_grad_vec(d, y) if activation == TANH else relu_grad_vec(d, y)
        store_columns(dz + j, d, n - j)
        j += LANES


cdef inline Py_ssize_t sequence_grad(
    const SequenceGradArgs *args, int thread, int threads, const Cell cell, const Py_ssize_t count
) noexcept nogil:
    """Run back through all steps of this thread's rows, the last step first.

    dh0 holds the gradient of the state of each step, until in the end it is that of the initial
    state.
    """
    cdef Py_ssize_t row = partition(args.batch, 1, thread, threads), b, s, t, before, after
    cdef Py_ssize_t end = partition(args.batch, 1, thread + 1, threads)
    cdef Py_ssize_t n = args.hidden, width = count * args.hidden, size = args.batch * args.hidden
    cdef real *packed = <real *>(<char *>args.scratch + thread * args.scratch_step)
    cdef const real *h = <const real *>args.states
    cdef const real *c = <const real *>args.cells
    cdef real *dh
    cdef real *dz
    cdef real *to_state    # the gradient of what the product with the state gave
    cdef const real *gates = NULL
    cdef const real *needed    # by the step that follows
    cdef Tile tile
    cdef LstmGatesGradArgs lstm
    cdef GruGatesGradArgs gru
    if row == end:
        return 0
    pack_whole(<const real *>args.weight, 1, width, packed, width, n)
    begin_rows(args.dh, args.dh0, row, end, n)
    if cell == LSTM_CELL:
        begin_rows(args.dc, args.dc0, row, end, n)
    lstm.hidden = gru.hidden = n
    for s in range(args.steps):
        t = s if args.reverse else args.steps - 1 - s
        before = (t + 1 if args.reverse else t) * size
        after = (t if args.reverse else t + 1) * size
        to_state = <real *>(args.du if cell == GRU_CELL else args.dz) + t * count * size
        for b in range(row, end):
            dh = <real *>args.dh0 + b * n
            dz = <real *>args.dz + t * count * size + b * width
            if cell != RNN_CELL:
                gates = <const real *>args.gates + t * count * size + b * width
            if is_over(args.lengths, b, t):
                args.norms[t * args.batch + b] = 0
                if args.cell_norms != NULL:
                    args.cell_norms[t * args.batch + b] = 0
                memset(dz, 0, width * sizeof(real))
                if cell == GRU_CELL:
                    memset(to_state + b * width, 0, width * sizeof(real))
                continue
            if args.dy != NULL:
                add_to_row(<const real *>args.dy + t * size + b * n, dh, n)
            args.norms[t * args.batch + b] = squared_norm_block(dh, n)
            if cell == GRU_CELL:
                gru.dh, gru.dh_before, gru.gates, gru.h = dh, dh, gates, h + before + b * n
                gru.u_n = <const real *>args.u_n + t * size + b * n
                gru.dz, gru.du = dz, to_state + b * width
                gru_grad_row(&gru)
                continue
            if cell == RNN_CELL:
                activate_grad_row(dh, h + after + b * n, dz, n, args.activation)
            else:
                lstm.dh, lstm.dc = dh, <const real *>args.dc0 + b * n
                lstm.dc_before = <real *>args.dc0 + b * n
                lstm.gates, lstm.dz = gates, dz
                lstm.c, lstm.new_c = c + before + b * n, c + after + b * n
                if args.cell_norms != NULL:
                    args.cell_norms[t * args.batch + b] = cell_gradient_square(&lstm)
                lstm_grad_row(&lstm)
            memset(dh, 0, n * sizeof(real))    # all of it goes through the product
        tile.a, tile.a_row = to_state + row * width, width
        tile.c, tile.c_row = <real *>args.dh0 + row * n, n
        needed = packed
        if args.gates != NULL and s + 1 < args.steps:
            needed = <const real *>args.gates + row * width
            needed = needed + (t + 1 if args.reverse else t - 1) * count * size
        multiply_packed(
            &tile, packed, end - row, width, n, NULL, ADD, needed, (end - row) * width
        )
    return 0


cdef Py_ssize_t rnn_sequence_grad(const void *args, int thread, int threads) noexcept nogil:
    """dz_t = activation'(h_t) dh_t; dh_{t-1} = dy_{t-1} + dz_t . W'; norms[t] = |dh_t|²."""
    return sequence_grad(<const SequenceGradArgs *>args, thread, threads, RNN_CELL, 1)


cdef Py_ssize_t lstm_sequence_grad(const void *args, int thread, int threads) noexcept nogil:
    """dz_t, dc_{t-1} = lstm_gates_grad; dh_{t-1} = dy_{t-1} + dz_t . W'; norms[t] = |dh_t|²."""
    return sequence_grad(<const SequenceGradArgs *>args, thread, threads, LSTM_CELL, 4)


cdef Py_ssize_t gru_sequence_grad(const void *args, int thread, int threads) noexcept nogil:
    """dz_t, du_t, direct = gru_gates_grad; dh_{t-1} = dy_{t-1} + direct + du_t . W'; the norms."""
    return sequence_grad(<const SequenceGradArgs *>args, thread, threads, GRU_CELL, 3)


KERNELS["rnn_sequence"] = entry(rnn_sequence, sizeof(SequenceArgs))
KERNELS["lstm_sequence"] = entry(lstm_sequence, sizeof(SequenceArgs))
KERNELS["gru_sequence"] = entry(gru_sequence, sizeof(SequenceArgs))
KERNELS["rnn_sequence_grad"] = entry(rnn_sequence_grad, sizeof(SequenceGradArgs))
KERNELS["lstm_sequence_grad"] = entry(lstm_sequence_grad, sizeof(SequenceGradArgs))
KERNELS["gru_sequence_grad"] = entry(gru_sequence_grad, sizeof(SequenceGradArgs))
