# Losses and their gradients in one pass. Values are summed in double precision.

cdef enum:
    LOSS_ROWS = 16    # rows of a group; threads share whole groups


cdef inline vec load_logits(const real *z, Py_ssize_t n) noexcept nogil:
    """The next LANES of n logits; where there are fewer, nothing is added to them."""
    if n >= LANES:
        return load(z)
    return load_part(z, n, -INFINITY)


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
        e = exp_vec(load_logits(z + j, n - j) - peak)
        store_columns(dz + j, e, n - j)
        total = total + e
        j += LANES
    most[0] = first_lane(peak)
    sum[0] = lane_sum(total)
    factor = scale / sum[0]
    for j in range(n):
        dz[j] = dz[j] * factor
    dz[label] = dz[label] - scale


cdef inline void softmax_short_row(
    const real *z, real *dz, Py_ssize_t n, vec onehot, real scale, real *most, real *sum
) noexcept nogil:
    """The same for n <= LANES: a row that stays in a register."""
    cdef vec e = load_part(z, n, -INFINITY)
    cdef vec peak = spread_max(e)
    e = exp_vec(e - peak)
    most[0] = first_lane(peak)
    sum[0] = lane_sum(e)
    store_part(dz, e * (scale / sum[0]) - onehot, n)


cdef inline Py_ssize_t cross_entropy_rows(
    const CrossEntropyArgs *args, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """The rows of one group, whose logarithms are taken together."""
    cdef real most[LOSS_ROWS]
    cdef real sums[LOSS_ROWS]
    cdef real row[2 * LANES]    # scale amid zeros: from LANES - label on, the onehot of a label
    cdef const real *logits = <const real *>args.logits
    cdef real *dlogits = <real *>args.dlogits
    cdef real scale = <real>args.scale
    cdef Py_ssize_t i, label, n = args.classes
    store(row, fill(0))
    store(row + LANES, fill(0))
    row[LANES] = scale
    for i in range(LOSS_ROWS):
        sums[i] = 1
    for i in range(begin, end):
        label = args.labels[i]
        if not 0 <= label < n:
            return 1 + i
        if n <= LANES:
            softmax_short_row(
                logits + i * n, dlogits + i * n, n, load(row + LANES - label), scale,
                most + (i - begin), sums + (i - begin)
            )
        else:
            softmax_row(
                logits + i * n, dlogits + i * n, n, label, scale,
                most + (i - begin), sums + (i - begin)
            )
    i = 0
    while i < LOSS_ROWS:
        store(sums + i, log_vec(load(sums + i)))
        i += LANES
    for i in range(begin, end):
        args.losses[i] = sums[i - begin] + (
            <double>most[i - begin] - logits[i * n + args.labels[i]]
        )
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
        bad = cross_entropy_rows(args, begin, smaller(end, begin + LOSS_ROWS))
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
    """total[0] = scale * sum of parts, in order."""
    cdef const TotalArgs *args = <const TotalArgs *>arguments
    cdef double result = 0
    cdef Py_ssize_t i
    if thread == 0:
        for i in range(args.n):
            result += args.parts[i]
        args.total[0] = result * args.scale
