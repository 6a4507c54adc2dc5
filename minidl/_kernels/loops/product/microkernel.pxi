# The microkernel of the matrix product: tiles of C, summed in registers.
#
# Contract of `tiles_of`, for each of `count` tiles below one another:
#
#   operation   C (rows x columns) = A (rows x k) . B (k x columns) + bias; WRITE, ADD to C, or
#               ADD_TO_ZERO. One accumulator an element, over p = 0 … k-1 in order, then C, then the
#               bias: the bits of a sum depend on nothing else.
#   A           any strides, in elements; fast where a_col or a_row is 1
#   B           rows of `vectors` whole vectors, b_row apart: vector v begins at v * LANES, but the
#               last one at `last`, so that it ends with the last column, and may overlap the one
#               before. Less than a vector of columns must be packed: a whole one is read.
#   C           contiguous rows, c_row apart. Nothing but `columns` of them is read or written.
#   bias        `columns` elements, or NULL: 0
#   alignment   that of an element. Vectors that lie across two cache lines are slower.
#   aliasing    C and the packed panel overlap no operand.
#   ahead       fetched into the L2 cache meanwhile; any address will do
#
# A tile is `rows` x `vectors` accumulators. Each step over p loads one row of B as whole vectors,
# and spreads one element of every row of A over a vector: rows * vectors multiply-adds for rows +
# vectors loads. All else that a step executes competes with them, so there is next to nothing else:
# where the elements of A lie side by side, in either direction, they are reached by constants from
# few addresses.
#
# Rows come in threes: an address plus up to twice a_row is one operand of an instruction, and GCC
# unrolls loops of three, which keeps the accumulators in registers.

cdef enum:
    HIGHEST = 12              # rows of any tile
    UNROLL = 4                # steps over p at a time
    GROUPS = 4                # of three rows
    AHEAD = NR * UNROLL // 16    # elements fetched ahead in that time: by 16 tiles, a panel of B


cdef struct Four:
    real x[UNROLL]    # elements side by side: reached by a constant from the address of the first


cdef struct Tile:
    # A column of tiles of C, one below the other, and where the operands of the first one are.
    # All strides are in elements.
    const real *a
    const real *b
    const real *bias    # or NULL
    real *c
    const real *ahead   # what tiles of full width fetch into the L2 cache meanwhile, if a_col is 1
    Py_ssize_t ahead_step    # how much further on that begins for each column to the right
    Py_ssize_t k, a_row, a_col, b_row, c_row
    Py_ssize_t count    # of tiles
    Py_ssize_t columns  # of C and B
    Py_ssize_t last     # where the last vector of a row of B begins
    Accumulate accumulate
    real *packed        # room for a whole panel of B, which the first tile packs there; or NULL


cdef inline void begin_three(
    vec (*acc)[TILE_VECTORS], const int rows, const int vectors
) noexcept nogil:
    """Set up to three rows of accumulators to zero."""
    cdef int i, j
    for i in range(3):
        if i < rows:
            for j in range(vectors):
                acc[i][j] = fill(0)


cdef inline real *prefetch_row(real *c, Py_ssize_t c_row, const int vectors) noexcept nogil:
    """Fetch a row of C while sums are formed. Returns the next row.

    Row by row, as a core waits for no more than a dozen cache lines or so at a time: all rows of a
    tile at once would hold up what is loaded from A and B.
    """
    cdef int j
    for j in range(vectors):
        prefetch(c + j * LANES)
    return c + c_row


cdef inline void add_three(
    vec (*acc)[TILE_VECTORS], const real *a, Py_ssize_t a_row, const Py_ssize_t p, const vec *b,
    const int rows, const int vectors
) noexcept nogil:
    """Do one step over p for up to three rows: acc += elements of A times a row of B."""
    cdef real factor
    cdef int i, j
    for i in range(3):
        if i < rows:
            factor = (<const Four *>(a + i * a_row)).x[p]
            for j in range(vectors):
                acc[i][j] = acc[i][j] + factor * b[j]


