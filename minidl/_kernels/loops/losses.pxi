# Losses and their gradients, in one pass over the predictions.
#
# Sums over more than a block are in double precision. What has weight 0 adds nothing to a loss, and
# its gradient is 0, whatever it holds.

cdef enum:
    LOSS_ROWS = 16    # rows of a block; threads partition whole blocks
    TERMS = 8         # sums side by side, so that no addition waits for the one before


cdef inline vec load_logits(const real *z, Py_ssize_t n) noexcept nogil:
    """Load the next LANES of n logits; lanes beyond are minus infinity."""
    if n >= LANES:
        return load(z)
    return load_part(z, n, -INFINITY)


cdef inline vec exp_logits(const real *z, Py_ssize_t n, vec peak) noexcept nogil:
    """exp(z - peak) of the next LANES of n logits; lanes beyond are zero.

    These are not computed as exp(-infinity): multiplying down to zero is slow on processors.
    """
    if n >= LANES:
        return exp_below(load(z) - peak)
    return keep_part(exp_below(load_part(z, n, first_lane(peak)) - peak), n)


cdef bint one_is_largest(const real *z, Py_ssize_t n, real *y, real others) noexcept nogil:
    """Whether one of n logits alone is the largest, and infinite. If so, write the limit to y.

    The formula of softmax gives NaN there, for infinity - infinity. But softmax tends to 1 at that
    logit and to 0 at the others, and log-softmax to 0 and -infinity. `others`, 0 or -infinity, says
    which of the two is asked for.
    """
    cdef Py_ssize_t j, place = 0, count = 0
    for j in range(n):
        if z[j] != z[j]:
            return False
        if z[j] > z[place]:
            place = j
    for j in range(n):
        count += z[j] == z[place]
    if count != 1 or -INFINITY < z[place] < INFINITY:
        return False
    for j in range(n):
        y[j] = others
    y[place] = 1 if others == 0 else 0
    return True


cdef inline vec exp_block(
    const real *z, real *y, Py_ssize_t n, const vec peak
) noexcept nogil:
    """y = exp(z - peak). Returns its sums over every LANES-th element."""
    cdef vec e, total = fill(0)
    cdef Py_ssize_t j = 0
    while j < n:
        e = exp_logits(z + j, n - j, peak)
        store_columns(y + j, e, n - j)
        total = total + e
        j += LANES
    return total


cdef inline void softmax_row(
    const real *z, real *dz, Py_ssize_t n, Py_ssize_t label, real scale, real *most, real *sum
) noexcept nogil:
    """dz = scale (softmax(z) - onehot(label)); most = the largest z, sum = sum of exp(z - most).

    The maximum may miss a NaN among the z, but the sum does not.
    """
    cdef vec peak = fill(-INFINITY), total
    cdef real factor
    cdef Py_ssize_t j = 0
    while j < n:
        peak = maximum(load_logits(z + j, n - j), peak)
        j += LANES
    peak = spread_max(peak)
    total = exp_block(z, dz, smaller(n, LOSS_BLOCK), peak)
    j = LOSS_BLOCK
    while j < n:    # in blocks, so that rounding errors stay small however many classes there are
        total = total + exp_block(z + j, dz + j, smaller(n - j, LOSS_BLOCK), peak)
        j += LOSS_BLOCK
    most[0] = first_lane(peak)
    sum[0] = lane_sum(total)
    factor = scale / sum[0]
    for j in range(n):
        dz[j] = dz[j] * factor
    dz[label] = dz[label] - scale


