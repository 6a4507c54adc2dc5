# exp, log, sigmoid, tanh and the normal distribution of a register full of numbers, without
# branches.
#
# They use Taylor series where a variable is small, and identities that make it small. Only
# `tanh_by_table` and `mills_ratio` have fitted constants. `make exhaustive` measures the errors
# over every float32.

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
    if VEC_BYTES == 16 and sizeof(real) == 4:
        # Here a multiply-add may round twice; r^2 / 2 does not, added by itself.
        return r + (r2 * <real>(1.0 / 2) + r2 * (tail * r2 + r * <real>(1.0 / 6)))
    tail = tail * r2 + (<real>(1.0 / 2) + r * <real>(1.0 / 6))
    return r + r2 * tail


cdef inline vec exp_limit() noexcept nogil:
    """A bound beyond which exp(x) overflows, and exp(-x) underflows to zero."""
    return fill(104 if sizeof(real) == 4 else 746)


cdef inline vec exp_below(vec x) noexcept nogil:
    """exp(x) for x <= exp_limit(), such as all x that cannot be positive."""
    cdef vec k, bits
    x = maximum(-exp_limit(), x)
    k = nearest(x * <real>LOG2_E, 2 * EXPONENT_BIAS, &bits)
    x = x - k * <real>LN2_HIGH - k * <real>LN2_LOW
    return one_plus_times_power_of_two(exp_minus_one(x), k, bits)


cdef inline vec exp_vec(vec x) noexcept nogil:
    """exp(x) = 2^k exp(r), where x = k ln 2 + r for a whole k and |r| <= ln(2) / 2."""
    return exp_below(minimum(exp_limit(), x))


cdef inline vec sigmoid_vec(vec x) noexcept nogil:
    """1 - q for x >= 0 and e - e q for x < 0, with e = exp(-|x|) <= 1 and q = e / (1 + e).

    Both are 1 / (1 + exp(-x)); neither overflows, and the rounding of 1 + e hardly enters.
    """
    cdef vec e = exp_below(minus_absolute(x))
    cdef vec a = where_less(x, fill(0), e, fill(1))
    return a - a * (e / (1 + e))


cdef inline vec tanh_by_table(vec x) noexcept nogil:
    """tanh |x| = sum_n c_n y^n, y = |x| - m. Tables give m, near the middle of an interval, and c.

    c_0 = tanh(m) is very nearly a number of this type, so that only the last sum rounds.
    """
    cdef vec size = minimum(fill(10), absolute(x))    # beyond, tanh rounds to 1
    cdef vec place = maximum(fill(<real>0.0625), size)    # up to here there is one interval
    cdef vec y = size - pick(TANH_TABLE[0], place)
    cdef vec sum = pick(TANH_TABLE[6], place)
    sum = sum * y + pick(TANH_TABLE[5], place)
    sum = sum * y + pick(TANH_TABLE[4], place)
    sum = sum * y + pick(TANH_TABLE[3], place)
    sum = sum * y + pick(TANH_TABLE[2], place)
    sum = sum * y + pick(TANH_TABLE[1], place)
    return with_sign(sum, x)


cdef inline vec tanh_vec(vec x) noexcept nogil:
    """tanh |x| = q = h / (1 + h), where 2 h = exp(2 |x|) - 1 = 2^k (exp(r) - 1) + (2^k - 1).

    No digits of h cancel. For small |x| the result is h - h q, in which the rounding of 1 + h
    hardly enters. Tables, where there are any, take two thirds of the time.
    """
    if TANH_BY_TABLE:
        return tanh_by_table(x)
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

    2 artanh(s) = 2s + 2/3 s^3 + 2/5 s^5 + ..., and 2s = f - f^2/2 + s f^2/2. The sum is so ordered
    that f, which is exact, is added last.
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


cdef inline vec expm1_vec(vec x) noexcept nogil:
    """exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1) for x <= 0; no digits cancel near zero."""
    cdef vec limit = fill(-20 if sizeof(real) == 4 else -40)    # beyond, it rounds to -1
    cdef vec bits, power, k
    x = maximum(limit, minimum(fill(0), x))
    k = nearest(x * <real>LOG2_E, EXPONENT_BIAS, &bits)
    power = power_of_two(bits)
    x = x - k * <real>LN2_HIGH - k * <real>LN2_LOW
    return exp_minus_one(x) * power + (power - 1)


