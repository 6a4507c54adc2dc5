from numpy cimport ndarray

cdef class Windows:
    """The windows of a call: where they lie, and how many of them an image has.

    A sequence is an image of one row, so each of these has a number for rows and one for columns.
    """
    cdef str name
    cdef int dimensions    # of the call: 1 or 2
    cdef Py_ssize_t[2] kernel
    cdef Py_ssize_t[2] stride
    cdef Py_ssize_t[2] before
    cdef Py_ssize_t[2] after
    cdef Py_ssize_t[2] dilation
    cdef Py_ssize_t[2] sizes
    cdef Py_ssize_t[2] counts
    cdef Py_ssize_t images, channels

    cdef ndarray array(self, str which, object given)
    cdef ndarray array_or_none(self, str which, object given)
    cdef int lie(self, object stride, object padding, object dilation) except -1
    cdef int take(self, Py_ssize_t *numbers, str what, object given) except -1
    cdef int take_padding(self, object given) except -1
    cdef int read(self, ndarray x, str which, Py_ssize_t *sizes) except -1
    cdef Py_ssize_t reach(self, int i) noexcept
    cdef int count(self, bint ceil_mode=*) except -1
    cdef int check(self, ndarray y, str which, Py_ssize_t channels) except -1
    cdef ndarray images_of(self, Py_ssize_t *sizes, Py_ssize_t channels, ndarray like)

cdef int integers(
    Py_ssize_t *numbers, str name, str what, object given, Py_ssize_t count, Py_ssize_t least
) except -1
