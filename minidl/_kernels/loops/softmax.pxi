# Softmax and its logarithm, row by row. Threads partition the rows.
#
# A row is summed by the same code whichever thread it belongs to. Subtracting the largest element
# of a row keeps exp from overflowing, and changes nothing else.

cdef inline real largest_in_row(const real *x, Py_ssize_t n) noexcept nogil:
    """The largest element of a row; a NaN may be missed."""
    cdef vec peak = fill(-INFINITY)
    cdef Py_ssize_t j = 0
    while j < n:
        peak = maximum(load_logits(x + j, n - j), peak)
        j += LANES
    return first_lane(spread_max(peak))


cdef Py_ssize_t softmax(const void *arguments, int thread, int threads) noexcept nogil:
    """y = exp(x - max) / sum of exp(x - max).

    Of one infinite x, y tends to 1 there and to 0 elsewhere (`one_is_largest`).
    """
    cdef const RowsArgs *args = <const RowsArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
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
    """y = (x - max) - log sum of exp(x - max)."""
    cdef const RowsArgs *args = <const RowsArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
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
    """dx = y (dy - sum of dy y), for y = softmax(x)."""
    cdef const RowsGradArgs *args = <const RowsGradArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
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
    """dx = dy - exp(y) sum of dy, for y = log_softmax(x)."""
    cdef const RowsGradArgs *args = <const RowsGradArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, BLOCK_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, BLOCK_ROWS, thread + 1, threads)
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


KERNELS["softmax"] = entry(softmax, sizeof(RowsArgs))
KERNELS["log_softmax"] = entry(log_softmax, sizeof(RowsArgs))
KERNELS["softmax_grad"] = entry(softmax_grad, sizeof(RowsGradArgs))
KERNELS["log_softmax_grad"] = entry(log_softmax_grad, sizeof(RowsGradArgs))
