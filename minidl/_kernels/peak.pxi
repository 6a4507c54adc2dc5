# What this core can do at most.

cdef Py_ssize_t fma_peak(const void *arguments, int thread, int threads) noexcept nogil:
    """As many independent chains of multiply-adds as the microkernel has, and nothing else."""
    cdef const PeakArgs *args = <const PeakArgs *>arguments
    cdef real *x = <real *>args.x
    cdef vec acc[2 * MR]
    cdef vec factor = fill(<real>0.5)
    cdef vec term = load(x)
    cdef Py_ssize_t repetition
    cdef int i
    for i in range(2 * MR):
        acc[i] = term
    for repetition in range(args.repetitions):
        for i in range(2 * MR):
            acc[i] = acc[i] * factor + term
    for i in range(1, 2 * MR):
        acc[0] = acc[0] + acc[i]
    store(x, acc[0])
