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


# --- variants of the above ---

cdef double SELU_GAIN = 1.0507009873554805
cdef double SELU_SLOPE = 1.7580993408473766    # SELU_GAIN * 1.6732632423543772
cdef double GELU_SCALE = 1.5957691216057308    # 2 √(2/pi)
cdef double GELU_CUBE = 0.044715

cdef enum:
    FAR = 1000    # beyond it nothing changes but a product with x, which must stay finite


cdef inline vec bounded(vec x) noexcept nogil:
    """x within ±FAR; NaN stays."""
    return maximum(fill(-FAR), minimum(fill(FAR), x))


cdef inline vec selu_vec(vec x) noexcept nogil:
    return where_less(x, fill(0), <real>SELU_SLOPE * expm1_vec(x), <real>SELU_GAIN * x)


cdef inline vec selu_grad_vec(vec dy, vec y) noexcept nogil:
    return where_negative(y, dy * (y + <real>SELU_SLOPE), <real>SELU_GAIN * dy)


cdef Py_ssize_t selu(const void *args, int thread, int threads) noexcept nogil:
    """y = gain x where x >= 0, else gain alpha (exp(x) - 1)"""
    map_one(args, thread, threads, selu_vec)


cdef Py_ssize_t selu_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = gain dy where x >= 0, else dy (y + gain alpha): y has the sign of x"""
    map_two(args, thread, threads, selu_grad_vec)


cdef inline vec celu_vec(vec x, vec alpha) noexcept nogil:
    return where_less(x, fill(0), alpha * expm1_vec(x / alpha), x)


cdef inline vec celu_grad_vec(vec dy, vec y, vec alpha) noexcept nogil:
    return where_negative(y, dy * (y / alpha + 1), dy)


cdef Py_ssize_t celu(const void *args, int thread, int threads) noexcept nogil:
    """y = x where x >= 0, else alpha (exp(x / alpha) - 1)"""
    map_one_with(args, thread, threads, celu_vec)


cdef Py_ssize_t celu_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy where x >= 0, else dy (y / alpha + 1): y has the sign of x"""
    map_two_with(args, thread, threads, celu_grad_vec)


cdef inline vec gelu_tanh_vec(vec x) noexcept nogil:
    cdef vec z = bounded(x)
    cdef vec inner = <real>GELU_SCALE * z * (1 + <real>GELU_CUBE * z * z)
    return maximum(fill(-FAR), x) * sigmoid_vec(inner)


cdef inline vec gelu_tanh_grad_vec(vec dy, vec x) noexcept nogil:
    cdef vec z = bounded(x)
    cdef vec inner = <real>GELU_SCALE * z * (1 + <real>GELU_CUBE * z * z)
    cdef vec slope = <real>GELU_SCALE * (1 + <real>(3 * GELU_CUBE) * z * z)
    cdef vec s = sigmoid_vec(inner), t = sigmoid_vec(-inner)
    return dy * s * (1 + z * t * slope)


cdef Py_ssize_t gelu_tanh(const void *args, int thread, int threads) noexcept nogil:
    """y = x sigmoid(2 √(2/pi) (x + 0.044715 x³)), which is x (1 + tanh(...)) / 2"""
    map_one(args, thread, threads, gelu_tanh_vec)


cdef Py_ssize_t gelu_tanh_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy s (1 + x (1 - s) slope), slope that of what the sigmoid s is of"""
    map_two(args, thread, threads, gelu_tanh_grad_vec)


cdef inline vec hard_sigmoid_vec(vec x) noexcept nogil:
    return maximum(fill(0), minimum(fill(1), x / 6 + <real>0.5))


cdef inline vec hard_sigmoid_grad_vec(vec dy, vec x) noexcept nogil:
    return where_less(fill(-3), x, where_less(x, fill(3), dy / 6, fill(0)), fill(0))


cdef Py_ssize_t hard_sigmoid(const void *args, int thread, int threads) noexcept nogil:
    """y = x / 6 + 1/2 within 0 and 1"""
    map_one(args, thread, threads, hard_sigmoid_vec)


cdef Py_ssize_t hard_sigmoid_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy / 6 where -3 < x < 3, else 0"""
    map_two(args, thread, threads, hard_sigmoid_grad_vec)


cdef inline vec hard_swish_vec(vec x) noexcept nogil:
    return maximum(fill(-FAR), x) * hard_sigmoid_vec(x)


cdef inline vec hard_swish_grad_vec(vec dy, vec x) noexcept nogil:
    cdef vec between = where_less(x, fill(3), dy * (x / 3 + <real>0.5), dy)
    return where_less(fill(-3), x, between, fill(0))


cdef Py_ssize_t hard_swish(const void *args, int thread, int threads) noexcept nogil:
    """y = x hard_sigmoid(x)"""
    map_one(args, thread, threads, hard_swish_vec)


