# How a kernel partitions its outputs among threads, and cuts a row into vectors.

cdef enum:
    BLOCK = 1024      # elements of a block, for kernels that treat every element alike
    BLOCK_ROWS = 4    # rows of a block, for kernels that treat every row by itself


cdef inline Py_ssize_t smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


cdef inline Py_ssize_t larger(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a > b else b


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t partition(
    Py_ssize_t n, Py_ssize_t block, int thread, int threads
) noexcept nogil:
    """Where the partition of `thread` begins, which is where that of `thread - 1` ends.

    Partitions are whole blocks of n outputs. The same code computes a block whichever thread owns
    it, so the number of threads cannot change a bit of the result.
    """
    if threads == 1:
        return n if thread else 0
    return smaller(ceil_div(n, block) * thread // threads * block, n)


cdef inline Py_ssize_t largest_partition(
    Py_ssize_t n, Py_ssize_t block, int threads
) noexcept nogil:
    """The size of the largest of these partitions."""
    return smaller(ceil_div(ceil_div(n, block), threads) * block, n)


cdef inline vec load_columns(const real *row, Py_ssize_t columns) noexcept nogil:
    """Load the next LANES of the columns that are left; lanes beyond the last column are 0."""
    if columns >= LANES:
        return load(row)
    return load_part(row, columns, 0)


cdef inline void store_columns(real *row, vec v, Py_ssize_t columns) noexcept nogil:
    """Store the next LANES of the columns that are left, and nothing beyond the last column."""
    if columns >= LANES:
        store(row, v)
    else:
        store_part(row, v, columns)


cdef inline void accumulate_columns(
    real *row, vec sum, Py_ssize_t columns, Accumulate accumulate
) noexcept nogil:
    """Write a sum, add it to what is there, or add it to zero."""
    if accumulate == ADD:
        sum = sum + load_columns(row, columns)
    elif accumulate == ADD_TO_ZERO:
        sum = sum + fill(0)
    store_columns(row, sum, columns)
