# What a core can do at most: the ceilings of the benchmarks.

cdef Py_ssize_t fma_peak(const void *arguments, int thread, int threads) noexcept nogil:
    """Run as many independent chains of multiply-adds as the microkernel has, and nothing else.

    Each thread runs all `repetitions`, on a cache line of its own in x.
    """
    cdef const PeakArgs *args = <const PeakArgs *>arguments
    cdef real *x = <real *>args.x + thread * (64 // sizeof(real))
    cdef vec acc[MR][2]
    cdef vec factor = fill(<real>0.5)
    cdef vec term = load(x)
    cdef Py_ssize_t repetition
    cdef int i
    for i in range(MR):
        acc[i][0] = term
        acc[i][1] = term + term
    for repetition in range(args.repetitions):
        for i in range(MR):
            acc[i][0] = acc[i][0] * factor + term
            acc[i][1] = acc[i][1] * factor + term
    for i in range(1, MR):
        acc[0][0] = acc[0][0] + acc[i][0]
        acc[0][1] = acc[0][1] + acc[i][1]
    store(x, acc[0][0] + acc[0][1])


cdef Py_ssize_t read_peak(const void *arguments, int thread, int threads) noexcept nogil:
    """Read an array from end to end, as fast as its level of memory delivers it."""
    cdef const PeakArgs *args = <const PeakArgs *>arguments
    cdef Py_ssize_t begin = partition(args.n, 512 // sizeof(real), thread, threads)
    cdef Py_ssize_t n = partition(args.n, 512 // sizeof(real), thread + 1, threads) - begin
    cdef real *x = <real *>args.x + begin
    cdef vec acc[8]
    cdef Py_ssize_t repetition, i
    cdef int j
    for j in range(8):
        acc[j] = fill(0)
    for repetition in range(args.repetitions):
        i = 0
        while i + 8 * LANES <= n:
            for j in range(8):
                acc[j] = acc[j] + load(x + i + j * LANES)
            i += 8 * LANES
    for j in range(1, 8):
        acc[0] = acc[0] + acc[j]
    if n > 0:
        x[0] = lane_sum(acc[0])


KERNELS["fma_peak"] = entry(fma_peak, sizeof(PeakArgs))
KERNELS["read_peak"] = entry(read_peak, sizeof(PeakArgs))
