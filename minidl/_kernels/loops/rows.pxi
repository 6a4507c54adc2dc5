# Kernels that treat every row by itself: softmax, and layer normalization.
#
# A row is summed by the same code whichever thread it belongs to.

cdef enum:
    ROWS = 4    # of a grain


cdef inline real largest_in_row(const real *x, Py_ssize_t n) noexcept nogil:
    """The largest element; a NaN may be missed."""
    cdef vec peak = fill(-INFINITY)
    cdef Py_ssize_t j = 0
    while j < n:
        peak = maximum(load_logits(x + j, n - j), peak)
        j += LANES
    return first_lane(spread_max(peak))


cdef Py_ssize_t softmax(const void *arguments, int thread, int threads) noexcept nogil:
    """y = exp(x - most) / sum of the same."""
    cdef const RowsArgs *args = <const RowsArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *x
    cdef real *y
    cdef vec peak, total, e
    while i < end:
        x, y = <const real *>args.x + i * n, <real *>args.y + i * n
        peak, total = fill(largest_in_row(x, n)), fill(0)
        j = 0
        while j < n:
            e = exp_logits(x + j, n - j, peak)
            store_columns(y + j, e, n - j)
            total = total + e
            j += LANES
        total = spread_sum(total)
        if first_lane(total) != first_lane(total) and one_is_largest(x, n, y, 0):
            total = fill(1)
        j = 0
        while j < n:
            store_columns(y + j, load_columns(y + j, n - j) / total, n - j)
            j += LANES
        i += 1
    return 0


cdef Py_ssize_t log_softmax(const void *arguments, int thread, int threads) noexcept nogil:
    """y = (x - most) - log sum of exp(x - most)."""
    cdef const RowsArgs *args = <const RowsArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *x
    cdef real *y
    cdef vec peak, total
    while i < end:
        x, y = <const real *>args.x + i * n, <real *>args.y + i * n
        peak, total = fill(largest_in_row(x, n)), fill(0)
        j = 0
        while j < n:
            total = total + exp_logits(x + j, n - j, peak)
            j += LANES
        total = log_vec(spread_sum(total))
        i += 1
        if first_lane(total) != first_lane(total) and one_is_largest(x, n, y, -INFINITY):
            continue
        j = 0
        while j < n:
            store_columns(y + j, (load_columns(x + j, n - j) - peak) - total, n - j)
            j += LANES
    return 0


cdef Py_ssize_t softmax_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = y (dy - sum of dy y)."""
    cdef const RowsGradArgs *args = <const RowsGradArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *dy
    cdef const real *y
    cdef real *dx
    cdef vec total, own
    while i < end:
        dy, y = <const real *>args.dy + i * n, <const real *>args.y + i * n
        dx = <real *>args.dx + i * n
        total = fill(0)
        j = 0
        while j < n:
            total = total + load_columns(dy + j, n - j) * load_columns(y + j, n - j)
            j += LANES
        total = spread_sum(total)
        j = 0
        while j < n:
            own = load_columns(y + j, n - j) * (load_columns(dy + j, n - j) - total)
            store_columns(dx + j, own, n - j)
            j += LANES
        i += 1
    return 0


cdef Py_ssize_t log_softmax_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = dy - exp(y) sum of dy."""
    cdef const RowsGradArgs *args = <const RowsGradArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *dy
    cdef const real *y
    cdef real *dx
    cdef vec total, own
    while i < end:
        dy, y = <const real *>args.dy + i * n, <const real *>args.y + i * n
        dx = <real *>args.dx + i * n
        total = fill(0)
        j = 0
        while j < n:
            total = total + load_columns(dy + j, n - j)
            j += LANES
        total = spread_sum(total)
        j = 0
        while j < n:
            own = load_columns(dy + j, n - j) - exp_vec(load_columns(y + j, n - j)) * total
            store_columns(dx + j, own, n - j)
            j += LANES
        i += 1
    return 0


# --- layer normalization ---

cdef inline vec deviation(const real *x, Py_ssize_t n, vec mean) noexcept nogil:
    """x - mean of the next LANES of n elements; zero where there are fewer."""
    if n >= LANES:
        return load(x) - mean
    return load_part(x, n, first_lane(mean)) - mean


cdef inline void row_moments(
    const real *x, Py_ssize_t n, vec *mean, vec *var, const bint shifted
) noexcept nogil:
    """Mean and variance, the latter in a second pass. Shifted: the mean is that of differences from
    the first element, so that in a row of equal numbers nothing is rounded."""
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
    """y = gamma (x - mean) rstd + beta, row by row.

    Where the variance may be no more than what rounding the mean makes of it, as in a row of equal
    numbers, or where the sum overflowed, both are computed again, more exactly.
    """
    cdef const LayerNormArgs *args = <const LayerNormArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, ROWS, thread + 1, threads)
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
    """dx = rstd (g - mean(g) - x_hat mean(g x_hat)), g = gamma dy, row by row."""
    cdef const LayerNormGradInputArgs *args = <const LayerNormGradInputArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, ROWS, thread + 1, threads)
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
    """Sums over the rows of dy x_hat and of dy; threads share the columns."""
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
        add_strip(<real *>args.dgamma + j, 0, product, left, 1, args.accumulate_gamma)
        add_strip(<real *>args.dbeta + j, 0, total, left, 1, args.accumulate_beta)
        j += LANES
    return 0


cdef Py_ssize_t standardize(const void *arguments, int thread, int threads) noexcept nogil:
    """y = (x - mean) / std, column by column; threads share the rows."""
    cdef const StandardizeArgs *args = <const StandardizeArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, ROWS, thread + 1, threads)
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