cdef inline void softmax_short_rows(
    const real *z, const Py_ssize_t *labels, real *dz, Py_ssize_t rows, Py_ssize_t n,
    Py_ssize_t room, real scale, real *most, real *sums
) noexcept nogil:
    """Do what softmax_row does for up to LANES rows with n <= LANES.

    Rows are transposed, so that a vector is one class of all rows, and nothing need be summed
    across its lanes. `room` elements of z can be read.
    """
    cdef vec column[LANES]
    cdef vec label, peak = fill(-INFINITY), total = fill(0), factor
    cdef real numbers[LANES]
    cdef Py_ssize_t i, j, at
    for i in range(LANES):
        at = i * n if i < rows else 0
        numbers[i] = <real>labels[i if i < rows else 0]
        column[i] = load_columns(z + at, room - at)
    label = load(numbers)
    transpose(column)
    for j in range(n):
        peak = maximum(column[j], peak)
    for j in range(n):
        column[j] = exp_below(column[j] - peak)
        total = total + column[j]
    factor = fill(scale) / total
    for j in range(n):
        column[j] = column[j] * factor
        column[j] = column[j] - where_less(
            absolute(label - <real>j), fill(<real>0.5), fill(scale), fill(0)
        )
    store(most, peak)
    store(sums, total)
    transpose(column)
    for i in range(rows):    # rows that follow write again what a vector writes beyond its row
        if (rows - i) * n >= LANES:
            store(dz + i * n, column[i])
        else:
            store_part(dz + i * n, column[i], n)


cdef inline Py_ssize_t cross_entropy_rows(
    const CrossEntropyArgs *args, Py_ssize_t begin, Py_ssize_t rows, vec *seen
) noexcept nogil:
    """Losses and gradients of a block of rows without weights. Returns 1 + the first bad row, or 0.

    Their logarithms are taken together, and added to `seen`, so that a NaN shows there.
    """
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
        i = 0
        while i < rows:
            softmax_short_rows(
                z + i * n, labels + i, dz + i * n, smaller(LANES, rows - i), n,
                (args.rows - begin - i) * n, scale, most + i, sums + i
            )
            i += LANES
    else:
        for i in range(rows):
            softmax_row(z + i * n, dz + i * n, n, labels[i], scale, most + i, sums + i)
    i = 0
    while i < LOSS_ROWS:
        store(sums + i, log_vec(load(sums + i)))
        seen[0] = seen[0] + load(sums + i)
        i += LANES
    for i in range(rows):
        args.losses[begin + i] = sums[i] + (<double>most[i] - z[i * n + labels[i]])
    return 0


cdef void take_limits(
    const CrossEntropyArgs *args, Py_ssize_t begin, Py_ssize_t rows
) noexcept nogil:
    """Compute rows with one infinite logit again: the loss is 0 if it is the label's, else ∞."""
    cdef Py_ssize_t i, j, label, n = args.classes
    cdef real scale = <real>args.scale
    cdef real *dz
    for i in range(begin, begin + rows):
        dz, label = <real *>args.dlogits + i * n, args.labels[i]
        if one_is_largest(<const real *>args.logits + i * n, n, dz, 0):
            args.losses[i] = 0 if dz[label] == 1 else INFINITY
            for j in range(n):
                dz[j] = dz[j] * scale
            dz[label] = dz[label] - scale


cdef inline double surprise(double log_sum, double most, double z) noexcept nogil:
    """log sum exp(z - most) + (most - z): the loss if the class of this z were the label."""
    cdef double below = most - z
    if below != below and most == z:    # both are infinite: the difference counts as 0
        return log_sum
    return log_sum + below


cdef inline double weight_of(const void *weights, Py_ssize_t i) noexcept nogil:
    """Return one of the weights, or 1 where there are none."""
    return 1 if weights == NULL else (<const real *>weights)[i]


cdef inline bint is_ignored(Py_ssize_t label, double ignore_index) noexcept nogil:
    return <double>label == ignore_index


cdef inline double divided(double scale, const double *weights) noexcept nogil:
    """Divide the scale by the total of the weights, if there is one; a mean over nothing is 0."""
    if weights == NULL:
        return scale
    return scale / weights[0] if weights[0] > 0 else 0


