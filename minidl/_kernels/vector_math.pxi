# exp, log, sigmoid and tanh of a register full of numbers, without branches.
#
# No table and no fitted constant: Taylor series where a variable is small, and identities that
# make it small. `make exhaustive` measures the errors over every float32.

cdef double LOG2_E = 1.4426950408889634
cdef double LN2 = 0.6931471805599453
cdef double LN2_REST = 2.3190468138462996e-17    # what a double LN2 lacks
cdef double LN2_HIGH = 0.693359375              # 355 / 512: k * LN2_HIGH is exact
cdef double LN2_LOW = -2.1219444005469058e-4


cdef inline vec exp_minus_one(vec r) noexcept nogil:
    """exp(r) - 1 for |r| <= ln(2) / 2."""
    cdef vec r2 = r * r
    cdef vec tail
    # r + r^2 tail, tail = 1/2! + r/3! + r^2/4! + ..., by Horner's rule over pairs of terms:
    # half as many steps that wait for one another
    if sizeof(real) == 4:
        tail = <real>(1.0 / 720) + r * <real>(1.0 / 5040)
    else:
        tail = <real>(1.0 / 479001600) + r * <real>(1.0 / 6227020800.0)
        tail = tail * r2 + (<real>(1.0 / 3628800) + r * <real>(1.0 / 39916800))
        tail = tail * r2 + (<real>(1.0 / 40320) + r * <real>(1.0 / 362880))
        tail = tail * r2 + (<real>(1.0 / 720) + r * <real>(1.0 / 5040))
    tail = tail * r2 + (<real>(1.0 / 24) + r * <real>(1.0 / 120))
    tail = tail * r2 + (<real>(1.0 / 2) + r * <real>(1.0 / 6))
    return r + r2 * tail


cdef inline vec exp_vec(vec x) noexcept nogil:
    """exp(x) = 2^k exp(r), where x = k ln 2 + r for a whole k and |r| <= ln(2) / 2."""
    cdef vec limit = fill(104 if sizeof(real) == 4 else 746)    # far beyond over- and underflow
    cdef vec k, bits
    x = maximum(-limit, minimum(limit, x))
    k = nearest(x * <real>LOG2_E, 2 * EXPONENT_BIAS, &bits)
    x = x - k * <real>LN2_HIGH - k * <real>LN2_LOW
    return one_plus_times_power_of_two(exp_minus_one(x), bits)


cdef inline vec sigmoid_vec(vec x) noexcept nogil:
    """1 - q for x >= 0 and e - e q for x < 0, with e = exp(-|x|) <= 1 and q = e / (1 + e).

    Both are 1 / (1 + exp(-x)); neither overflows, and the rounding of 1 + e hardly enters.
    """
    cdef vec e = exp_vec(-absolute(x))
    cdef vec a = where_less(x, fill(0), e, fill(1))
    return a - a * (e / (1 + e))


cdef inline vec tanh_vec(vec x) noexcept nogil:
    """q = h / (1 + h), where 2 h = exp(2 |x|) - 1 = 2^k (exp(r) - 1) + (2^k - 1) keeps its digits.

    For small |x| that is h - h q, in which the rounding of 1 + h hardly enters.
    """
    cdef vec limit = fill(10 if sizeof(real) == 4 else 20)      # beyond, tanh rounds to 1
    cdef vec size = minimum(limit, absolute(x))
    cdef vec bits, power, h, q
    cdef vec k = nearest(size * <real>(2 * LOG2_E), EXPONENT_BIAS - 1, &bits)
    power = power_of_two(bits)    # 2^(k - 1)
    h = size + size - k * <real>LN2    # for larger k, its error matters less
    if sizeof(real) == 8:
        h = h - k * <real>LN2_REST
    h = exp_minus_one(h) * power + (power - <real>0.5)
    q = h / (1 + h)
    return with_sign(where_less(size, fill(<real>0.35), h - h * q, q), x)


cdef inline vec log_near(vec f, vec k) noexcept nogil:
    """log(2^k (1 + f)), 1 + f between sqrt(1/2) and sqrt(2): k ln 2 + 2 artanh(s), s = f / (2 + f).

    2 artanh(s) = 2s + 2/3 s^3 + 2/5 s^5 + ..., and 2s = f - f^2/2 + s f^2/2. Written so that f,
    which is exact, is added last.
    """
    cdef vec s = f / (2 + f)
    cdef vec s2 = s * s
    cdef vec half = f * f * <real>0.5
    cdef int n = 9 if sizeof(real) == 4 else 21
    cdef vec series = fill(<real>(2.0 / n))
    while n > 3:
        n -= 2
        series = series * s2 + <real>(2.0 / n)
    return k * <real>LN2_HIGH - ((half - (s * (half + s2 * series) + k * <real>LN2_LOW)) - f)


cdef inline vec log_vec(vec x) noexcept nogil:
    """log(x), where x = 2^k m and m lies between sqrt(1/2) and sqrt(2)."""
    cdef vec tiny = fill(SMALLEST_NORMAL)
    cdef vec bad = where_less(x, fill(0), fill(NAN), fill(-INFINITY))
    cdef vec lift = where_less(x, tiny, fill(MANTISSA_BITS + 1), fill(0))    # of a subnormal
    cdef vec factor = where_less(x, tiny, fill(<real>(2.0 / EPSILON)), fill(1))    # 2^lift
    cdef vec k, m
    m = split_exponent(x * factor, &k)
    m = where_less(fill(0), x, log_near(m - 1, k - lift), bad)
    return where_less(x, fill(INFINITY), m, x)    # infinity and NaN stay


cdef inline vec log1p_unit(vec e) noexcept nogil:
    """log(1 + e) for 0 <= e <= 1."""
    cdef vec limit = fill(<real>0.4142)    # sqrt(2) - 1, beyond which (1 + e) / 2 is nearer to 1
    cdef vec half = (e - 1) * <real>0.5
    return log_near(where_less(limit, e, half, e), where_less(limit, e, fill(1), fill(0)))
