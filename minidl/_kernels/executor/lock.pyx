"""Let the programs of a step run one at a time, in the order in which threads call: a fair lock."""

from cpython.exc cimport PyErr_CheckSignals

import os

cdef extern from "pythread.h" nogil:
    enum: NOWAIT_LOCK
    unsigned long PyThread_get_thread_ident()
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int mode)
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interrupt)
    void PyThread_release_lock(PyThread_type_lock lock)

cdef long long SIGNAL_INTERVAL = 50000    # microseconds: how often a waiting thread hears signals
cdef int FORKS = 0    # locks taken before a fork do not hold in the child


cdef class Waiter:
    """A thread that waits for a lock."""

    def __cinit__(self):
        self.thread = PyThread_get_thread_ident()
        self.bell = PyThread_allocate_lock()
        if self.bell == NULL:
            raise MemoryError
        PyThread_acquire_lock(self.bell, NOWAIT_LOCK)

    def __dealloc__(self):
        if self.bell != NULL:
            if not self.served:
                PyThread_release_lock(self.bell)
            PyThread_free_lock(self.bell)


cdef class ProgramLock:
    """Allow one run at a time among all programs that share this lock, first come, first served.

    The programs of a step share a lock because they change the same parameters; while another
    program is recorded, none runs, because recording copies them. The GIL protects the fields of
    the lock itself.
    """

    def __cinit__(self):
        self.holder, self.recordings, self.waiting, self.forks = 0, [], [], FORKS

    cpdef int acquire(self, bint recording=False) except -1:
        """Take the lock, after all threads that came before; returns whether it had to wait.

        The thread that has it to record may take it again: a signal handler may run the step while
        the traced function runs, which works on copies. Raises what a signal handler raises
        meanwhile, and RuntimeError if this thread has the lock to run a program.
        """
        cdef unsigned long me = PyThread_get_thread_ident()
        self.outlive_fork(me)
        if self.holder == 0:
            self.holder = me
            self.recordings.append(recording)
            return 0
        if self.holder == me and self.recordings[len(self.recordings) - 1]:
            self.recordings.append(recording)
            return 0
        if self.holder == me:
            raise RuntimeError(
                "this recorded step is under way in this very thread, so that it cannot be called: "
                "by a signal handler, a schedule or a finalizer; let that note what it wants, "
                "and call the step later"
            )
        self.wait(Waiter())
        self.recordings.append(recording)
        return 1

    cdef int wait(self, Waiter waiter) except -1:
        """Wait until the lock is handed over; run signal handlers now and then."""
        self.waiting.append(waiter)
        while True:
            with nogil:
                PyThread_acquire_lock_timed(waiter.bell, SIGNAL_INTERVAL, 0)
            if waiter.served:
                return 0
            waiter.away = True
            try:
                PyErr_CheckSignals()
            except BaseException:
                self.drop(waiter)
                raise
            waiter.away = False
            if self.holder == 0:
                self.drop(waiter)
                self.holder = waiter.thread
                return 0

    cpdef int release(self) except -1:
        """Hand the lock to the first thread that waits, unless this one had it twice."""
        cdef Waiter waiter
        self.outlive_fork(PyThread_get_thread_ident())
        self.recordings.pop()
        if self.recordings:
            return 0
        self.holder = 0
        for waiter in self.waiting:
            if not waiter.away:
                self.drop(waiter)
                self.holder, waiter.served = waiter.thread, True
                PyThread_release_lock(waiter.bell)
                break
        return 0

    cdef int drop(self, Waiter waiter) except -1:
        """Take a thread off the list of those that wait."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)
        return 0

    cdef int outlive_fork(self, unsigned long me) except -1:
        """In a forked child, forget the threads that do not live there."""
        if self.forks != FORKS:
            self.forks, self.waiting = FORKS, []
            if self.holder != me:
                self.holder, self.recordings = 0, []
        return 0

    def recording(self):
        """Return a context in which this thread has the lock to record."""
        return ToRecord(self)

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *error):
        self.release()


cdef class ToRecord:
    """Have a lock to record. Compiled, so that Ctrl-C cannot come between lock and context."""

    cdef ProgramLock lock

    def __cinit__(self, ProgramLock lock):
        self.lock = lock

    def __enter__(self):
        self.lock.acquire(recording=True)

    def __exit__(self, *error):
        self.lock.release()


cdef count_fork():
    global FORKS
    FORKS += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: count_fork())
