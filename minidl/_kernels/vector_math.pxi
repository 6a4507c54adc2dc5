# exp, sigmoid, tanh and log(1 + x) of a register full of numbers, without branches.
#
# No table and no fitted constant: Taylor series where a variable is small, and identities that
# make it small. `make exhaustive` measures the errors over every float32.

cdef double LOG2_E = 1.4426950408889634
cdef double LN2_HIGH = 0.693359375              # 355 / 512: k * LN2_HIGH is exact
cdef double LN2_LOW = -2.1219444005469058e-4


cdef inline vec exp_vec(vec x) noexcept nogil:
    """exp(x) = 2^k exp(r), where x = k ln 2 + r and |r| <= ln(2) / 2.

    Sums of a large and a small term are kept with their rounding error, found as
    small - (sum - large), so that the error of the whole is little more than one rounding.
    """
    cdef real limit = 104 if sizeof(real) == 4 else 746    # far beyond overflow and underflow
    cdef vec k, low, r, tail, total
    x = where_less(x, fill(-limit), fill(-limit), x)
    x = where_less(fill(limit), x, fill(limit), x)
    k = nearest(x * <real>LOG2_E)
    x = x - k * <real>LN2_HIGH
    low = k * <real>LN2_LOW
    r = x - low
    low = (x - r) - low
    # exp(r) = 1 + r + r^2 tail, tail = 1/2! + r/3! + r^2/4! + ..., by Horner's rule
    if sizeof(real) == 4:
        tail = fill(<real>(1.0 / 5040))
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
    total = 1 + r
    low = low + (r - (total - 1))
    return times_power_of_two(total + (r * r * tail + low), k)


cdef inline vec sigmoid_vec(vec x) noexcept nogil:
    """1 - q for x >= 0 and e - e q for x < 0, with e = exp(-|x|) <= 1 and q = e / (1 + e).

    Both are 1 / (1 + exp(-x)); neither overflows, and the rounding of 1 + e hardly enters.
    """
    cdef vec e = exp_vec(-absolute(x))
    cdef vec a = where_less(x, fill(0), e, fill(1))
    return a - a * (e / (1 + e))


cdef inline vec tanh_vec(vec x) noexcept nogil:
    """a - a q: for large |x|, 1 - 2 / (1 + exp(2 |x|)), and for small |x|, x - x q with q
    from Lambert's continued fraction, x / (1 + x^2 / (3 + x^2 / (5 + ...)))."""
    cdef vec size = absolute(x)
    cdef vec z = x * x
    cdef vec above, below, a
    cdef vec limit = fill(<real>0.55)
    if sizeof(real) == 4:
        above = z * (z * 14 + 315)
        below = (z * 15 + 420) * z + 945
    else:
        above = z * (((z * 44 + 12870) * z + 810810) * z + 11486475)
        below = (((z * 45 + 13860) * z + 945945) * z + 16216200) * z + <real>34459425
    above = where_less(size, limit, above, fill(2))
    below = where_less(size, limit, below, 1 + exp_vec(size + size))
    a = where_less(size, limit, size, fill(1))
    return copy_sign(a - a * (above / below), x)


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
