# The matrix product, after Goto and van de Geijn 2008 and the BLIS papers.
#
#   for jc in steps of NC over n            columns of C
#     for pc in steps of KC over k          depth: a KC x NC block of B, packed if that pays
#       for ic in steps of MC over m        rows: an MC x KC block of A, packed if that pays
#         for jr in steps of NR over NC     one panel of B, which stays in the L1 cache
#           for ir in steps of MR over MC   one tile of C, in registers: `tiles_of`
#
# Every element of C is summed over p = 0 … k-1 in order, in pieces of KC, whatever the tile
# it falls into and whichever thread computes it. A few rows times a transposed B take another
# way (`multiply_by_dots`), a few more compute the transpose of C (`multiply_turned`); the
# shapes alone decide which.

cdef enum:
    MC = 240                              # a multiple of every MR
    NC = 1024                             # a multiple of every NR
    HIGHEST = 12                          # rows of any tile
    DOTS = 4                              # dot products at a time


cdef struct Tile:
    # A column of tiles of C, one below the other, and where the operands of the first are.
    # All steps are in elements.
    const real *a
    const real *b       # rows of whole vectors
    const real *bias    # or NULL
    real *c
    Py_ssize_t k, a_row, a_col, b_row, c_row
    Py_ssize_t count    # of tiles
    Py_ssize_t a_next   # from the rows of A of one tile to those of the next
    Py_ssize_t last     # columns in the last vector: LANES, or less at the edge of C
    Accumulate accumulate


cdef inline void tiles_of(const Tile *t, const int rows, const int vectors) noexcept nogil:
    """The microkernel: for every tile, c (rows x vectors) = a . b in rows * vectors accumulators.

    Called with constants, so that the compiler unrolls the loops over rows and vectors and
    keeps the accumulators in registers.
    """
    cdef vec acc[HIGHEST][TILE_VECTORS]
    cdef vec row[TILE_VECTORS]
    cdef const real *a
    cdef const real *b
    cdef real *c
    cdef real edge[ACCUMULATORS * LANES]
    cdef Py_ssize_t p, q, a_row = t.a_row, a_col = t.a_col, b_row = t.b_row, c_row = t.c_row
    cdef int i, j
    for q in range(t.count):
        a, b, c = t.a + q * t.a_next, t.b, t.c + q * rows * c_row
        for i in range(rows):
            for j in range(vectors):
                acc[i][j] = fill(0)
                prefetch(c + i * c_row + j * LANES)    # arrives while the sums are formed
        for p in range(t.k):
            for j in range(vectors):
                row[j] = load(b + j * LANES)
            for i in range(rows):
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + a[i * a_row] * row[j]
            a = a + a_col
            b = b + b_row
        if t.last < LANES:
            for i in range(rows):
                for j in range(vectors):
                    store(edge + (i * vectors + j) * LANES, acc[i][j])
            store_edge(t, edge, c, rows, vectors)
            continue
        if t.accumulate == ADD:
            for i in range(rows):
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + load(c + i * c_row + j * LANES)
        elif t.accumulate == ADD_TO_ZERO:
            for i in range(rows):
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + fill(0)
        if t.bias != NULL:
            for j in range(vectors):
                row[j] = load(t.bias + j * LANES)
            for i in range(rows):
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + row[j]
        for i in range(rows):
            for j in range(vectors):
                store(c + i * c_row + j * LANES, acc[i][j])


cdef void store_edge(
    const Tile *t, const real *sums, real *c, int rows, int vectors
) noexcept nogil:
    """The end of a tile whose last vector reaches beyond the edge of C."""
    cdef vec value
    cdef Py_ssize_t n
    cdef int i, j
    for i in range(rows):
        for j in range(vectors):
            n = LANES if j < vectors - 1 else t.last
            value = load(sums + (i * vectors + j) * LANES)
            if t.accumulate == ADD:
                value = value + load_columns(c + j * LANES, n)
            elif t.accumulate == ADD_TO_ZERO:
                value = value + fill(0)
            if t.bias != NULL:
                value = value + load_columns(t.bias + j * LANES, n)
            store_columns(c + j * LANES, value, n)
        c = c + t.c_row


