# Copying blocks of a matrix into the order in which the microkernel reads them.

cdef void pack(
    const real *source, Py_ssize_t source_row, Py_ssize_t source_col,
    real *packed, Py_ssize_t depth, Py_ssize_t width, Py_ssize_t panel
) noexcept nogil:
    """depth x width elements into panels of `panel` columns, each contiguous.

    The last vector of a row is filled up with zeros, so that only whole ones need be read.
    Serves both sides: a panel of B is NR columns wide; one of A is MR rows high, which are
    columns of its transpose.
    """
    cdef Py_ssize_t j, p, columns
    for j in range(ceil_div(width, panel)):
        columns = smaller(panel, width - j * panel)
        if source_row == 1 and source_col != 1 and panel % LANES == 0:
            pack_transposed(source, source_col, packed, depth, columns, panel, panel)
        else:
            for p in range(depth):
                pack_row(source + p * source_row, source_col, packed + p * panel, columns, panel)
        source = source + panel * source_col
        packed = packed + panel * depth


cdef inline void pack_row(
    const real *source, Py_ssize_t source_col, real *packed, Py_ssize_t columns, Py_ssize_t panel
) noexcept nogil:
    """One row of a panel."""
    cdef Py_ssize_t q = 0
    if source_col == 1:
        while q + LANES <= columns:
            store(packed + q, load(source + q))
            q += LANES
        if q < columns:
            store_columns(packed + q, load_part(source + q, columns - q, 0), panel - q)
        return
    for q in range(columns):
        packed[q] = source[q * source_col]
    for q in range(columns, panel):
        packed[q] = 0


cdef void pack_transposed(
    const real *source, Py_ssize_t source_col,
    real *packed, Py_ssize_t depth, Py_ssize_t columns, Py_ssize_t packed_row, Py_ssize_t room
) noexcept nogil:
    """depth x columns elements whose columns are contiguous in the source, into rows.

    By LANES x LANES squares. No more than `room` columns are written.
    """
    cdef Py_ssize_t p = 0, q
    while p < depth:
        q = 0
        while q < columns:
            if depth - p >= LANES and columns - q >= LANES:
                pack_square(
                    source + q * source_col + p, source_col,
                    packed + p * packed_row + q, packed_row, LANES, LANES, LANES
                )
            else:
                pack_square(
                    source + q * source_col + p, source_col,
                    packed + p * packed_row + q, packed_row,
                    smaller(LANES, depth - p), smaller(LANES, columns - q), room - q
                )
            q += LANES
        p += LANES


cdef inline void pack_square(
    const real *source, Py_ssize_t source_col, real *packed, Py_ssize_t packed_row,
    const Py_ssize_t depth, const Py_ssize_t columns, const Py_ssize_t room
) noexcept nogil:
    """One square, or at the edges a part of one. Fast where the last three are constants."""
    cdef vec square[LANES]
    cdef Py_ssize_t i
    for i in range(LANES):
        if i < columns:
            square[i] = load_columns(source + i * source_col, depth)
        else:
            square[i] = fill(0)
    transpose(square)
    for i in range(depth):
        store_columns(packed + i * packed_row, square[i], room)


cdef inline void transpose(vec *square) noexcept nogil:
    """LANES vectors of LANES elements, rows for columns, in log2(LANES) steps."""
    merge_rows(square, 1)
    if LANES > 2:
        merge_rows(square, 2)
    if LANES > 4:
        merge_rows(square, 4)
    if LANES > 8:
        merge_rows(square, 8)


cdef inline void merge_rows(vec *square, const int step) noexcept nogil:
    """Exchange, between rows `step` apart, the lanes that belong to the other."""
    cdef vec upper, lower
    cdef int i
    for i in range(LANES):
        if not i & step:
            upper = square[i]
            lower = square[i + step]
            square[i] = merge_low(upper, lower, step)
            square[i + step] = merge_high(upper, lower, step)
