# exp, sigmoid and tanh of a register full of numbers, without branches.
#
# All three stand on exp(r) - 1 for |r| <= ln(2) / 2, where its Taylor series needs few terms,
# and on exp(k ln 2 + r) = 2^k exp(r). The exhaustive test measures their errors.

# 355 / 512: so short that k * LN2_HIGH is exact for every exponent k.
cdef enum:
    EXP_TERMS_FLOAT32 = 7
    EXP_TERMS_FLOAT64 = 13
cdef double LOG2_E = 1.4426950408889634
cdef double LN2_HIGH = 0.693359375
cdef double LN2_LOW = -2.1219444005469058e-4


cdef inline vec exp_reduced(vec x, vec *k) noexcept nogil:
    """exp(r) - 1, where x = k ln 2 + r. Far beyond overflow and underflow x is clamped."""
    cdef real limit = 104 if sizeof(real) == 4 else 746
    cdef vec r, tail
    x = where_less(x, fill(-limit), fill(-limit), x)
    x = where_less(fill(limit), x, fill(limit), x)
    k[0] = nearest(x * <real>LOG2_E)
    r = x - k[0] * <real>LN2_HIGH
    r = r - k[0] * <real>LN2_LOW
    # tail = 1/2! + r/3! + r^2/4! + ..., by Horner's rule
    if sizeof(real) == 4:
        tail = fill(<real>(1.0 / 5040))
        tail = tail * r + <real>(1.0 / 720)
    else:
        tail = fill(<real>(1.0 / 6227020800.0))
        tail = tail * r + <real>(1.0 / 479001600)
        tail = tail * r + <real>(1.0 / 39916800)
        tail = tail * r + <real>(1.0 / 3628800)
        tail = tail * r + <real>(1.0 / 362880)
        tail = tail * r + <real>(1.0 / 40320)
        tail = tail * r + <real>(1.0 / 5040)
        tail = tail * r + <real>(1.0 / 720)
    tail = tail * r + <real>(1.0 / 120)
    tail = tail * r + <real>(1.0 / 24)
    tail = tail * r + <real>(1.0 / 6)
    tail = tail * r + <real>(1.0 / 2)
    return r + r * r * tail


cdef inline vec exp_vec(vec x) noexcept nogil:
    """exp(x)."""
    cdef vec k
    cdef vec r = exp_reduced(x, &k)
    return times_power_of_two(1 + r, k)


cdef inline vec sigmoid_vec(vec x) noexcept nogil:
    """1 / (1 + exp(-x)), by exp(-|x|) <= 1, which never overflows."""
    cdef vec e = exp_vec(-absolute(x))
    return where_less(x, fill(0), e, fill(1)) / (1 + e)


cdef inline vec tanh_vec(vec x) noexcept nogil:
    """-t / (t + 2) with t = exp(-2 |x|) - 1, which loses no digits near zero; sign of x."""
    cdef vec k, t, power
    t = exp_reduced(-(absolute(x) + absolute(x)), &k)
    power = times_power_of_two(fill(1), k)
    t = power * t + (power - 1)
    return copy_sign(-t / (t + 2), x)


cdef inline vec log1p_unit(vec e) noexcept nogil:
    """log(1 + e) for 0 <= e <= 1: 2 artanh(s), s = e / (2 + e) <= 1/3, by its Taylor series."""
    cdef vec s = e / (2 + e)
    cdef vec s2 = s * s
    cdef int n = 17 if sizeof(real) == 4 else 35
    cdef vec series = fill(<real>(1.0 / n))
    while n > 1:
        n -= 2
        series = series * s2 + <real>(1.0 / n)
    return 2 * s * series
