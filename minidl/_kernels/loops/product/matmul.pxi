# The matrix product, after Goto and van de Geijn 2008 and the BLIS papers: the kernel `matmul`, and
# its main algorithm, `multiply_blocks`, which is six loops over blocks that stay in the caches.
#
# They are the five loops of the papers, of which LOOP 4 is split in two, with LOOP 3 between the
# halves: else C would be read and written once for every KC steps over k. Where C has few rows,
# the outer half takes one block of k at a time (`depth_of`), so that the inner half is one round.
# Blocks are nearly equal rather than exactly MC or KC, as a thin last one would cost as much as a
# whole one.
#
# Tiles find what they need in the L1 and L2 caches. Meanwhile, tiles of full width fetch what will
# be needed next from memory (`Tile.ahead`), a cache line every few steps: the rest of a packed
# block of B, or, where a block spans whole rows of B, the rows after it.
#
# Every element of C is summed over p = 0 … k-1 in order, in blocks of about KC (`kc_of`), whatever
# the tile it falls into and whichever thread computes it. If neither A nor B is transposed and C
# is not added to, a row of C is the same to the bit whatever m is: steps of a sequence one by one
# are those of the whole.

cdef enum:
    # For a thread to read an element of A, or of B, takes as long as so many multiply-adds.
    COST_OF_A = 24
    COST_OF_B = 12


cdef Py_ssize_t matmul(const void *arguments, int thread, int threads) noexcept nogil:
    """C = activation(A . B + bias), or C += A . B. If m2 > 0, C2 likewise, with the same B."""
    cdef const MatmulArgs *args = <const MatmulArgs *>arguments
    cdef Algorithm algorithm = algorithm_of(args)
    cdef real *scratch = <real *>(<char *>args.scratch + thread * args.scratch_step)
    cdef Py_ssize_t i0 = 0, i1 = height_of(args), j0 = 0, j1 = args.n
    cdef int across, down, i, j
    if threads > 1:
        across = threads_across(args, algorithm, threads)
        down, i, j = threads // across, thread // across, thread % across
        i0, i1 = partition(i1, MR, i, down), partition(i1, MR, i + 1, down)
        j0, j1 = partition(args.n, NR, j, across), partition(args.n, NR, j + 1, across)
    if algorithm == BLOCKS:
        multiply_blocks(args, scratch, i0, i1, j0, j1)
        return 0    # it has applied the activation to each block of C in the cache
    if algorithm == GEMV:
        multiply_gemv(args, scratch, i0, i1, j0, j1)
    elif algorithm == DOT_ROWS:
        multiply_dot_rows(args, j0, j1)
    elif algorithm == NARROW:
        multiply_narrow(args, scratch, i0, i1)
    else:
        multiply_transposed(args, scratch, j0, j1)
    if args.activation != NO_ACTIVATION:
        activate(args, i0, i1, j0, j1)
    return 0


