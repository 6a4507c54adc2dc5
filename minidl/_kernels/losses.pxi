# Losses and their gradients in one pass. Values are summed in double precision.

cdef enum:
    LOSS_ROWS = 16    # rows of a group; threads share whole groups


cdef inline vec load_logits(const real *z, Py_ssize_t n) noexcept nogil:
    """The next LANES of n logits; where there are fewer, minus infinity."""
    if n >= LANES:
        return load(z)
    return load_part(z, n, -INFINITY)


cdef inline vec exp_logits(const real *z, Py_ssize_t n, vec peak) noexcept nogil:
    """exp(z - peak) of the same ones; where there are fewer, zero.

    Not as exp(-infinity): multiplying down to zero makes the processor stumble.
    """
    if n >= LANES:
        return exp_vec(load(z) - peak)
    return keep_part(exp_vec(load_part(z, n, first_lane(peak)) - peak), n)


cdef inline void softmax_row(
    const real *z, real *dz, Py_ssize_t n, Py_ssize_t label, real scale, real *most, real *sum
) noexcept nogil:
    """dz = scale (softmax(z) - onehot(label)); the largest z, and the sum of exp(z - most).

    A NaN among the z may be missed by the maximum, but not by the sum.
    """
    cdef vec peak = fill(-INFINITY), total = fill(0), e
    cdef real factor
    cdef Py_ssize_t j = 0
    while j < n:
        peak = maximum(load_logits(z + j, n - j), peak)
        j += LANES
    peak = spread_max(peak)
    j = 0
    while j < n:
        e = exp_logits(z + j, n - j, peak)
        store_columns(dz + j, e, n - j)
        total = total + e
        j += LANES
    most[0] = first_lane(peak)
    sum[0] = lane_sum(total)
    factor = scale / sum[0]
    for j in range(n):
        dz[j] = dz[j] * factor
    dz[label] = dz[label] - scale


cdef inline void softmax_short_rows(
    const real *z, const Py_ssize_t *labels, real *dz, Py_ssize_t rows, Py_ssize_t n, real scale,
    real *most, real *sums
) noexcept nogil:
    """The same for a group of rows with n <= LANES: each is one vector."""
    cdef vec exps[LOSS_ROWS]
    cdef real factors[LOSS_ROWS]
    cdef real row[2 * LANES]    # scale amid zeros: from LANES - label on, the onehot of a label
    cdef vec peak
    cdef Py_ssize_t i
    for i in range(2 * LANES):
        row[i] = 0
    row[LANES] = scale
    for i in range(rows):
        peak = spread_max(load_logits(z + i * n, n))
        exps[i] = exp_logits(z + i * n, n, peak)
        most[i] = first_lane(peak)
        sums[i] = lane_sum(exps[i])
    i = 0
    while i < LOSS_ROWS:
        store(factors + i, fill(scale) / load(sums + i))
        i += LANES
    for i in range(rows):
        store_part(
            dz + i * n, exps[i] * factors[i] - load(row + LANES - labels[i]), n
        )


cdef inline Py_ssize_t cross_entropy_rows(
    const CrossEntropyArgs *args, Py_ssize_t begin, Py_ssize_t rows
) noexcept nogil:
    """A group of rows, whose logarithms are taken together."""
    cdef real most[LOSS_ROWS]
    cdef real sums[LOSS_ROWS]
    cdef Py_ssize_t i, n = args.classes
    cdef const Py_ssize_t *labels = args.labels + begin
    cdef const real *z = <const real *>args.logits + begin * n
    cdef real *dz = <real *>args.dlogits + begin * n
    cdef real scale = <real>args.scale
    for i in range(LOSS_ROWS):
        sums[i] = 1
    for i in range(rows):
        if not 0 <= labels[i] < n:
            return 1 + begin + i
    if n <= LANES:
        softmax_short_rows(z, labels, dz, rows, n, scale, most, sums)
    else:
        for i in range(rows):
            softmax_row(z + i * n, dz + i * n, n, labels[i], scale, most + i, sums + i)
    i = 0
    while i < LOSS_ROWS:
        store(sums + i, log_vec(load(sums + i)))
        i += LANES
    for i in range(rows):
        args.losses[begin + i] = sums[i] + (<double>most[i] - z[i * n + labels[i]])
    return 0


