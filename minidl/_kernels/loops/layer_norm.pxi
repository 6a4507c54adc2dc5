# Layer normalization: every row is normalized by itself.
#
# A row is summed by the same code whichever thread it belongs to.

cdef inline vec deviation(const real *x, Py_ssize_t n, vec mean) noexcept nogil:
    """x - mean of the next LANES of n elements; zero in the lanes beyond."""
    if n >= LANES:
        return load(x) - mean
    return load_part(x, n, first_lane(mean)) - mean


cdef inline void row_moments(
    const real *x, Py_ssize_t n, vec *mean, vec *var, const bint shifted
) noexcept nogil:
    """Mean and variance of a row, the variance in a second pass.

    `shifted` takes the mean of differences from the first element, so that in a row of equal
    numbers nothing is rounded.
    """
    cdef vec total = fill(0), first = fill(x[0]), shift
    cdef Py_ssize_t j = 0
    while j < n:
        if shifted:
            total = total + deviation(x + j, n - j, first)
        else:
            total = total + load_columns(x + j, n - j)
        j += LANES
    mean[0] = spread_sum(total) / fill(<real>n)
    if shifted:
        mean[0] = mean[0] + first
    total = fill(0)
    j = 0
    while j < n:
        shift = deviation(x + j, n - j, mean[0])
        total = total + shift * shift
        j += LANES
    var[0] = spread_sum(total) / fill(<real>n)


cdef Py_ssize_t layer_norm(const void *arguments, int thread, int threads) noexcept nogil:
    """y = gamma (x - mean) rstd + beta, row by row, with rstd = 1 / √(var + eps); mean and rstd are
    kept for the gradient. Threads partition the rows.

    Mean and variance are computed again, more exactly, where the sum overflowed, and where the
    variance may be nothing but the rounding error of the mean, as in a row of equal numbers.
    """
    cdef const LayerNormArgs *args = <const LayerNormArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *gamma = <const real *>args.gamma
    cdef const real *beta = <const real *>args.beta
    cdef const real *x
    cdef real *y
    cdef real noise = <real>((n * EPSILON) * (n * EPSILON))
    cdef real at
    cdef vec mean, var, rstd, shift
    while i < end:
        x, y = <const real *>args.x + i * n, <real *>args.y + i * n
        row_moments(x, n, &mean, &var, False)
        at = first_lane(mean)
        if not noise * at * at <= first_lane(var) < INFINITY:
            row_moments(x, n, &mean, &var, True)
        rstd = 1 / square_root(var + <real>args.eps)
        (<real *>args.mean)[i] = first_lane(mean)
        (<real *>args.rstd)[i] = first_lane(rstd)
        j = 0
        while j < n:
            shift = (load_columns(x + j, n - j) - mean) * rstd
            shift = load_columns(gamma + j, n - j) * shift + load_columns(beta + j, n - j)
            store_columns(y + j, shift, n - j)
            j += LANES
        i += 1
    return 0


cdef Py_ssize_t layer_norm_grad_input(
    const void *arguments, int thread, int threads
) noexcept nogil:
    """dx = rstd (g - mean(g) - x_hat mean(g x_hat)), row by row, with g = gamma dy and
    x_hat = (x - mean) rstd. Threads partition the rows."""
    cdef const LayerNormGradInputArgs *args = <const LayerNormGradInputArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *gamma = <const real *>args.gamma
    cdef const real *dy
    cdef const real *x
    cdef real *dx
    cdef real width = <real>n
    cdef vec mean, rstd, g, x_hat, total, product
    while i < end:
        dy, x = <const real *>args.dy + i * n, <const real *>args.x + i * n
        dx = <real *>args.dx + i * n
        mean, rstd = fill((<const real *>args.mean)[i]), fill((<const real *>args.rstd)[i])
        total = product = fill(0)
        j = 0
        while j < n:
            g = load_columns(gamma + j, n - j) * load_columns(dy + j, n - j)
            total = total + g
            product = product + g * deviation(x + j, n - j, mean)
            j += LANES
        total = spread_sum(total) / fill(width)
        product = spread_sum(product) * rstd / fill(width)
        j = 0
        while j < n:
            g = load_columns(gamma + j, n - j) * load_columns(dy + j, n - j)
            x_hat = (load_columns(x + j, n - j) - mean) * rstd
            store_columns(dx + j, rstd * (g - total - x_hat * product), n - j)
            j += LANES
        i += 1
    return 0


cdef Py_ssize_t layer_norm_grad_params(
    const void *arguments, int thread, int threads
) noexcept nogil:
    """dgamma += sum over the rows of dy x_hat, dbeta += that of dy. Threads partition columns."""
    cdef const LayerNormGradParamsArgs *args = <const LayerNormGradParamsArgs *>arguments
    cdef const real *mean = <const real *>args.mean
    cdef const real *rstd = <const real *>args.rstd
    cdef Py_ssize_t j = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t columns_end = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t i, begin, end, left, n = args.columns
    cdef const real *dy
    cdef const real *x
    cdef vec total, product, block, tilt, own, shift
    while j < columns_end:
        left = n - j
        dy, x = <const real *>args.dy + j, <const real *>args.x + j
        total = product = fill(0)
        begin = 0
        while begin < args.rows:
            end = smaller(begin + SUM_ROWS, args.rows)
            block = tilt = fill(0)
            for i in range(begin, end):
                own = load_columns(dy + i * n, left)
                block = block + own
                shift = load_columns(x + i * n, left) - fill(mean[i])
                tilt = tilt + own * (shift * fill(rstd[i]))
            total, product = total + block, product + tilt
            begin = end
        accumulate_columns(<real *>args.dgamma + j, product, left, args.accumulate_dgamma)
        accumulate_columns(<real *>args.dbeta + j, total, left, args.accumulate_dbeta)
        j += LANES
    return 0


KERNELS["layer_norm"] = entry(layer_norm, sizeof(LayerNormArgs))
KERNELS["layer_norm_grad_input"] = entry(layer_norm_grad_input, sizeof(LayerNormGradInputArgs))
KERNELS["layer_norm_grad_params"] = entry(layer_norm_grad_params, sizeof(LayerNormGradParamsArgs))
