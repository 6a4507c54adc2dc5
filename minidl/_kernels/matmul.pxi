# The matrix product, after Goto and van de Geijn 2008 and the BLIS papers.
#
#   for jc in steps of NC over n            columns of C
#     for pc in steps of KC over k          depth: a KC x NC block of B, packed if that pays
#       for ic in steps of MC over m        rows: an MC x KC block of A, packed if that pays
#         for jr in steps of NR over NC     one panel of B, which stays in the L1 cache
#           for ir in steps of MR over MC   one tile of C, in registers: `tile`
#
# Every element of C is summed over p = 0 … k-1 in order, in pieces of KC, whatever the tile
# it falls into and whichever thread computes it.

cdef enum:
    KC = 256
    MC = 240            # a multiple of every MR
    NC = 1024           # a multiple of every NR
    LARGEST_MR = 12


cdef struct Tile:
    # One tile of C and where its operands are. All steps are in elements.
    const real *a
    const real *b       # rows of 1 or 2 vectors
    const real *bias    # or NULL
    real *c
    Py_ssize_t k, a_row, a_col, b_row, c_row
    bint accumulate


cdef inline void tile(const Tile *t, const int rows, const int vectors) noexcept nogil:
    """The microkernel: c (rows x vectors) = a . b in rows * vectors accumulators.

    Called with constants, so that the compiler keeps the accumulators in registers.
    """
    cdef vec acc[LARGEST_MR][2]
    cdef vec b0, b1
    cdef const real *a = t.a
    cdef const real *b = t.b
    cdef real *c = t.c
    cdef Py_ssize_t p, a_row = t.a_row, a_col = t.a_col, b_row = t.b_row
    cdef int i, j
    for i in range(rows):
        acc[i][0] = fill(0)
        acc[i][1] = fill(0)
    for p in range(t.k):
        b0 = load(b)
        b1 = load(b + (vectors - 1) * LANES)
        for i in range(rows):
            acc[i][0] = acc[i][0] + a[i * a_row] * b0
            if vectors == 2:
                acc[i][1] = acc[i][1] + a[i * a_row] * b1
        a = a + a_col
        b = b + b_row
    for i in range(rows):
        for j in range(vectors):
            if t.accumulate:
                acc[i][j] = acc[i][j] + load(c + j * LANES)
            if t.bias != NULL:
                acc[i][j] = acc[i][j] + load(t.bias + j * LANES)
            store(c + j * LANES, acc[i][j])
        c = c + t.c_row


cdef inline void tile_of_rows(const Tile *t, int rows, const int vectors) noexcept nogil:
    """The microkernel for this many rows, 1 … MR."""
    if rows == 1:
        tile(t, 1, vectors)
    elif rows == 2:
        tile(t, 2, vectors)
    elif rows == 3:
        tile(t, 3, vectors)
    elif rows == 4:
        tile(t, 4, vectors)
    elif rows == 5:
        tile(t, 5, vectors)
    elif rows == 6:
        tile(t, 6, vectors)
    elif rows == 7:
        tile(t, 7, vectors)
    elif rows == 8:
        tile(t, 8, vectors)
    elif rows == 9:
        tile(t, 9, vectors)
    elif rows == 10:
        tile(t, 10, vectors)
    elif rows == 11:
        tile(t, 11, vectors)
    elif rows == 12:
        tile(t, 12, vectors)


cdef void tile_of(const Tile *t, int rows, int vectors) noexcept nogil:
    """The microkernel for this many rows and vectors."""
    if vectors == 2:
        tile_of_rows(t, rows, 2)
    else:
        tile_of_rows(t, rows, 1)


cdef void tile_at_edge(const Tile *t, int rows, Py_ssize_t columns) noexcept nogil:
    """A tile of fewer columns than its vectors hold: computed whole, beside C.

    Its panel of B is packed, with zeros beyond the edge.
    """
    cdef real c[MR * NR]
    cdef real bias[NR]
    cdef Tile whole = t[0]
    cdef int i
    memset(c, 0, sizeof(c))
    memset(bias, 0, sizeof(bias))
    whole.c, whole.c_row = c, NR
    if t.accumulate:
        for i in range(rows):
            memcpy(c + i * NR, t.c + i * t.c_row, columns * sizeof(real))
    if t.bias != NULL:
        memcpy(bias, t.bias, columns * sizeof(real))
        whole.bias = bias
    tile_of(&whole, rows, 1 if columns <= LANES else 2)
    for i in range(rows):
        memcpy(t.c + i * t.c_row, c + i * NR, columns * sizeof(real))


cdef void pack(
    const real *source, Py_ssize_t source_row, Py_ssize_t source_col,
    real *packed, Py_ssize_t depth, Py_ssize_t width, Py_ssize_t panel
) noexcept nogil:
    """depth x width elements into panels of `panel` columns, each contiguous, zero-padded.

    Serves both sides: a panel of B is NR columns wide, one of A is MR rows high, which are
    columns of its transpose.
    """
    cdef Py_ssize_t j, p, q, columns
    for j in range(ceil_div(width, panel)):
        columns = smaller(panel, width - j * panel)
        for p in range(depth):
            if source_col == 1 and columns == panel:
                memcpy(packed, source + p * source_row, panel * sizeof(real))
            else:
                for q in range(columns):
                    packed[q] = source[p * source_row + q * source_col]
                for q in range(columns, panel):
                    packed[q] = 0
            packed = packed + panel
        source = source + panel * source_col


