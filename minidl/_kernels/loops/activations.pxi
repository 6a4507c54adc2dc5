# Activations and their gradients, element by element. Threads partition the elements.
#
# A gradient takes y where that is enough to find the derivative, else x.

cdef inline vec relu_vec(vec x) noexcept nogil:
    return maximum(fill(0), x)    # in this order NaN stays NaN


cdef inline vec relu_grad_vec(vec dy, vec y) noexcept nogil:
    return where_less(fill(0), y, dy, fill(0))


cdef Py_ssize_t relu(const void *args, int thread, int threads) noexcept nogil:
    """y = max(0, x)"""
    map_one(args, thread, threads, relu_vec)


cdef Py_ssize_t relu_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy where y > 0, else 0"""
    map_two(args, thread, threads, relu_grad_vec)


cdef inline vec leaky_relu_vec(vec x, vec slope) noexcept nogil:
    return where_less(fill(0), x, x, slope * x)


cdef inline vec leaky_relu_grad_vec(vec dy, vec y, vec slope) noexcept nogil:
    return where_less(fill(0), y, dy, slope * dy)


cdef Py_ssize_t leaky_relu(const void *args, int thread, int threads) noexcept nogil:
    """y = x where x > 0, else slope x"""
    map_one_with(args, thread, threads, leaky_relu_vec)


cdef Py_ssize_t leaky_relu_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy where y > 0, else slope dy: y has the sign of x"""
    map_two_with(args, thread, threads, leaky_relu_grad_vec)


cdef inline vec elu_vec(vec x, vec alpha) noexcept nogil:
    return where_less(x, fill(0), alpha * expm1_vec(x), x)


cdef inline vec elu_grad_vec(vec dy, vec y, vec alpha) noexcept nogil:
    return where_negative(y, dy * (y + alpha), dy)    # of a tiny x, y may be -0


cdef Py_ssize_t elu(const void *args, int thread, int threads) noexcept nogil:
    """y = x where x >= 0, else alpha (exp(x) - 1)"""
    map_one_with(args, thread, threads, elu_vec)


cdef Py_ssize_t elu_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy where x >= 0, else dy (y + alpha): y has the sign of x"""
    map_two_with(args, thread, threads, elu_grad_vec)


cdef inline vec sigmoid_grad_vec(vec dy, vec y) noexcept nogil:
    return dy * y * (1 - y)


cdef Py_ssize_t sigmoid(const void *args, int thread, int threads) noexcept nogil:
    """y = 1 / (1 + exp(-x))"""
    map_one(args, thread, threads, sigmoid_vec)


cdef Py_ssize_t sigmoid_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy y (1 - y)"""
    map_two(args, thread, threads, sigmoid_grad_vec)


cdef inline vec tanh_grad_vec(vec dy, vec y) noexcept nogil:
    return dy * (1 - y * y)


cdef Py_ssize_t tanh(const void *args, int thread, int threads) noexcept nogil:
    """y = tanh(x)"""
    map_one(args, thread, threads, tanh_vec)


cdef Py_ssize_t tanh_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy (1 - y²)"""
    map_two(args, thread, threads, tanh_grad_vec)


# --- of these, x is kept finite where it may meet a factor of zero ---

cdef inline vec silu_vec(vec x) noexcept nogil:
    return maximum(fill(-1000), x) * sigmoid_vec(x)


cdef inline vec silu_grad_vec(vec dy, vec x) noexcept nogil:
    """dy s (1 + x t), s = sigmoid(x), t = sigmoid(-x), neither of them as 1 minus the other."""
    cdef vec e = exp_below(minus_absolute(x))
    cdef vec more = 1 / (1 + e)
    cdef vec less = e * more
    cdef vec s = where_less(x, fill(0), less, more)
    cdef vec t = where_less(x, fill(0), more, less)
    x = maximum(fill(-1000), minimum(fill(1000), x))
    return dy * s * (1 + x * t)


cdef Py_ssize_t silu(const void *args, int thread, int threads) noexcept nogil:
    """y = x sigmoid(x)"""
    map_one(args, thread, threads, silu_vec)


cdef Py_ssize_t silu_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy s (1 + x (1 - s)), with s = sigmoid(x)"""
    map_two(args, thread, threads, silu_grad_vec)


