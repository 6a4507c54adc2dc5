# Sums down the columns of a matrix.
#
# A panel, a few vectors of columns, is summed row by row, so that whole runs of cache lines are
# used. Every column is summed in the same order however wide its panel is: one block of rows after
# the other.

cdef enum:
    ROW_BLOCK = 32    # rows of which all columns are summed, before the next rows
    PANEL = 4         # vectors of columns whose sums stay in registers
    # Rows that longer sums add up by themselves, so that rounding errors stay small.
    SUM_ROWS = 128


cdef inline vec load_panel(const real *row, int v, Py_ssize_t columns, int width) noexcept nogil:
    """Load vector v of a panel; only the last one of a narrow panel may lack columns."""
    if width == PANEL or v < width - 1:
        return load(row + v * LANES)
    return load_columns(row + v * LANES, columns - v * LANES)


cdef inline void store_panel(
    real *row, int v, vec x, Py_ssize_t columns, int width
) noexcept nogil:
    """Store vector v of a panel."""
    if width == PANEL or v < width - 1:
        store(row + v * LANES, x)
    else:
        store_columns(row + v * LANES, x, columns - v * LANES)


cdef inline int panel_vectors(Py_ssize_t columns) noexcept nogil:
    """Vectors of the next panel: PANEL, or one."""
    return PANEL if columns >= PANEL * LANES else 1


cdef inline void sum_panel(
    const real *x, vec *sums, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t left, const int width
) noexcept nogil:
    """sums[v] = sum over a few rows of vector v of a panel: even rows, plus odd rows.

    Lanes beyond the last column are read from the rows below, as long as there are enough of them.
    That does no harm, as those lanes are not stored.
    """
    cdef vec acc[2 * PANEL]
    cdef Py_ssize_t i = 0, below = ceil_div(larger(0, width * LANES - left), n)
    cdef int v
    for v in range(2 * width):
        acc[v] = fill(0)
    while i + 2 <= rows - below:
        for v in range(width):
            acc[v] = acc[v] + load(x + i * n + v * LANES)
            acc[width + v] = acc[width + v] + load(x + (i + 1) * n + v * LANES)
        i += 2
    while i < rows:
        for v in range(width):
            acc[v] = acc[v] + load_panel(x + i * n, v, left, width)
        if i + 1 < rows:
            for v in range(width):
                acc[width + v] = acc[width + v] + load_panel(x + (i + 1) * n, v, left, width)
        i += 2
    for v in range(width):
        sums[v] = acc[v] + acc[width + v]


cdef inline void column_sum_panel(
    const ColumnSumArgs *args, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t j, real *sums,
    Accumulate accumulate, const int width
) noexcept nogil:
    """Write, or add, the sums over rows begin … end of a panel."""
    cdef Py_ssize_t left = args.columns - j
    cdef const real *x = <const real *>args.x + begin * args.columns + j
    cdef vec total[PANEL]
    cdef int v
    sum_panel(x, total, end - begin, args.columns, left, width)
    for v in range(width):
        accumulate_columns(sums + j + v * LANES, total[v], left - v * LANES, accumulate)


cdef inline void sum_row_block(
    const ColumnSumArgs *args, Py_ssize_t begin, Py_ssize_t j0, Py_ssize_t j1, real *sums,
    Accumulate accumulate
) noexcept nogil:
    """Write, or add, the sums over ROW_BLOCK rows from `begin` on, for columns j0 … j1."""
    cdef Py_ssize_t end = smaller(begin + ROW_BLOCK, args.rows), j = j0
    cdef int width
    while j < j1:
        width = PANEL
        if j1 - j < PANEL * LANES:
            width = <int>smaller(ceil_div(j1 - j, LANES), PANEL - 1)
        if width == PANEL:
            column_sum_panel(args, begin, end, j, sums, accumulate, PANEL)
        elif width == 3:
            column_sum_panel(args, begin, end, j, sums, accumulate, 3)
        elif width == 2:
            column_sum_panel(args, begin, end, j, sums, accumulate, 2)
        else:
            column_sum_panel(args, begin, end, j, sums, accumulate, 1)
        j += width * LANES


cdef Py_ssize_t column_sum(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[j] = sum over i of x[i, j], or added to what is there; threads partition the columns.

    All columns of a block of rows come before the next rows, as memory is read ahead along rows.
    """
    cdef const ColumnSumArgs *args = <const ColumnSumArgs *>arguments
    cdef Py_ssize_t j0 = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t j1 = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t begin = 0
    cdef Accumulate accumulate = args.accumulate
    while begin < args.rows or begin == 0:    # no rows still write their sum
        sum_row_block(args, begin, j0, j1, <real *>args.sums, accumulate)
        accumulate = ADD
        begin += ROW_BLOCK


KERNELS["column_sum"] = entry(column_sum, sizeof(ColumnSumArgs))