cdef Py_ssize_t weighted_rows(
    const CrossEntropyArgs *args, Py_ssize_t begin, Py_ssize_t rows
) noexcept nogil:
    """Losses and gradients of a block of rows, with weights or smoothed labels."""
    cdef Py_ssize_t i, label
    for i in range(begin, begin + rows):
        label = args.labels[i]
        if is_ignored(label, args.ignore_index):
            ignore_row(args, i)
            continue
        if not 0 <= label < args.classes:
            return 1 + i
        weighted_row(args, i, label, divided(args.scale, args.weights))
    return 0


cdef inline void ignore_row(const CrossEntropyArgs *args, Py_ssize_t row) noexcept nogil:
    """No loss and no gradient: the row may hold anything."""
    memset(<real *>args.dlogits + row * args.classes, 0, args.classes * sizeof(real))
    args.losses[row] = 0


cdef void weighted_row(
    const CrossEntropyArgs *args, Py_ssize_t row, Py_ssize_t label, double scale
) noexcept nogil:
    """loss = own L_label + rest sum_c weight_c L_c, L_c = log sum exp(z) - z_c, and its gradient.

    `own` is the weight of the label's loss, `rest` that of every class, from smoothing. A loss of
    weight 0 adds nothing, even if it is infinite or NaN.
    """
    cdef Py_ssize_t c, n = args.classes
    cdef const real *z = <const real *>args.logits + row * n
    cdef real *dz = <real *>args.dlogits + row * n
    cdef double factor = scale * weight_of(args.weight, row)
    cdef double own = (1 - args.smoothing) * factor * weight_of(args.class_weight, label)
    cdef double rest = args.smoothing * factor / n
    cdef double log_sum, of_class, loss = 0, every = 0
    cdef real most, sum
    if rest > 0:
        for c in range(n):
            every += rest * weight_of(args.class_weight, c)
    if own + every == 0:
        ignore_row(args, row)
        return
    softmax_row(z, dz, n, label, 1, &most, &sum)
    if sum != sum and one_is_largest(z, n, dz, 0):
        dz[label] = dz[label] - 1
        sum = 1
    log_sum = first_lane(log_vec(fill(sum)))
    if own > 0:
        loss = own * surprise(log_sum, most, z[label])
    # dz is softmax - onehot so far.
    if every == 0:
        for c in range(n):
            dz[c] = dz[c] * <real>own
    else:
        for c in range(n):
            of_class = rest * weight_of(args.class_weight, c)
            if of_class > 0:
                loss += of_class * surprise(log_sum, most, z[c])
            dz[c] = dz[c] * <real>(own + every) - <real>of_class
        dz[label] = dz[label] + <real>every
    args.losses[row] = loss


cdef Py_ssize_t nll(const void *arguments, int thread, int threads) noexcept nogil:
    """losses[i] = -w_i z_i,label, where z holds log-probabilities, and the gradient.

    Returns 1 + the first row whose label is not a class.
    """
    cdef const CrossEntropyArgs *args = <const CrossEntropyArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t label, n = args.classes
    cdef const real *z = <const real *>args.logits
    cdef real *dz = <real *>args.dlogits
    cdef double factor, scale = divided(args.scale, args.weights)
    while i < end:
        label = args.labels[i]
        if is_ignored(label, args.ignore_index):
            ignore_row(args, i)
            i += 1
            continue
        if not 0 <= label < n:
            return 1 + i
        factor = scale * weight_of(args.weight, i) * weight_of(args.class_weight, label)
        memset(dz + i * n, 0, n * sizeof(real))
        dz[i * n + label] = <real>-factor
        args.losses[i] = -factor * z[i * n + label] if factor > 0 else 0
        i += 1
    return 0


