# Sums down the columns of a matrix, and batch normalization, which is made of them.
#
# A strip of a few vectors of columns is walked down row by row, so that whole runs of cache lines
# are used. Every column is summed in the same order however wide its strip is: sums over at most
# SUM_ROWS rows each, so that rounding errors stay small however large the batch.

cdef enum:
    SUM_ROWS = 128
    TURN = 32     # rows of which all columns are summed, before the next rows
    FIRST_ROWS = 8
    STRIP = 4     # vectors whose sums stay in registers
    PANEL = 16    # vectors that are written row by row, in long runs


cdef inline vec load_strip(const real *row, int v, Py_ssize_t columns, int width) noexcept nogil:
    """Vector v of a strip; only the last one of a narrow strip may lack columns."""
    if width == STRIP or v < width - 1:
        return load(row + v * LANES)
    return load_columns(row + v * LANES, columns - v * LANES)


cdef inline void store_strip(
    real *row, int v, vec x, Py_ssize_t columns, int width
) noexcept nogil:
    if width == STRIP or v < width - 1:
        store(row + v * LANES, x)
    else:
        store_columns(row + v * LANES, x, columns - v * LANES)


cdef inline void add_strip(
    real *row, int v, vec total, Py_ssize_t left, const int width, Accumulate accumulate
) noexcept nogil:
    """Write a sum to vector v of a strip, add it to what is there, or to zero."""
    if accumulate == ADD:
        total = total + load_strip(row, v, left, width)
    elif accumulate == ADD_TO_ZERO:
        total = total + fill(0)
    store_strip(row, v, total, left, width)


cdef inline int strip_width(Py_ssize_t columns) noexcept nogil:
    """Vectors of the next strip: STRIP, or one."""
    return STRIP if columns >= STRIP * LANES else 1


cdef inline int panel_vectors(Py_ssize_t columns) noexcept nogil:
    """Vectors of the next panel."""
    return <int>smaller(ceil_div(columns, LANES), PANEL)


cdef inline void sum_strip(
    const real *x, vec *sums, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t left, const int width
) noexcept nogil:
    """sums[v] = sum over the rows of vector v.

    What a last vector lacks, it reads from the rows below, as long as there are enough of them: it
    does no harm there, as those lanes are not stored.
    """
    cdef vec acc[2 * STRIP]
    cdef Py_ssize_t i, begin = 0, end
    cdef Py_ssize_t below = ceil_div(larger(0, width * LANES - left), n)
    cdef int v
    for v in range(width):
        sums[v] = fill(0)
    while begin < rows:
        end = smaller(begin + SUM_ROWS, rows)
        for v in range(2 * width):
            acc[v] = fill(0)
        i = begin
        while i + 2 <= smaller(end, rows - below):
            for v in range(width):
                acc[v] = acc[v] + load(x + i * n + v * LANES)
                acc[width + v] = acc[width + v] + load(x + (i + 1) * n + v * LANES)
            i += 2
        while i < end:
            for v in range(width):
                acc[v] = acc[v] + load_strip(x + i * n, v, left, width)
            if i + 1 < end:
                for v in range(width):
                    acc[width + v] = acc[width + v] + load_strip(x + (i + 1) * n, v, left, width)
            i += 2
        for v in range(width):
            sums[v] = sums[v] + (acc[v] + acc[width + v])
        begin = end


cdef inline void column_sum_strip(
    const ColumnSumArgs *args, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t j, real *sums,
    Accumulate accumulate, const int width
) noexcept nogil:
    """Rows begin … end of a strip."""
    cdef Py_ssize_t left = args.columns - j
    cdef const real *x = <const real *>args.x + begin * args.columns + j
    cdef vec total[STRIP]
    cdef int v
    sum_strip(x, total, end - begin, args.columns, left, width)
    for v in range(width):
        add_strip(sums + j, v, total[v], left, width, accumulate)


cdef inline void sum_turn(
    const ColumnSumArgs *args, Py_ssize_t begin, Py_ssize_t j0, Py_ssize_t j1, real *sums,
    Accumulate accumulate
) noexcept nogil:
    """Columns j0 … j1 of TURN rows."""
    cdef Py_ssize_t end = smaller(begin + TURN, args.rows), j = j0
    cdef int width
    while j < j1:
        width = STRIP
        if j1 - j < STRIP * LANES:
            width = <int>smaller(ceil_div(j1 - j, LANES), STRIP - 1)
        if width == STRIP:
            column_sum_strip(args, begin, end, j, sums, accumulate, STRIP)
        elif width == 3:
            column_sum_strip(args, begin, end, j, sums, accumulate, 3)
        elif width == 2:
            column_sum_strip(args, begin, end, j, sums, accumulate, 2)
        else:
            column_sum_strip(args, begin, end, j, sums, accumulate, 1)
        j += width * LANES