cdef inline void tiles_of_rows(const Tile *t, int rows, const int vectors) noexcept nogil:
    """The microkernel for this many rows; those with too many accumulators are not compiled."""
    if rows == 1:
        tiles_of(t, 1, vectors)
    elif rows == 2:
        tiles_of(t, 2, vectors)
    elif rows == 3:
        tiles_of(t, 3, vectors)
    elif rows == 4 and 4 * vectors <= ACCUMULATORS:
        tiles_of(t, 4, vectors)
    elif rows == 5 and 5 * vectors <= ACCUMULATORS:
        tiles_of(t, 5, vectors)
    elif rows == 6 and 6 * vectors <= ACCUMULATORS:
        tiles_of(t, 6, vectors)
    elif rows == 7 and 7 * vectors <= ACCUMULATORS:
        tiles_of(t, 7, vectors)
    elif rows == 8 and 8 * vectors <= ACCUMULATORS:
        tiles_of(t, 8, vectors)
    elif rows == 9 and 9 * vectors <= ACCUMULATORS:
        tiles_of(t, 9, vectors)
    elif rows == 10 and 10 * vectors <= ACCUMULATORS:
        tiles_of(t, 10, vectors)
    elif rows == 11 and 11 * vectors <= ACCUMULATORS:
        tiles_of(t, 11, vectors)
    elif rows == 12 and 12 * vectors <= ACCUMULATORS:
        tiles_of(t, 12, vectors)


cdef void multiply_tiles(const Tile *t, int rows, int vectors) noexcept nogil:
    """The microkernel for this many rows and vectors."""
    if vectors == 1:
        tiles_of_rows(t, rows, 1)
    elif vectors == 2:
        tiles_of_rows(t, rows, 2)
    elif TILE_VECTORS > 2 and vectors == 3:
        tiles_of_rows(t, rows, 3 if TILE_VECTORS > 2 else 1)
    elif TILE_VECTORS > 2:
        tiles_of_rows(t, rows, 4 if TILE_VECTORS > 2 else 1)


cdef inline bint packs_a(const MatmulArgs *args) noexcept nogil:
    """Elements of A that lie far apart are worth a copy, if enough columns of B use it: those
    of a transposed A always, those of A if its rows are so long that they collide in the cache.
    """
    if args.a_col != 1:
        return args.k >= KC and args.n >= 4 * NR
    return args.k > 512 and args.n > 512


cdef inline bint packs_b(const MatmulArgs *args) noexcept nogil:
    """Transposed rows must be gathered into vectors. Rows far apart are worth a copy if
    enough rows of A use it."""
    return args.b_col != 1 or (args.n > 128 and args.m >= 96)


cdef inline Py_ssize_t block_of_b(const MatmulArgs *args) noexcept nogil:
    """Elements of a packed block of B, or of its last panel alone."""
    return KC * (smaller(NC, ceil_div(args.n, NR) * NR) if packs_b(args) else NR)


cdef inline Py_ssize_t scratch_of_blocks(const MatmulArgs *args) noexcept nogil:
    """Elements of both packed blocks; a multiple of LANES."""
    return block_of_b(args) + (MC * KC if packs_a(args) else 0)


cdef inline Py_ssize_t scratch_of_thread(const MatmulArgs *args) noexcept nogil:
    """Elements one thread needs; a multiple of LANES."""
    cdef MatmulArgs other
    if turns(args):
        other = turned(args)
        return scratch_of_blocks(&other) + ceil_div(other.m * other.n, LANES) * LANES
    return scratch_of_blocks(args)


cdef Py_ssize_t matmul_scratch(const MatmulArgs *args) noexcept nogil:
    """Bytes of scratch memory each thread needs; a multiple of 64."""
    return ceil_div(scratch_of_thread(args) * sizeof(real), 64) * 64


