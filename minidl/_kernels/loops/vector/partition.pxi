# How a kernel divides its outputs among threads, and a row among vectors.

cdef inline Py_ssize_t smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t partition(
    Py_ssize_t n, Py_ssize_t grain, int thread, int threads
) noexcept nogil:
    """Where the share of `thread` begins (and that of `thread - 1` ends), in whole grains.

    Every grain is computed by the same code whoever owns it, so that the number of threads
    cannot change a bit of the result.
    """
    if threads == 1:
        return n if thread else 0
    return smaller(ceil_div(n, grain) * thread // threads * grain, n)


cdef inline Py_ssize_t largest_partition(Py_ssize_t n, Py_ssize_t grain, int threads) noexcept nogil:
    """The size of the largest of these shares."""
    return smaller(ceil_div(ceil_div(n, grain), threads) * grain, n)


cdef inline vec load_columns(const real *row, Py_ssize_t columns) noexcept nogil:
    """The next LANES elements, or as many as there are."""
    if columns >= LANES:
        return load(row)
    return load_part(row, columns, 0)


cdef inline void store_columns(real *row, vec v, Py_ssize_t columns) noexcept nogil:
    if columns >= LANES:
        store(row, v)
    else:
        store_part(row, v, columns)


cdef inline void accumulate_columns(
    real *row, vec sum, Py_ssize_t columns, Accumulate accumulate
) noexcept nogil:
    """Write a sum, add it to what is there, or to zero."""
    if accumulate == ADD:
        sum = sum + load_columns(row, columns)
    elif accumulate == ADD_TO_ZERO:
        sum = sum + fill(0)
    store_columns(row, sum, columns)