cdef inline void multiply_add(
    vec (*acc)[TILE_VECTORS], const real **a, Py_ssize_t a_row, const Py_ssize_t p, const real *b,
    const real *last, real *packed, const int rows, const int vectors, const bint packs,
    const bint edge
) noexcept nogil:
    """Do one step over p: acc += a column of A times a row of B.

    `packs` copies that row. At an `edge`, its last vector is where `last` points.
    """
    cdef vec row[TILE_VECTORS]
    cdef int j
    for j in range(vectors - edge):
        row[j] = load(b + j * LANES)
        if packs:
            store(packed + j * LANES, row[j])
    if edge:
        row[vectors - 1] = load(last)
    add_three(acc, a[0], a_row, p, row, rows, vectors)
    add_three(acc + 3, a[1], a_row, p, row, rows - 3, vectors)
    add_three(acc + 6, a[2], a_row, p, row, rows - 6, vectors)
    add_three(acc + 9, a[3], a_row, p, row, rows - 9, vectors)


cdef inline void tiles_of(
    const Tile *t, const int rows, const int vectors, const bint packs, const bint edge
) noexcept nogil:
    """The microkernel. It runs LOOP 1 of `multiply_blocks`, over tiles; the contract is above.

    Callers pass constants, so that the compiler unrolls the loops over rows and vectors and keeps
    the accumulators in registers.
    """
    cdef vec acc[HIGHEST][TILE_VECTORS]
    cdef vec sums[HIGHEST]
    cdef const real *a[GROUPS]    # every third row: an address is at most base + 2 * index
    cdef const real *b
    cdef const real *last
    cdef const real *ahead = t.ahead
    cdef real *packed = t.packed if packs else t.c    # where nothing is packed, any address
    cdef Py_ssize_t row = vectors * LANES if packs else 0    # of the packed panel
    cdef real *c
    cdef real *fetched    # the next row of the tile of C to fetch
    cdef Py_ssize_t p, q, rounds, a_row, a_col, b_row, c_row
    cdef int i
    for q in range(t.count):
        a_row, a_col, b_row, c_row = t.a_row, t.a_col, t.b_row, t.c_row
        c = t.c + q * rows * c_row
        begin_three(acc, rows, vectors)
        begin_three(acc + 3, rows - 3, vectors)
        begin_three(acc + 6, rows - 6, vectors)
        begin_three(acc + 9, rows - 9, vectors)
        for i in range(0, rows, 3):
            a[i // 3] = t.a + (q * rows + i) * a_row
        b, last, p, fetched = t.b, t.b + t.last, t.k, c
        rounds = p // UNROLL if a_col == 1 else p if a_row == 1 else 0
        while rounds < rows:    # at once, the rows for which there are no rounds
            fetched, rounds = prefetch_row(fetched, c_row, vectors), rounds + 1
        if a_col == 1:
            while p >= UNROLL:
                if fetched < c + rows * c_row:
                    fetched = prefetch_row(fetched, c_row, vectors)
                multiply_add(acc, a, a_row, 0, b, last, packed, rows, vectors, packs, edge)
                multiply_add(
                    acc, a, a_row, 1, b + b_row, last + b_row, packed + row, rows, vectors, packs,
                    edge
                )
                b, last, packed = b + 2 * b_row, last + 2 * b_row, packed + 2 * row
                multiply_add(acc, a, a_row, 2, b, last, packed, rows, vectors, packs, edge)
                multiply_add(
                    acc, a, a_row, 3, b + b_row, last + b_row, packed + row, rows, vectors, packs,
                    edge
                )
                b, last, packed = b + 2 * b_row, last + 2 * b_row, packed + 2 * row
                if vectors == TILE_VECTORS:
                    prefetch_l2(ahead)
                    ahead = ahead + AHEAD
                for i in range((rows + 2) // 3):
                    a[i] = a[i] + UNROLL
                p = p - UNROLL
        elif a_row == 1:
            while p > 0:
                if fetched < c + rows * c_row:
                    fetched = prefetch_row(fetched, c_row, vectors)
                multiply_add(acc, a, 1, 0, b, last, packed, rows, vectors, packs, edge)
                for i in range((rows + 2) // 3):
                    a[i] = a[i] + a_col
                b, last, packed, p = b + b_row, last + b_row, packed + row, p - 1
        while p > 0:
            multiply_add(acc, a, a_row, 0, b, last, packed, rows, vectors, packs, edge)
            for i in range((rows + 2) // 3):
                a[i] = a[i] + a_col
            b, last, packed, p = b + b_row, last + b_row, packed + row, p - 1
        if vectors == 1 and t.columns < LANES:
            for i in range(rows):
                sums[i] = acc[i][0]
            finish_narrow(t, sums, c, rows)
        else:
            finish_three(t, acc, c, rows, vectors)
            finish_three(t, acc + 3, c + 3 * c_row, rows - 3, vectors)
            finish_three(t, acc + 6, c + 6 * c_row, rows - 6, vectors)
            finish_three(t, acc + 9, c + 9 * c_row, rows - 9, vectors)


cdef inline void finish_three(
    const Tile *t, vec (*acc)[TILE_VECTORS], real *c, const int rows, const int vectors
) noexcept nogil:
    """Bring up to three rows of accumulators to C.

    The last vector may overlap the one before it. What both hold is the same, as both are read
    before either is written.
    """
    cdef Py_ssize_t column[TILE_VECTORS]
    cdef int i, j
    for j in range(vectors):
        column[j] = j * LANES
    column[vectors - 1] = t.columns - LANES
    for i in range(3):
        if i < rows:
            if t.accumulate == ADD:
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + load(c + i * t.c_row + column[j])
            elif t.accumulate == ADD_TO_ZERO:
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + fill(0)
            if t.bias != NULL:
                for j in range(vectors):
                    acc[i][j] = acc[i][j] + load(t.bias + column[j])
            for j in range(vectors):
                store(c + i * t.c_row + column[j], acc[i][j])


cdef void finish_narrow(const Tile *t, vec *sums, real *c, int rows) noexcept nogil:
    """Bring accumulators to a C of less than one vector.

    Where its rows follow one another, whole vectors are stored: they reach into rows of this tile
    that are written after them. Only at the end of the tile is there no room for that.
    """
    cdef Py_ssize_t i, whole = 0
    cdef vec bias = fill(0)
    if t.c_row == t.columns:
        whole = rows - ceil_div(LANES, t.columns) + 1
    if t.accumulate == ADD:
        for i in range(rows):
            if i < whole:
                sums[i] = sums[i] + load(c + i * t.c_row)
            else:
                sums[i] = sums[i] + load_part(c + i * t.c_row, t.columns, 0)
    elif t.accumulate == ADD_TO_ZERO:
        for i in range(rows):
            sums[i] = sums[i] + fill(0)
    if t.bias != NULL:
        bias = load_part(t.bias, t.columns, 0)
        for i in range(rows):
            sums[i] = sums[i] + bias
    for i in range(rows):
        if i < whole:
            store(c + i * t.c_row, sums[i])
        else:
            store_part(c + i * t.c_row, sums[i], t.columns)


cdef inline void tiles_of_rows(
    const Tile *t, int rows, const int vectors, const bint packs, const bint edge
) noexcept nogil:
    """Run the microkernel for this many rows; tiles of too many accumulators are not compiled.

    The branches are not one long chain, as GCC takes the end of a chain for unlikely and leaves
    loops there.
    """
    if rows >= 9:
        if rows == 12 and 12 * vectors <= ACCUMULATORS:
            tiles_of(t, 12, vectors, packs, edge)
        elif rows == 11 and 11 * vectors <= ACCUMULATORS:
            tiles_of(t, 11, vectors, packs, edge)
        elif rows == 10 and 10 * vectors <= ACCUMULATORS:
            tiles_of(t, 10, vectors, packs, edge)
        elif rows == 9 and 9 * vectors <= ACCUMULATORS:
            tiles_of(t, 9, vectors, packs, edge)
    elif rows >= 5:
        if rows == 8 and 8 * vectors <= ACCUMULATORS:
            tiles_of(t, 8, vectors, packs, edge)
        elif rows == 7 and 7 * vectors <= ACCUMULATORS:
            tiles_of(t, 7, vectors, packs, edge)
        elif rows == 6 and 6 * vectors <= ACCUMULATORS:
            tiles_of(t, 6, vectors, packs, edge)
        elif rows == 5 and 5 * vectors <= ACCUMULATORS:
            tiles_of(t, 5, vectors, packs, edge)
    else:
        if rows == 4 and 4 * vectors <= ACCUMULATORS:
            tiles_of(t, 4, vectors, packs, edge)
        elif rows == 3:
            tiles_of(t, 3, vectors, packs, edge)
        elif rows == 2:
            tiles_of(t, 2, vectors, packs, edge)
        elif rows == 1:
            tiles_of(t, 1, vectors, packs, edge)


cdef void multiply_tiles(const Tile *t, Py_ssize_t rows, int vectors) noexcept nogil:
    """Run the microkernel for this many rows and vectors."""
    if t.packed != NULL:
        tiles_of_rows(t, <int>rows, TILE_VECTORS, True, False)
    elif vectors == 1:
        tiles_of_rows(t, <int>rows, 1, False, False)
    elif vectors == 2:
        tiles_of_rows(t, <int>rows, 2, False, False)
    elif TILE_VECTORS > 2 and vectors == 3:
        tiles_of_rows(t, <int>rows, 3 if TILE_VECTORS > 2 else 1, False, False)
    elif TILE_VECTORS > 2:
        tiles_of_rows(t, <int>rows, 4 if TILE_VECTORS > 2 else 1, False, False)


cdef void multiply_edge(const Tile *t, Py_ssize_t rows, int vectors) noexcept nogil:
    """Run the microkernel where the last vector of B overlaps the one before it.

    This is a function of its own, as GCC makes less of the registers of a larger one.
    """
    if vectors == 2:
        tiles_of_rows(t, <int>rows, 2, False, True)
    elif TILE_VECTORS > 2 and vectors == 3:
        tiles_of_rows(t, <int>rows, 3 if TILE_VECTORS > 2 else 1, False, True)
    elif TILE_VECTORS > 2:
        tiles_of_rows(t, <int>rows, 4 if TILE_VECTORS > 2 else 1, False, True)


cdef inline void multiply_next(
    Tile *t, Py_ssize_t count, Py_ssize_t rows, int vectors
) noexcept nogil:
    """Compute so many tiles of so many rows, and move on to what is below them."""
    if count == 0:
        return
    t.count = count
    if t.last % LANES == 0:    # behind whole vectors, so that it overlaps none of them
        multiply_tiles(t, rows, vectors)
    else:
        multiply_edge(t, rows, vectors)
    t.a = t.a + count * rows * t.a_row
    t.c = t.c + count * rows * t.c_row
    t.ahead = t.ahead + count * (t.k // UNROLL) * AHEAD


cdef void multiply_panel(Tile *t, Py_ssize_t rows) noexcept nogil:
    """Multiply a block of A of so many rows with a panel of B, tile below tile.

    Tiles are of nearly equal height, rather than full ones and a thin last one. The first one packs
    B if `packed` says so.
    """
    cdef int vectors = <int>ceil_div(t.columns, LANES)
    cdef Py_ssize_t tiles = ceil_div(rows, smaller(HIGHEST, ACCUMULATORS // vectors))
    cdef Py_ssize_t low = rows // tiles, high_tiles = rows % tiles, low_tiles = tiles - rows % tiles
    if t.packed != NULL and tiles > 1:
        multiply_next(t, 1, low, vectors)
        t.b, t.b_row = t.packed, TILE_VECTORS * LANES
        low_tiles = low_tiles - 1
    t.packed = NULL
    multiply_next(t, low_tiles, low, vectors)
    multiply_next(t, high_tiles, low + 1, vectors)
