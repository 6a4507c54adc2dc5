# Packing: copying blocks of a matrix into the order in which the microkernel reads them.
#
# A packed block of B is its panels, one after the other. A panel is contiguous: `depth` rows of
# whole vectors. The last vector of a row holds the last columns of the panel, and so may repeat
# some of the vector before. Only a B of less than one vector has lanes beyond its columns; what
# they hold does not matter.

cdef inline Py_ssize_t panel_width(Py_ssize_t columns) noexcept nogil:
    """The width of the next panel of B, where so many columns are left: NR, or a rest.

    No panel is less than one vector wide, unless all of B is.
    """
    if NR < columns < NR + LANES:
        return NR - LANES
    return smaller(NR, columns)


cdef inline Py_ssize_t packed_row(Py_ssize_t columns) noexcept nogil:
    """Elements that a row of B takes in all panels together: whole vectors."""
    return ceil_div(columns, LANES) * LANES


cdef void copy_rows(
    const real *source, Py_ssize_t source_row, real *packed, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """Pack a block of A whose rows are contiguous: one row after the other."""
    cdef Py_ssize_t i
    for i in range(rows):
        memcpy(packed + i * columns, source + i * source_row, columns * sizeof(real))


cdef void pack(
    const real *source, Py_ssize_t source_row, Py_ssize_t source_col,
    real *packed, Py_ssize_t depth, Py_ssize_t columns
) noexcept nogil:
    """Pack depth x columns elements of B, of any strides, into panels."""
    cdef Py_ssize_t j = 0, p
    if source_row == 1 and source_col != 1:
        while j < columns:
            j += pack_panel(
                source + j * source_col, source_col, packed + j * depth, depth, columns - j
            )
        return
    if columns < LANES and source_col == 1:
        pack_narrow(source, source_row, packed, depth, columns)
        return
    if columns <= NR and source_col == 1:
        pack_rows(source, source_row, packed, depth, columns)
        return
    for p in range(depth):    # in the order of the source: memory is read ahead along rows
        j = 0
        while j < columns:
            j += pack_row(
                source + p * source_row + j * source_col, source_col, packed + j * depth, p,
                columns - j
            )


cdef inline void pack_narrow(
    const real *source, Py_ssize_t source_row, real *packed, Py_ssize_t depth, Py_ssize_t columns
) noexcept nogil:
    """Pack a B of less than one vector: its rows are read as whole vectors where more rows follow.

    The elements that are read beyond a row do no harm, as those columns of C are not stored.
    """
    cdef Py_ssize_t p, whole = 0
    if source_row > 0:
        whole = larger(0, depth - ceil_div(LANES - columns, source_row))
    for p in range(whole):
        store(packed + p * LANES, load(source + p * source_row))
    for p in range(whole, depth):
        store(packed + p * LANES, load_part(source + p * source_row, columns, 0))


cdef inline void pack_rows(
    const real *source, Py_ssize_t source_row, real *packed, Py_ssize_t depth, Py_ssize_t columns
) noexcept nogil:
    """Pack a B of one panel, by a loop of nothing but copies."""
    cdef Py_ssize_t p, row = packed_row(columns)
    for p in range(depth):
        copy_row(source + p * source_row, packed + p * row, columns)


cdef inline void copy_row(const real *source, real *packed, Py_ssize_t width) noexcept nogil:
    """Copy a row of at least one vector; the last vector may overlap the one before it."""
    cdef Py_ssize_t q = 0, last = packed_row(width) - LANES
    while q < last:
        store(packed + q, load(source + q))
        q += LANES
    store(packed + last, load(source + width - LANES))


cdef inline Py_ssize_t pack_panel(
    const real *source, Py_ssize_t source_col, real *packed, Py_ssize_t depth, Py_ssize_t columns
) noexcept nogil:
    """Pack a panel of a transposed B. Returns its width."""
    cdef Py_ssize_t width = panel_width(columns), row = packed_row(width)
    pack_transposed(source, source_col, packed, depth, width, row, row)
    return width


cdef inline Py_ssize_t pack_row(
    const real *source, Py_ssize_t source_col, real *panel, Py_ssize_t p, Py_ssize_t columns
) noexcept nogil:
    """Pack row p of a panel. Returns the panel's width."""
    cdef Py_ssize_t width = panel_width(columns), row = packed_row(width), last = row - LANES, q
    cdef real *packed = panel + p * row
    if source_col != 1:
        for q in range(last):
            packed[q] = source[q * source_col]
        source = source + larger(width - LANES, 0) * source_col
        for q in range(LANES):
            packed[last + q] = source[smaller(q, width - 1) * source_col]
    else:
        copy_row(source, packed, width)
    return width


cdef void pack_transposed(
    const real *source, Py_ssize_t source_col,
    real *packed, Py_ssize_t depth, Py_ssize_t columns, Py_ssize_t packed_row, Py_ssize_t room
) noexcept nogil:
    """Transpose depth x columns elements, whose columns are contiguous in the source, into rows.

    It goes by squares of LANES x LANES. The last squares overlap those before them in the source,
    and also where they are written, if a packed row has `room` for less than whole vectors.
    """
    cdef Py_ssize_t p = 0, q = 0, p_from, q_from, q_to
    while q < columns:
        q_from = larger(0, smaller(q, columns - LANES))
        q_to = larger(0, smaller(q, room - LANES))
        p = 0
        while p < depth:
            p_from = larger(0, smaller(p, depth - LANES))
            if depth >= LANES and columns >= LANES:
                pack_square(
                    source + q_from * source_col + p_from, source_col,
                    packed + p_from * packed_row + q_to, packed_row, LANES, LANES, LANES
                )
            else:
                pack_square(
                    source + q_from * source_col + p_from, source_col,
                    packed + p_from * packed_row + q_to, packed_row,
                    smaller(LANES, depth), smaller(LANES, columns), room
                )
            p += LANES
        q += LANES


cdef inline void pack_square(
    const real *source, Py_ssize_t source_col, real *packed, Py_ssize_t packed_row,
    const Py_ssize_t depth, const Py_ssize_t columns, const Py_ssize_t room
) noexcept nogil:
    """Transpose one square, or less at an edge. Fast where the last three are constants."""
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
    """Transpose LANES vectors of LANES elements in place, in log2(LANES) steps."""
    merge_rows(square, 1)
    if LANES > 2:
        merge_rows(square, 2)
    if LANES > 4:
        merge_rows(square, 4)
    if LANES > 8:
        merge_rows(square, 8)


cdef inline void merge_rows(vec *square, const int step) noexcept nogil:
    """Exchange lanes between vectors `step` apart: those that belong to the other one."""
    cdef vec upper, lower
    cdef int i
    for i in range(LANES):
        if not i & step:
            upper = square[i]
            lower = square[i + step]
            square[i] = merge_low(upper, lower, step)
            square[i + step] = merge_high(upper, lower, step)
