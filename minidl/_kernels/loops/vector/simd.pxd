# Declares simd.h to Cython. `vec` is declared as a float only so that Cython passes its arithmetic
# on to C, where `vec` is a register full of `real`.
cdef extern from "simd.h" nogil:
    ctypedef float real
    ctypedef float vec
    ctypedef int ivec
    ctypedef unsigned long long float_mode
    enum: VEC_BYTES, LANES, ACCUMULATORS, TILE_VECTORS, MR, NR, KC, MANTISSA_BITS, EXPONENT_BIAS
    const real SMALLEST_NORMAL, LARGEST, EPSILON

    vec load(const real *p)
    void store(real *p, vec v)
    void prefetch(const real *p)
    void prefetch_l2(const real *p)
    vec load_part(const real *p, Py_ssize_t n, real rest)
    void store_part(real *p, vec v, Py_ssize_t n)
    vec load_first(const real *p, Py_ssize_t n, Py_ssize_t room)
    void store_first(real *p, vec v, Py_ssize_t n, Py_ssize_t room)
    vec keep_part(vec v, Py_ssize_t n)
    ivec first_lanes(Py_ssize_t n)
    vec masked(vec v, ivec mask)
    vec fill(real value)
    vec minimum(vec a, vec b)
    vec maximum(vec a, vec b)
    vec maximum_or_nan(vec a, vec b)
    vec spread_sum(vec v)
    vec spread_max(vec v)
    real first_lane(vec v)
    real lane_sum(vec v)
    vec where_less(vec a, vec b, vec x, vec y)
    vec where_negative(vec v, vec x, vec y)
    vec absolute(vec v)
    vec minus_absolute(vec v)
    vec with_sign(vec v, vec sign)
    vec square_root(vec v)
    vec quotient(vec a, vec b)
    float_mode flush_subnormals()
    void set_float_mode(float_mode mode)
    vec nearest(vec v, const int bias, vec *bits)
    vec power_of_two(vec bits)
    vec one_plus_times_power_of_two(vec v, vec k, vec bits)
    vec split_exponent(vec v, vec *k)
    enum: TANH_BY_TABLE
    const real TANH_TABLE[7][32]
    vec pick(const real *table, vec v)
    vec merge_low(vec a, vec b, const int step)
    vec merge_high(vec a, vec b, const int step)
