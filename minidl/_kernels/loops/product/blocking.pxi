# The sizes of the blocks of a matrix product, and which of them are packed (copied).
#
# Shapes and strides decide; the address of B decides only whether panels are packed that no later
# block of A uses. The limits were measured.

cdef enum:
    MC = 132       # rows of a block of A and C; MC * UNROLL is a multiple of every LANES
    NC = 1024      # columns of a block of B and C; a multiple of every NR
    DEPTH = 4      # blocks of k (KC rows of B each) in a block of B
    L2_BYTES = 1 << 22          # a larger B does not stay in the L2 cache
    ROWS_TO_PACK = 48           # rows of A that repay packing B while the first tile reads it
    STREAMED_BYTES = 3 << 16    # of a block of C to which no tile comes back
    CONFLICT_BYTES = 1 << 14    # between two rows: many such rows share few sets of the L2 cache


cdef enum WhereB:
    # Where tiles find a block of B. From PACKING on, a packed block is filled or read.
    IN_PLACE      # in B itself
    IN_PASSING    # in B; the first tile of each panel packs it for the tiles below, and no longer
    PACKING       # in B; the first tile of each panel packs it, for later blocks of A as well
    PACKED        # in a block that was packed before


cdef inline Py_ssize_t height_of(const MatmulArgs *args) noexcept nogil:
    """Rows of C, and of the C of a second product below them."""
    return args.m + args.m2


cdef inline Py_ssize_t kc_of(Py_ssize_t k) noexcept nogil:
    """Depth of a block of k: so many terms of each sum are added up before they go to C.

    KC on average, at most 1.5 KC, and nearly the same for all blocks of k, as a thin last one
    would cost a whole pass over C. Never 0, so that loops over no terms end.
    """
    cdef Py_ssize_t blocks = larger(1, (k + KC // 2) // KC)
    return larger(1, ceil_div(k, blocks * UNROLL)) * UNROLL


cdef inline Py_ssize_t depth_of(const MatmulArgs *args) noexcept nogil:
    """Rows of B in a block: one block of k where all rows of C stay in the cache anyway."""
    return kc_of(args.k) * (DEPTH if height_of(args) > 2 * MC else 1)


cdef inline Py_ssize_t highest_block(const MatmulArgs *args) noexcept nogil:
    """Rows of a block of C that stays in the L2 cache: twice as many where C has few columns."""
    return 2 * MC if args.n <= NC // 2 else MC


cdef inline Py_ssize_t block_height(const MatmulArgs *args, Py_ssize_t rows) noexcept nogil:
    """Rows of each block of C, for so many rows in all: blocks are of nearly equal height.

    Where k is a single block, tiles never come back to C. Blocks of a wide C are lower then, so
    that few pages are in use at a time, and the processor fetches ahead in each of them.
    """
    cdef Py_ssize_t highest = highest_block(args)
    if rows > highest and args.n > 0 and args.k <= kc_of(args.k):
        highest = smaller(MC, STREAMED_BYTES // (smaller(NC, args.n) * <Py_ssize_t>sizeof(real)))
    return ceil_div(rows, larger(1, ceil_div(rows, highest)))


cdef inline bint packs_a(const MatmulArgs *args) noexcept nogil:
    """Whether a block of A is worth a copy: enough columns of B use it, and it is transposed, or
    its rows are so long that they conflict in the cache."""
    cdef bint conflict = larger(args.a_row, -args.a_row) * sizeof(real) >= CONFLICT_BYTES
    return args.k >= 512 and args.n >= 256 and (conflict if args.a_col == 1 else args.a_row == 1)


cdef inline bint is_far(const MatmulArgs *args) noexcept nogil:
    """Whether B comes from beyond the L2 cache: it is then read faster in order than by panels."""
    return <size_t>(args.k * args.n) * sizeof(real) > L2_BYTES


cdef inline bint packs_by_panel(const MatmulArgs *args) noexcept nogil:
    """Whether the first tiles pack a block of B, panel by panel: not where panels are narrow, and
    so reach over many pages of memory."""
    return args.b_col == 1 and NR * sizeof(real) >= 256 and not is_far(args)


cdef inline WhereB where_b(const MatmulArgs *args) noexcept nogil:
    """Where tiles should find B: IN_PLACE, IN_PASSING or PACKED.

    - A transposed B must be packed, to gather its elements into vectors.
    - Rows of B that lie far apart are worth a copy if enough rows of A use it. Fewer rows are
      enough where all vectors of B lie across two cache lines. That can happen in arrays of
      NumPy's, but not in an optimizer's vectors or a program's memory.
    - Rows near each other (few columns) are worth a copy if A has many rows and they are not whole
      vectors, most of which then lie across two cache lines.

    The copy is kept for more than one block of A, and for few rows of A if B comes from far away.
    Scratch memory is sized from shapes alone, so keeping a copy must not depend on B's address.
    """
    cdef Py_ssize_t height = height_of(args)
    cdef bint one_block = height <= highest_block(args)
    cdef bint kept = not one_block or args.m2 > 0 or (is_far(args) and height < 96)
    cdef bint across = <size_t>args.b % VEC_BYTES != 0 and args.b_row % LANES == 0
    cdef Py_ssize_t enough = 64 if kept else 24 if across else 48
    cdef bint whole_vectors = args.b_row % LANES == 0
    if args.b_col == 1 and (height < enough or (args.n < 128 and (whole_vectors or one_block))):
        return IN_PLACE
    return PACKED if kept else IN_PASSING


# --- scratch memory ---

cdef inline Py_ssize_t size_of_packed_b(const MatmulArgs *args) noexcept nogil:
    """Elements of a packed block of B, or of the one panel that is packed in passing."""
    if where_b(args) != PACKED:
        return kc_of(args.k) * NR
    return smaller(depth_of(args), args.k) * smaller(NC, packed_row(args.n))


cdef inline Py_ssize_t scratch_of_blocks(const MatmulArgs *args) noexcept nogil:
    """Elements of the packed blocks of B and A; a multiple of LANES."""
    return size_of_packed_b(args) + (
        highest_block(args) * kc_of(args.k) if packs_a(args) else 0
    )