cdef inline bint packs_a(const MatmulArgs *args) noexcept nogil:
    """Rows of A far apart collide in the cache; worth a copy if enough columns use it."""
    return args.k > 512 and args.n >= 4 * NR and args.m >= 4 * MR


cdef inline bint packs_b(const MatmulArgs *args) noexcept nogil:
    """Transposed rows must be gathered into vectors. Rows far apart are worth a copy if
    enough rows of A use it."""
    return args.b_col != 1 or (args.n > 512 and args.m >= 4 * MR)


cdef Py_ssize_t matmul_scratch(const MatmulArgs *args, int threads) noexcept nogil:
    """Bytes for the packed blocks of every thread, and to align them."""
    cdef Py_ssize_t block_a = MC * KC if packs_a(args) else 0
    cdef Py_ssize_t block_b = KC * (smaller(NC, ceil_div(args.n, NR) * NR) if packs_b(args) else NR)
    return threads * (block_a + block_b) * sizeof(real) + VEC_BYTES


cdef void multiply_block(
    const Tile *t, real *edge,
    Py_ssize_t rows, Py_ssize_t columns, bint packed_a, bint packed_b
) noexcept nogil:
    """The two inner loops: a block of A times a block of B, tile by tile.

    t holds the first tile. `edge` has room to pack the last panel of an unpacked B, whose
    vectors would reach beyond its rows.
    """
    cdef Py_ssize_t tiles = ceil_div(rows, MR)
    cdef Py_ssize_t i, j = 0, done, width, height
    cdef Tile at = t[0]
    while j < columns:
        width = smaller(NR, columns - j)
        at.b = t.b + j * (t.k if packed_b else 1)
        at.b_row = t.b_row
        if width % LANES and not packed_b:
            pack(at.b, at.b_row, 1, edge, t.k, width, NR)
            at.b, at.b_row = edge, NR
        at.bias = t.bias + j if t.bias != NULL else NULL
        done = 0
        for i in range(tiles):
            # Tiles of nearly equal height instead of full ones and a thin rest.
            height = MR if packed_a else rows * (i + 1) // tiles - done
            height = smaller(height, rows - done)
            at.a = t.a + (done // MR * MR * t.k if packed_a else done * t.a_row)
            at.c = t.c + done * t.c_row + j
            if width == NR or width == LANES:
                tile_of(&at, <int>height, <int>(width // LANES))
            else:
                tile_at_edge(&at, <int>height, width)
            done += height
        j += NR


cdef void activate(
    real *c, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t c_row, Activation activation
) noexcept nogil:
    """Apply an activation to a block of C, in place."""
    cdef UnaryArgs line
    cdef Py_ssize_t i
    line.n = columns
    for i in range(rows):
        line.x = line.y = c + i * c_row
        if activation == RELU:
            relu(&line, 0, 1)
        elif activation == SIGMOID:
            sigmoid(&line, 0, 1)
        elif activation == TANH:
            tanh(&line, 0, 1)


cdef Py_ssize_t matmul(const void *arguments, int thread, int threads) noexcept nogil:
    """c = activation(a . b + bias), or c += a . b."""
    cdef const MatmulArgs *args = <const MatmulArgs *>arguments
    cdef bint packed_a = packs_a(args), packed_b = packs_b(args)
    cdef bint by_rows = args.m * NR > args.n * MR    # more tiles down than across
    cdef Py_ssize_t i0 = 0, i1 = args.m, j0 = 0, j1 = args.n
    cdef Py_ssize_t ic, jc, pc, rows, columns, depth
    cdef const real *a
    cdef const real *b
    cdef real *pack_b = <real *>(
        (<size_t>args.scratch + VEC_BYTES - 1) // VEC_BYTES * VEC_BYTES
        + thread * ((matmul_scratch(args, threads) - VEC_BYTES) // threads)
    )
    cdef real *pack_a = pack_b + KC * (
        smaller(NC, ceil_div(args.n, NR) * NR) if packed_b else NR
    )
    cdef Tile t
    if by_rows:
        i0 = share_begin(args.m, MR, thread, threads)
        i1 = share_begin(args.m, MR, thread + 1, threads)
    else:
        j0 = share_begin(args.n, NR, thread, threads)
        j1 = share_begin(args.n, NR, thread + 1, threads)

    t.c_row = args.c_row
    jc = j0
    while jc < j1:
        columns = smaller(NC, j1 - jc)
        pc = 0
        while pc < args.k or pc == 0:    # k = 0 still writes the bias
            depth = smaller(KC, args.k - pc)
            b = <const real *>args.b + pc * args.b_row + jc * args.b_col
            if packed_b:
                pack(b, args.b_row, args.b_col, pack_b, depth, columns, NR)
                b = pack_b
            t.b = b
            t.b_row = NR if packed_b else args.b_row
            t.k = depth
            t.accumulate = args.accumulate or pc > 0
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
            pc += KC
        jc += NC
    if args.activation != NO_ACTIVATION:
        activate(
            <real *>args.c + i0 * args.c_row + j0, i1 - i0, j1 - j0, args.c_row, args.activation
        )