cdef inline vec two_terms(vec q, vec t, vec t2, const double a, const double b) noexcept nogil:
    """q t^2 + a + b t: a step of Horner's rule over pairs of terms."""
    return q * t2 + (<real>a + t * <real>b)


cdef inline vec mills_ratio(vec a) noexcept nogil:
    """(1 - Phi(a)) exp(a^2 / 2) for a >= 0, Phi the distribution of normal numbers.

    It falls like 1 / a, so times a + 4 it is smooth in t = (a - 4) / (a + 4) up to infinity
    (Shepherd and Laframboise 1981): a polynomial, which agrees with it in the Chebyshev points of
    0 <= a <= 15 or 39, computed with 50 digits. Relative error 1.4e-8 or 4e-18.
    """
    cdef vec inverse = 1 / (a + 4)
    cdef vec t = 2 * (a * inverse) - 1    # so rounded, it is most exact near a = 0
    cdef vec t2 = t * t
    cdef vec q
    if sizeof(real) == 4:
        q = <real>9.44982597e-5 + t * <real>-6.27791928e-5
        q = two_terms(q, t, t2, -0.00176048641, 0.000783440844)
        q = two_terms(q, t, t2, 0.0302030928, -0.00376270121)
        q = two_terms(q, t, t2, 0.193568342, -0.0932616534)
        q = two_terms(q, t, t2, 0.377642569, -0.303948297)
    else:
        q = <real>-1.26104972893903677e-9 + t * <real>-3.63120990520478965e-10
        q = two_terms(q, t, t2, 9.80980543067777987e-9, 9.59138510186670131e-10)
        q = two_terms(q, t, t2, -4.27042090784256249e-8, 6.64039889365516392e-9)
        q = two_terms(q, t, t2, 1.35902264812964179e-7, -7.74824587112372523e-8)
        q = two_terms(q, t, t2, -3.14848280290791166e-7, 5.10777018598050767e-7)
        q = two_terms(q, t, t2, 3.58333162261051559e-7, -2.96008666150805146e-6)
        q = two_terms(q, t, t2, -9.54129239886716554e-7, 0.0000175723430265017315)
        q = two_terms(q, t, t2, 0.0000666721562048228683, -0.000115547467584729507)
        q = two_terms(q, t, t2, -0.00173984618369679758, 0.000815409228794350596)
        q = two_terms(q, t, t2, 0.0301982874454682803, -0.00377009448336339579)
        q = two_terms(q, t, t2, 0.193568700371107270, -0.0932609289798286234)
        q = two_terms(q, t, t2, 0.377642565207875747, -0.303948320985946054)
    return 2 * inverse * q


cdef inline vec normal_cdf(vec x, vec *density) noexcept nogil:
    """Phi(x), the probability of less than x, and its derivative exp(-x^2 / 2) / sqrt(2 pi).

    x^2 = near^2 + (x - near)(x + near), where near has so few digits that its square is exact:
    rounding x^2 would cost exp(-x^2 / 2) its last digits.
    """
    cdef vec limit = fill(16 if sizeof(real) == 4 else 40)    # beyond, both round to 0 or 1
    cdef vec steps = fill(256 if sizeof(real) == 4 else 1048576)
    cdef vec a = minimum(limit, absolute(x))
    cdef vec near, rest, k, bits, power
    near = nearest(a * steps, 0, &bits) / steps
    rest = (a - near) * (a + near) * <real>0.5
    near = near * near * <real>-0.5
    k = nearest((near - rest) * <real>LOG2_E, 2 * EXPONENT_BIAS, &bits)
    near = near - k * <real>LN2_HIGH - (k * <real>LN2_LOW + rest)
    power = one_plus_times_power_of_two(exp_minus_one(near), k, bits)
    density[0] = power * <real>0.3989422804014327
    power = power * mills_ratio(a)
    return where_less(x, fill(0), power, 1 - power)
