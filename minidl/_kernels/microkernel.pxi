# The microkernel of the matrix product: tiles of C, summed in registers.
#
# A tile is `rows` x `vectors` accumulators. Each step over p loads one row of B as whole
# vectors, and spreads one element of every row of A over a vector: rows * vectors
# multiply-adds for rows + vectors loads. What else a step executes competes with them, so it
# is kept at next to nothing: offsets of A are constants, in one of its two directions.

cdef enum:
    HIGHEST = ACCUMULATORS    # rows of a tile one vector wide
    UNROLL = 4                # steps at a time
    GROUPS = 8                # of three rows


cdef struct Run:
    real x[UNROLL]    # elements side by side: reached by a constant from the address of the first


cdef struct Tile:
    # A column of tiles of C, one below the other, and where the operands of the first are.
    # All steps are in elements.
    const real *a
    const real *b
    const real *bias    # or NULL
    real *c
    Py_ssize_t k, a_row, a_col, b_row, c_row
    Py_ssize_t count    # of tiles
    Py_ssize_t columns  # of C; if fewer than LANES, those of B are filled up to LANES
    bint accumulate


cdef inline void multiply_add(
    vec (*acc)[TILE_VECTORS], const real **a, Py_ssize_t a_row, const Py_ssize_t p, const real *b,
    const int rows, const int vectors
) noexcept nogil:
    """One step over p: acc += a column of A times a row of B."""
    cdef vec row[TILE_VECTORS]
    cdef int i, j
    for j in range(vectors):
        row[j] = load(b + j * LANES)
    for i in range(rows):
        for j in range(vectors):
            acc[i][j] = acc[i][j] + (<const Run *>(a[i // 3] + i % 3 * a_row)).x[p] * row[j]


cdef inline void tiles_of(const Tile *t, const int rows, const int vectors) noexcept nogil:
    """The microkernel: for every tile, c (rows x vectors) = a . b in rows * vectors accumulators.

    Called with constants, so that the compiler unrolls the loops over rows and vectors and
    keeps the accumulators in registers.
    """
    cdef vec acc[HIGHEST][TILE_VECTORS]
    cdef vec sums[HIGHEST]
    cdef const real *a[GROUPS]    # every third row: an address is at most base + 2 * index
    cdef const real *b
    cdef real *c
    cdef Py_ssize_t p, q, a_row, a_col, b_row
    cdef int i, j
    for q in range(t.count):
        c, a_row, a_col, b_row = t.c + q * rows * t.c_row, t.a_row, t.a_col, t.b_row
        for i in range(rows):
            for j in range(vectors):
                acc[i][j] = fill(0)
                prefetch(c + i * t.c_row + j * LANES)    # arrives while the sums are formed
        for i in range(0, rows, 3):
            a[i // 3] = t.a + (q * rows + i) * a_row
        b, p = t.b, t.k
        if a_col == 1:
            while p >= UNROLL:
                multiply_add(acc, a, a_row, 0, b, rows, vectors)
                multiply_add(acc, a, a_row, 1, b + b_row, rows, vectors)
                b = b + 2 * b_row
                multiply_add(acc, a, a_row, 2, b, rows, vectors)
                multiply_add(acc, a, a_row, 3, b + b_row, rows, vectors)
                b = b + 2 * b_row
                for i in range((rows + 2) // 3):
                    a[i] = a[i] + UNROLL
                p = p - UNROLL
        elif a_row == 1:
            while p > 0:
                multiply_add(acc, a, 1, 0, b, rows, vectors)
                for i in range((rows + 2) // 3):
                    a[i] = a[i] + a_col
                b, p = b + b_row, p - 1
        while p > 0:
            multiply_add(acc, a, a_row, 0, b, rows, vectors)
            for i in range((rows + 2) // 3):
                a[i] = a[i] + a_col
            b, p = b + b_row, p - 1
        if vectors == 1 and t.columns < LANES:
            for i in range(rows):
                sums[i] = acc[i][0]
            finish_narrow(t, sums, c, rows)
        else:
            finish(t, acc, c, rows, vectors)


cdef inline void finish(
    const Tile *t, vec (*acc)[TILE_VECTORS], real *c, const int rows, const int vectors
) noexcept nogil:
    """From the accumulators to C. The last vector may overlap the one before it: what both
    hold is the same, as all of C is read before any is written."""
    cdef Py_ssize_t c_last = t.columns - LANES
    cdef vec row[TILE_VECTORS]
    cdef int i, j
    if t.accumulate:
        for i in range(rows):
            for j in range(vectors - 1):
                acc[i][j] = acc[i][j] + load(c + i * t.c_row + j * LANES)
            acc[i][vectors - 1] = acc[i][vectors - 1] + load(c + i * t.c_row + c_last)
    if t.bias != NULL:
        for j in range(vectors - 1):
            row[j] = load(t.bias + j * LANES)
        row[vectors - 1] = load(t.bias + c_last)
        for i in range(rows):
            for j in range(vectors):
                acc[i][j] = acc[i][j] + row[j]
    for i in range(rows):
        for j in range(vectors - 1):
            store(c + i * t.c_row + j * LANES, acc[i][j])
        store(c + i * t.c_row + c_last, acc[i][vectors - 1])


cdef void finish_narrow(const Tile *t, const vec *sums, real *c, int rows) noexcept nogil:
    """The same for a C of less than one vector."""
    cdef vec bias = fill(0)
    cdef vec sum
    cdef int i
    if t.bias != NULL:
        bias = load_part(t.bias, t.columns, 0)
    for i in range(rows):
        sum = sums[i]
        if t.accumulate:
            sum = sum + load_part(c, t.columns, 0)
        if t.bias != NULL:
            sum = sum + bias
        store_part(c, sum, t.columns)
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
    elif 24 * vectors <= ACCUMULATORS:
        taller_tiles(t, rows)


cdef inline void taller_tiles(const Tile *t, int rows) noexcept nogil:
    """Tiles one vector wide need many rows, to keep as many sums going."""
    if rows == 14:
        tiles_of(t, 14, 1)
    elif rows == 16:
        tiles_of(t, 16, 1)
    elif rows == 18:
        tiles_of(t, 18, 1)
    elif rows == 20:
        tiles_of(t, 20, 1)
    elif rows == 22:
        tiles_of(t, 22, 1)
    elif rows == 24:
        tiles_of(t, 24, 1)


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


cdef inline int height_of(Py_ssize_t rows, int vectors) noexcept nogil:
    """Rows of a tile, so that a block of `rows` is cut into nearly equal ones."""
    cdef int most = ACCUMULATORS // vectors
    cdef int height = <int>ceil_div(rows, ceil_div(rows, most))
    return height if height <= 12 else height + (height & 1)    # see taller_tiles


cdef void multiply_rows(Tile *t, Py_ssize_t rows, int vectors) noexcept nogil:
    """A column of tiles, so many rows high in all."""
    cdef int height = height_of(rows, vectors)
    while rows > 0:
        if rows < height:
            height = height_of(rows, vectors) if rows <= 12 or not rows & 1 else 12
        t.count = rows // height
        multiply_tiles(t, height, vectors)
        t.a = t.a + t.count * height * t.a_row
        t.c = t.c + t.count * height * t.c_row
        rows -= t.count * height
