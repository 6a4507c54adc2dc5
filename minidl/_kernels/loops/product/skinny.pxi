# Products of skinny matrices; algorithm.pxi says which of these serves where.
#
# An element of B is used too seldom in them to repay a copy.

cdef enum:
    GEMV_ROWS = 8    # rows of B at a time, so that C is read and written less often


# --- one row of A, or one column ---

cdef inline void add_rows(
    const MatmulArgs *args, const real *a, Py_ssize_t p, real *c, bint first,
    Py_ssize_t begin, Py_ssize_t end, const int rows
) noexcept nogil:
    """Add to columns begin … end of one row of C: `rows` rows of B, each times an element of A.

    They are added to zero if they are the `first` ones.
    """
    cdef vec factor[GEMV_ROWS]
    cdef vec sum
    cdef const real *b = <const real *>args.b + p * args.b_row
    cdef Py_ssize_t j = begin
    cdef int q
    for q in range(rows):
        factor[q] = fill(a[(p + q) * args.a_col])
    while j + LANES <= end:
        if first:
            sum = fill(0)
        else:
            sum = load(c + j)
        for q in range(rows):
            sum = sum + factor[q] * load(b + q * args.b_row + j)
        store(c + j, sum)
        j += LANES
    if j < end:
        sum = fill(0)
        if not first:
            sum = load_part(c + j, end - j, 0)
        for q in range(rows):
            sum = sum + factor[q] * load_part(b + q * args.b_row + j, end - j, 0)
        store_part(c + j, sum, end - j)


