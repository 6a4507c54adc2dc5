# Batch normalization, down the columns of a matrix, and standardization with given statistics.

cdef enum:
    FIRST_ROWS = 8
    COLUMN_BLOCK = 16    # vectors of columns that are written row by row, in long runs


cdef inline int block_vectors(Py_ssize_t columns) noexcept nogil:
    """Vectors of the next block of columns."""
    return <int>smaller(ceil_div(columns, LANES), COLUMN_BLOCK)


cdef inline void moments(
    const real *x, vec *mean, vec *dev, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t left,
    const int width
) noexcept nogil:
    """Mean of every column, and dev = sum of its squared deviations, in one pass over the rows.

    Deviations are taken from the mean of the rows before; in the first SUM_ROWS rows, from that of
    the first few. Blocks are joined as Chan, Golub and LeVeque (1983) do: no digits cancel but
    those of deviations that are themselves part of the variance.
    """
    cdef vec sums[PANEL]
    cdef vec squares[PANEL]
    cdef vec shift
    cdef Py_ssize_t i, begin = 0, end
    cdef int v
    cdef real count, whole, inverse = <real>(1.0 / smaller(rows, FIRST_ROWS))
    sum_panel(x, mean, smaller(rows, FIRST_ROWS), n, left, width)
    for v in range(width):
        mean[v] = mean[v] * inverse
        dev[v] = fill(0)
    while begin < rows:
        end = smaller(begin + SUM_ROWS, rows)
        for v in range(width):
            sums[v] = fill(0)
            squares[v] = fill(0)
        for i in range(begin, end):
            for v in range(width):
                shift = load_panel(x + i * n, v, left, width) - mean[v]
                sums[v] = sums[v] + shift
                squares[v] = squares[v] + shift * shift
        count, whole = <real>(end - begin), <real>end
        inverse = <real>(1.0 / count)
        for v in range(width):
            shift = sums[v] * inverse    # of the mean of this block from that before it
            squares[v] = maximum(fill(0), squares[v] - sums[v] * shift)
            dev[v] = dev[v] + squares[v] + shift * shift * (count * (begin / whole))
            mean[v] = mean[v] + shift * (count / whole)
        begin = end


cdef inline void batch_norm_panel(
    const BatchNormArgs *args, Py_ssize_t j, vec *mean, vec *slope, vec *beta, const int width
) noexcept nogil:
    """Compute what y = (x - mean) slope + beta needs, and the statistics to keep."""
    cdef real *running_mean = <real *>args.running_mean + j
    cdef real *running_var = <real *>args.running_var + j
    cdef real momentum = <real>args.momentum
    cdef Py_ssize_t left = args.columns - j
    cdef vec dev[PANEL]
    cdef vec running, var, rstd
    cdef vec rows = fill(<real>args.rows)
    cdef int v
    for v in range(width):
        dev[v] = fill(0)
    if args.training:
        moments(<const real *>args.x + j, mean, dev, args.rows, args.columns, left, width)
    for v in range(width):
        running = load_panel(running_mean, v, left, width)
        if args.training:
            running = running + momentum * (mean[v] - running)
            store_panel(running_mean, v, running, left, width)
            running = load_panel(running_var, v, left, width)
            running = running + momentum * (dev[v] / (rows - 1) - running)
            store_panel(running_var, v, running, left, width)
            var = dev[v] / rows
        else:
            mean[v] = running
            var = load_panel(running_var, v, left, width)
        rstd = 1 / square_root(var + <real>args.eps)
        store_panel(<real *>args.mean + j, v, mean[v], left, width)
        store_panel(<real *>args.rstd + j, v, rstd, left, width)
        slope[v] = load_panel(<const real *>args.gamma + j, v, left, width) * rstd
        beta[v] = load_panel(<const real *>args.beta + j, v, left, width)


