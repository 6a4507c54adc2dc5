# Norms, clipping, and the updates of optimizers, over flat vectors. Threads partition the elements.

cdef inline double sum_of_squares(const real *x, Py_ssize_t n, const real factor) noexcept nogil:
    """Sum of (factor x)^2, in vectors."""
    cdef vec acc[4]
    cdef vec v
    cdef Py_ssize_t i = 0
    cdef int j
    for j in range(4):
        acc[j] = fill(0)
    while i + 4 * LANES <= n:
        for j in range(4):
            v = load(x + i + j * LANES) * factor
            acc[j] = acc[j] + v * v
        i += 4 * LANES
    while i < n:
        v = load_columns(x + i, n - i) * factor
        acc[0] = acc[0] + v * v
        i += LANES
    return lane_sum((acc[0] + acc[1]) + (acc[2] + acc[3]))


cdef double factor_near_one(const real *x, Py_ssize_t n) noexcept nogil:
    """The power of two that brings the largest |x| near 1; 0 if the largest is zero or infinite.

    It is at most the inverse of SMALLEST_NORMAL, so that it is a normal number itself. The squares
    of subnormal numbers become large enough even so.
    """
    cdef vec most[4]
    cdef Py_ssize_t i = 0
    cdef int j, exponent
    cdef real peak
    for j in range(4):
        most[j] = fill(0)
    while i + 4 * LANES <= n:
        for j in range(4):
            most[j] = maximum(absolute(load(x + i + j * LANES)), most[j])
        i += 4 * LANES
    while i < n:
        most[0] = maximum(absolute(load_columns(x + i, n - i)), most[0])
        i += LANES
    peak = first_lane(spread_max(maximum(maximum(most[0], most[1]), maximum(most[2], most[3]))))
    if not 0 < peak < INFINITY:
        return 0
    frexp(peak, &exponent)
    return ldexp(1, -exponent if exponent > 2 - EXPONENT_BIAS else EXPONENT_BIAS - 1)


cdef double squared_norm_block(const real *x, Py_ssize_t n) noexcept nogil:
    """Sum of x^2. Where squares of float32 may overflow or underflow, x is scaled to numbers near 1
    before."""
    cdef double factor, result = sum_of_squares(x, n, 1)
    if sizeof(real) == 8 or 1e-20 < result < 1e30 or result != result:
        return result
    factor = factor_near_one(x, n)
    if factor > 0:
        result = sum_of_squares(x, n, <real>factor) / (factor * factor)
    return result


