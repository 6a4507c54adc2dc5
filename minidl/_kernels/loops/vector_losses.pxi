# Losses of whole vectors and their gradients: the Gaussian likelihood, and cosines. Threads
# partition the vectors, which are called steps: a row that has one weight may have several.

cdef double LEAST_LENGTH = 1e-8    # a vector shorter than this counts as so long in a cosine


cdef inline double step_factor(const VectorLossArgs *args, Py_ssize_t step) noexcept nogil:
    """What the loss of a step is multiplied by: its weight, for a mean over the sum of weights."""
    if args.weight == NULL:
        return args.scale
    return divided(args.scale, args.weights) * weight_of(
        args.weight, step // (args.steps // args.rows)
    )


cdef inline vec gaussian_vec(
    vec mean, vec log_variance, vec target, const vec constant, vec *dmean, vec *dlog_variance
) noexcept nogil:
    """(s + e^2 exp(-s)) / 2 + constant, e = mean - target, s the logarithm of the variance"""
    cdef vec error = mean - target
    cdef vec square
    dmean[0] = error * exp_vec(-log_variance)
    square = error * dmean[0]
    dlog_variance[0] = <real>0.5 - <real>0.5 * square
    return <real>0.5 * (log_variance + square) + constant


cdef Py_ssize_t gaussian_nll(const void *arguments, int thread, int threads) noexcept nogil:
    """losses[step] = factor times the sum of gaussian_vec over means and log variances of a step.

    The means come first in a step, then as many log variances, which count as `delta` where they
    are less.
    """
    cdef const VectorLossArgs *args = <const VectorLossArgs *>arguments
    cdef Py_ssize_t step = partition(args.steps, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.steps, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t columns = args.columns, j, left, i
    cdef const real *prediction
    cdef const real *target
    cdef real *gradient
    cdef vec constant = fill(<real>0.9189385332046727 if args.full else 0)    # log(2 pi) / 2
    cdef vec least = fill(<real>args.delta), value, dmean, dlog_variance
    cdef real lanes[LANES]
    cdef double factor, sum
    while step < end:
        prediction = <const real *>args.prediction + step * args.both
        target = <const real *>args.target + step * columns
        gradient = <real *>args.dprediction + step * args.both
        factor = step_factor(args, step)
        sum = 0
        j = 0
        if factor == 0:    # the step may hold anything
            memset(gradient, 0, args.both * sizeof(real))
            if args.each:
                memset(args.losses + step * columns, 0, columns * sizeof(double))
            j = columns
        while j < columns:
            left = columns - j
            value = gaussian_vec(
                load_columns(prediction + j, left),
                maximum(least, load_columns(prediction + columns + j, left)),
                load_columns(target + j, left), constant, &dmean, &dlog_variance
            )
            store_columns(gradient + j, dmean * <real>factor, left)
            store_columns(gradient + columns + j, dlog_variance * <real>factor, left)
            store(lanes, value)
            for i in range(smaller(left, LANES)):
                sum += lanes[i]
                if args.each:
                    args.losses[step * columns + j + i] = factor * lanes[i]
            j += LANES
        if not args.each:
            args.losses[step] = factor * sum
        step += 1


cdef inline double cosine_of(
    const real *u, const real *v, Py_ssize_t n, double *u_length, double *v_length
) noexcept nogil:
    """The cosine of the angle between u and v, and their lengths, at least LEAST_LENGTH."""
    cdef double uu = 0, vv = 0, uv = 0
    cdef Py_ssize_t j
    for j in range(n):
        uu += <double>u[j] * u[j]
        vv += <double>v[j] * v[j]
        uv += <double>u[j] * v[j]
    uu, vv = sqrt(uu), sqrt(vv)
    u_length[0] = LEAST_LENGTH if uu < LEAST_LENGTH else uu    # NaN stays
    v_length[0] = LEAST_LENGTH if vv < LEAST_LENGTH else vv
    return uv / (u_length[0] * v_length[0])


cdef inline void cosine_gradient(
    const real *u, const real *v, real *du, Py_ssize_t n, double cosine, double u_length,
    double v_length, double factor
) noexcept nogil:
    """du = factor (v / (|u| |v|) - cosine u / |u|^2), without the second term for a short u."""
    cdef double of_v = factor / (u_length * v_length)
    cdef double of_u = 0 if u_length == LEAST_LENGTH else factor * cosine / (u_length * u_length)
    cdef Py_ssize_t j
    for j in range(n):
        du[j] = <real>(of_v * v[j] - of_u * u[j])


cdef Py_ssize_t cosine_similarity(
    const void *arguments, int thread, int threads
) noexcept nogil:
    """losses[step] = factor (1 - cosine of prediction and target)."""
    cdef const VectorLossArgs *args = <const VectorLossArgs *>arguments
    cdef Py_ssize_t step = partition(args.steps, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.steps, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t n = args.columns
    cdef const real *u
    cdef const real *v
    cdef real *du
    cdef double cosine, u_length, v_length, factor
    while step < end:
        u, v = <const real *>args.prediction + step * n, <const real *>args.target + step * n
        du, factor = <real *>args.dprediction + step * n, step_factor(args, step)
        args.losses[step] = 0
        if factor == 0:    # the step may hold anything
            memset(du, 0, n * sizeof(real))
        else:
            cosine = cosine_of(u, v, n, &u_length, &v_length)
            cosine_gradient(u, v, du, n, cosine, u_length, v_length, -factor)
            args.losses[step] = factor * (1 - cosine)
        step += 1


cdef Py_ssize_t cosine_embedding(
    const void *arguments, int thread, int threads
) noexcept nogil:
    """losses[step] of two vectors u and v that lie one after the other in a step.

    factor (1 - cosine) where the target is > 0, else factor max(0, cosine - margin).
    """
    cdef const VectorLossArgs *args = <const VectorLossArgs *>arguments
    cdef Py_ssize_t step = partition(args.steps, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.steps, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t n = args.both // 2
    cdef const real *u
    cdef const real *v
    cdef real *du
    cdef double cosine, u_length, v_length, factor, value, slope
    while step < end:
        u = <const real *>args.prediction + step * 2 * n
        du = <real *>args.dprediction + step * 2 * n
        v, factor = u + n, step_factor(args, step)
        args.losses[step] = 0
        memset(du, 0, 2 * n * sizeof(real))
        if factor != 0:    # else the step may hold anything
            cosine = cosine_of(u, v, n, &u_length, &v_length)
            value, slope = 1 - cosine, -factor
            if not (<const real *>args.target)[step] > 0:
                value, slope = cosine - args.delta, factor
                if value <= 0:
                    value = slope = 0
            args.losses[step] = factor * value
            if slope != 0:
                cosine_gradient(u, v, du, n, cosine, u_length, v_length, slope)
                cosine_gradient(v, u, du + n, n, cosine, v_length, u_length, slope)
        step += 1


KERNELS["gaussian_nll"] = entry(gaussian_nll, sizeof(VectorLossArgs))
KERNELS["cosine_similarity"] = entry(cosine_similarity, sizeof(VectorLossArgs))
KERNELS["cosine_embedding"] = entry(cosine_embedding, sizeof(VectorLossArgs))
