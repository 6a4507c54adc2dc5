# Which algorithm computes a matrix product C (m x n) = A (m x k) . B (k x n).
#
# Shapes and strides decide, and whether C is added to; never the number of threads or an address.
# So a product has the same bits on any number of threads. At most one condition below holds.

cdef enum Algorithm:
    BLOCKS          # the loops over blocks that stay in the caches: matmul.pxi
    GEMV            # one row of A, or one column: skinny.pxi, as the next two
    DOT_ROWS        # few rows of A, B transposed
    NARROW          # few columns of B
    TRANSPOSED      # C' = B' . A', which is then transposed: transposed.pxi

cdef enum:
    NARROW_COLUMNS = 4    # at most


cdef inline Algorithm algorithm_of(const MatmulArgs *args) noexcept nogil:
    """Choose the algorithm."""
    if is_gemv(args):
        return GEMV
    if is_dot_rows(args):
        return DOT_ROWS
    if is_narrow(args):
        return NARROW
    if is_transposed(args):
        return TRANSPOSED
    return BLOCKS


cdef inline bint is_gemv(const MatmulArgs *args) noexcept nogil:
    """One row of A, or a single step over k (the weight gradient of a batch of one).

    An element of B is used too seldom to be copied or kept: B is read in the order in which it
    lies in memory, as fast as that delivers it. Tiles are faster where few columns meet a long sum,
    and where a C narrower than a vector is added to.
    """
    if args.b_col != 1 or args.k == 0 or is_narrow(args):
        return False
    return args.m == 1 or (args.k == 1 and (args.n >= LANES or args.accumulate != ADD))


cdef inline bint is_dot_rows(const MatmulArgs *args) noexcept nogil:
    """Few rows times a transposed B: packing B would cost more than the product."""
    return args.m < 8 and args.a_col == 1 and args.b_row == 1 and args.b_col != 1


cdef inline bint is_narrow(const MatmulArgs *args) noexcept nogil:
    """So few columns that vectors along them would be mostly empty: vectors along k instead."""
    return (
        1 <= args.n <= smaller(NARROW_COLUMNS, LANES) and args.k >= LANES
        and args.a_col == 1 and args.b_col == 1 and args.c_row == args.n
    )


cdef inline bint is_transposed(const MatmulArgs *args) noexcept nogil:
    """Whether computing C' = B' . A' and transposing that is less work.

    With a transposed B, something must be transposed in memory: B (k n elements), or A and C
    ((k + n) m elements). With a transposed A and a plain B, C' needs no other transpose than that
    of C' itself. It pays where C is so narrow that vectors along its rows are mostly empty: the
    weight gradient of a last layer.
    """
    if args.bias != NULL:
        return False
    if args.b_col != 1:
        return (
            args.a_col == 1 and 8 <= args.m <= 128 and 2 * args.m <= args.k
            and not args.accumulate
        )
    return (
        args.a_row == 1 and args.a_col != 1 and args.c_row == args.n
        and args.n < LANES <= args.m and args.k >= LANES
        and 4 * ceil_div(args.m, LANES) * args.n <= 3 * args.m
    )
