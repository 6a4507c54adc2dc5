# Root mean square normalization: layer normalization without mean and beta.

cdef inline vec square_sum(const real *x, Py_ssize_t n, vec scale) noexcept nogil:
    """Add up (scale x)² of a row, in blocks, so that rounding errors stay small in wide rows."""
    cdef vec total = fill(0), block, v
    cdef Py_ssize_t j = 0, end
    while j < n:
        block, end = fill(0), smaller(j + LOSS_BLOCK, n)
        while j < end:
            v = load_columns(x + j, end - j) * scale
            block = block + v * v
            j += LANES
        total = total + block
        j = end
    return spread_sum(total)


cdef inline vec inverse_root_mean_square(const real *x, Py_ssize_t n, double eps) noexcept nogil:
    """1 / √(mean(x²) + eps) of a row, in all lanes; of a row scaled to 1 where squares overflow."""
    cdef vec total = square_sum(x, n, fill(1)) / fill(<real>n), scale
    cdef real most = 0
    cdef Py_ssize_t j
    if first_lane(total) < INFINITY:
        return 1 / square_root(total + <real>eps)
    for j in range(n):
        most = most if not (x[j] > most or -x[j] > most) else (x[j] if x[j] > 0 else -x[j])
    if most == INFINITY:
        return 1 / square_root(total)    # 0, or NaN beside a NaN
    scale = fill(1 / most)
    total = square_sum(x, n, scale) / fill(<real>n)
    return scale / square_root(total + <real>eps * scale * scale)


cdef Py_ssize_t rms_norm(const void *arguments, int thread, int threads) noexcept nogil:
    """y = gamma x rstd, row by row, with rstd = 1 / √(mean(x²) + eps), which is kept for the
    gradient. Threads partition the rows."""
    cdef const RmsNormArgs *args = <const RmsNormArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *gamma = <const real *>args.gamma
    cdef const real *x
    cdef real *y
    cdef vec rstd
    while i < end:
        x, y = <const real *>args.x + i * n, <real *>args.y + i * n
        rstd = inverse_root_mean_square(x, n, args.eps)
        (<real *>args.rstd)[i] = first_lane(rstd)
        j = 0
        while j < n:
            store_columns(
                y + j, load_columns(gamma + j, n - j) * (load_columns(x + j, n - j) * rstd), n - j
            )
            j += LANES
        i += 1
    return 0


cdef Py_ssize_t rms_norm_grad_input(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = rstd (g - x_hat mean(g x_hat)), row by row, with g = gamma dy and x_hat = x rstd.
    Threads partition the rows."""
    cdef const RmsNormGradInputArgs *args = <const RmsNormGradInputArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
    cdef Py_ssize_t j, stop, n = args.columns
    cdef const real *gamma = <const real *>args.gamma
    cdef const real *dy
    cdef const real *x
    cdef real *dx
    cdef vec rstd, g, block, product
    while i < end:
        dy, x = <const real *>args.dy + i * n, <const real *>args.x + i * n
        dx = <real *>args.dx + i * n
        rstd = fill((<const real *>args.rstd)[i])
        product, j = fill(0), 0
        while j < n:    # in blocks, as square_sum
            block, stop = fill(0), smaller(j + LOSS_BLOCK, n)
            while j < stop:
                g = load_columns(gamma + j, stop - j) * load_columns(dy + j, stop - j)
                block = block + g * (load_columns(x + j, stop - j) * rstd)
                j += LANES
            product, j = product + block, stop
        product, j = spread_sum(product) / fill(<real>n), 0
        while j < n:
            g = load_columns(gamma + j, n - j) * load_columns(dy + j, n - j)
            g = g - load_columns(x + j, n - j) * rstd * product
            store_columns(dx + j, rstd * g, n - j)
            j += LANES
        i += 1
    return 0


cdef Py_ssize_t rms_norm_grad_params(const void *arguments, int thread, int threads) noexcept nogil:
    """dgamma += sum over the rows of dy x rstd. Threads partition the columns."""
    cdef const RmsNormGradParamsArgs *args = <const RmsNormGradParamsArgs *>arguments
    cdef const real *rstd = <const real *>args.rstd
    cdef Py_ssize_t j = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t columns_end = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t i, begin, end, left, n = args.columns
    cdef const real *dy
    cdef const real *x
    cdef vec total, block
    while j < columns_end:
        left = n - j
        dy, x = <const real *>args.dy + j, <const real *>args.x + j
        total, begin = fill(0), 0
        while begin < args.rows:
            end = smaller(begin + SUM_ROWS, args.rows)
            block = fill(0)
            for i in range(begin, end):
                block = block + load_columns(dy + i * n, left) * (
                    load_columns(x + i * n, left) * fill(rstd[i])
                )
            total = total + block
            begin = end
        accumulate_columns(<real *>args.dgamma + j, total, left, args.accumulate)
        j += LANES
    return 0


KERNELS["rms_norm"] = entry(rms_norm, sizeof(RmsNormArgs))
KERNELS["rms_norm_grad_input"] = entry(rms_norm_grad_input, sizeof(RmsNormGradInputArgs))
KERNELS["rms_norm_grad_params"] = entry(rms_norm_grad_params, sizeof(RmsNormGradParamsArgs))
