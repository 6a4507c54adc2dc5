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
    cdef Py_ssize_t group
    if thread > 0:
        return 0
    state.norm = sqrt(args.squared_norm[0])
    if not state.norm < INFINITY:
        return 1
    for group in range(args.groups):
        state[group].norm = state.norm
        state[group].scale = 1
        if 0 < state[group].max_norm < state.norm:
            state[group].scale = state[group].max_norm / state.norm
        state[group].step += 1
        if state[group].mu_product > 0:
            state[group].mu_product *= nadam_momentum(state + group, state[group].step)
    return 0


cdef inline double nadam_momentum(const OptimizerState *state, double step) noexcept nogil:
    """The momentum of a step, which rises towards beta1."""
    return state.beta1 * (1 - 0.5 * pow(0.96, step * state.momentum_decay))


cdef Py_ssize_t clamp(const void *arguments, int thread, int threads) noexcept nogil:
    """x = min(max(x, -factor), factor)."""
    cdef const ScaleArgs *args = <const ScaleArgs *>arguments
    cdef real *x = <real *>args.x
    cdef vec limit = fill(<real>args.factor)
    cdef Py_ssize_t i = share_begin(args.n, GRAIN, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, GRAIN, thread + 1, threads)
    while i < end:
        store_columns(x + i, within(load_columns(x + i, end - i), limit), end - i)
        i += LANES


cdef inline vec within(vec v, vec limit) noexcept nogil:
    """v, cut off at +-limit; NaN stays."""
    return maximum(-limit, minimum(limit, v))


cdef Py_ssize_t follow(const void *arguments, int thread, int threads) noexcept nogil:
    """y += weight (x - y)."""
    cdef const FollowArgs *args = <const FollowArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.y
    cdef real weight = <real>args.weight
    cdef Py_ssize_t i = share_begin(args.n, GRAIN, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, GRAIN, thread + 1, threads)
    cdef vec v
    while i < end:
        v = load_columns(y + i, end - i)
        v = v + weight * (load_columns(x + i, end - i) - v)
        store_columns(y + i, v, end - i)
        i += LANES


cdef inline vec clipped(
    const UpdateArgs *args, Py_ssize_t i, vec data, Py_ssize_t n
) noexcept nogil:
    """scale * gradient within +-max_value, and the gradient of the penalties on the weights."""
    cdef vec grad = load_columns(<const real *>args.grad + i, n)
    cdef vec size, sign
    grad = grad * <real>args.state.scale
    if args.state.max_value > 0:
        grad = within(grad, fill(<real>args.state.max_value))
    if args.state.l1 > 0:
        size = absolute(data)
        sign = with_sign(fill(<real>args.state.l1), data)
        grad = grad + where_less(fill(0), size, sign, fill(0))
    if args.state.decoupled > 0:
        return grad
    return grad + data * <real>args.state.weight_decay


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
    cdef real keep = 1
    cdef Py_ssize_t i = share_begin(args.n, GRAIN, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, GRAIN, thread + 1, threads)
    cdef vec w, g, mi, vi
    if state.decoupled > 0:
        keep = <real>(1 - state.learning_rate * state.weight_decay)
    while i < end:
        w = load_columns(data + i, end - i)
        g = clipped(args, i, w, end - i)
        mi = load_columns(m + i, end - i)
        vi = load_columns(v + i, end - i)
        mi = mi + new1 * (g - mi)
        vi = beta2 * vi + new2 * (g * g)
        store_columns(m + i, mi, end - i)
        store_columns(v + i, vi, end - i)
        store_columns(data + i, keep * w - rate * mi / (square_root(vi) * root + eps), end - i)
        i += LANES


cdef Py_ssize_t nadam(const void *arguments, int thread, int threads) noexcept nogil:
    """m and v as in adam; data -= (rate1 m + rate2 g) / (sqrt(v) + eps)."""
    cdef const UpdateArgs *args = <const UpdateArgs *>arguments
    cdef const OptimizerState *state = args.state
    cdef real *m = <real *>args.moment1
    cdef real *v = <real *>args.moment2
    cdef real *data = <real *>args.data
    cdef double now = nadam_momentum(state, state.step)
    cdef double after = nadam_momentum(state, state.step + 1)
    cdef double rate = state.learning_rate
    cdef real rate1 = <real>(rate * after / (1 - state.mu_product * after))
    cdef real rate2 = <real>(rate * (1 - now) / (1 - state.mu_product))
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
        g = (rate1 * mi + rate2 * g) / (square_root(vi) * root + eps)
        store_columns(data + i, w - g, end - i)
        i += LANES


cdef Py_ssize_t rmsprop(const void *arguments, int thread, int threads) noexcept nogil:
    """s = alpha s + (1 - alpha) g^2; data -= rate g / (sqrt(s) + eps). Centered: less m^2."""
    cdef const UpdateArgs *args = <const UpdateArgs *>arguments
    cdef const OptimizerState *state = args.state
    cdef real *mean = <real *>args.moment1
    cdef real *square = <real *>args.moment2
    cdef real *velocity = <real *>args.moment3
    cdef real *data = <real *>args.data
    cdef bint centered = state.centered > 0, moving = state.momentum > 0
    cdef real rate = <real>state.learning_rate, momentum = <real>state.momentum
    cdef real alpha = <real>state.alpha, fresh = <real>(1 - state.alpha)
    cdef vec eps = fill(<real>state.eps)
    cdef Py_ssize_t i = share_begin(args.n, GRAIN, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, GRAIN, thread + 1, threads)
    cdef vec w, g, m, s
    while i < end:
        w = load_columns(data + i, end - i)
        g = clipped(args, i, w, end - i)
        s = load_columns(square + i, end - i)
        s = alpha * s + fresh * (g * g)
        store_columns(square + i, s, end - i)
        if centered:
            m = load_columns(mean + i, end - i)
            m = m + fresh * (g - m)
            store_columns(mean + i, m, end - i)
            s = maximum(s - m * m, fill(0))    # rounding may take it below zero
        g = g / (square_root(s) + eps)
        if moving:
            g = momentum * load_columns(velocity + i, end - i) + g
            store_columns(velocity + i, g, end - i)
        store_columns(data + i, w - rate * g, end - i)
        i += LANES


cdef Py_ssize_t adagrad(const void *arguments, int thread, int threads) noexcept nogil:
    """s = s + g^2; data -= rate g / (sqrt(s) + eps)."""
    cdef const UpdateArgs *args = <const UpdateArgs *>arguments
    cdef real *square = <real *>args.moment2
    cdef real *data = <real *>args.data
    cdef real rate = <real>args.state.learning_rate
    cdef vec eps = fill(<real>args.state.eps)
    cdef Py_ssize_t i = share_begin(args.n, GRAIN, thread, threads)
    cdef Py_ssize_t end = share_begin(args.n, GRAIN, thread + 1, threads)
    cdef vec w, g, s
    while i < end:
        w = load_columns(data + i, end - i)
        g = clipped(args, i, w, end - i)
        s = load_columns(square + i, end - i) + g * g
        store_columns(square + i, s, end - i)
        store_columns(data + i, w - rate * g / (square_root(s) + eps), end - i)
        i += LANES