cdef int threads_across(const MatmulArgs *args, Algorithm algorithm, int threads) noexcept nogil:
    """How many threads the columns of C are partitioned among; the rows, among threads / that.

    A thread reads all the rows of A and all the columns of B that its partition of C depends on:
    partitions that are nearly square need the least. The thread with the largest one decides.
    """
    cdef int across, best = 1
    cdef Py_ssize_t rows, columns, cost, least = -1
    if algorithm == NARROW:
        return 1
    if algorithm == DOT_ROWS or algorithm == TRANSPOSED:
        return threads
    for across in range(1, threads + 1):
        if threads % across == 0:
            rows = largest_partition(height_of(args), MR, threads // across)
            columns = largest_partition(args.n, NR, across)
            cost = rows * columns + COST_OF_A * rows + COST_OF_B * columns
            if least < 0 or cost < least:
                best, least = across, cost
    return best


cdef Py_ssize_t matmul_scratch(const MatmulArgs *args) noexcept nogil:
    """Bytes of scratch memory each thread needs; a multiple of 64."""
    cdef Algorithm algorithm = algorithm_of(args)
    cdef Py_ssize_t elements
    if algorithm == GEMV:
        elements = packed_row(args.n)
    elif algorithm == NARROW:
        elements = packed_row(scratch_of_narrow(args))
    elif algorithm == TRANSPOSED:
        elements = scratch_of_transposed(args)
    else:
        elements = scratch_of_blocks(args)
    return ceil_div(elements * sizeof(real), 64) * 64


# --- the six loops ---

cdef void multiply_blocks(
    const MatmulArgs *args, real *scratch,
    Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Rows i0 … i1 and columns j0 … j1 of C. (Rows from m on are those of a second product.)

    C = or += A . B, then + bias, then the activation. Every loop has a block that stays at one
    level of memory while the loops within it run.
    """
    cdef Py_ssize_t jc, pd, ic, pc, jr, columns, depth, rows
    cdef Py_ssize_t mc = block_height(args, i1 - i0), kc = kc_of(args.k)
    cdef real *packed_a = scratch + size_of_packed_b(args)
    cdef real *packed_b
    cdef MatmulArgs lower
    cdef const MatmulArgs *at
    cdef WhereB where
    cdef Tile block, tile
    if args.m2 > 0:
        lower = lower_product(args)

    # LOOP 5: over the columns of C and B, NC at a time.
    jc = j0
    while jc < j1:
        columns = smaller(NC, j1 - jc)

        # LOOP 4, outer half: over k, up to DEPTH KC at a time. A block of B, depth x NC, stays in
        # the L2 and L3 caches. It is packed if that pays, while the first block of C meets it.
        pd = 0
        while pd < args.k or pd == 0:    # k = 0 still writes the bias
            depth = smaller(depth_of(args), args.k - pd)

            # LOOP 3: over the rows of C, MC at a time. A block of C, MC x NC, stays in L2.
            ic = i0
            while ic < i1:
                rows, at = smaller(mc, i1 - ic), args
                if ic >= args.m:
                    at = &lower
                elif ic + rows > args.m:
                    rows = args.m - ic
                packed_b, where = scratch, where_b(args)
                if where == PACKED and ic == i0 and rows >= ROWS_TO_PACK and packs_by_panel(args):
                    where = PACKING

                # LOOP 4, inner half: over the depth, KC at a time. A block of A, MC x KC, stays in
                # L2; it is packed if that pays.
                pc = pd
                while pc < pd + depth or pc == 0:
                    place_c(at, &block, ic, jc, pc, smaller(kc, pd + depth - pc))
                    place_a(at, &block, packed_a, ic, rows, pc)
                    place_b(at, &block, where, packed_b, jc, columns, pc, ic == i0)

                    # LOOP 2: over panels of B, KC x NR, each of which stays in the L1 cache.
                    tile = block
                    jr = 0
                    while jr < columns:
                        place_panel(&block, &tile, where, at.b_col, packed_b, jr, columns)

                        # LOOP 1: over the rows of the block, MR at a time: tiles of C, MR x NR, in
                        # registers. The microkernel runs it, so as to be set up once a panel.
                        multiply_panel(&tile, rows)
                        jr += tile.columns
                    if where >= PACKING:
                        packed_b = packed_b + block.k * packed_row(columns)
                    pc += kc
                if pd + depth == args.k and args.activation != NO_ACTIVATION:
                    activate(args, ic, ic + rows, jc, jc + columns)
                ic += rows
            pd += depth_of(args)
        jc += NC


cdef inline MatmulArgs lower_product(const MatmulArgs *args) noexcept nogil:
    """The second product, whose rows are counted on from those of the first."""
    cdef MatmulArgs lower = args[0]
    lower.a, lower.a_col = <const real *>args.a2 - args.m * args.a_row, args.a2_col
    lower.c = <real *>args.c2 - args.m * args.c_row
    return lower


cdef inline void place_c(
    const MatmulArgs *args, Tile *block, Py_ssize_t ic, Py_ssize_t jc, Py_ssize_t pc, Py_ssize_t k
) noexcept nogil:
    """Point to a block of C, and say what the sums of k terms from p = pc on become of it."""
    block.c, block.c_row = <real *>args.c + ic * args.c_row + jc, args.c_row
    block.k, block.accumulate = k, args.accumulate if pc == 0 else ADD
    block.bias = NULL
    if args.bias != NULL and pc + k == args.k:
        block.bias = <const real *>args.bias + jc


cdef void place_a(
    const MatmulArgs *args, Tile *block, real *packed, Py_ssize_t ic, Py_ssize_t rows,
    Py_ssize_t pc
) noexcept nogil:
    """Point to a block of A, or to a copy of it whose rows follow one another."""
    block.a = <const real *>args.a + ic * args.a_row + pc * args.a_col
    block.a_row, block.a_col = args.a_row, args.a_col
    if not packs_a(args):
        return
    if args.a_col == 1:
        copy_rows(block.a, args.a_row, packed, rows, block.k)
    else:
        pack_transposed(block.a, args.a_col, packed, rows, block.k, block.k, block.k)
    block.a, block.a_row, block.a_col = packed, block.k, 1


cdef void place_b(
    const MatmulArgs *args, Tile *block, WhereB where, real *packed, Py_ssize_t jc,
    Py_ssize_t columns, Py_ssize_t pc, bint first
) noexcept nogil:
    """Point to a block of B, packed or not, and to what tiles fetch from memory meanwhile.

    The `first` block of C to meet it packs it, unless its tiles will.
    """
    cdef const real *b = <const real *>args.b + pc * args.b_row + jc * args.b_col
    block.b, block.b_row = b, args.b_row
    # Fetch rows of B where tiles read B itself in order; else what is near already.
    block.ahead = <const real *>packed if where == PACKED or args.b_col != 1 else b
    block.ahead_step = block.k
    if args.b_row == columns and pc + block.k < args.k:
        block.ahead = b + block.k * args.b_row
    if where != PACKED:
        return
    if first:
        pack(b, args.b_row, args.b_col, packed, block.k, columns)
    else:
        block.ahead = packed + block.k * panel_width(columns)
    block.b = packed


cdef inline void place_panel(
    const Tile *block, Tile *tile, WhereB where, Py_ssize_t b_col, real *packed, Py_ssize_t j,
    Py_ssize_t columns
) noexcept nogil:
    """Point `tile` to the topmost tile of C at column j of a block, and to its panel of B.

    The first tile of a panel packs it on the way, as it loads all of it anyway, or this does so
    before: into its own place among the panels that are kept, else into the one there is room for,
    which may also hold a B narrower than a vector.
    """
    cdef Py_ssize_t width = panel_width(columns - j), row = packed_row(width)
    if where == PACKING:
        packed = packed + j * block.k
    tile.columns, tile.last, tile.packed = width, row - LANES, NULL
    tile.b, tile.b_row = block.b + j * b_col, block.b_row
    if where == PACKED:
        tile.b, tile.b_row = block.b + j * block.k, row
    elif where != IN_PLACE and width == NR and b_col == 1:
        tile.packed = packed
    elif where != IN_PLACE or width < LANES:
        pack(tile.b, block.b_row, b_col, packed, block.k, width)
        tile.b, tile.b_row = packed, row
    else:
        tile.last = width - LANES    # in B itself, the last vector may overlap the one before
    if block.bias != NULL:
        tile.bias = block.bias + j
    tile.a, tile.c = block.a, block.c + j
    tile.ahead = block.ahead + j * block.ahead_step


cdef void activate(
    const MatmulArgs *args, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Apply the activation, or the gradient of one, to a block of C in place."""
    cdef UnaryArgs one
    cdef BinaryArgs two
    cdef Py_ssize_t i = i0, rows = 1
    if j0 == 0 and j1 == args.n and args.c_row == args.n:
        rows = i1 - i0    # they follow one another: one long row
    while i < i1:
        one.n = two.n = rows * (j1 - j0)
        one.x = one.y = two.a = two.y = <real *>args.c + i * args.c_row + j0
        if args.activation == RELU:
            relu(&one, 0, 1)
        elif args.activation == SIGMOID:
            sigmoid(&one, 0, 1)
        elif args.activation == TANH:
            tanh(&one, 0, 1)
        else:
            two.b = <const real *>args.gate + i * args.n + j0
            if args.activation == RELU_GRAD:
                relu_grad(&two, 0, 1)
            elif args.activation == SIGMOID_GRAD:
                sigmoid_grad(&two, 0, 1)
            else:
                tanh_grad(&two, 0, 1)
        i += rows


KERNELS["matmul"] = entry(matmul, sizeof(MatmulArgs))
KERNELS["matmul_scratch"] = <size_t>matmul_scratch, 0
