# Kernels that move rows: of sequences, to and from time-first order, and of an embedding's weight.

cdef inline void move_row(
    const Py_ssize_t *lengths, Py_ssize_t row, Py_ssize_t t, const real *x, real *y, Py_ssize_t n
) noexcept nogil:
    """Copy n elements, or write zeros beyond the length of the sequence."""
    if lengths != NULL and t >= lengths[row]:
        memset(y, 0, n * sizeof(real))
    else:
        memcpy(y, x, n * sizeof(real))


cdef Py_ssize_t time_first(const void *arguments, int thread, int threads) noexcept nogil:
    """y[t, b] = x[b, t], `width` of its features from `begin` on. Threads partition the steps."""
    cdef const TimeFirstArgs *args = <const TimeFirstArgs *>arguments
    cdef const real *x = <const real *>args.x + args.begin
    cdef real *y = <real *>args.y
    cdef Py_ssize_t t, b
    for t in range(
        partition(args.steps, 1, thread, threads), partition(args.steps, 1, thread + 1, threads)
    ):
        for b in range(args.batch):
            move_row(
                args.lengths, b, t, x + (b * args.steps + t) * args.features,
                y + (t * args.batch + b) * args.width, args.width
            )
    return 0


cdef Py_ssize_t batch_first(const void *arguments, int thread, int threads) noexcept nogil:
    """y[b, t] = x[t, b] and other[t, b], side by side. Threads partition the batch."""
    cdef const BatchFirstArgs *args = <const BatchFirstArgs *>arguments
    cdef Py_ssize_t n = args.width, more = args.other_width, t, b
    cdef real *y
    for b in range(
        partition(args.batch, 1, thread, threads), partition(args.batch, 1, thread + 1, threads)
    ):
        for t in range(args.steps):
            y = <real *>args.y + (b * args.steps + t) * (n + more)
            move_row(
                args.lengths, b, t, <const real *>args.x + (t * args.batch + b) * n, y, n
            )
            if more > 0:
                move_row(
                    args.lengths, b, t, <const real *>args.other + (t * args.batch + b) * more,
                    y + n, more
                )
    return 0


cdef Py_ssize_t embedding(const void *arguments, int thread, int threads) noexcept nogil:
    """y[i] = weight[indices[i]]. Returns 1 + the first i whose index is out of range."""
    cdef const EmbeddingArgs *args = <const EmbeddingArgs *>arguments
    cdef Py_ssize_t i, n = args.features
    for i in range(
        partition(args.count, 1, thread, threads), partition(args.count, 1, thread + 1, threads)
    ):
        if not 0 <= args.indices[i] < args.rows:
            return 1 + i
        memcpy(
            <real *>args.y + i * n, <const real *>args.weight + args.indices[i] * n,
            n * sizeof(real)
        )
    return 0


cdef Py_ssize_t embedding_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dweight[indices[i]] += dy[i]. Threads partition the columns, as indices may repeat.

    Returns 1 + the first i whose index is out of range, and then changes nothing.
    """
    cdef const EmbeddingGradArgs *args = <const EmbeddingGradArgs *>arguments
    cdef Py_ssize_t begin = partition(args.features, LANES, thread, threads)
    cdef Py_ssize_t end = partition(args.features, LANES, thread + 1, threads)
    cdef Py_ssize_t i, j, n = args.features
    cdef const real *dy
    cdef real *row
    for i in range(args.count):
        if not 0 <= args.indices[i] < args.rows:
            return 1 + i
    for i in range(args.count):
        dy, row = <const real *>args.dy + i * n, <real *>args.dweight + args.indices[i] * n
        j = begin
        while j < end:
            store_columns(
                row + j, load_columns(row + j, end - j) + load_columns(dy + j, end - j), end - j
            )
            j += LANES
    return 0


KERNELS["time_first"] = entry(time_first, sizeof(TimeFirstArgs))
KERNELS["batch_first"] = entry(batch_first, sizeof(BatchFirstArgs))
KERNELS["embedding"] = entry(embedding, sizeof(EmbeddingArgs))
KERNELS["embedding_grad"] = entry(embedding_grad, sizeof(EmbeddingGradArgs))