cdef Py_ssize_t column_sum(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[j] = sum over i of x[i, j], added to what is there if asked for.

    All columns of some rows, then of the next: memory is read ahead along rows.
    """
    cdef const ColumnSumArgs *args = <const ColumnSumArgs *>arguments
    cdef Py_ssize_t j0 = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t j1 = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t begin = 0
    while begin < args.rows or begin == 0:    # no rows still write their sum
        sum_turn(args, begin, j0, j1, <real *>args.sums, args.accumulate if begin == 0 else ADD)
        begin += TURN


cdef inline void moments(
    const real *x, vec *mean, vec *dev, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t left,
    const int width
) noexcept nogil:
    """Mean of every column, and sum of its squared deviations, in one pass over the rows.

    Deviations are taken from the mean of the rows before, for the first SUM_ROWS rows from that of
    the first few. Blocks are joined as Chan, Golub and LeVeque (1983) do: no digits cancel but
    those of deviations that are themselves part of the variance.
    """
    cdef vec sums[STRIP]
    cdef vec squares[STRIP]
    cdef vec shift
    cdef Py_ssize_t i, begin = 0, end
    cdef int v
    cdef real count, whole, share = <real>(1.0 / smaller(rows, FIRST_ROWS))
    sum_strip(x, mean, smaller(rows, FIRST_ROWS), n, left, width)
    for v in range(width):
        mean[v] = mean[v] * share
        dev[v] = fill(0)
    while begin < rows:
        end = smaller(begin + SUM_ROWS, rows)
        for v in range(width):
            sums[v] = fill(0)
            squares[v] = fill(0)
        for i in range(begin, end):
            for v in range(width):
                shift = load_strip(x + i * n, v, left, width) - mean[v]
                sums[v] = sums[v] + shift
                squares[v] = squares[v] + shift * shift
        count, whole = <real>(end - begin), <real>end
        share = <real>(1.0 / count)
        for v in range(width):
            shift = sums[v] * share    # of the mean of this block from that before it
            squares[v] = maximum(fill(0), squares[v] - sums[v] * shift)
            dev[v] = dev[v] + squares[v] + shift * shift * (count * (begin / whole))
            mean[v] = mean[v] + shift * (count / whole)
        begin = end


cdef inline void batch_norm_strip(
    const BatchNormArgs *args, Py_ssize_t j, vec *mean, vec *slope, vec *beta, const int width
) noexcept nogil:
    """What y = (x - mean) slope + beta needs, and the statistics to keep."""
    cdef real *running_mean = <real *>args.running_mean + j
    cdef real *running_var = <real *>args.running_var + j
    cdef real momentum = <real>args.momentum
    cdef Py_ssize_t left = args.columns - j
    cdef vec dev[STRIP]
    cdef vec running, var, rstd
    cdef vec rows = fill(<real>args.rows)
    cdef int v
    for v in range(width):
        dev[v] = fill(0)
    if args.training:
        moments(<const real *>args.x + j, mean, dev, args.rows, args.columns, left, width)
    for v in range(width):
        running = load_strip(running_mean, v, left, width)
        if args.training:
            running = running + momentum * (mean[v] - running)
            store_strip(running_mean, v, running, left, width)
            running = load_strip(running_var, v, left, width)
            running = running + momentum * (dev[v] / (rows - 1) - running)
            store_strip(running_var, v, running, left, width)
            var = dev[v] / rows
        else:
            mean[v] = running
            var = load_strip(running_var, v, left, width)
        rstd = 1 / square_root(var + <real>args.eps)
        store_strip(<real *>args.mean + j, v, mean[v], left, width)
        store_strip(<real *>args.rstd + j, v, rstd, left, width)
        slope[v] = load_strip(<const real *>args.gamma + j, v, left, width) * rstd
        beta[v] = load_strip(<const real *>args.beta + j, v, left, width)


cdef Py_ssize_t batch_norm(const void *arguments, int thread, int threads) noexcept nogil:
    """y = gamma (x - mean) rstd + beta, column by column."""
    cdef const BatchNormArgs *args = <const BatchNormArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.y
    cdef Py_ssize_t begin = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t end = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t i, j, at, rest
    cdef vec mean[PANEL]
    cdef vec slope[PANEL]
    cdef vec beta[PANEL]
    cdef vec own
    cdef int v, width, whole
    while begin < end:
        width = panel_vectors(end - begin)
        whole = <int>smaller((end - begin) // LANES, PANEL)
        rest = end - begin - whole * LANES
        v = 0
        while v < width:
            j = begin + v * LANES
            if strip_width(end - j) == STRIP:
                batch_norm_strip(args, j, mean + v, slope + v, beta + v, STRIP)
                v += STRIP
            else:
                batch_norm_strip(args, j, mean + v, slope + v, beta + v, 1)
                v += 1
        for i in range(args.rows):
            at = i * args.columns + begin
            for v in range(whole):
                store(y + at, (load(x + at) - mean[v]) * slope[v] + beta[v])
                at += LANES
            if whole < width:
                own = (load_part(x + at, rest, 0) - mean[whole]) * slope[whole] + beta[whole]
                store_part(y + at, own, rest)
        begin += PANEL * LANES


cdef inline void sum_products(
    const real *dy, const real *x, const vec *mean, vec *sums, vec *products, Py_ssize_t rows,
    Py_ssize_t n, Py_ssize_t left, const int width
) noexcept nogil:
    """Sums over the rows of dy and of dy (x - mean)."""
    cdef vec acc[2 * STRIP]
    cdef vec slope
    cdef Py_ssize_t i, begin = 0, end
    cdef int v
    for v in range(width):
        sums[v] = fill(0)
        products[v] = fill(0)
    while begin < rows:
        end = smaller(begin + SUM_ROWS, rows)
        for v in range(2 * width):
            acc[v] = fill(0)
        for i in range(begin, end):
            for v in range(width):
                slope = load_strip(dy + i * n, v, left, width)
                acc[v] = acc[v] + slope
                acc[width + v] = acc[width + v] + slope * (
                    load_strip(x + i * n, v, left, width) - mean[v]
                )
        for v in range(width):
            sums[v] = sums[v] + acc[v]
            products[v] = products[v] + acc[width + v]
        begin = end


cdef inline void batch_norm_grad_strip(
    const BatchNormGradArgs *args, Py_ssize_t j, vec *mean, vec *slope, vec *tilt, vec *shift,
    const int width
) noexcept nogil:
    """What dx = slope dy - (x - mean) tilt - shift needs, and the gradients of gamma and beta."""
    cdef real *dgamma = <real *>args.dgamma + j
    cdef real *dbeta = <real *>args.dbeta + j
    cdef real share = <real>(1.0 / args.rows)
    cdef Py_ssize_t left = args.columns - j
    cdef vec rstd
    cdef int v
    for v in range(width):
        mean[v] = load_strip(<const real *>args.mean + j, v, left, width)
    sum_products(
        <const real *>args.dy + j, <const real *>args.x + j, mean, shift, tilt,
        args.rows, args.columns, left, width
    )
    for v in range(width):
        rstd = load_strip(<const real *>args.rstd + j, v, left, width)
        tilt[v] = tilt[v] * rstd
        add_strip(dgamma, v, tilt[v], left, width, args.accumulate_gamma)
        add_strip(dbeta, v, shift[v], left, width, args.accumulate_beta)
        slope[v] = load_strip(<const real *>args.gamma + j, v, left, width) * rstd
        tilt[v] = slope[v] * rstd * (tilt[v] * share)
        shift[v] = slope[v] * (shift[v] * share)


cdef inline vec batch_norm_dx(
    vec dy, vec x, vec mean, vec slope, vec tilt, vec shift, const bint training
) noexcept nogil:
    """dx; with fixed statistics slope dy alone, whatever other rows hold, and x itself."""
    if training:
        return dy * slope - ((x - mean) * tilt + shift)
    return dy * slope


cdef inline void batch_norm_dx_rows(
    const BatchNormGradArgs *args, Py_ssize_t begin, Py_ssize_t end, const vec *mean,
    const vec *slope, const vec *tilt, const vec *shift, const bint training
) noexcept nogil:
    """dx of a panel of columns, row by row."""
    cdef const real *x = <const real *>args.x
    cdef const real *dy = <const real *>args.dy
    cdef real *dx = <real *>args.dx
    cdef int width = panel_vectors(end - begin)
    cdef int whole = <int>smaller((end - begin) // LANES, PANEL)
    cdef Py_ssize_t rest = end - begin - whole * LANES
    cdef Py_ssize_t i, at
    cdef int v
    for i in range(args.rows):
        at = i * args.columns + begin
        for v in range(whole):
            store(dx + at, batch_norm_dx(
                load(dy + at), load(x + at), mean[v], slope[v], tilt[v], shift[v], training
            ))
            at += LANES
        if whole < width:
            v = whole
            store_part(dx + at, batch_norm_dx(
                load_part(dy + at, rest, 0), load_part(x + at, rest, 0),
                mean[v], slope[v], tilt[v], shift[v], training
            ), rest)


cdef Py_ssize_t batch_norm_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = gamma rstd (dy - mean(dy) - x_hat mean(dy x_hat)), column by column."""
    cdef const BatchNormGradArgs *args = <const BatchNormGradArgs *>arguments
    cdef Py_ssize_t begin = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t end = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t j
    cdef vec mean[PANEL]
    cdef vec slope[PANEL]
    cdef vec tilt[PANEL]
    cdef vec shift[PANEL]
    cdef int v, width
    while begin < end:
        width = panel_vectors(end - begin)
        v = 0
        while v < width:
            j = begin + v * LANES
            if strip_width(end - j) == STRIP:
                batch_norm_grad_strip(args, j, mean + v, slope + v, tilt + v, shift + v, STRIP)
                v += STRIP
            else:
                batch_norm_grad_strip(args, j, mean + v, slope + v, tilt + v, shift + v, 1)
                v += 1
        if args.training:
            batch_norm_dx_rows(args, begin, end, mean, slope, tilt, shift, True)
        else:
            batch_norm_dx_rows(args, begin, end, mean, slope, tilt, shift, False)
        begin += PANEL * LANES
