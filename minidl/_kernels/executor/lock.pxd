cdef extern from "pythread.h" nogil:
    ctypedef void *PyThread_type_lock


cdef class Waiter:
    cdef unsigned long thread
    cdef PyThread_type_lock bell     # held; whoever hands the lock to this thread releases it
    cdef bint served                 # whether the lock was handed to this thread
    cdef bint away                   # whether the thread runs signal handlers: it is skipped then


cdef class ProgramLock:
    cdef unsigned long holder        # the thread that has the lock; 0: none
    cdef list recordings             # for what it has it, the latest last: whether to record
    cdef readonly list waiting
    cdef int forks                   # of the process, when the fields above were last written

    cpdef int acquire(self, bint recording=*) except -1
    cpdef int release(self) except -1
    cdef int wait(self, Waiter waiter) except -1
    cdef int drop(self, Waiter waiter) except -1
    cdef int outlive_fork(self, unsigned long me) except -1
