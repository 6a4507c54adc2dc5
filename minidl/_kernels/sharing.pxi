# How a kernel divides its outputs among threads.

cdef inline Py_ssize_t smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t share_begin(
    Py_ssize_t n, Py_ssize_t grain, int thread, int threads
) noexcept nogil:
    """Where the share of `thread` begins (and that of `thread - 1` ends), in whole grains.

    Every grain is computed by the same code whoever owns it, so that the number of threads
    cannot change a bit of the result.
    """
    return smaller(ceil_div(n, grain) * thread // threads * grain, n)
