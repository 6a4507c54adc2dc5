from cpython.object cimport PyObject

cdef PyObject *current_recorder() noexcept
cpdef long changes() noexcept
cdef bint is_recording() noexcept
