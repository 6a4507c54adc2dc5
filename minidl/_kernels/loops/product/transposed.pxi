# The product by way of its transpose: C' = B' . A', computed in scratch memory, then transposed.

cdef inline MatmulArgs transposed_product(const MatmulArgs *args) noexcept nogil:
    """The product C' = B' . A', without a place for C'. The activation is applied to C later."""
    cdef MatmulArgs other = args[0]
    other.a, other.a_row, other.a_col = args.b, args.b_col, args.b_row
    other.b, other.b_row, other.b_col = args.a, args.a_col, args.a_row
    other.m, other.n, other.c_row = args.n, args.m, args.m
    other.activation = NO_ACTIVATION
    return other


cdef inline Py_ssize_t scratch_of_transposed(const MatmulArgs *args) noexcept nogil:
    """Elements for the packed blocks, for C', and for its transpose if that is added to C."""
    cdef MatmulArgs other = transposed_product(args)
    return scratch_of_blocks(&other) + 2 * packed_row(other.m * other.n)


cdef void multiply_transposed(
    const MatmulArgs *args, real *scratch, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Columns begin … end of C: rows of C' in scratch memory, then transposed."""
    cdef MatmulArgs other = transposed_product(args)
    cdef real *c = scratch + scratch_of_blocks(&other)
    cdef real *sums = c + packed_row(other.m * other.n)
    other.c = c - begin * other.c_row    # its rows are counted from `begin`
    other.accumulate = WRITE
    multiply_blocks(&other, scratch, begin, end, 0, other.n)
    if args.accumulate == WRITE:
        pack_transposed(
            c, other.c_row, <real *>args.c + begin, args.m, end - begin, args.c_row, end - begin
        )
        return
    if end > begin:    # only where C is narrow, so that one thread has all of it
        add_transposed(c, sums, <real *>args.c, args.m, args.n, args.accumulate)


cdef void add_transposed(
    const real *x, real *scratch, real *c, Py_ssize_t m, Py_ssize_t n, Accumulate accumulate
) noexcept nogil:
    """c (m x n, contiguous) += the transpose of x, which is formed in m n elements of scratch."""
    cdef Py_ssize_t i = 0, size = m * n
    pack_transposed(x, m, scratch, m, n, n, n)
    while i < size:
        accumulate_columns(c + i, load_columns(scratch + i, size - i), size - i, accumulate)
        i += LANES
