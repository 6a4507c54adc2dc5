# Split-k: sums over many rows whose terms, not their outputs, are partitioned among threads.
#
# The gradient of a weight is a sum over the rows of a batch, and so is that of a bias. If threads
# partition the outputs of such a sum, each reads all rows, though other threads have just computed
# most of them, and a core reads what another one has written many times slower than its own. Where
# rows are many and outputs few, it is faster if each thread adds up the rows that it has computed.
#
# No bit depends on the number of threads: products add one block of k after another to C (`kc_of`),
# column sums one block of rows after another (ROW_BLOCK). The first thread does so with its blocks.
# The others leave the sum of each of their blocks in memory, a partial sum. Behind a barrier,
# `reduce_partials` adds these in order.

cdef enum:
    SPLIT_TERMS = 2048            # so many rows are worth it
    SPLIT_BYTES = 1 << 21         # of the partial sums, at most
    SPLIT_OUTPUTS = 64            # at most, for each element that a row of A and B has


cdef inline Py_ssize_t first_block(Py_ssize_t count, int thread, int threads) noexcept nogil:
    """The first of a thread's blocks. If threads are more than blocks, the first thread has one."""
    return ceil_div(count * thread, threads)


cdef bint matmul_reduction(
    const MatmulArgs *args, ReducePartialsArgs *reduction
) noexcept nogil:
    """Whether a product is worth splitting along k, and what `reduce_partials` then has to do."""
    cdef Algorithm algorithm = algorithm_of(args)
    reduction.n, reduction.columns = args.m * args.n, args.m if algorithm == TRANSPOSED else 0
    reduction.count, reduction.accumulate = ceil_div(args.k, kc_of(args.k)), args.accumulate
    return (
        args.k >= SPLIT_TERMS and reduction.n <= SPLIT_OUTPUTS * (args.m + args.n)
        and size_of_partials(reduction) <= SPLIT_BYTES
        and args.a_row == 1 and args.a_col != 1 and args.b_col == 1 and args.c_row == args.n
        and args.bias == NULL and args.activation == NO_ACTIVATION and args.m2 == 0
        and (algorithm == BLOCKS or algorithm == TRANSPOSED)
    )


cdef bint column_sum_reduction(
    const ColumnSumArgs *args, ReducePartialsArgs *reduction
) noexcept nogil:
    """Whether a column sum is worth splitting along its rows, and what is then to reduce."""
    reduction.n, reduction.columns = args.columns, 0
    reduction.count, reduction.accumulate = ceil_div(args.rows, ROW_BLOCK), args.accumulate
    return args.rows >= SPLIT_TERMS and size_of_partials(reduction) <= SPLIT_BYTES


cdef inline Py_ssize_t size_of_partials(const ReducePartialsArgs *reduction) noexcept nogil:
    """Bytes of the partial sums, and of one more, which a transpose needs."""
    return reduction.n * (reduction.count + 1) * <Py_ssize_t>sizeof(real)


cdef Py_ssize_t matmul_split_k(const void *arguments, int thread, int threads) noexcept nogil:
    """C = or += the first thread's blocks of k of A . B; partials[i] = block i of the others.

    Where C' is computed, the first thread's sum goes to partials[0], too.
    """
    cdef const MatmulArgs *args = <const MatmulArgs *>arguments
    cdef bint transposed = is_transposed(args)
    cdef MatmulArgs whole = args[0], own
    cdef Py_ssize_t kc = kc_of(args.k), count = ceil_div(args.k, kc)
    cdef Py_ssize_t i = first_block(count, thread, threads)
    cdef Py_ssize_t end = first_block(count, thread + 1, threads)
    if threads == 1:
        return matmul(arguments, 0, 1)
    if transposed:
        whole = transposed_product(args)
        whole.accumulate = WRITE
    if transposed or thread > 0:
        whole.c = <real *>args.partials
    while i < end:
        own = whole
        own.a = <const real *>whole.a + i * kc * whole.a_col
        own.b = <const real *>whole.b + i * kc * whole.b_row
        own.k = smaller(kc, args.k - i * kc)
        if thread > 0:
            own.c, own.accumulate = <real *>whole.c + i * args.m * args.n, WRITE
        elif i > 0:
            own.accumulate = ADD
        multiply_blocks(
            &own, <real *>(<char *>args.scratch + thread * args.scratch_step),
            0, own.m, 0, own.n
        )
        i += 1
    return 0


cdef Py_ssize_t column_sum_split_k(const void *arguments, int thread, int threads) noexcept nogil:
    """sums = or += the first thread's blocks of rows; partials[i] = the sum of block i of the
    others."""
    cdef const ColumnSumArgs *args = <const ColumnSumArgs *>arguments
    cdef Py_ssize_t n = args.columns, count = ceil_div(args.rows, ROW_BLOCK), i
    if threads == 1:
        return column_sum(arguments, 0, 1)
    for i in range(first_block(count, thread, threads), first_block(count, thread + 1, threads)):
        if thread == 0:
            sum_row_block(
                args, i * ROW_BLOCK, 0, n, <real *>args.sums, args.accumulate if i == 0 else ADD
            )
        else:
            sum_row_block(args, i * ROW_BLOCK, 0, n, <real *>args.partials + i * n, WRITE)
    return 0


cdef Py_ssize_t reduce_partials(const void *arguments, int thread, int threads) noexcept nogil:
    """out[j] += partials[i, j], for all blocks i but those of the first thread, in order.

    Where partial sums are the transpose of out, partials[0] takes the place of out, and the one
    behind the last partial sum is room for the transpose.
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
        for i in range(first_block(args.count, 1, threads), args.count):
            sum = sum + load_columns(partials + i * n + j, end - j)
        store_columns(out + j, sum, end - j)
        j += LANES
    if args.columns > 0:
        add_transposed(
            partials, partials + args.count * n, <real *>args.out, args.columns,
            n // args.columns, args.accumulate
        )
    return 0


KERNELS["matmul_split_k"] = entry(matmul_split_k, sizeof(MatmulArgs))
KERNELS["column_sum_split_k"] = entry(column_sum_split_k, sizeof(ColumnSumArgs))
KERNELS["reduce_partials"] = entry(reduce_partials, sizeof(ReducePartialsArgs))
KERNELS["matmul_reduction"] = <size_t>matmul_reduction, 0
KERNELS["column_sum_reduction"] = <size_t>column_sum_reduction, 0