cdef Py_ssize_t weight_total(const void *arguments, int thread, int threads) noexcept nogil:
    """total[0] = sum of the rows' weights, in order.

    Returns 1 if a weight is negative or NaN, or the total is infinite, or zero where a mean divides
    by it.
    """
    cdef const WeightTotalArgs *args = <const WeightTotalArgs *>arguments
    cdef double weight, total = 0
    cdef Py_ssize_t i
    cdef bint bad = False
    if thread > 0:
        return 0
    for i in range(args.rows):
        if args.labels != NULL and is_ignored(args.labels[i], args.ignore_index):
            continue
        weight = weight_of(args.weight, i)
        # A label that is no class is ignored here: the loss, which comes next, reports it.
        if args.class_weight != NULL and 0 <= args.labels[i] < args.classes:
            weight *= weight_of(args.class_weight, args.labels[i])
        bad = bad or not weight >= 0
        total += weight
    args.total[0] = total
    return bad or not total < INFINITY or (total == 0 and args.for_mean)


cdef Py_ssize_t softmax_cross_entropy(
    const void *arguments, int thread, int threads
) noexcept nogil:
    """losses[i] = -log softmax(z_i)_label, weighted and smoothed, and the gradient.

    Returns 1 + the first row whose label is not a class.
    """
    cdef const CrossEntropyArgs *args = <const CrossEntropyArgs *>arguments
    cdef Py_ssize_t begin = partition(args.rows, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t bad, first = begin
    cdef vec seen = fill(0)
    cdef bint plain = args.weight == NULL and args.class_weight == NULL and args.smoothing == 0
    plain = plain and args.ignore_index == -INFINITY
    while begin < end:
        if plain:
            bad = cross_entropy_rows(args, begin, smaller(end - begin, LOSS_ROWS), &seen)
        else:
            bad = weighted_rows(args, begin, smaller(end - begin, LOSS_ROWS))
        if bad:
            return bad
        begin += LOSS_ROWS
    if not lane_sum(seen) < INFINITY:
        take_limits(args, first, end - first)
    return 0


cdef inline vec mse_vec(vec prediction, vec target, vec parameter, vec *gradient) noexcept nogil:
    """e^2, e = prediction - target"""
    cdef vec error = prediction - target
    gradient[0] = 2 * error
    return error * error


cdef inline vec absolute_vec(
    vec prediction, vec target, vec parameter, vec *gradient
) noexcept nogil:
    """|e|, e = prediction - target"""
    cdef vec error = prediction - target
    cdef vec size = absolute(error)
    gradient[0] = where_less(fill(0), size, with_sign(fill(1), error), size)    # NaN stays
    return size


cdef inline vec huber_vec(vec prediction, vec target, vec delta, vec *gradient) noexcept nogil:
    """m (|e| - m / 2), m = min(|e|, delta): e^2 / 2 up to delta, delta (|e| - delta / 2) beyond."""
    cdef vec error = prediction - target
    cdef vec size = absolute(error)
    cdef vec near = minimum(delta, size)
    gradient[0] = with_sign(near, error)
    return near * (size - near * <real>0.5)


cdef inline vec bce_vec(vec z, vec target, vec parameter, vec *gradient) noexcept nogil:
    """|z| u + log(1 + exp(-|z|)), u = 1 - t for z > 0, else t.

    |z| u is max(z, 0) - z t, written so that no digits cancel. Where u is 0, that term is 0 even if
    z is infinite.
    """
    cdef vec below = minus_absolute(z)
    cdef vec e = exp_below(below)
    cdef vec wrong = where_less(z, fill(0), target, 1 - target)
    gradient[0] = where_less(z, fill(0), e, fill(1)) / (1 + e) - target
    below = where_less(fill(0), absolute(wrong), below, fill(0))    # NaN of z is in e as well
    return log1p_unit(e) - below * wrong


cdef inline vec parameter_of(
    const ElementLossArgs *args, Py_ssize_t j, Py_ssize_t left
) noexcept nogil:
    """The parameter of the next LANES columns from j on, of which `left` are left in the row."""
    if args.column == NULL:
        return fill(<real>args.delta)
    return load_columns(<const real *>args.column + j, left)


cdef inline void loss_of_rows(
    const ElementLossArgs *args, int thread, int threads,
    vec (*f)(vec, vec, vec, vec *) noexcept nogil
) noexcept nogil:
    """losses[row] = weight times the sum of f over the row, and the gradient of every element."""
    cdef Py_ssize_t row = partition(args.rows, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t columns = args.n // args.rows, j, left, stop
    cdef const real *prediction
    cdef const real *target
    cdef real *gradient
    cdef vec total, value, slope
    cdef double factor, sum
    while row < end:
        prediction = <const real *>args.prediction + row * columns
        target = <const real *>args.target + row * columns
        gradient = <real *>args.dprediction + row * columns
        factor = divided(args.scale, args.weights) * weight_of(args.weight, row)
        sum = 0
        j = 0
        if factor == 0:    # the row may hold anything
            memset(gradient, 0, columns * sizeof(real))
            j = columns
        while j < columns:
            stop = smaller(columns, j + LOSS_BLOCK)
            total = fill(0)
            while j < stop:
                left = columns - j
                value = f(
                    load_columns(prediction + j, left), load_columns(target + j, left),
                    parameter_of(args, j, left), &slope
                )
                store_columns(gradient + j, slope * <real>factor, left)
                if left < LANES:
                    value = keep_part(value, left)
                total = total + value
                j += LANES
            sum += lane_sum(total)
        args.losses[row] = factor * sum
        row += 1


cdef inline void losses_of_elements(
    const ElementLossArgs *args, int thread, int threads,
    vec (*f)(vec, vec, vec, vec *) noexcept nogil
) noexcept nogil:
    """losses[i] = weight of its row times f of element i, and the gradient of every element.

    Threads partition the rows, or the elements of the only row.
    """
    cdef Py_ssize_t row = partition(args.rows, LOSS_ROWS, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, LOSS_ROWS, thread + 1, threads)
    cdef Py_ssize_t columns = args.n // args.rows, first = 0, last = columns, i, j, left
    cdef real *gradient = <real *>args.dprediction
    cdef vec prediction, target, value, slope
    cdef real lanes[LANES]
    cdef double factor
    if args.rows == 1:
        row, end = 0, 1
        first = partition(columns, LOSS_BLOCK, thread, threads)
        last = partition(columns, LOSS_BLOCK, thread + 1, threads)
    while row < end:
        factor = weight_of(args.weight, row)
        i = row * columns + first
        left = last - first
        if factor == 0:    # the row may hold anything
            memset(gradient + i, 0, left * sizeof(real))
            memset(args.losses + i, 0, left * sizeof(double))
            row += 1
            continue
        while left > 0:
            prediction = load_columns(<const real *>args.prediction + i, left)
            target = load_columns(<const real *>args.target + i, left)
            value = f(prediction, target, parameter_of(args, last - left, left), &slope)
            store_columns(gradient + i, slope * <real>factor, left)
            store(lanes, value)
            for j in range(smaller(left, LANES)):
                args.losses[i + j] = factor * lanes[j]
            i += LANES
            left -= LANES
        row += 1


cdef inline void element_loss(
    const void *arguments, int thread, int threads,
    vec (*f)(vec, vec, vec, vec *) noexcept nogil
) noexcept nogil:
    """losses[block] = sum of f over LOSS_BLOCK elements, and the gradient of every element.

    With weights, or a parameter for every column, one loss per row; with `each`, one per element.
    """
    cdef const ElementLossArgs *args = <const ElementLossArgs *>arguments
    cdef vec delta = fill(<real>args.delta)
    cdef const real *prediction = <const real *>args.prediction
    cdef const real *target = <const real *>args.target
    cdef real *gradient = <real *>args.dprediction
    cdef Py_ssize_t i = partition(args.n, LOSS_BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, LOSS_BLOCK, thread + 1, threads)
    cdef Py_ssize_t stop, block, rest
    cdef vec total, other, value, slope
    cdef real lanes[LANES]
    cdef int j
    if args.each:
        losses_of_elements(args, thread, threads, f)
        return
    if args.weight != NULL or args.column != NULL:
        loss_of_rows(args, thread, threads, f)
        return
    while i < end:
        block = i // LOSS_BLOCK
        stop = smaller(end, i + LOSS_BLOCK)
        total = other = fill(0)
        while i + 2 * LANES <= stop:    # two sums, so that none waits for the other
            total = total + f(load(prediction + i), load(target + i), delta, &slope)
            store(gradient + i, slope * <real>args.scale)
            i += LANES
            other = other + f(load(prediction + i), load(target + i), delta, &slope)
            store(gradient + i, slope * <real>args.scale)
            i += LANES
        total = total + other
        while i + LANES <= stop:
            total = total + f(load(prediction + i), load(target + i), delta, &slope)
            store(gradient + i, slope * <real>args.scale)
            i += LANES
        args.losses[block] = lane_sum(total)
        if i < stop:
            rest = stop - i
            value = f(
                load_part(prediction + i, rest, 0), load_part(target + i, rest, 0), delta, &slope
            )
            store_part(gradient + i, slope * <real>args.scale, rest)
            store(lanes, value)
            for j in range(<int>rest):    # lanes beyond hold no element
                args.losses[block] += lanes[j]
            i = stop


cdef Py_ssize_t mse(const void *args, int thread, int threads) noexcept nogil:
    """(prediction - target)²"""
    element_loss(args, thread, threads, mse_vec)


cdef Py_ssize_t absolute_error(const void *args, int thread, int threads) noexcept nogil:
    """|prediction - target|"""
    element_loss(args, thread, threads, absolute_vec)


cdef Py_ssize_t huber(const void *args, int thread, int threads) noexcept nogil:
    """Huber's loss: quadratic up to delta, linear beyond"""
    element_loss(args, thread, threads, huber_vec)


cdef inline vec weighted_bce_vec(vec z, vec target, vec weight, vec *gradient) noexcept nogil:
    """w t log(1 + exp(-z)) + (1 - t) log(1 + exp(z)) = |z| u + (1 - t + w t) log(1 + exp(-|z|)).

    u = 1 - t for z > 0, else w t. Where u is 0, |z| u is 0 even if z is infinite.
    """
    cdef vec below = minus_absolute(z)
    cdef vec e = exp_below(below)
    cdef vec ones = weight * target
    cdef vec both = 1 - target + ones
    cdef vec wrong = where_less(z, fill(0), ones, 1 - target)
    gradient[0] = both * (where_less(z, fill(0), e, fill(1)) / (1 + e)) - ones
    below = where_less(fill(0), absolute(wrong), below, fill(0))
    return both * log1p_unit(e) - below * wrong


cdef Py_ssize_t bce_with_logits(const void *args, int thread, int threads) noexcept nogil:
    """-w t log s(z) - (1 - t) log(1 - s(z)), s the sigmoid, w the column's pos_weight, or 1"""
    if (<const ElementLossArgs *>args).column != NULL:
        element_loss(args, thread, threads, weighted_bce_vec)
    else:
        element_loss(args, thread, threads, bce_vec)


cdef inline vec pinball_vec(
    vec prediction, vec target, vec quantile, vec *gradient
) noexcept nogil:
    """q e for e > 0, else (q - 1) e, e = target - prediction; a gradient of 0 where e is 0."""
    cdef vec error = target - prediction
    cdef vec size = absolute(error)
    cdef vec slope = where_less(error, fill(0), quantile - 1, quantile)
    gradient[0] = where_less(fill(0), size, -slope, size)    # NaN stays
    return slope * error


cdef inline vec poisson_vec(vec z, vec target, vec parameter, vec *gradient) noexcept nogil:
    """exp(z) - t z, z the logarithm of the rate"""
    cdef vec rate = exp_vec(z)
    gradient[0] = rate - target
    return rate - target * z


cdef inline vec poisson_rate_vec(vec rate, vec target, vec eps, vec *gradient) noexcept nogil:
    """r - t log(r + eps)"""
    cdef vec above = rate + eps
    gradient[0] = 1 - target / above
    return rate - target * log_vec(above)


cdef inline vec stirling(vec target) noexcept nogil:
    """t log t - t + log(2 pi t) / 2, which is nearly log(t!); 0 for t <= 1."""
    cdef vec one = fill(1)
    cdef vec t = maximum(one, target)    # NaN stays
    cdef vec series = t * log_vec(t) - t + <real>0.5 * log_vec(t * <real>6.283185307179586)
    return where_less(one, t, series, t - 1)


cdef inline vec poisson_full_vec(vec z, vec target, vec parameter, vec *gradient) noexcept nogil:
    return poisson_vec(z, target, parameter, gradient) + stirling(target)


cdef inline vec poisson_rate_full_vec(vec rate, vec target, vec eps, vec *gradient) noexcept nogil:
    return poisson_rate_vec(rate, target, eps, gradient) + stirling(target)


cdef Py_ssize_t pinball(const void *args, int thread, int threads) noexcept nogil:
    """The loss whose minimum is a quantile: q e above the prediction, (q - 1) e below"""
    element_loss(args, thread, threads, pinball_vec)


cdef Py_ssize_t poisson_nll(const void *args, int thread, int threads) noexcept nogil:
    """exp(z) - t z; with `full` also log(t!) by Stirling"""
    if (<const ElementLossArgs *>args).full:
        element_loss(args, thread, threads, poisson_full_vec)
    else:
        element_loss(args, thread, threads, poisson_vec)


cdef Py_ssize_t poisson_rate_nll(const void *args, int thread, int threads) noexcept nogil:
    """r - t log(r + eps); with `full` also log(t!) by Stirling"""
    if (<const ElementLossArgs *>args).full:
        element_loss(args, thread, threads, poisson_rate_full_vec)
    else:
        element_loss(args, thread, threads, poisson_rate_vec)


cdef Py_ssize_t total(const void *arguments, int thread, int threads) noexcept nogil:
    """total[0] = scale * sum of parts. Returns 1 if that is not finite."""
    cdef const TotalArgs *args = <const TotalArgs *>arguments
    cdef double sums[TERMS]
    cdef double result = 0
    cdef Py_ssize_t i = 0, j
    if thread > 0:
        return 0
    for j in range(TERMS):
        sums[j] = 0
    while i + TERMS <= args.n:
        for j in range(TERMS):
            sums[j] += args.parts[i + j]
        i += TERMS
    for j in range(args.n - i):
        sums[j] += args.parts[i + j]
    for j in range(TERMS):
        result += sums[j]
    args.total[0] = result * args.scale
    return not -INFINITY < args.total[0] < INFINITY


KERNELS["nll"] = entry(nll, sizeof(CrossEntropyArgs))
KERNELS["weight_total"] = entry(weight_total, sizeof(WeightTotalArgs))
KERNELS["softmax_cross_entropy"] = entry(softmax_cross_entropy, sizeof(CrossEntropyArgs))
KERNELS["mse"] = entry(mse, sizeof(ElementLossArgs))
KERNELS["absolute_error"] = entry(absolute_error, sizeof(ElementLossArgs))
KERNELS["huber"] = entry(huber, sizeof(ElementLossArgs))
KERNELS["bce_with_logits"] = entry(bce_with_logits, sizeof(ElementLossArgs))
KERNELS["pinball"] = entry(pinball, sizeof(ElementLossArgs))
KERNELS["poisson_nll"] = entry(poisson_nll, sizeof(ElementLossArgs))
KERNELS["poisson_rate_nll"] = entry(poisson_rate_nll, sizeof(ElementLossArgs))
KERNELS["total"] = entry(total, sizeof(TotalArgs))
