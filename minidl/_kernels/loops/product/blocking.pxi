# How a matrix product is cut: into blocks, of which some are packed, and between threads.
#
# Shapes decide, and of addresses only that of B, about a copy that does not outlive a panel. The
# limits were measured.

cdef enum:
    MC = 132       # MC * UNROLL is a multiple of every LANES
    NC = 1024      # a multiple of every NR
    DEEP = 4       # pieces of KC in a deep block
    FAR = 1 << 22  # bytes of a B beyond what stays in the L2 cache
    MANY = 48      # rows of A that repay packing in passing; a tile alone would pack nothing
    STREAM = 3 << 16    # bytes of a block of C to which no tile comes back
    APART = 1 << 14     # bytes between two rows that make many rows collide in the L2 cache
    # For a thread to read an element of A, or of B, takes as long as so many multiply-adds.
    COST_OF_A = 24
    COST_OF_B = 12


cdef enum WhereB:
    # In this order: from PACKING on, a packed block is filled or read.
    IN_PLACE      # in B itself
    IN_PASSING    # there too, but each panel is packed as it comes, and then forgotten
    PACKING       # there too, but each panel is packed as it comes, and kept for other blocks of A
    PACKED        # in a packed block


cdef inline Py_ssize_t height_of(const MatmulArgs *args) noexcept nogil:
    """Rows of C, and of the C of a second product below them."""
    return args.m + args.m2


cdef inline Py_ssize_t highest_block(const MatmulArgs *args) noexcept nogil:
    """Rows of a block of C, so that it stays in the L2 cache: more, where it has few columns."""
    return 2 * MC if args.n <= NC // 2 else MC


cdef inline bint packs_a(const MatmulArgs *args) noexcept nogil:
    """Rows of the transpose of A, and rows of A that are so long that they collide in the cache,
    are worth a copy, if enough columns of B use it."""
    cdef bint apart = larger(args.a_row, -args.a_row) * <Py_ssize_t>sizeof(real) >= APART
    return args.k >= 512 and args.n >= 256 and (apart if args.a_col == 1 else args.a_row == 1)


cdef inline bint is_far(const MatmulArgs *args) noexcept nogil:
    """Whether B comes from beyond the L2 cache: it is then read faster in order than by panels."""
    return <size_t>(args.k * args.n) * sizeof(real) > FAR


cdef inline bint by_panels(const MatmulArgs *args) noexcept nogil:
    """Whether the first tiles pack a block of B, a panel at a time: not where panels are narrow,
    and so reach over many pages of memory."""
    return args.b_col == 1 and NR * sizeof(real) >= 256 and not is_far(args)


cdef inline WhereB where_b(const MatmulArgs *args) noexcept nogil:
    """Transposed rows must be gathered into vectors. Rows far apart are worth a copy if enough
    rows of A use it: fewer, where all vectors of B lie across cache lines, as they may in arrays
    of NumPy's, though not in an optimizer's vectors or a program's memory. Rows near each other
    are worth one if they are not whole vectors, which so lie across lines, and A has many rows.

    More than one block of A keep the copy. So do few rows of A where B comes from far away. Of the
    address, a copy to keep, for which there must be room, may not depend.
    """
    cdef Py_ssize_t height = height_of(args)
    cdef bint one = height <= highest_block(args)
    cdef bint kept = not one or args.m2 > 0 or (is_far(args) and height < 96)
    cdef bint across = <size_t>args.b % VEC_BYTES != 0 and args.b_row % LANES == 0
    cdef Py_ssize_t enough = 64 if kept else 24 if across else 48
    cdef bint in_line = args.b_row % LANES == 0 or one
    if args.b_col == 1 and (height < enough or (args.n < 128 and in_line)):
        return IN_PLACE
    return PACKED if kept else IN_PASSING


cdef inline Py_ssize_t piece_of(Py_ssize_t k) noexcept nogil:
    """Terms of each sum that are added up before they go to C: up to 1.5 KC, nearly as many in
    each piece, and never 0, so that loops over no terms end."""
    cdef Py_ssize_t pieces = larger(1, (k + KC // 2) // KC)
    return larger(1, ceil_div(k, pieces * UNROLL)) * UNROLL


cdef inline Py_ssize_t depth_of(const MatmulArgs *args) noexcept nogil:
    """Rows of B in a block: few, where all rows of C stay in the cache anyway."""
    return piece_of(args.k) * (DEEP if height_of(args) > 2 * MC else 1)


cdef inline Py_ssize_t rows_of_block(const MatmulArgs *args, Py_ssize_t rows) noexcept nogil:
    """How high blocks of C are at most, of which there are so many rows in all.

    Where one piece of k is all there is, no tile of C is needed again. Blocks of a wide C are lower
    then, so that few pages are in use at a time, and the processor fetches ahead in each.
    """
    cdef Py_ssize_t highest = highest_block(args)
    if rows <= highest or args.n == 0 or args.k > piece_of(args.k):
        return highest
    return smaller(MC, STREAM // (smaller(NC, args.n) * <Py_ssize_t>sizeof(real)))


cdef int parts_across(const MatmulArgs *args, int threads) noexcept nogil:
    """How many parts the columns of C are cut into; the rows, into threads / that.

    A thread reads all of the rows of A and the columns of B that its part of C depends on: parts
    that are nearly square need the least. The thread with the largest part decides.
    """
    cdef int across, best = 1
    cdef Py_ssize_t rows, columns, cost, least = -1
    for across in range(1, threads + 1):
        if threads % across == 0:
            rows = largest_partition(height_of(args), MR, threads // across)
            columns = largest_partition(args.n, NR, across)
            cost = rows * columns + COST_OF_A * rows + COST_OF_B * columns
            if least < 0 or cost < least:
                best, least = across, cost
    return best
