from cpython.object cimport PyObject

cdef PyObject *current_recorder() noexcept
cdef PyObject *current_watch() noexcept
cpdef long changes() noexcept
cdef bint is_recording() noexcept
