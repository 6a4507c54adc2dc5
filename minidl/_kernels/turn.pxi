# Who may run: the programs of a step never at the same time.

cdef class Turn:
    """One run at a time, of all programs that share it: those of a step, which change the same
    parameters, and those made of one recording, which work in the same memory. While the step is
    being recorded, none of them runs."""

    cdef int busy

    def __cinit__(self):
        self.busy = -1

    cpdef void take(self):
        """Wait until nobody else has the turn, and have it."""
        while exchange(&self.busy, FORKS) == FORKS:
            with nogil:
                nap()

    cpdef void give(self):
        """Let others have it."""
        set_int(&self.busy, -1)