cdef void multiply_block(
    const Tile *t, real *edge,
    Py_ssize_t rows, Py_ssize_t columns, bint packed_a, bint packed_b
) noexcept nogil:
    """The two inner loops: a block of A times a block of B, one panel of B after the other.

    t holds the first tile. `edge` has room to pack the last panel of an unpacked B, whose
    vectors would reach beyond its rows.
    """
    cdef Py_ssize_t j = 0, width, tiles
    cdef int vectors
    cdef Tile at = t[0]
    while j < columns:
        width = smaller(NR, columns - j)
        vectors = <int>ceil_div(width, LANES)
        at.last = width - (vectors - 1) * LANES
        at.b, at.b_row = t.b + j * (t.k if packed_b else 1), t.b_row
        if at.last < LANES and not packed_b:
            pack(at.b, at.b_row, 1, edge, t.k, width, vectors * LANES)
            at.b, at.b_row = edge, vectors * LANES
        if t.bias != NULL:
            at.bias = t.bias + j
        at.a, at.c = t.a, t.c + j
        if packed_a:
            multiply_rows(&at, rows // MR, MR, vectors, MR * t.k)
            multiply_rows(&at, 1, rows % MR, vectors, 0)
        else:
            # Tiles of nearly equal height, rather than full ones and a thin rest.
            tiles = ceil_div(rows, smaller(HIGHEST, ACCUMULATORS // vectors))
            multiply_rows(&at, rows % tiles, rows // tiles + 1, vectors, 0)
            multiply_rows(&at, tiles - rows % tiles, rows // tiles, vectors, 0)
        j += NR


cdef inline void multiply_rows(
    Tile *t, Py_ssize_t count, Py_ssize_t rows, int vectors, Py_ssize_t a_next
) noexcept nogil:
    """So many tiles of so many rows; then t is at what lies below them."""
    t.count = count
    t.a_next = a_next if a_next else rows * t.a_row
    if count > 0 and rows > 0:
        multiply_tiles(t, <int>rows, vectors)
        t.a = t.a + count * t.a_next
        t.c = t.c + count * rows * t.c_row


cdef void activate(
    const MatmulArgs *args, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Apply the activation, or the gradient of one, to a block of c in place."""
    cdef UnaryArgs one
    cdef BinaryArgs two
    cdef Py_ssize_t i = i0, rows = 1
    if j0 == 0 and j1 == args.n and args.c_row == args.n:
        rows = i1 - i0    # they follow each other: one long row
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


cdef inline bint uses_dots(const MatmulArgs *args) noexcept nogil:
    """Few rows times a transposed B: packing B would cost more than the product."""
    return args.m < 8 and args.a_col == 1 and args.b_row == 1 and args.b_col != 1


cdef void multiply_by_dots(const MatmulArgs *args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Columns begin … end of c, each element a dot product of two contiguous rows."""
    cdef vec acc[DOTS]
    cdef vec x
    cdef const real *a
    cdef const real *b
    cdef real *c
    cdef Py_ssize_t i, j = begin, p
    cdef int q, dots
    while j < end:
        dots = <int>smaller(DOTS, end - j)
        for i in range(args.m):
            a = <const real *>args.a + i * args.a_row
            b = <const real *>args.b + j * args.b_col
            for q in range(DOTS):
                acc[q] = fill(0)
            p = 0
            while p < args.k:
                x = load_columns(a + p, args.k - p)
                for q in range(dots):
                    acc[q] = acc[q] + x * load_columns(b + q * args.b_col + p, args.k - p)
                p += LANES
            c = <real *>args.c + i * args.c_row + j
            for q in range(dots):
                c[q] = lane_sum(acc[q]) + (c[q] if args.accumulate == ADD else 0)
                if args.bias != NULL:
                    c[q] = c[q] + (<const real *>args.bias)[j + q]
        j += DOTS


cdef inline bint turns(const MatmulArgs *args) noexcept nogil:
    """Whether to compute C' = B' . A', and turn that.

    To multiply with a transposed B, something must be turned: B (k n elements), or A and C
    ((k + n) m elements).
    """
    return (
        args.b_col != 1 and args.a_col == 1 and 8 <= args.m <= 128 and 2 * args.m <= args.k
        and not args.accumulate and args.bias == NULL
    )


cdef inline MatmulArgs turned(const MatmulArgs *args) noexcept nogil:
    """The product C' = B' . A', without a place for C'."""
    cdef MatmulArgs other = args[0]
    other.a, other.a_row, other.a_col = args.b, args.b_col, args.b_row
    other.b, other.b_row, other.b_col = args.a, args.a_col, args.a_row
    other.m, other.n, other.c_row = args.n, args.m, args.m
    return other


cdef void multiply_turned(
    const MatmulArgs *args, real *scratch, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Columns begin … end of c: rows of C' in scratch memory, then turned."""
    cdef MatmulArgs other = turned(args)
    cdef real *c = scratch + scratch_of_blocks(&other)
    other.c = c - begin * other.c_row    # its rows are counted from `begin`
    multiply(&other, scratch, begin, end, 0, other.n)
    pack_transposed(
        c, other.c_row, <real *>args.c + begin, args.m, end - begin, args.c_row, end - begin
    )


cdef void multiply(
    const MatmulArgs *args, real *pack_b,
    Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Rows i0 … i1 and columns j0 … j1 of c: the three outer loops."""
    cdef bint packed_a = packs_a(args), packed_b = packs_b(args)
    # For one or two rows, few rows of B at a time, so that B is read in order.
    cdef Py_ssize_t kc = KC if args.m > 2 else 64
    cdef Py_ssize_t ic, jc = j0, pc, rows, columns, depth
    cdef const real *a
    cdef const real *b
    cdef real *pack_a = pack_b + block_of_b(args)
    cdef Tile t
    t.c_row = args.c_row
    while jc < j1:
        columns = smaller(NC, j1 - jc)
        pc = 0
        while pc < args.k or pc == 0:    # k = 0 still writes the bias
            depth = smaller(kc, args.k - pc)
            b = <const real *>args.b + pc * args.b_row + jc * args.b_col
            if packed_b:
                pack(b, args.b_row, args.b_col, pack_b, depth, columns, NR)
                b = pack_b
            t.b = b
            t.b_row = NR if packed_b else args.b_row
            t.k = depth
            t.accumulate = args.accumulate if pc == 0 else ADD
            t.bias = NULL
            if args.bias != NULL and pc + depth == args.k:
                t.bias = <const real *>args.bias + jc
            ic = i0
            while ic < i1:
                rows = smaller(MC, i1 - ic)
                a = <const real *>args.a + ic * args.a_row + pc * args.a_col
                if packed_a:
                    pack(a, args.a_col, args.a_row, pack_a, depth, rows, MR)
                    a = pack_a
                t.a = a
                t.a_row = 1 if packed_a else args.a_row
                t.a_col = MR if packed_a else args.a_col
                t.c = <real *>args.c + ic * args.c_row + jc
                multiply_block(&t, pack_b, rows, columns, packed_a, packed_b)
                ic += MC
            pc += kc
        jc += NC


cdef Py_ssize_t matmul(const void *arguments, int thread, int threads) noexcept nogil:
    """c = activation(a . b + bias), or c += a . b."""
    cdef const MatmulArgs *args = <const MatmulArgs *>arguments
    cdef bint dots = uses_dots(args), turn = turns(args)
    cdef Py_ssize_t i0 = 0, i1 = args.m, j0 = 0, j1 = args.n
    cdef real *scratch = <real *>(<char *>args.scratch + thread * args.scratch_step)
    if args.m * NR > args.n * MR and not dots and not turn:    # more tiles down than across
        i0 = share_begin(args.m, MR, thread, threads)
        i1 = share_begin(args.m, MR, thread + 1, threads)
    else:
        j0 = share_begin(args.n, NR, thread, threads)
        j1 = share_begin(args.n, NR, thread + 1, threads)
    if dots:
        multiply_by_dots(args, j0, j1)
    elif turn:
        multiply_turned(args, scratch, j0, j1)
    else:
        multiply(args, scratch, i0, i1, j0, j1)
    if args.activation != NO_ACTIVATION:
        activate(args, i0, i1, j0, j1)
