from cpython.object cimport PyObject

cdef PyObject *current_recorder() noexcept
cdef PyObject *current_watch() noexcept
cdef long change_count() noexcept
cdef bint is_recording() noexcept