cdef void multiply_gemv(
    const MatmulArgs *args, real *scratch,
    Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Rows i0 … i1 and columns j0 … j1 of C: sums of the rows of B, times elements of a row of A.

    Sums are over the same blocks of k as in tiles of many rows, so that a C that is not added to
    does not depend on m.
    """
    cdef Py_ssize_t i, p, pc, end, kc = kc_of(args.k)
    cdef const real *a
    cdef real *c
    cdef real *sums
    cdef bint first
    if args.k == 1 and args.n <= NR:
        multiply_outer(args, i0, i1, j0, j1)
        return
    for i in range(i0, i1):
        a, c = <const real *>args.a + i * args.a_row, <real *>args.c + i * args.c_row
        pc = 0
        while pc < args.k:
            # ADD_TO_ZERO begins with zero, and so does WRITE: the result is the same.
            first = pc > 0 or args.accumulate != ADD
            sums = scratch if pc > 0 else c
            p, end = pc, smaller(pc + kc, args.k)
            while p + GEMV_ROWS <= end:
                add_rows(args, a, p, sums, first, j0, j1, GEMV_ROWS)
                first, p = False, p + GEMV_ROWS
            while p < end:
                add_rows(args, a, p, sums, first, j0, j1, 1)
                first, p = False, p + 1
            if pc > 0:
                add_to_row(sums + j0, c + j0, j1 - j0)
            pc += kc
        if args.bias != NULL:
            add_to_row(<const real *>args.bias + j0, c + j0, j1 - j0)


cdef inline void outer_columns(
    const MatmulArgs *args, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j, Py_ssize_t columns,
    const int vectors
) noexcept nogil:
    """Multiply each element of a column of A with some columns of a row of B, kept in registers.

    Where rows of less than a vector follow one another, whole vectors are stored: they reach into
    rows that are written after them.
    """
    cdef const real *a = <const real *>args.a + i0 * args.a_row
    cdef real *c = <real *>args.c + i0 * args.c_row + j
    cdef vec b[TILE_VECTORS]
    cdef vec bias[TILE_VECTORS]
    cdef vec factor, sum
    cdef Py_ssize_t i, whole = i0
    cdef int q
    if columns < LANES and args.c_row == columns and args.accumulate != ADD:
        whole = i1 - ceil_div(LANES, columns) + 1
    for q in range(vectors):
        b[q] = load_columns(<const real *>args.b + j + q * LANES, columns - q * LANES)
        bias[q] = fill(0)
        if args.bias != NULL:
            bias[q] = load_columns(<const real *>args.bias + j + q * LANES, columns - q * LANES)
    for i in range(i0, i1):
        factor = fill(a[0])
        for q in range(vectors):
            sum = fill(0)
            if args.accumulate == ADD:
                sum = load_columns(c + q * LANES, columns - q * LANES)
            sum = sum + factor * b[q]
            if args.bias != NULL:
                sum = sum + bias[q]
            store_columns(c + q * LANES, sum, LANES if i < whole else columns - q * LANES)
        a, c = a + args.a_row, c + args.c_row


cdef void multiply_outer(
    const MatmulArgs *args, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Outer product: a column of A times a row of B, which fits into registers.

    (In a wider C, the columns of one round would lie on another page for each row, and in the same
    few sets of the cache.)
    """
    cdef Py_ssize_t j = j0
    if j1 - j0 == NR:
        outer_columns(args, i0, i1, j0, NR, TILE_VECTORS)
        return
    while j < j1:
        outer_columns(args, i0, i1, j, smaller(LANES, j1 - j), 1)
        j += LANES


cdef void add_to_row(const real *x, real *c, Py_ssize_t n) noexcept nogil:
    """c += x"""
    cdef Py_ssize_t j = 0
    while j < n:
        store_columns(c + j, load_columns(c + j, n - j) + load_columns(x + j, n - j), n - j)
        j += LANES


# --- few rows of A, B transposed: dot products of contiguous rows ---

cdef inline vec lane_sums(vec *sums) noexcept nogil:
    """Return a vector whose lane q is the sum of the lanes of sums[q], in log2(LANES) steps."""
    add_pairs(sums, 1)
    if LANES > 2:
        add_pairs(sums, 2)
    if LANES > 4:
        add_pairs(sums, 4)
    if LANES > 8:
        add_pairs(sums, 8)
    return sums[0]


cdef inline void add_pairs(vec *sums, const int step) noexcept nogil:
    """Add each pair of vectors `step` apart into the first: half of its lanes are for each."""
    cdef vec first, second
    cdef int i
    for i in range(LANES):
        if i % (2 * step) == 0:
            first = sums[i]
            second = sums[i + step]
            sums[i] = merge_low(first, second, step) + merge_high(first, second, step)


cdef inline void dot_columns(
    const MatmulArgs *args, const real *a, const real *b, real *c, const real *bias,
    const Py_ssize_t count
) noexcept nogil:
    """c[q] = a . row q of b, for `count` <= LANES of them: whole vectors, then what is left."""
    cdef vec acc[LANES]
    cdef vec x
    cdef Py_ssize_t p = 0, q
    for q in range(LANES):
        acc[q] = fill(0)
    while p + LANES <= args.k:
        x = load(a + p)
        for q in range(count):
            acc[q] = acc[q] + x * load(b + q * args.b_col + p)
        p += LANES
    if p < args.k:
        x = load_part(a + p, args.k - p, 0)
        for q in range(count):
            acc[q] = acc[q] + x * load_part(b + q * args.b_col + p, args.k - p, 0)
    x = lane_sums(acc)
    if args.accumulate == ADD:
        x = x + load_columns(c, count)
    elif args.accumulate == ADD_TO_ZERO:
        x = x + fill(0)
    if bias != NULL:
        x = x + load_columns(bias, count)
    store_columns(c, x, count)


cdef void multiply_dot_rows(
    const MatmulArgs *args, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Columns begin … end of C, each element a dot product of two contiguous rows."""
    cdef const real *a
    cdef const real *b
    cdef const real *bias = NULL
    cdef real *c
    cdef Py_ssize_t i, j = begin
    while j < end:
        if args.bias != NULL:
            bias = <const real *>args.bias + j
        b = <const real *>args.b + j * args.b_col
        for i in range(args.m):
            a = <const real *>args.a + i * args.a_row
            c = <real *>args.c + i * args.c_row + j
            if end - j >= LANES:
                dot_columns(args, a, b, c, bias, LANES)
            else:
                dot_columns(args, a, b, c, bias, end - j)
        j += LANES


# --- few columns of B: vectors along k ---

cdef inline Py_ssize_t scratch_of_narrow(const MatmulArgs *args) noexcept nogil:
    """Elements for the columns of B, each in whole vectors, and one vector of the bias."""
    return args.n * packed_row(args.k) + LANES


cdef inline void narrow_rows(
    const MatmulArgs *args, const real *columns, const real *bias, Py_ssize_t i, Py_ssize_t rows,
    const int n
) noexcept nogil:
    """Compute as many rows of C as are one vector, of which only `rows` exist."""
    cdef vec acc[LANES]
    cdef vec x
    cdef const real *a[LANES]
    cdef real *c = <real *>args.c + i * n
    cdef Py_ssize_t p = 0, step = packed_row(args.k)
    cdef int r, q, many = LANES // n
    for r in range(LANES):
        acc[r] = fill(0)
    for r in range(many):
        a[r] = <const real *>args.a + (i + r if r < rows else i) * args.a_row
    while p + LANES <= args.k:
        for r in range(many):
            x = load(a[r] + p)
            for q in range(n):
                acc[r * n + q] = acc[r * n + q] + x * load(columns + q * step + p)
        p += LANES
    if p < args.k:
        for r in range(many):
            x = load_part(a[r] + p, args.k - p, 0)
            for q in range(n):
                acc[r * n + q] = acc[r * n + q] + x * load(columns + q * step + p)
    x = lane_sums(acc)
    if args.accumulate == ADD:
        x = x + load_columns(c, rows * n)
    elif args.accumulate == ADD_TO_ZERO:
        x = x + fill(0)
    if args.bias != NULL:
        x = x + load(bias)
    store_columns(c, x, rows * n)


cdef void multiply_narrow(
    const MatmulArgs *args, real *scratch, Py_ssize_t i0, Py_ssize_t i1
) noexcept nogil:
    """Rows i0 … i1 of C, each element a dot product of a row of A and a column of B.

    The columns of B are copied to scratch memory first, where each is contiguous.
    """
    cdef const real *b = <const real *>args.b
    cdef Py_ssize_t k = args.k, b_row = args.b_row
    cdef Py_ssize_t n = args.n, step = packed_row(args.k), many = LANES // n
    cdef Py_ssize_t i = i0, p, q
    cdef real *bias = scratch + n * step
    if i0 == i1:
        return
    for p in range(k):
        for q in range(n):
            scratch[q * step + p] = b[p * b_row + q]
    for q in range(n):
        for p in range(k, step):
            scratch[q * step + p] = 0
    for q in range(LANES):
        bias[q] = (<const real *>args.bias)[q % n] if args.bias != NULL else 0
    while i < i1:
        if n == 1:
            narrow_rows(args, scratch, bias, i, smaller(many, i1 - i), 1)
        elif n == 2:
            narrow_rows(args, scratch, bias, i, smaller(many, i1 - i), 2)
        elif LANES > 2 and n == 3:
            narrow_rows(args, scratch, bias, i, smaller(many, i1 - i), 3 if LANES > 2 else 1)
        elif LANES > 2:
            narrow_rows(args, scratch, bias, i, smaller(many, i1 - i), 4 if LANES > 2 else 1)
        i += many
