# The matrix product, after Goto and van de Geijn 2008 and the BLIS papers.
#
#   for jc in steps of NC over n              columns of C
#     for pd in steps of DEEP KC over k       a DEEP KC x NC block of B, packed if that pays
#       for ic in steps of MC over m          an MC x NC block of C, which stays in the L2 cache;
#                                             or a higher or lower one: see rows_of_block
#         for pc in steps of KC over DEEP KC  an MC x KC block of A, packed if that pays
#           for jr in steps of NR over NC     one panel of B, which stays in the L1 cache
#             for ir in steps of MR over MC   one tile of C, in registers: microkernel.pxi
#
# These are the five loops of the papers and one more, for C: without it, C would be read and
# written once for every KC steps over k. Few rows of C (`depth_of`) do without it. MC and KC are
# not exact: blocks and pieces are nearly equal, as a thin rest would cost as much as a whole one.
#
# What a tile needs comes from the L1 and L2 caches. What will be needed, tiles of full width bring
# there from memory meanwhile, a bit every few steps: the rest of a packed block of B, or, where a
# block spans whole rows of B, the rows after it. (Sequences choose what: recurrent.pxi.)
#
# Every element of C is summed over p = 0 … k-1 in order, in pieces of about KC (`piece_of`),
# whatever the tile it falls into and whichever thread computes it. One row of A, or one column,
# few columns of B, and few rows times a transposed B, take another way (matvec.pxi); a few more
# times a transposed B compute the transpose of C (`multiply_turned`). The shapes decide which, and
# whether C is added to. Where neither A nor B is transposed and C is written, a row of C is the
# same to the bit whatever m is: steps of a sequence one by one are those of the whole.

cdef inline Py_ssize_t block_of_b(const MatmulArgs *args) noexcept nogil:
    """Elements of a packed block of B, or of a panel that is packed in passing."""
    if where_b(args) != PACKED:
        return piece_of(args.k) * NR
    return smaller(depth_of(args), args.k) * smaller(NC, packed_row(args.n))


cdef inline Py_ssize_t scratch_of_blocks(const MatmulArgs *args) noexcept nogil:
    """Elements of both packed blocks; a multiple of LANES."""
    return block_of_b(args) + (
        highest_block(args) * piece_of(args.k) if packs_a(args) else 0
    )


cdef inline Py_ssize_t scratch_of_thread(const MatmulArgs *args) noexcept nogil:
    """Elements one thread needs; a multiple of LANES."""
    cdef MatmulArgs other
    if uses_narrow(args):
        return ceil_div(scratch_of_narrow(args), LANES) * LANES
    if uses_rows(args):
        return packed_row(args.n)
    if turns(args):
        other = turned(args)
        # C', and if it must be added to C, C' turned.
        return scratch_of_blocks(&other) + 2 * ceil_div(other.m * other.n, LANES) * LANES
    return scratch_of_blocks(args)


cdef Py_ssize_t matmul_scratch(const MatmulArgs *args) noexcept nogil:
    """Bytes of scratch memory each thread needs; a multiple of 64."""
    return ceil_div(scratch_of_thread(args) * sizeof(real), 64) * 64


cdef void multiply_block(
    const Tile *t, Py_ssize_t rows, Py_ssize_t columns, WhereB where, Py_ssize_t b_col, real *room
) noexcept nogil:
    """The two inner loops: a block of A times a block of B, one panel of B after the other.

    t holds the first tile. `room` is for what is packed on the way, by the first tile of a panel,
    which loads all of it anyway, or before it: for all panels that are kept, else for one, which
    may also be a B in place of less than one vector.
    """
    cdef Py_ssize_t j = 0, width
    cdef real *packed = room
    cdef int vectors
    cdef Tile at = t[0]
    while j < columns:
        width = panel_width(columns - j)
        vectors = <int>ceil_div(width, LANES)
        at.columns = width
        at.b, at.b_row, at.packed = t.b + j * b_col, t.b_row, NULL
        at.last = (vectors - 1) * LANES
        if where == PACKING:
            packed = room + j * t.k
        if where == PACKED:
            at.b, at.b_row = t.b + j * t.k, vectors * LANES
        elif where != IN_PLACE and width == NR and b_col == 1:
            at.packed = packed
        elif where != IN_PLACE or width < LANES:
            pack(at.b, t.b_row, b_col, packed, t.k, width)
            at.b, at.b_row = packed, vectors * LANES
        else:
            at.last = width - LANES
        if t.bias != NULL:
            at.bias = t.bias + j
        at.a, at.c = t.a, t.c + j
        at.ahead = t.ahead + j * t.ahead_step
        multiply_rows(&at, rows, vectors)
        j += width


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


