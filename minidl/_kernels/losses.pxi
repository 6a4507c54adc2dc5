# Losses and their gradients in one pass. Values are summed in double precision.

cdef enum:
    LOSS_ROWS = 16    # rows of a batch; threads share whole groups


cdef double cross_entropy_row(
    const real *z, Py_ssize_t label, real *dz, Py_ssize_t n, real scale
) noexcept nogil:
    """log(sum of exp(z)) - z[label]; dz = scale (softmax(z) - onehot(label)).

    A NaN among the z may be missed by the maximum, but not by the sum.
    """
    cdef vec most = fill(-INFINITY), total = fill(0), e
    cdef real peak, factor
    cdef double denominator
    cdef Py_ssize_t j = 0
    while j < n:
        if j + LANES <= n:
            e = load(z + j)
        else:
            e = load_part(z + j, n - j, -INFINITY)
        most = where_less(e, most, most, e)
        j += LANES
    peak = lane_max(most)
    j = 0
    while j + LANES <= n:
        e = exp_vec(load(z + j) - peak)
        store(dz + j, e)
        total = total + e
        j += LANES
    if j < n:
        e = exp_vec(load_part(z + j, n - j, -INFINITY) - peak)
        store_part(dz + j, e, n - j)
        total = total + e
    denominator = lane_sum(total)
    factor = <real>(scale / denominator)
    for j in range(n):
        dz[j] = dz[j] * factor
    dz[label] = dz[label] - scale
    return log(denominator) - (<double>z[label] - peak)


cdef Py_ssize_t softmax_cross_entropy(
    const void *arguments, int thread, int threads
) noexcept nogil:
    """One loss per row. Returns 1 + the first row whose label is not a class."""
    cdef const CrossEntropyArgs *args = <const CrossEntropyArgs *>arguments
    cdef Py_ssize_t i, n = args.classes
    for i in range(
        share_begin(args.rows, LOSS_ROWS, thread, threads),
        share_begin(args.rows, LOSS_ROWS, thread + 1, threads)
    ):
        if not 0 <= args.labels[i] < n:
            return 1 + i
        args.losses[i] = cross_entropy_row(
            <const real *>args.logits + i * n, args.labels[i],
            <real *>args.dlogits + i * n, n, <real>args.scale
        )
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
    cdef vec total, value, slope
    cdef real lanes[LANES]
    cdef int j
    while i < end:
        block = i // LOSS_BLOCK
        stop = smaller(end, i + LOSS_BLOCK)
        total = fill(0)
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
