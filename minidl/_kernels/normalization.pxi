# Sums down the columns of a matrix, and batch normalization, which is made of them.
#
# A block of LANES columns is one vector per row. Sums over the rows go through four
# accumulators and are gathered every SUM_ROWS rows, so that rounding errors stay small
# however large the batch.

cdef enum:
    SUM_ROWS = 128


cdef inline vec sum_rows(
    const real *x, const real *dy, vec mean, vec rstd, int what,
    Py_ssize_t rows, Py_ssize_t row, Py_ssize_t columns
) noexcept nogil:
    """Sum over the rows of x (what = 0), (x - mean)^2 (1) or dy (x - mean) rstd (2)."""
    cdef vec total = fill(0), term
    cdef vec acc[4]
    cdef Py_ssize_t i, begin = 0, end
    cdef int j
    while begin < rows:
        end = smaller(begin + SUM_ROWS, rows)
        for j in range(4):
            acc[j] = fill(0)
        for i in range(begin, end):
            term = load_columns(x + i * row, columns)
            if what == 1:
                term = (term - mean) * (term - mean)
            elif what == 2:
                term = (term - mean) * rstd * load_columns(dy + i * row, columns)
            acc[0], acc[1], acc[2], acc[3] = acc[1], acc[2], acc[3], acc[0] + term
        total = total + ((acc[0] + acc[1]) + (acc[2] + acc[3]))
        begin = end
    return total


cdef Py_ssize_t column_sum(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[j] = sum over i of x[i, j], added to what is there if asked for."""
    cdef const ColumnSumArgs *args = <const ColumnSumArgs *>arguments
    cdef real *sums = <real *>args.sums
    cdef Py_ssize_t n = args.columns
    cdef Py_ssize_t j = share_begin(n, LANES, thread, threads)
    cdef vec total
    while j < share_begin(n, LANES, thread + 1, threads):
        total = sum_rows(
            <const real *>args.x + j, NULL, fill(0), fill(0), 0, args.rows, n, n - j
        )
        if args.accumulate == ADD:
            total = total + load_columns(sums + j, n - j)
        elif args.accumulate == ADD_TO_ZERO:
            total = total + fill(0)
        store_columns(sums + j, total, n - j)
        j += LANES


cdef Py_ssize_t batch_norm(const void *arguments, int thread, int threads) noexcept nogil:
    """y = gamma (x - mean) rstd + beta, column by column."""
    cdef const BatchNormArgs *args = <const BatchNormArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.y
    cdef real *running_mean = <real *>args.running_mean
    cdef real *running_var = <real *>args.running_var
    cdef real momentum = <real>args.momentum
    cdef vec rows = fill(<real>args.rows)
    cdef Py_ssize_t i, n = args.columns, left
    cdef Py_ssize_t j = share_begin(n, LANES, thread, threads)
    cdef vec mean, var, running, rstd, gamma, beta
    while j < share_begin(n, LANES, thread + 1, threads):
        left = n - j
        mean = load_columns(running_mean + j, left)
        var = load_columns(running_var + j, left)
        if args.training:
            running = mean
            mean = sum_rows(x + j, NULL, mean, mean, 0, args.rows, n, left) / rows
            store_columns(running_mean + j, running + momentum * (mean - running), left)
            running = var
            var = sum_rows(x + j, NULL, mean, mean, 1, args.rows, n, left)
            store_columns(
                running_var + j, running + momentum * (var / (rows - 1) - running), left
            )
            var = var / rows
        rstd = 1 / square_root(var + <real>args.eps)
        store_columns(<real *>args.mean + j, mean, left)
        store_columns(<real *>args.rstd + j, rstd, left)
        gamma = load_columns(<const real *>args.gamma + j, left)
        beta = load_columns(<const real *>args.beta + j, left)
        for i in range(args.rows):
            store_columns(
                y + i * n + j,
                gamma * ((load_columns(x + i * n + j, left) - mean) * rstd) + beta, left
            )
        j += LANES


cdef Py_ssize_t batch_norm_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = gamma rstd (dy - mean(dy) - x_hat mean(dy x_hat)), column by column."""
    cdef const BatchNormGradArgs *args = <const BatchNormGradArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef const real *dy = <const real *>args.dy
    cdef real *dx = <real *>args.dx
    cdef real *dgamma = <real *>args.dgamma
    cdef real *dbeta = <real *>args.dbeta
    cdef vec rows = fill(<real>args.rows)
    cdef Py_ssize_t i, n = args.columns, left
    cdef Py_ssize_t j = share_begin(n, LANES, thread, threads)
    cdef vec mean, rstd, slope, sum_dy, sum_dy_x, x_hat
    while j < share_begin(n, LANES, thread + 1, threads):
        left = n - j
        mean = load_columns(<const real *>args.mean + j, left)
        rstd = load_columns(<const real *>args.rstd + j, left)
        sum_dy = sum_rows(dy + j, NULL, mean, rstd, 0, args.rows, n, left)
        sum_dy_x = sum_rows(x + j, dy + j, mean, rstd, 2, args.rows, n, left)
        store_columns(dgamma + j, load_columns(dgamma + j, left) + sum_dy_x, left)
        store_columns(dbeta + j, load_columns(dbeta + j, left) + sum_dy, left)
        slope = load_columns(<const real *>args.gamma + j, left) * rstd
        sum_dy = sum_dy / rows
        sum_dy_x = sum_dy_x / rows
        if not args.training:    # the running statistics do not depend on x
            sum_dy = sum_dy_x = fill(0)
        for i in range(args.rows):
            x_hat = (load_columns(x + i * n + j, left) - mean) * rstd
            store_columns(
                dx + i * n + j,
                slope * (load_columns(dy + i * n + j, left) - (sum_dy + x_hat * sum_dy_x)), left
            )
        j += LANES