cdef Py_ssize_t squared_norm(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[block] = sum of x^2 over NORM_BLOCK elements."""
    cdef const SquaredNormArgs *args = <const SquaredNormArgs *>arguments
    cdef Py_ssize_t i = partition(args.n, NORM_BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, NORM_BLOCK, thread + 1, threads)
    while i < end:
        args.sums[i // NORM_BLOCK] = squared_norm_block(
            <const real *>args.x + i, smaller(NORM_BLOCK, end - i)
        )
        i += NORM_BLOCK


cdef Py_ssize_t dot(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[block] = sum of x y over NORM_BLOCK elements, in double precision."""
    cdef const DotArgs *args = <const DotArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef const real *y = <const real *>args.y
    cdef Py_ssize_t i = partition(args.n, NORM_BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, NORM_BLOCK, thread + 1, threads)
    cdef Py_ssize_t stop
    cdef double acc[TERMS]    # side by side, so that no addition waits for the one before
    cdef int j
    while i < end:
        for j in range(TERMS):
            acc[j] = 0
        stop = smaller(end, i + NORM_BLOCK)
        args.sums[i // NORM_BLOCK] = 0
        while i + TERMS <= stop:
            for j in range(TERMS):
                acc[j] += <double>x[i + j] * y[i + j]
            i += TERMS
        while i < stop:
            acc[0] += <double>x[i] * y[i]
            i += 1
        for j in range(TERMS):
            args.sums[(stop - 1) // NORM_BLOCK] += acc[j]


cdef double norm_beyond_squares(const real *x, Py_ssize_t n) noexcept nogil:
    """The norm of finite numbers whose sum of squares overflows or underflows a double; 0 if the
    largest is zero or infinite."""
    cdef double factor = factor_near_one(x, n), total = 0
    cdef Py_ssize_t i = 0
    if factor == 0:
        return 0
    while i < n:
        total += sum_of_squares(x + i, smaller(NORM_BLOCK, n - i), <real>factor)
        i += NORM_BLOCK
    return sqrt(total) / factor


cdef inline double norm_of(const ClipArgs *args) noexcept nogil:
    """The root of the squared norm; of float64 gradients also where that over- or underflows."""
    cdef double square = args.squared_norm[0], norm
    if args.grad == NULL or square != square or 1e-280 < square < INFINITY:
        return sqrt(square)
    norm = norm_beyond_squares(<const real *>args.grad, args.n)
    return sqrt(square) if norm == 0 else norm    # zero, or infinite


cdef Py_ssize_t clip(const void *arguments, int thread, int threads) noexcept nogil:
    """scale = min(1, max_norm / norm) for every group of parameters; counts the step.

    Returns 1 if the norm is not finite.
    """
    cdef const ClipArgs *args = <const ClipArgs *>arguments
    cdef OptimizerState *state = args.state
    cdef Py_ssize_t group
    if thread > 0:
        return 0
    state.norm = norm_of(args)
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
    cdef Py_ssize_t i = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    while i < end:
        store_columns(x + i, within(load_columns(x + i, end - i), limit), end - i)
        i += LANES


cdef inline vec within(vec v, vec limit) noexcept nogil:
    """Clamp v to +-limit; NaN stays."""
    return maximum(-limit, minimum(limit, v))


cdef Py_ssize_t lerp(const void *arguments, int thread, int threads) noexcept nogil:
    """y += weight (x - y)."""
    cdef const LerpArgs *args = <const LerpArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.average
    cdef real weight = <real>args.weight
    cdef Py_ssize_t i = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    cdef vec v
    while i < end:
        v = load_columns(y + i, end - i)
        v = v + weight * (load_columns(x + i, end - i) - v)
        store_columns(y + i, v, end - i)
        i += LANES


# --- updates ---

cdef struct Update:
    # What an optimizer has for every parameter; moments that it does not keep are NULL.
    real *data
    const real *grad
    real *moment1              # velocity of SGD, m of Adam, mean of RMSprop
    real *moment2              # v of Adam, mean square of RMSprop and AdaGrad
    real *moment3              # velocity of RMSprop
    const OptimizerState *state
    Py_ssize_t n


cdef inline Update update_of(
    void *data, const void *grad, const OptimizerState *state, Py_ssize_t n, void *moment1,
    void *moment2, void *moment3
) noexcept nogil:
    return Update(
        <real *>data, <const real *>grad, <real *>moment1, <real *>moment2, <real *>moment3,
        state, n
    )


cdef enum:
    SOON = 32 * LANES    # how many elements ahead weights are fetched, to be written


cdef inline vec largest_root() noexcept nogil:
    """2^63 or 2^511: its square is finite, and so is any average of such squares."""
    return fill(<real>ldexp(1, EXPONENT_BIAS // 2))


cdef inline double harmless() noexcept nogil:
    """2^47 or 2^383: a bound below which gradients cannot make a moment overflow.

    The square of a smaller number is less than the last digit of the largest number, and so does
    not change a moment as large as that.
    """
    return ldexp(1, EXPONENT_BIAS * 3 // 8)


cdef struct Rule:
    # The numbers of an update, which do not change from element to element.
    real scale, max_value, l1, weight_decay
    real rate, rate2, momentum, new1, new2, old2, root, eps, keep
    bint far, cut, sparse, decays, huge, decoupled, nesterov, centered


cdef inline Rule rule_of(const OptimizerState *state) noexcept nogil:
    """Read from the state what all optimizers have in common."""
    cdef Rule rule
    rule.scale, rule.max_value = <real>state.scale, <real>state.max_value
    rule.far = state.scale < SMALLEST_NORMAL    # would count as zero: its root is applied twice
    if rule.far and 0 < state.max_norm < state.norm:
        rule.scale = <real>(sqrt(state.max_norm) / sqrt(state.norm))
    elif rule.far:
        rule.scale = <real>sqrt(state.scale)
    rule.l1, rule.weight_decay = <real>state.l1, <real>state.weight_decay
    rule.cut, rule.sparse = state.max_value > 0, state.l1 > 0
    rule.huge = not 0 < state.norm * state.scale < harmless()    # true if the norm is unknown
    rule.decoupled = state.decoupled > 0
    rule.decays = state.weight_decay != 0 and not rule.decoupled
    rule.rate = <real>state.learning_rate
    rule.eps = <real>state.eps if state.eps > SMALLEST_NORMAL else SMALLEST_NORMAL
    if not rule.eps < ldexp(1, EXPONENT_BIAS - 3):    # what `quotient` may divide by
        rule.eps = <real>ldexp(1, EXPONENT_BIAS - 3)
    rule.momentum, rule.nesterov = <real>state.momentum, state.nesterov != 0
    rule.centered = state.centered > 0
    return rule


cdef inline void update_partition(
    const Update *args, int thread, int threads, const Rule *rule,
    void (*update)(const Update *, const Rule *, Py_ssize_t, const Py_ssize_t) noexcept nogil
) noexcept nogil:
    """Update this thread's partition: whole vectors, then what is left.

    Weights that several threads have read lie in the caches of all of them. A core that writes them
    must first have the others drop their copies, which is slow unless it is asked for early.
    """
    cdef Py_ssize_t i = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    while i + LANES <= end:
        prefetch(<const real *>args.data + i + SOON)
        update(args, rule, i, LANES)
        i += LANES
    if i < end:
        update(args, rule, i, end - i)


cdef inline void update_all(
    const Update *args, int thread, int threads, const Rule *rule,
    void (*update)(const Update *, const Rule *, Py_ssize_t, const Py_ssize_t) noexcept nogil
) noexcept nogil:
    """Update this thread's partition, in a loop of its own where gradients are only scaled.

    Subnormal numbers count as zero meanwhile. Where a gradient stays zero, moments would decay to
    subnormal numbers and stay there, as the smallest of them is not rounded to zero.
    """
    cdef float_mode mode = flush_subnormals()
    cdef Rule plain = rule[0]
    plain.far = plain.cut = plain.sparse = plain.decays = plain.huge = False
    if rule.far or rule.cut or rule.sparse or rule.decays or rule.huge:
        update_partition(args, thread, threads, rule, update)
    else:
        update_partition(args, thread, threads, &plain, update)
    set_float_mode(mode)


cdef inline vec gradient(
    const Update *args, const Rule *rule, Py_ssize_t i, vec data, const Py_ssize_t n
) noexcept nogil:
    """The gradient, scaled and clamped to +-max_value, plus that of the penalties on weights."""
    cdef vec grad = load_columns(<const real *>args.grad + i, n) * rule.scale
    cdef vec size, sign
    if rule.far:
        grad = grad * rule.scale
    if rule.cut:
        grad = within(grad, fill(rule.max_value))
    if rule.sparse:
        size = absolute(data)
        sign = with_sign(fill(rule.l1), data)
        grad = grad + where_less(fill(0), size, sign, fill(0))
    if rule.decays:
        grad = grad + data * rule.weight_decay
    return grad


cdef inline vec squarable(
    const Update *args, const Rule *rule, Py_ssize_t i, vec data, const Py_ssize_t n
) noexcept nogil:
    """The gradient, clamped where its square would be infinite.

    A second moment that has overflowed would divide by infinity from then on. As both moments use
    the clamped gradient, their ratio, and so the step, is what it would be without.
    """
    cdef vec g = gradient(args, rule, i, data, n)
    if rule.huge:
        g = within(g, largest_root())
    return g


cdef inline vec average(
    void *moment, Py_ssize_t i, vec value, const real fresh, const Py_ssize_t n
) noexcept nogil:
    """Update a moving average, and return it: m += fresh (value - m)."""
    cdef vec m = load_columns(<real *>moment + i, n)
    m = m + fresh * (value - m)
    store_columns(<real *>moment + i, m, n)
    return m


cdef inline vec mean_square(
    const Update *args, const Rule *rule, Py_ssize_t i, vec g, const Py_ssize_t n
) noexcept nogil:
    """Update the moving average of squares, or their sum, and return it: v = old2 v + new2 g^2,
    at most the largest number."""
    cdef vec v = rule.old2 * load_columns(<real *>args.moment2 + i, n) + rule.new2 * (g * g)
    v = minimum(fill(LARGEST), v)    # in this order NaN stays NaN
    store_columns(<real *>args.moment2 + i, v, n)
    return v


cdef inline void sgd_columns(
    const Update *args, const Rule *rule, Py_ssize_t i, const Py_ssize_t n
) noexcept nogil:
    cdef real *velocity = <real *>args.moment1
    cdef vec w = load_columns(<real *>args.data + i, n)
    cdef vec g = gradient(args, rule, i, w, n), v
    if velocity != NULL:
        v = rule.momentum * load_columns(velocity + i, n) + g
        if rule.huge:
            v = within(v, fill(LARGEST))
        store_columns(velocity + i, v, n)
        if rule.nesterov:
            g = g + rule.momentum * v
            if rule.huge:
                g = within(g, fill(LARGEST))
        else:
            g = v
    store_columns(<real *>args.data + i, w - rule.rate * g, n)


cdef Py_ssize_t sgd(const void *arguments, int thread, int threads) noexcept nogil:
    """v = momentum v + g; data -= rate v. Nesterov: data -= rate (g + momentum v)."""
    cdef const SgdArgs *given = <const SgdArgs *>arguments
    cdef Update args = update_of(
        given.data, given.grad, given.state, given.n, given.moment, NULL, NULL
    )
    cdef Rule rule = rule_of(args.state)
    update_all(&args, thread, threads, &rule, sgd_columns)
    return 0


cdef inline void adam_columns(
    const Update *args, const Rule *rule, Py_ssize_t i, const Py_ssize_t n
) noexcept nogil:
    cdef vec w = load_columns(<real *>args.data + i, n)
    cdef vec g = squarable(args, rule, i, w, n)
    cdef vec m = average(args.moment1, i, g, rule.new1, n)
    cdef vec size = square_root(mean_square(args, rule, i, g, n)) * rule.root + rule.eps
    cdef vec step = rule.rate * m
    store_columns(<real *>args.data + i, rule.keep * w - quotient(step, size), n)


cdef Py_ssize_t adam(const void *arguments, int thread, int threads) noexcept nogil:
    """m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2; data -= rate m / (sqrt(v) + eps)."""
    cdef const AdamArgs *given = <const AdamArgs *>arguments
    cdef Update args = update_of(
        given.data, given.grad, given.state, given.n, given.m, given.v, NULL
    )
    cdef const OptimizerState *state = args.state
    cdef Rule rule = rule_of(state)
    rule.rate = <real>(state.learning_rate / (1 - pow(state.beta1, state.step)))
    rule.root = <real>(1 / sqrt(1 - pow(state.beta2, state.step)))
    rule.new1 = <real>(1 - state.beta1)
    rule.new2, rule.old2 = <real>(1 - state.beta2), <real>state.beta2
    rule.keep = 1
    if rule.decoupled:
        rule.keep = <real>(1 - state.learning_rate * state.weight_decay)
    update_all(&args, thread, threads, &rule, adam_columns)
    return 0


cdef inline void nadam_columns(
    const Update *args, const Rule *rule, Py_ssize_t i, const Py_ssize_t n
) noexcept nogil:
    cdef vec w = load_columns(<real *>args.data + i, n)
    cdef vec g = squarable(args, rule, i, w, n)
    cdef vec m = average(args.moment1, i, g, rule.new1, n)
    cdef vec size = square_root(mean_square(args, rule, i, g, n)) * rule.root + rule.eps
    cdef vec step = rule.rate * m + rule.rate2 * g
    store_columns(<real *>args.data + i, w - quotient(step, size), n)


cdef Py_ssize_t nadam(const void *arguments, int thread, int threads) noexcept nogil:
    """m and v as in adam; data -= (rate1 m + rate2 g) / (sqrt(v) + eps)."""
    cdef const AdamArgs *given = <const AdamArgs *>arguments
    cdef Update args = update_of(
        given.data, given.grad, given.state, given.n, given.m, given.v, NULL
    )
    cdef const OptimizerState *state = args.state
    cdef Rule rule = rule_of(state)
    cdef double now = nadam_momentum(state, state.step)
    cdef double after = nadam_momentum(state, state.step + 1)
    rule.rate = <real>(state.learning_rate * after / (1 - state.mu_product * after))
    rule.rate2 = <real>(state.learning_rate * (1 - now) / (1 - state.mu_product))
    rule.root = <real>(1 / sqrt(1 - pow(state.beta2, state.step)))
    rule.new1 = <real>(1 - state.beta1)
    rule.new2, rule.old2 = <real>(1 - state.beta2), <real>state.beta2
    update_all(&args, thread, threads, &rule, nadam_columns)
    return 0


cdef inline void rmsprop_columns(
    const Update *args, const Rule *rule, Py_ssize_t i, const Py_ssize_t n
) noexcept nogil:
    cdef real *velocity = <real *>args.moment3
    cdef vec w = load_columns(<real *>args.data + i, n)
    cdef vec g = squarable(args, rule, i, w, n)
    cdef vec s = mean_square(args, rule, i, g, n), m
    if rule.centered:
        m = average(args.moment1, i, g, rule.new2, n)
        s = maximum(fill(0), s - m * m)    # rounding may take it below zero; NaN stays
    s = square_root(s) + rule.eps
    g = quotient(g, s)
    if rule.momentum > 0:
        g = rule.momentum * load_columns(velocity + i, n) + g
        store_columns(velocity + i, g, n)
    store_columns(<real *>args.data + i, w - rule.rate * g, n)


cdef Py_ssize_t rmsprop(const void *arguments, int thread, int threads) noexcept nogil:
    """s = alpha s + (1 - alpha) g^2; data -= rate g / (sqrt(s) + eps). Centered: sqrt(s - m^2)."""
    cdef const RmspropArgs *given = <const RmspropArgs *>arguments
    cdef Update args = update_of(
        given.data, given.grad, given.state, given.n, given.mean, given.square, given.velocity
    )
    cdef Rule rule = rule_of(args.state)
    rule.old2, rule.new2 = <real>args.state.alpha, <real>(1 - args.state.alpha)
    update_all(&args, thread, threads, &rule, rmsprop_columns)
    return 0


cdef inline void adagrad_columns(
    const Update *args, const Rule *rule, Py_ssize_t i, const Py_ssize_t n
) noexcept nogil:
    cdef vec w = load_columns(<real *>args.data + i, n)
    cdef vec g = squarable(args, rule, i, w, n)
    cdef vec size = square_root(mean_square(args, rule, i, g, n)) + rule.eps
    cdef vec step = rule.rate * g
    store_columns(<real *>args.data + i, w - quotient(step, size), n)


cdef Py_ssize_t adagrad(const void *arguments, int thread, int threads) noexcept nogil:
    """s = s + g^2; data -= rate g / (sqrt(s) + eps)."""
    cdef const SgdArgs *given = <const SgdArgs *>arguments
    cdef Update args = update_of(
        given.data, given.grad, given.state, given.n, NULL, given.moment, NULL
    )
    cdef Rule rule = rule_of(args.state)
    rule.old2 = rule.new2 = 1
    update_all(&args, thread, threads, &rule, adagrad_columns)
    return 0


KERNELS["dot"] = entry(dot, sizeof(DotArgs))
KERNELS["squared_norm"] = entry(squared_norm, sizeof(SquaredNormArgs))
KERNELS["clip"] = entry(clip, sizeof(ClipArgs))
KERNELS["clamp"] = entry(clamp, sizeof(ScaleArgs))
KERNELS["lerp"] = entry(lerp, sizeof(LerpArgs))
KERNELS["sgd"] = entry(sgd, sizeof(SgdArgs))
KERNELS["adam"] = entry(adam, sizeof(AdamArgs))
KERNELS["nadam"] = entry(nadam, sizeof(AdamArgs))
KERNELS["rmsprop"] = entry(rmsprop, sizeof(RmspropArgs))
KERNELS["adagrad"] = entry(adagrad, sizeof(SgdArgs))
