# What a watched step notes of its arrays: sums in double, over blocks of NORM_BLOCK elements.

cdef bint fits_float(double square) noexcept nogil:
    """Whether no square that counts over- or underflows in a sum of float32, which this is."""
    return sizeof(real) == 8 or 1e-20 < square < 1e30


cdef void moments_in_double(
    const real *x, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t n, double *parts
) noexcept nogil:
    """Sum and sum of squares, one element after the other: where float32 does not do."""
    cdef double sum = 0, square = 0
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(n):
            sum += x[i * stride + j]
            square += <double>x[i * stride + j] * x[i * stride + j]
    parts[1], parts[2] = sum, square


cdef void moments_of_rows(
    const real *x, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t n, double *parts,
    Accumulate accumulate
) noexcept nogil:
    """How many elements n columns of these rows have, Σ x, Σ x², and the number of zeros.

    Differences to the first element are summed, so that a deviation is right that is small beside
    the mean (Chan, Golub and LeVeque 1983).
    """
    cdef double first = x[0], sum, square, count = rows * n
    cdef double found[4]
    cdef vec pivot = fill(x[0]), v
    cdef vec d[2]
    cdef vec sums[2]
    cdef vec squares[2]
    cdef vec zeros[2]
    cdef const real *row
    cdef Py_ssize_t i, k
    cdef int j
    for j in range(2):
        sums[j] = squares[j] = zeros[j] = fill(0)
    for k in range(rows):
        row, i = x + k * stride, 0
        while i + 2 * LANES <= n:
            for j in range(2):
                v = load(row + i + j * LANES)
                d[j] = v - pivot
                sums[j] = sums[j] + d[j]
                squares[j] = squares[j] + d[j] * d[j]
                zeros[j] = zeros[j] + where_less(fill(0), absolute(v), fill(0), fill(1))
            i += 2 * LANES
        while i < n:
            v = load(row + i) if n - i >= LANES else load_part(row + i, n - i, x[0])
            d[0] = v - pivot
            sums[0] = sums[0] + d[0]
            squares[0] = squares[0] + d[0] * d[0]
            v = where_less(fill(0), absolute(v), fill(0), fill(1))
            zeros[0] = zeros[0] + (v if n - i >= LANES else keep_part(v, n - i))
            i += LANES
    found[0], found[3] = count, lane_sum(zeros[0] + zeros[1])
    sum, square = lane_sum(sums[0] + sums[1]), lane_sum(squares[0] + squares[1])
    found[1] = sum + count * first
    found[2] = square + first * (2 * sum + count * first)
    if found[3] < count and not (fits_float(square) and fits_float(found[2])):
        moments_in_double(x, rows, stride, n, found)
    for j in range(4):
        parts[j] = found[j] + (parts[j] if accumulate == ADD else 0)


