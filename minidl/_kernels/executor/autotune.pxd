from libc.stdint cimport int64_t

cdef enum:
    SINGLE, TEAM    # the two candidates: the calling thread alone, or the team of threads

cdef struct ThreadChoice:
    int best                     # SINGLE or TEAM: what was faster so far
    bint trial, other            # whether a trial is on, and samples the other candidate now
    int lead                     # pairs in a row in which the other candidate was faster
    int64_t until_trial, spent, spent_on_other, cost_of_other    # nanoseconds
    int64_t backoff              # the next trial comes after so many times the cost of this one
    Py_ssize_t sampled           # steps in which `spent` was spent

cdef void reset(ThreadChoice *choice) noexcept nogil
cdef int choose(ThreadChoice *choice, int64_t *most) noexcept nogil
cdef void observe(ThreadChoice *choice, int64_t spent, Py_ssize_t steps) noexcept nogil
