# Clipping and updates over flat vectors.

cdef double squared_norm_block(const real *x, Py_ssize_t n) noexcept nogil:
    """Sum of squares. In vectors first; in doubles if that comes near overflow or underflow."""
    cdef vec acc[4]
    cdef vec v
    cdef Py_ssize_t i = 0
    cdef int j
    cdef double result
    for j in range(4):
        acc[j] = fill(0)
    while i + 4 * LANES <= n:
        for j in range(4):
            v = load(x + i + j * LANES)
            acc[j] = acc[j] + v * v
        i += 4 * LANES
    while i < n:
        v = load_columns(x + i, n - i)
        acc[0] = acc[0] + v * v
        i += LANES
    result = lane_sum((acc[0] + acc[1]) + (acc[2] + acc[3]))
    if sizeof(real) == 4 and not 1e-20 < result < 1e30:
        result = 0
        for i in range(n):
            result += <double>x[i] * <double>x[i]
    return result


cdef Py_ssize_t squared_norm(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[block] = sum of x^2 over blocks of NORM_BLOCK."""
    cdef const SquaredNormArgs *args = <const SquaredNormArgs *>arguments
    cdef Py_ssize_t i = share_begin(args.n, NORM_BLOCK, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, NORM_BLOCK, thread + 1, threads)
    while i < end:
        args.sums[i // NORM_BLOCK] = squared_norm_block(
            <const real *>args.x + i, smaller(NORM_BLOCK, end - i)
        )
        i += NORM_BLOCK


cdef Py_ssize_t clip(const void *arguments, int thread, int threads) noexcept nogil:
    """scale = max_norm / norm where that is below one. Returns 1 if the norm is not finite."""
    cdef const ClipArgs *args = <const ClipArgs *>arguments
    cdef OptimizerState *state = args.state
    if thread > 0:
        return 0
    state.norm = sqrt(args.squared_norm[0])
    if not state.norm < INFINITY:
        return 1
    state.scale = state.max_norm / state.norm if 0 < state.max_norm < state.norm else 1
    state.step += 1
    return 0


cdef inline vec clipped(
    const UpdateArgs *args, Py_ssize_t i, vec data, Py_ssize_t n
) noexcept nogil:
    """scale * gradient + weight_decay * data."""
    cdef vec grad = load_columns(<const real *>args.grad + i, n)
    return grad * <real>args.state.scale + data * <real>args.state.weight_decay


cdef Py_ssize_t sgd(const void *arguments, int thread, int threads) noexcept nogil:
    """v = momentum v + g; data -= rate v."""
    cdef const UpdateArgs *args = <const UpdateArgs *>arguments
    cdef real *velocity = <real *>args.moment1
    cdef real *data = <real *>args.data
    cdef real rate = <real>args.state.learning_rate
    cdef real momentum = <real>args.state.momentum
    cdef bint nesterov = args.state.nesterov != 0
    cdef Py_ssize_t i = share_begin(args.n, GRAIN, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, GRAIN, thread + 1, threads)
    cdef vec w, g, v
    while i < end:
        w = load_columns(data + i, end - i)
        g = clipped(args, i, w, end - i)
        if velocity != NULL:
            v = momentum * load_columns(velocity + i, end - i) + g
            store_columns(velocity + i, v, end - i)
            if nesterov:
                g = g + momentum * v
            else:
                g = v
        store_columns(data + i, w - rate * g, end - i)
        i += LANES


cdef Py_ssize_t adam(const void *arguments, int thread, int threads) noexcept nogil:
    """m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2; data -= rate m / (sqrt(v) + eps)."""
    cdef const UpdateArgs *args = <const UpdateArgs *>arguments
    cdef const OptimizerState *state = args.state
    cdef real *m = <real *>args.moment1
    cdef real *v = <real *>args.moment2
    cdef real *data = <real *>args.data
    cdef vec rate = fill(<real>(state.learning_rate / (1 - pow(state.beta1, state.step))))
    cdef vec root = fill(<real>(1 / sqrt(1 - pow(state.beta2, state.step))))
    cdef vec eps = fill(<real>state.eps)
    cdef real new1 = <real>(1 - state.beta1)
    cdef real new2 = <real>(1 - state.beta2), beta2 = <real>state.beta2
    cdef Py_ssize_t i = share_begin(args.n, GRAIN, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, GRAIN, thread + 1, threads)
    cdef vec w, g, mi, vi
    while i < end:
        w = load_columns(data + i, end - i)
        g = clipped(args, i, w, end - i)
        mi = load_columns(m + i, end - i)
        vi = load_columns(v + i, end - i)
        mi = mi + new1 * (g - mi)
        vi = beta2 * vi + new2 * (g * g)
        store_columns(m + i, mi, end - i)
        store_columns(v + i, vi, end - i)
        store_columns(data + i, w - rate * mi / (square_root(vi) * root + eps), end - i)
        i += LANES