cdef Py_ssize_t hard_swish_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy (x / 3 + 1/2) where -3 < x < 3; 0 below, dy above"""
    map_two(args, thread, threads, hard_swish_grad_vec)


cdef inline vec mish_vec(vec x) noexcept nogil:
    """x t, t = tanh(log(1 + exp(x))) = (u² + 2u) / (u² + 2u + 2), u = exp(x), by e = exp(-|x|)."""
    cdef vec e = exp_below(minus_absolute(x))
    cdef vec above = (1 + 2 * e) / (1 + 2 * e + 2 * e * e)
    cdef vec below = e * (e + 2) / (e * (e + 2) + 2)
    return maximum(fill(-FAR), x) * where_less(x, fill(0), below, above)


cdef inline vec mish_grad_vec(vec dy, vec x) noexcept nogil:
    """dy (t + x (1 - t²) sigmoid(x)), where 1 - t² = 4 (1 + u)² / (u² + 2u + 2)²."""
    cdef vec e = exp_below(minus_absolute(x))
    cdef vec high = 1 + 2 * e + 2 * e * e, low = e * (e + 2) + 2
    cdef vec t = where_less(x, fill(0), e * (e + 2) / low, (1 + 2 * e) / high)
    cdef vec root = where_less(x, fill(0), 2 * (1 + e) / low, 2 * e * (1 + e) / high)
    cdef vec s = where_less(x, fill(0), e, fill(1)) / (1 + e)
    return dy * (t + bounded(x) * root * root * s)


cdef Py_ssize_t mish(const void *args, int thread, int threads) noexcept nogil:
    """y = x tanh(log(1 + exp(x)))"""
    map_one(args, thread, threads, mish_vec)


cdef Py_ssize_t mish_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy (t + x (1 - t²) sigmoid(x)), t = tanh(log(1 + exp(x)))"""
    map_two(args, thread, threads, mish_grad_vec)


cdef inline vec softsign_vec(vec x) noexcept nogil:
    x = maximum(fill(-LARGEST), minimum(fill(LARGEST), x))
    return x / (1 + absolute(x))


cdef inline vec softsign_grad_vec(vec dy, vec x) noexcept nogil:
    cdef vec root = 1 / (1 + absolute(x))
    return dy * root * root


cdef Py_ssize_t softsign(const void *args, int thread, int threads) noexcept nogil:
    """y = x / (1 + |x|)"""
    map_one(args, thread, threads, softsign_vec)


cdef Py_ssize_t softsign_grad(const void *args, int thread, int threads) noexcept nogil:
    """dx = dy / (1 + |x|)²"""
    map_two(args, thread, threads, softsign_grad_vec)


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


KERNELS["relu"] = entry(relu, sizeof(UnaryArgs))
KERNELS["relu_grad"] = entry(relu_grad, sizeof(BinaryArgs))
KERNELS["leaky_relu"] = entry(leaky_relu, sizeof(UnaryWithArgs))
KERNELS["leaky_relu_grad"] = entry(leaky_relu_grad, sizeof(BinaryWithArgs))
KERNELS["elu"] = entry(elu, sizeof(UnaryWithArgs))
KERNELS["elu_grad"] = entry(elu_grad, sizeof(BinaryWithArgs))
KERNELS["sigmoid"] = entry(sigmoid, sizeof(UnaryArgs))
KERNELS["sigmoid_grad"] = entry(sigmoid_grad, sizeof(BinaryArgs))
KERNELS["tanh"] = entry(tanh, sizeof(UnaryArgs))
KERNELS["tanh_grad"] = entry(tanh_grad, sizeof(BinaryArgs))
KERNELS["silu"] = entry(silu, sizeof(UnaryArgs))
KERNELS["silu_grad"] = entry(silu_grad, sizeof(BinaryArgs))
KERNELS["softplus"] = entry(softplus, sizeof(UnaryWithArgs))
KERNELS["softplus_grad"] = entry(softplus_grad, sizeof(BinaryWithArgs))
KERNELS["gelu"] = entry(gelu, sizeof(UnaryArgs))
KERNELS["gelu_grad"] = entry(gelu_grad, sizeof(BinaryArgs))
KERNELS["prelu"] = entry(prelu, sizeof(PreluArgs))
KERNELS["prelu_grad"] = entry(prelu_grad, sizeof(PreluGradArgs))
KERNELS["selu"] = entry(selu, sizeof(UnaryArgs))
KERNELS["selu_grad"] = entry(selu_grad, sizeof(BinaryArgs))
KERNELS["gelu_tanh"] = entry(gelu_tanh, sizeof(UnaryArgs))
KERNELS["gelu_tanh_grad"] = entry(gelu_tanh_grad, sizeof(BinaryArgs))
KERNELS["hard_sigmoid"] = entry(hard_sigmoid, sizeof(UnaryArgs))
KERNELS["hard_sigmoid_grad"] = entry(hard_sigmoid_grad, sizeof(BinaryArgs))
KERNELS["hard_swish"] = entry(hard_swish, sizeof(UnaryArgs))
KERNELS["hard_swish_grad"] = entry(hard_swish_grad, sizeof(BinaryArgs))
KERNELS["mish"] = entry(mish, sizeof(UnaryArgs))
KERNELS["mish_grad"] = entry(mish_grad, sizeof(BinaryArgs))
KERNELS["softsign"] = entry(softsign, sizeof(UnaryArgs))
KERNELS["softsign_grad"] = entry(softsign_grad, sizeof(BinaryArgs))
KERNELS["celu"] = entry(celu, sizeof(UnaryWithArgs))
KERNELS["celu_grad"] = entry(celu_grad, sizeof(BinaryWithArgs))