cdef Py_ssize_t batch_norm(const void *arguments, int thread, int threads) noexcept nogil:
    """y = gamma (x - mean) rstd + beta, column by column, with rstd = 1 / √(var + eps).

    In training, mean and var are those of x, and the running ones move to them (the running var to
    dev / (rows - 1)) by `momentum`; else they are the running ones. Threads partition the columns.
    """
    cdef const BatchNormArgs *args = <const BatchNormArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.y
    cdef Py_ssize_t begin = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t end = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t i, j, at, rest
    cdef vec mean[COLUMN_BLOCK]
    cdef vec slope[COLUMN_BLOCK]
    cdef vec beta[COLUMN_BLOCK]
    cdef vec own
    cdef int v, width, whole
    if args.training and args.rows < 2:
        return 1    # one row has no variance
    while begin < end:
        width = block_vectors(end - begin)
        whole = <int>smaller((end - begin) // LANES, COLUMN_BLOCK)
        rest = end - begin - whole * LANES
        v = 0
        while v < width:
            j = begin + v * LANES
            if panel_vectors(end - j) == PANEL:
                batch_norm_panel(args, j, mean + v, slope + v, beta + v, PANEL)
                v += PANEL
            else:
                batch_norm_panel(args, j, mean + v, slope + v, beta + v, 1)
                v += 1
        for i in range(args.rows):
            at = i * args.columns + begin
            for v in range(whole):
                store(y + at, (load(x + at) - mean[v]) * slope[v] + beta[v])
                at += LANES
            if whole < width:
                own = (load_part(x + at, rest, 0) - mean[whole]) * slope[whole] + beta[whole]
                store_part(y + at, own, rest)
        begin += COLUMN_BLOCK * LANES


cdef inline void sum_products(
    const real *dy, const real *x, const vec *mean, vec *sums, vec *products, Py_ssize_t rows,
    Py_ssize_t n, Py_ssize_t left, const int width
) noexcept nogil:
    """Sums over the rows of dy, and products: of dy (x - mean)."""
    cdef vec acc[2 * PANEL]
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
                slope = load_panel(dy + i * n, v, left, width)
                acc[v] = acc[v] + slope
                acc[width + v] = acc[width + v] + slope * (
                    load_panel(x + i * n, v, left, width) - mean[v]
                )
        for v in range(width):
            sums[v] = sums[v] + acc[v]
            products[v] = products[v] + acc[width + v]
        begin = end


cdef inline void batch_norm_grad_panel(
    const BatchNormGradArgs *args, Py_ssize_t j, vec *mean, vec *slope, vec *tilt, vec *shift,
    const int width
) noexcept nogil:
    """Compute what dx = slope dy - (x - mean) tilt - shift needs, and the gradients of gamma and
    beta."""
    cdef real *dgamma = <real *>args.dgamma + j
    cdef real *dbeta = <real *>args.dbeta + j
    cdef real inverse = <real>(1.0 / args.rows)
    cdef Py_ssize_t left = args.columns - j, at, lanes
    cdef vec rstd
    cdef int v
    for v in range(width):
        mean[v] = load_panel(<const real *>args.mean + j, v, left, width)
    sum_products(
        <const real *>args.dy + j, <const real *>args.x + j, mean, shift, tilt,
        args.rows, args.columns, left, width
    )
    for v in range(width):
        rstd = load_panel(<const real *>args.rstd + j, v, left, width)
        tilt[v] = tilt[v] * rstd
        at, lanes = v * LANES, left - v * LANES
        accumulate_columns(dgamma + at, tilt[v], lanes, args.accumulate_dgamma)
        accumulate_columns(dbeta + at, shift[v], lanes, args.accumulate_dbeta)
        slope[v] = load_panel(<const real *>args.gamma + j, v, left, width) * rstd
        tilt[v] = slope[v] * rstd * (tilt[v] * inverse)
        shift[v] = slope[v] * (shift[v] * inverse)


cdef inline vec batch_norm_dx(
    vec dy, vec x, vec mean, vec slope, vec tilt, vec shift, const bint training
) noexcept nogil:
    """dx of a vector; with fixed statistics slope dy alone, whatever x and other rows hold."""
    if training:
        return dy * slope - ((x - mean) * tilt + shift)
    return dy * slope


cdef inline void batch_norm_dx_rows(
    const BatchNormGradArgs *args, Py_ssize_t begin, Py_ssize_t end, const vec *mean,
    const vec *slope, const vec *tilt, const vec *shift, const bint training
) noexcept nogil:
    """dx of a block of columns, row by row."""
    cdef const real *x = <const real *>args.x
    cdef const real *dy = <const real *>args.dy
    cdef real *dx = <real *>args.dx
    cdef int width = block_vectors(end - begin)
    cdef int whole = <int>smaller((end - begin) // LANES, COLUMN_BLOCK)
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
    """dx = gamma rstd (dy - mean(dy) - x_hat mean(dy x_hat)), column by column, in training.

    With fixed statistics dx = gamma rstd dy. dgamma += sum of dy x_hat, dbeta += sum of dy, with
    x_hat = (x - mean) rstd. Threads partition the columns.
    """
    cdef const BatchNormGradArgs *args = <const BatchNormGradArgs *>arguments
    cdef Py_ssize_t begin = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t end = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t j
    cdef vec mean[COLUMN_BLOCK]
    cdef vec slope[COLUMN_BLOCK]
    cdef vec tilt[COLUMN_BLOCK]
    cdef vec shift[COLUMN_BLOCK]
    cdef int v, width
    while begin < end:
        width = block_vectors(end - begin)
        v = 0
        while v < width:
            j = begin + v * LANES
            if panel_vectors(end - j) == PANEL:
                batch_norm_grad_panel(args, j, mean + v, slope + v, tilt + v, shift + v, PANEL)
                v += PANEL
            else:
                batch_norm_grad_panel(args, j, mean + v, slope + v, tilt + v, shift + v, 1)
                v += 1
        if args.training:
            batch_norm_dx_rows(args, begin, end, mean, slope, tilt, shift, True)
        else:
            batch_norm_dx_rows(args, begin, end, mean, slope, tilt, shift, False)
        begin += COLUMN_BLOCK * LANES


cdef Py_ssize_t standardize(const void *arguments, int thread, int threads) noexcept nogil:
    """y = (x - mean) / std, column by column; no mean is 0. Threads partition the rows."""
    cdef const StandardizeArgs *args = <const StandardizeArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *mean = <const real *>args.mean
    cdef const real *std = <const real *>args.std
    cdef const real *x
    cdef real *y
    cdef vec own
    while i < end:
        x, y = <const real *>args.x + i * n, <real *>args.y + i * n
        j = 0
        while j < n:
            own = load_columns(x + j, n - j)
            if mean != NULL:
                own = own - load_columns(mean + j, n - j)
            store_columns(y + j, own / load_columns(std + j, n - j), n - j)
            j += LANES
        i += 1
    return 0


KERNELS["batch_norm"] = entry(batch_norm, sizeof(BatchNormArgs))
KERNELS["batch_norm_grad"] = entry(batch_norm_grad, sizeof(BatchNormGradArgs))
KERNELS["standardize"] = entry(standardize, sizeof(StandardizeArgs))
