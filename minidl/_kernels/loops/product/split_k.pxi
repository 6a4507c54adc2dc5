# Sums over many rows, cut between threads along the rows.
#
# The gradient of a weight is a sum over the rows of a batch, and so is that of a bias. Threads
# share the elements of a product; each then reads all rows, though other threads have just computed
# most of them, and a core reads what another one has written many times slower than its own. Where
# rows are many and the sums small, each thread had better add up the rows that it has computed.
#
# So that no bit depends on the number of threads: products add piece after piece to C, column sums
# TURN rows after TURN rows. The first thread does that with its partials. The others leave each of
# theirs in memory, and behind a barrier they are added, in order (`reduce_partials`).

cdef enum:
    TALL = 2048                   # rows that are worth it
    MOST_PIECES = 1 << 21         # bytes
    SMALL = 64                    # elements of a sum, for each that a row of A and B has


cdef inline Py_ssize_t first_piece(Py_ssize_t count, int thread, int threads) noexcept nogil:
    """Of a thread; of more threads than there are partials, the first one still has one."""
    return ceil_div(count * thread, threads)


cdef bint matmul_reduction(const MatmulArgs *args, ReducePartialsArgs *reduction) noexcept nogil:
    """Whether a product is worth cutting along k; then, what `reduce_partials` has to do."""
    reduction.n, reduction.columns = args.m * args.n, args.m if turns(args) else 0
    reduction.count, reduction.accumulate = ceil_div(args.k, piece_of(args.k)), args.accumulate
    return (
        args.k >= TALL and reduction.n <= SMALL * (args.m + args.n)
        and reduction.n * (reduction.count + 1) * <Py_ssize_t>sizeof(real) <= MOST_PIECES
        and args.a_row == 1 and args.a_col != 1 and args.b_col == 1 and args.c_row == args.n
        and args.bias == NULL and args.activation == NO_ACTIVATION and args.m2 == 0
        and not (uses_rows(args) or uses_narrow(args) or uses_dots(args))
    )


cdef bint column_sum_reduction(const ColumnSumArgs *args, ReducePartialsArgs *reduction) noexcept nogil:
    """The same of a sum of rows."""
    reduction.n, reduction.columns = args.columns, 0
    reduction.count, reduction.accumulate = ceil_div(args.rows, TURN), args.accumulate
    return (
        args.rows >= TALL
        and reduction.n * (reduction.count + 1) * <Py_ssize_t>sizeof(real) <= MOST_PIECES
    )


cdef Py_ssize_t matmul_split_k(const void *arguments, int thread, int threads) noexcept nogil:
    """c += a . b, or c = a . b: what the first thread has of it, and the partials of the others."""
    cdef const MatmulArgs *args = <const MatmulArgs *>arguments
    cdef bint turn = turns(args)
    cdef MatmulArgs whole = args[0], own
    cdef Py_ssize_t piece = piece_of(args.k), count = ceil_div(args.k, piece)
    cdef Py_ssize_t i = first_piece(count, thread, threads)
    cdef Py_ssize_t end = first_piece(count, thread + 1, threads)
    if threads == 1:
        return matmul(arguments, 0, 1)
    if turn:
        whole = turned(args)
        whole.accumulate = WRITE
    if turn or thread > 0:
        whole.c = <real *>args.partials
    while i < end:
        own = whole
        own.a = <const real *>whole.a + i * piece * whole.a_col
        own.b = <const real *>whole.b + i * piece * whole.b_row
        own.k = smaller(piece, args.k - i * piece)
        if thread > 0:
            own.c, own.accumulate = <real *>whole.c + i * args.m * args.n, WRITE
        elif i > 0:
            own.accumulate = ADD
        multiply(
            &own, <real *>(<char *>args.scratch + thread * args.scratch_step),
            0, own.m, 0, own.n
        )
        i += 1
    return 0


cdef Py_ssize_t column_sum_split_k(const void *arguments, int thread, int threads) noexcept nogil:
    """What the first thread has of a sum of rows, and the partials of the others."""
    cdef const ColumnSumArgs *args = <const ColumnSumArgs *>arguments
    cdef Py_ssize_t n = args.columns, count = ceil_div(args.rows, TURN), i
    if threads == 1:
        return column_sum(arguments, 0, 1)
    for i in range(first_piece(count, thread, threads), first_piece(count, thread + 1, threads)):
        if thread == 0:
            sum_turn(
                args, i * TURN, 0, n, <real *>args.sums, args.accumulate if i == 0 else ADD
            )
        else:
            sum_turn(args, i * TURN, 0, n, <real *>args.partials + i * n, WRITE)
    return 0


cdef Py_ssize_t reduce_partials(const void *arguments, int thread, int threads) noexcept nogil:
    """out[j] += partials[i, j], for all partials i but those of the first thread, in order.

    Where partials are the transpose of out, the first one stands for what the first thread has, and
    the last one is free.
    """
    cdef const ReducePartialsArgs *args = <const ReducePartialsArgs *>arguments
    cdef Py_ssize_t n = args.n, i, j = 0, end = n
    cdef real *partials = <real *>args.partials
    cdef real *out = partials if args.columns > 0 else <real *>args.out
    cdef vec sum
    if threads == 1:
        return 0
    if args.columns == 0 and threads > 2:
        j, end = partition(n, LANES, thread, threads), partition(n, LANES, thread + 1, threads)
    elif thread != threads - 1:
        return 0    # of two threads the second has them all in its cache
    while j < end:
        sum = load_columns(out + j, end - j)
        for i in range(first_piece(args.count, 1, threads), args.count):
            sum = sum + load_columns(partials + i * n + j, end - j)
        store_columns(out + j, sum, end - j)
        j += LANES
    if args.columns > 0:
        add_turned(
            partials, partials + args.count * n, <real *>args.out, args.columns, n // args.columns,
            args.accumulate
        )
    return 0