cdef inline bint turns(const MatmulArgs *args) noexcept nogil:
    """Whether to compute C' = B' . A', and turn that.

    To multiply with a transposed B, something must be turned: B (k n elements), or A and C
    ((k + n) m elements). With a transposed A, nothing but C must, and that pays where C is so
    narrow that vectors along its rows are mostly empty: the weight gradient of a last layer.
    """
    if args.bias != NULL:
        return False
    if args.b_col != 1:
        return (
            args.a_col == 1 and 8 <= args.m <= 128 and 2 * args.m <= args.k
            and not args.accumulate
        )
    return (
        args.a_row == 1 and args.a_col != 1 and args.c_row == args.n
        and args.n < LANES <= args.m and args.k >= LANES
        and 4 * ceil_div(args.m, LANES) * args.n <= 3 * args.m
    )


cdef inline MatmulArgs turned(const MatmulArgs *args) noexcept nogil:
    """The product C' = B' . A', without a place for C'."""
    cdef MatmulArgs other = args[0]
    other.a, other.a_row, other.a_col = args.b, args.b_col, args.b_row
    other.b, other.b_row, other.b_col = args.a, args.a_col, args.a_row
    other.m, other.n, other.c_row = args.n, args.m, args.m
    other.activation = NO_ACTIVATION    # that is applied to C
    return other