cdef Py_ssize_t moment_parts(const void *arguments, int thread, int threads) noexcept nogil:
    """Of every block, and of every group of its columns: count, Σ x, Σ x², zeros."""
    cdef const MomentPartsArgs *args = <const MomentPartsArgs *>arguments
    cdef Py_ssize_t width = args.columns // args.groups, size = NORM_BLOCK, rows, j, i, end
    cdef const real *x = <const real *>args.x
    if args.groups > 1:
        size = larger(1, NORM_BLOCK // args.columns) * args.columns
    i = partition(args.n, size, thread, threads)
    end = partition(args.n, size, thread + 1, threads)
    while i < end:
        if args.groups == 1:
            moments_of_rows(
                x + i, 1, 0, smaller(size, end - i), args.parts + i // size * 4, args.accumulate
            )
        else:
            rows = smaller(size, end - i) // args.columns
            for j in range(args.groups):
                moments_of_rows(
                    x + i + j * width, rows, args.columns, width,
                    args.parts + (i // size * args.groups + j) * 4, args.accumulate
                )
        i += size
    return 0


cdef double distance_in_double(const real *x, const real *y, Py_ssize_t n) noexcept nogil:
    """Σ (x - y)², one element after the other: where float32 does not do."""
    cdef double sum = 0, d
    cdef Py_ssize_t i
    for i in range(n):
        d = <double>x[i] - y[i]
        sum += d * d
    return sum


cdef void square_and_distance(
    const real *x, const real *y, Py_ssize_t n, double *found
) noexcept nogil:
    """Σ x² and Σ (x - y)², in one pass."""
    cdef vec v, d
    cdef vec squares[2]
    cdef vec distances[2]
    cdef Py_ssize_t i = 0
    cdef int j
    for j in range(2):
        squares[j] = distances[j] = fill(0)
    while i + 2 * LANES <= n:
        for j in range(2):
            v = load(x + i + j * LANES)
            d = v - load(y + i + j * LANES)
            squares[j] = squares[j] + v * v
            distances[j] = distances[j] + d * d
        i += 2 * LANES
    while i < n:
        v = load_columns(x + i, n - i)
        d = v - load_columns(y + i, n - i)
        squares[0] = squares[0] + v * v
        distances[0] = distances[0] + d * d
        i += LANES
    found[0] = lane_sum(squares[0] + squares[1])
    found[1] = lane_sum(distances[0] + distances[1])
    if not fits_float(found[0]):
        found[0] = squared_norm_block(x, n)
    if not fits_float(found[1]):
        found[1] = distance_in_double(x, y, n)


cdef Py_ssize_t norm_parts(const void *arguments, int thread, int threads) noexcept nogil:
    """Of every block: Σ x², Σ (x - before)²."""
    cdef const NormPartsArgs *args = <const NormPartsArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef const real *before = <const real *>args.before
    cdef double *parts
    cdef double found[2]
    cdef Py_ssize_t i = partition(args.n, NORM_BLOCK, thread, threads), n
    cdef Py_ssize_t end = partition(args.n, NORM_BLOCK, thread + 1, threads)
    cdef int j
    while i < end:
        n, parts = smaller(NORM_BLOCK, end - i), args.parts + i // NORM_BLOCK * 2
        if before == NULL:
            found[0], found[1] = squared_norm_block(x + i, n), 0
        else:
            square_and_distance(x + i, before + i, n, found)
        for j in range(2):
            parts[j] = found[j] + (parts[j] if args.accumulate == ADD else 0)
        i += NORM_BLOCK
    return 0


cdef Py_ssize_t collect(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[j] += Σ parts[i, j]."""
    cdef const CollectArgs *args = <const CollectArgs *>arguments
    cdef Py_ssize_t i, j
    cdef double sum
    if thread > 0:
        return 0
    for j in range(args.k):
        sum = 0
        for i in range(args.blocks):
            sum += args.parts[i * args.k + j]
        args.sums[j] += sum
    return 0


cdef Py_ssize_t note_rows(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[i] += Σ parts[i, j]."""
    cdef const NoteRowsArgs *args = <const NoteRowsArgs *>arguments
    cdef Py_ssize_t i, j
    cdef double sum
    if thread > 0:
        return 0
    for i in range(args.rows):
        sum = 0
        for j in range(args.columns):
            sum += args.parts[i * args.columns + j]
        args.sums[i] += sum
    return 0


cdef Py_ssize_t note_lengths(const void *arguments, int thread, int threads) noexcept nogil:
    """sums += how many lengths there are, Σ lengths."""
    cdef const NoteLengthsArgs *args = <const NoteLengthsArgs *>arguments
    cdef Py_ssize_t i, total = 0
    if thread > 0:
        return 0
    for i in range(args.rows):
        total += args.lengths[i]
    args.sums[0] += args.rows
    args.sums[1] += total
    return 0


cdef Py_ssize_t note_active(const void *arguments, int thread, int threads) noexcept nogil:
    """active[j] = 1 if any x[i, j] is not 0; threads partition the columns."""
    cdef const NoteActiveArgs *args = <const NoteActiveArgs *>arguments
    cdef real *active = <real *>args.active
    cdef const real *x
    cdef Py_ssize_t j = partition(args.columns, LANES, thread, threads), i, left
    cdef Py_ssize_t end = partition(args.columns, LANES, thread + 1, threads)
    cdef vec most
    while j < end:
        left, most, x = end - j, fill(0), <const real *>args.x + j
        for i in range(args.rows):
            most = most + where_less(
                fill(0), absolute(load_columns(x + i * args.columns, left)), fill(1), fill(0)
            )
        most = where_less(fill(0), most, fill(1), load_columns(active + j, left))
        store_columns(active + j, most, left)
        j += LANES
    return 0


cdef Py_ssize_t count_inactive(const void *arguments, int thread, int threads) noexcept nogil:
    """sums = how many are 0 in both, how many there are."""
    cdef const CountInactiveArgs *args = <const CountInactiveArgs *>arguments
    cdef const real *active = <const real *>args.active
    cdef const real *before = <const real *>args.before
    cdef Py_ssize_t j, count = 0
    if thread > 0:
        return 0
    for j in range(args.n):
        count += active[j] == 0 and before[j] == 0
    args.sums[0], args.sums[1] = count, args.n
    return 0


cdef Py_ssize_t note_state(const void *arguments, int thread, int threads) noexcept nogil:
    """sums = number of the step, norm, scale, learning rate."""
    cdef const NoteStateArgs *args = <const NoteStateArgs *>arguments
    if thread == 0:
        args.sums[0], args.sums[1] = args.clock[CLOCK_STEPS] + 1, args.state.norm
        args.sums[2], args.sums[3] = args.state.scale, args.state.learning_rate
    return 0


cdef Py_ssize_t store_record(const void *arguments, int thread, int threads) noexcept nogil:
    """The next row of the journal = sums, if there is room; sums = 0."""
    cdef const StoreRecordArgs *args = <const StoreRecordArgs *>arguments
    cdef Py_ssize_t row = args.clock[CLOCK_RECORDS]
    if thread > 0:
        return 0
    if 0 <= row < args.records:
        memcpy(args.journal + row * args.n, args.sums, args.n * sizeof(double))
    memset(args.sums, 0, args.n * sizeof(double))
    return 0


cdef Py_ssize_t count_record(const void *arguments, int thread, int threads) noexcept nogil:
    """Count a step, and a record; say when the next is due."""
    cdef unsigned long long *clock = (<const CountRecordArgs *>arguments).clock
    if thread > 0:
        return 0
    clock[CLOCK_STEPS] += 1
    clock[CLOCK_RECORDS] += clock[CLOCK_RECORDS] < clock[CLOCK_ROOM]
    clock[CLOCK_NEXT] = clock[CLOCK_STEPS] + clock[CLOCK_EVERY]
    return 0


KERNELS["moment_parts"] = entry(moment_parts, sizeof(MomentPartsArgs))
KERNELS["norm_parts"] = entry(norm_parts, sizeof(NormPartsArgs))
KERNELS["collect"] = entry(collect, sizeof(CollectArgs))
KERNELS["note_rows"] = entry(note_rows, sizeof(NoteRowsArgs))
KERNELS["note_lengths"] = entry(note_lengths, sizeof(NoteLengthsArgs))
KERNELS["note_active"] = entry(note_active, sizeof(NoteActiveArgs))
KERNELS["count_inactive"] = entry(count_inactive, sizeof(CountInactiveArgs))
KERNELS["note_state"] = entry(note_state, sizeof(NoteStateArgs))
KERNELS["store_record"] = entry(store_record, sizeof(StoreRecordArgs))
KERNELS["count_record"] = entry(count_record, sizeof(CountRecordArgs))