cdef Py_ssize_t softmax_cross_entropy(
    const void *arguments, int thread, int threads
) noexcept nogil:
    """One loss per row. Returns 1 + the first row whose label is not a class."""
    cdef const CrossEntropyArgs *args = <const CrossEntropyArgs *>arguments
    cdef Py_ssize_t begin = share_begin(args.rows, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = share_begin(args.rows, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t bad
    while begin < end:
        bad = cross_entropy_rows(args, begin, smaller(end - begin, LOSS_ROWS))
        if bad:
            return bad
        begin += LOSS_ROWS
    return 0


cdef inline vec mse_vec(vec prediction, vec target, vec *gradient) noexcept nogil:
    cdef vec error = prediction - target
    gradient[0] = 2 * error
    return error * error


cdef inline vec bce_vec(vec z, vec target, vec *gradient) noexcept nogil:
    cdef vec e = exp_vec(-absolute(z))
    gradient[0] = where_less(z, fill(0), e, fill(1)) / (1 + e) - target
    return where_less(z, fill(0), fill(0), z) - z * target + log1p_unit(e)


cdef inline void element_loss(
    const void *arguments, int thread, int threads,
    vec (*f)(vec, vec, vec *) noexcept nogil
) noexcept nogil:
    """losses[block] = sum of f over the block, and the gradient of every element."""
    cdef const ElementLossArgs *args = <const ElementLossArgs *>arguments
    cdef const real *prediction = <const real *>args.prediction
    cdef const real *target = <const real *>args.target
    cdef real *gradient = <real *>args.dprediction
    cdef Py_ssize_t i = share_begin(args.n, LOSS_BLOCK, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, LOSS_BLOCK, thread + 1, threads)
    cdef Py_ssize_t stop, block, rest
    cdef vec total, other, value, slope
    cdef real lanes[LANES]
    cdef int j
    while i < end:
        block = i // LOSS_BLOCK
        stop = smaller(end, i + LOSS_BLOCK)
        total = other = fill(0)
        while i + 2 * LANES <= stop:    # two sums, which need not wait for one another
            total = total + f(load(prediction + i), load(target + i), &slope)
            store(gradient + i, slope * <real>args.scale)
            i += LANES
            other = other + f(load(prediction + i), load(target + i), &slope)
            store(gradient + i, slope * <real>args.scale)
            i += LANES
        total = total + other
        while i + LANES <= stop:
            total = total + f(load(prediction + i), load(target + i), &slope)
            store(gradient + i, slope * <real>args.scale)
            i += LANES
        args.losses[block] = lane_sum(total)
        if i < stop:
            rest = stop - i
            value = f(load_part(prediction + i, rest, 0), load_part(target + i, rest, 0), &slope)
            store_part(gradient + i, slope * <real>args.scale, rest)
            store(lanes, value)
            for j in range(<int>rest):    # the lanes beyond hold losses of nothing
                args.losses[block] += lanes[j]
            i = stop


cdef Py_ssize_t mse(const void *args, int thread, int threads) noexcept nogil:
    element_loss(args, thread, threads, mse_vec)


cdef Py_ssize_t bce_with_logits(const void *args, int thread, int threads) noexcept nogil:
    element_loss(args, thread, threads, bce_vec)


cdef Py_ssize_t total(const void *arguments, int thread, int threads) noexcept nogil:
    """total[0] = scale * sum of parts, in order. Returns 1 if that is not finite."""
    cdef const TotalArgs *args = <const TotalArgs *>arguments
    cdef double result = 0
    cdef Py_ssize_t i
    if thread == 0:
        for i in range(args.n):
            result += args.parts[i]
        args.total[0] = result * args.scale
        return not -INFINITY < args.total[0] < INFINITY
    return 0