cdef inline vec softplus_vec(vec x, vec beta) noexcept nogil:
    """max(0, x) + log(1 + exp(-beta |x|)) / beta: exp cannot overflow."""
    return maximum(fill(0), x) + log1p_unit(exp_below(beta * minus_absolute(x))) / beta


cdef inline vec softplus_grad_vec(vec dy, vec x, vec beta) noexcept nogil:
    return dy * sigmoid_vec(beta * x)


cdef Py_ssize_t softplus(const void *args, int thread, int threads) noexcept nogil:
    """y = log(1 + exp(beta x)) / beta"""
    map_one_with(args, thread, threads, softplus_vec)


cdef Py_ssize_t softplus_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy sigmoid(beta x)"""
    map_two_with(args, thread, threads, softplus_grad_vec)


cdef inline vec gelu_vec(vec x) noexcept nogil:
    cdef vec density
    return maximum(fill(-1000), x) * normal_cdf(x, &density)


cdef inline vec gelu_grad_vec(vec dy, vec x) noexcept nogil:
    cdef vec density
    cdef vec below = normal_cdf(x, &density)
    x = maximum(fill(-1000), minimum(fill(1000), x))
    return dy * (below + x * density)


cdef Py_ssize_t gelu(const void *args, int thread, int threads) noexcept nogil:
    """y = x Phi(x), Phi the distribution of normal numbers"""
    map_one(args, thread, threads, gelu_vec)


cdef Py_ssize_t gelu_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy (Phi(x) + x phi(x)), phi the density of normal numbers"""
    map_two(args, thread, threads, gelu_grad_vec)


# --- PReLU: its slopes are an array, one for every column or one for all ---

cdef inline vec slope_at(const PreluArgs *args, Py_ssize_t j) noexcept nogil:
    """Load the slopes of the next columns."""
    if args.slopes == 1:
        return fill((<const real *>args.slope)[0])
    return load_columns(<const real *>args.slope + j, args.columns - j)


cdef Py_ssize_t prelu(const void *arguments, int thread, int threads) noexcept nogil:
    """y = x where x > 0, else slope x; threads partition the rows."""
    cdef const PreluArgs *args = <const PreluArgs *>arguments
    cdef Py_ssize_t i = partition(args.rows, 1, thread, threads)
    cdef Py_ssize_t end = partition(args.rows, 1, thread + 1, threads)
    cdef Py_ssize_t j, n = args.columns
    cdef const real *x
    cdef real *y
    while i < end:
        x, y = <const real *>args.x + i * n, <real *>args.y + i * n
        j = 0
        while j < n:
            store_columns(
                y + j, leaky_relu_vec(load_columns(x + j, n - j), slope_at(args, j)), n - j
            )
            j += LANES
        i += 1
    return 0


cdef Py_ssize_t prelu_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = dy where x > 0, else slope dy; dslope += sum over the rows of dy x where x <= 0.

    dslope has a sum for every column, even if there is one slope for all. Threads partition the
    columns.
    """
    cdef const PreluGradArgs *args = <const PreluGradArgs *>arguments
    cdef PreluArgs slopes
    cdef Py_ssize_t j = partition(args.columns, LANES, thread, threads)
    cdef Py_ssize_t columns_end = partition(args.columns, LANES, thread + 1, threads)
    cdef Py_ssize_t i, begin, end, at, left, n = args.columns
    cdef vec total, block, slope, x, dy
    slopes.slope, slopes.slopes, slopes.columns = args.slope, args.slopes, args.columns
    while j < columns_end:
        left = n - j
        slope = slope_at(&slopes, j)
        total = fill(0)
        begin = 0
        while begin < args.rows:
            end = smaller(begin + SUM_ROWS, args.rows)
            block = fill(0)
            for i in range(begin, end):
                at = i * n + j
                x = load_columns(<const real *>args.x + at, left)
                dy = load_columns(<const real *>args.dy + at, left)
                block = block + where_less(fill(0), x, fill(0), dy * x)
                store_columns(
                    <real *>args.dx + at, where_less(fill(0), x, dy, slope * dy), left
                )
            total = total + block
            begin = end
        accumulate_columns(<real *>args.dslope + j, total, left, args.accumulate)
        j += LANES
    return 0