cdef void multiply_turned(
    const MatmulArgs *args, real *scratch, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Columns begin … end of c: rows of C' in scratch memory, then turned."""
    cdef MatmulArgs other = turned(args)
    cdef real *c = scratch + scratch_of_blocks(&other)
    cdef real *sums = c + ceil_div(other.m * other.n, LANES) * LANES
    other.c = c - begin * other.c_row    # its rows are counted from `begin`
    other.accumulate = WRITE
    multiply(&other, scratch, begin, end, 0, other.n)
    if args.accumulate == WRITE:
        pack_transposed(
            c, other.c_row, <real *>args.c + begin, args.m, end - begin, args.c_row, end - begin
        )
        return
    if end > begin:    # only where C is narrow, so that one thread has all of it
        add_turned(c, sums, <real *>args.c, args.m, args.n, args.accumulate)


cdef void add_turned(
    const real *x, real *room, real *c, Py_ssize_t m, Py_ssize_t n, Accumulate accumulate
) noexcept nogil:
    """c (m x n) += the transpose of x, for which there is room."""
    cdef Py_ssize_t i = 0, size = m * n
    pack_transposed(x, m, room, m, n, n, n)
    while i < size:
        accumulate_columns(c + i, load_columns(room + i, size - i), size - i, accumulate)
        i += LANES


cdef inline MatmulArgs second(const MatmulArgs *args) noexcept nogil:
    """The second product, its rows counted on from those of the first."""
    cdef MatmulArgs other = args[0]
    other.a, other.a_col = <const real *>args.a2 - args.m * args.a_row, args.a2_col
    other.c = <real *>args.c2 - args.m * args.c_row
    return other


cdef void multiply(
    const MatmulArgs *args, real *pack_b,
    Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Rows i0 … i1 and columns j0 … j1 of c, and of c2 below it: the outer loops."""
    cdef const MatmulArgs *here
    cdef MatmulArgs below
    cdef Py_ssize_t ic, jc = j0, pd, rows, columns, depth
    cdef Py_ssize_t blocks = larger(1, ceil_div(i1 - i0, rows_of_block(args, i1 - i0)))
    cdef Py_ssize_t height = ceil_div(i1 - i0, blocks)    # nearly equal, like pieces
    if args.m2 > 0:
        below = second(args)
    while jc < j1:
        columns = smaller(NC, j1 - jc)
        pd = 0
        while pd < args.k or pd == 0:    # k = 0 still writes the bias
            depth = smaller(depth_of(args), args.k - pd)
            ic = i0
            while ic < i1:
                rows, here = smaller(height, i1 - ic), args
                if ic >= args.m:
                    here = &below
                elif ic + rows > args.m:
                    rows = args.m - ic
                multiply_rows_of_c(here, pack_b, ic, rows, jc, columns, pd, depth, ic == i0)
                if pd + depth == args.k and args.activation != NO_ACTIVATION:
                    activate(args, ic, ic + rows, jc, jc + columns)
                ic += rows
            pd += depth_of(args)
        jc += NC


cdef void multiply_rows_of_c(
    const MatmulArgs *args, real *pack_b, Py_ssize_t ic, Py_ssize_t rows, Py_ssize_t jc,
    Py_ssize_t columns, Py_ssize_t pd, Py_ssize_t depth, bint first
) noexcept nogil:
    """A block of C: += (or, from p = 0 on, =) blocks of A times blocks of B, KC deep.

    The first of them packs B for all, piece by piece, so that it finds them in the cache.
    """
    cdef Py_ssize_t pc = pd, piece = piece_of(args.k)
    cdef real *pack_a = pack_b + block_of_b(args)
    cdef real *packed = pack_b    # this piece of B
    cdef WhereB where = where_b(args)
    cdef Tile t
    if where == PACKED and first and rows >= MANY and by_panels(args):
        where = PACKING
    t.c, t.c_row = <real *>args.c + ic * args.c_row + jc, args.c_row
    while pc < pd + depth or pc == 0:
        t.k = smaller(piece, pd + depth - pc)
        t.accumulate = args.accumulate if pc == 0 else ADD
        t.bias = NULL
        if args.bias != NULL and pc + t.k == args.k:
            t.bias = <const real *>args.bias + jc
        place_a(args, &t, pack_a, ic, rows, pc)
        place_b(args, &t, where, packed, jc, columns, pc, first)
        multiply_block(&t, rows, columns, where, args.b_col, packed)
        if where >= PACKING:
            packed = packed + t.k * packed_row(columns)
        pc += piece


cdef void place_a(
    const MatmulArgs *args, Tile *t, real *packed, Py_ssize_t ic, Py_ssize_t rows, Py_ssize_t pc
) noexcept nogil:
    """Where the tiles find their block of A; if that pays, a copy with rows one after the other."""
    t.a = <const real *>args.a + ic * args.a_row + pc * args.a_col
    t.a_row, t.a_col = args.a_row, args.a_col
    if not packs_a(args):
        return
    if args.a_col == 1:
        copy_rows(t.a, args.a_row, packed, rows, t.k)
    else:
        pack_transposed(t.a, args.a_col, packed, rows, t.k, t.k, t.k)
    t.a, t.a_row, t.a_col = packed, t.k, 1


cdef void place_b(
    const MatmulArgs *args, Tile *t, WhereB where, real *packed, Py_ssize_t jc,
    Py_ssize_t columns, Py_ssize_t pc, bint first
) noexcept nogil:
    """Where the tiles find their block of B, and what to fetch meanwhile."""
    cdef bint packs = where == PACKED
    t.b, t.b_row = <const real *>args.b + pc * args.b_row + jc * args.b_col, args.b_row
    # B itself where it is read in order, else what is near already.
    t.ahead = <const real *>packed if packs or args.b_col != 1 else t.b
    t.ahead_step = t.k
    if args.b_row == columns and pc + t.k < args.k:
        t.ahead = t.b + t.k * args.b_row
    if packs and first:
        pack(t.b, args.b_row, args.b_col, packed, t.k, columns)
    elif packs:
        t.ahead = packed + t.k * panel_width(columns)
    if packs:
        t.b = packed


cdef Py_ssize_t matmul(const void *arguments, int thread, int threads) noexcept nogil:
    """c = activation(a . b + bias), or c += a . b; and, where no other way than that of blocks
    is taken, c2 likewise."""
    cdef const MatmulArgs *args = <const MatmulArgs *>arguments
    cdef bint dots = uses_dots(args), turn = turns(args), by_rows = uses_rows(args)
    cdef bint narrow = uses_narrow(args)
    cdef real *scratch = <real *>(<char *>args.scratch + thread * args.scratch_step)
    cdef Py_ssize_t i0 = 0, i1 = height_of(args), j0 = 0, j1 = args.n
    cdef int across, down, i, j
    if threads > 1:
        across = 1 if narrow else threads if dots or turn else parts_across(args, threads)
        down, i, j = threads // across, thread // across, thread % across
        i0, i1 = partition(i1, MR, i, down), partition(i1, MR, i + 1, down)
        j0, j1 = partition(args.n, NR, j, across), partition(args.n, NR, j + 1, across)
    if by_rows:
        multiply_by_rows(args, scratch, i0, i1, j0, j1)
    elif dots:
        multiply_by_dots(args, j0, j1)
    elif narrow:
        multiply_narrow(args, scratch, i0, i1)
    elif turn:
        multiply_turned(args, scratch, j0, j1)
    else:
        multiply(args, scratch, i0, i1, j0, j1)
        return 0    # and it has applied the activation where C was in the cache
    if args.activation != NO_ACTIVATION:
        activate(args, i0, i1, j0, j1)
    return 0
