"""Windows over images and sequences, as the calls of convolutions and pools are told of them.

Images are (batch, height, width, channels), sequences (batch, steps, channels).
"""

cimport numpy as cnp
from cpython.sequence cimport PySequence_Check
from numpy cimport ndarray

from minidl._kernels.call cimport allocate

cnp.import_array()

cdef enum:
    MOST = 2147483647    # of a kernel, stride, padding or dilation: no product of sizes overflows

cdef enum Fault:
    # What is wrong with numbers: nothing, what they are, how many, or how large.
    NONE, KIND, LENGTH, RANGE


cdef class Windows:
    def __init__(self, str name, str which, object x):
        self.name = name
        self.dimensions = self.array(which, x).ndim - 2
        if self.dimensions not in (1, 2):
            raise ValueError(
                f"{name}: {which} must have shape (batch, height, width, channels) or (batch, "
                f"steps, channels), got {x.shape}"
            )
        self.kernel, self.stride, self.dilation = [1, 1], [1, 1], [1, 1]
        self.before, self.after = [0, 0], [0, 0]
        self.sizes, self.counts = [1, 1], [1, 1]

    cdef int lie(self, object stride, object padding, object dilation) except -1:
        """Take where windows lie.

        Converting a number may run Python code, which may resize an array: its shape comes later.
        """
        self.take(self.stride, "stride", stride)
        self.take_padding(padding)
        self.take(self.dilation, "dilation", dilation)
        return 0

    cdef ndarray array(self, str which, object given):
        """Return what is an array, and refuse all else."""
        if not isinstance(given, ndarray):
            raise TypeError(f"{self.name}: {which} must be an array, got {given!r}")
        return given

    cdef ndarray array_or_none(self, str which, object given):
        return None if given is None else self.array(which, given)

    cdef int take(self, Py_ssize_t *numbers, str what, object given) except -1:
        """Take a number for each dimension of the call."""
        return integers(
            numbers + 2 - self.dimensions, self.name, what, given, self.dimensions, 1
        )

    cdef int take_padding(self, object given) except -1:
        """Take what is padded before and after each dimension."""
        cdef Py_ssize_t[2] pair
        cdef Py_ssize_t i, row = 2 - self.dimensions
        cdef Fault fault = fault_of(given, self.dimensions)
        for i in range(self.dimensions):
            if fault == NONE:
                fault = convert(pair, given[i], 2, 0)
                self.before[row + i], self.after[row + i] = pair[0], pair[1]
        if fault != NONE:
            such = "((1, 1), (1, 1))" if self.dimensions == 2 else "((1, 1),)"
            refuse(fault, f"{self.name}: padding", given, 0, (
                f"a pair of integers (before, after) for each of {self.dimensions} dimensions, "
                f"such as {such}"
            ))
        return 0

    cdef int read(self, ndarray x, str which, Py_ssize_t *sizes) except -1:
        """Take images, sizes and channels from the shape of an array."""
        cdef int i
        if x.ndim != self.dimensions + 2 or cnp.PyArray_SIZE(x) == 0:
            between = "height, width" if self.dimensions == 2 else "steps"
            raise ValueError(
                f"{self.name}: {which} must have shape (batch, {between}, channels) with no empty "
                f"dimension, got {(<object>x).shape}"
            )
        self.images, self.channels = x.shape[0], x.shape[x.ndim - 1]
        for i in range(self.dimensions):
            sizes[2 - self.dimensions + i] = x.shape[1 + i]
        return 0

    cdef Py_ssize_t reach(self, int i) noexcept:
        """Over how many elements a window reaches, from its first to its last."""
        return (self.kernel[i] - 1) * self.dilation[i] + 1

    cdef int count(self, bint ceil_mode=False) except -1:
        """Count the windows along each dimension.

        With ``ceil_mode`` the last one may reach out of the padding, if it does not begin in it.
        """
        cdef Py_ssize_t room, more, last
        cdef int i
        for i in range(2):
            room = self.sizes[i] + self.before[i] + self.after[i] - self.reach(i)
            more = self.stride[i] - 1 if ceil_mode else 0
            if self.sizes[i] < 1 or room + more < 0:
                raise ValueError(
                    f"{self.name}: windows of {self.kernel[0]} x {self.kernel[1]} elements, "
                    f"{self.dilation[0]} and {self.dilation[1]} apart, do not fit into "
                    f"{self.sizes[0]} x {self.sizes[1]} padded to "
                    f"{self.sizes[0] + self.before[0] + self.after[0]} x "
                    f"{self.sizes[1] + self.before[1] + self.after[1]}"
                )
            self.counts[i] = (room + more) // self.stride[i] + 1
            last = (self.counts[i] - 1) * self.stride[i] - self.before[i]
            if ceil_mode and last >= self.sizes[i]:
                self.counts[i] -= 1
        return 0

    cdef int check(self, ndarray y, str which, Py_ssize_t channels) except -1:
        """Check that an array has a pixel of so many channels for each window."""
        between = [self.counts[i] for i in range(2 - self.dimensions, 2)]
        shape = (self.images, *between, channels)
        if (<object>y).shape != shape:
            raise ValueError(
                f"{self.name}: {which} must have shape {shape}, got {(<object>y).shape}"
            )
        return 0

    cdef ndarray images_of(self, Py_ssize_t *sizes, Py_ssize_t channels, ndarray like):
        """Allocate images of these sizes, of the dtype of another array."""
        cdef cnp.npy_intp[4] shape
        cdef int i
        shape[0], shape[self.dimensions + 1] = self.images, channels
        for i in range(self.dimensions):
            shape[1 + i] = sizes[2 - self.dimensions + i]
        return allocate(self.dimensions + 2, shape, cnp.PyArray_TYPE(like))


# --- numbers ----------------------------------------------------------------------------

cdef int integers(
    Py_ssize_t *numbers, str name, str what, object given, Py_ssize_t count, Py_ssize_t least
) except -1:
    """Convert so many integers from ``least`` to MOST."""
    cdef Fault fault = convert(numbers, given, count, least)
    if fault != NONE:
        refuse(fault, f"{name}: {what}", given, least, (
            f"a tuple of {count} integer{'s' * (count > 1)}, such as {(2,) * count}"
        ))
    return 0


cdef Fault convert(
    Py_ssize_t *numbers, object given, Py_ssize_t count, Py_ssize_t least
) except? NONE:
    """Convert so many integers; returns what is wrong with them."""
    cdef Fault fault = fault_of(given, count)
    cdef Py_ssize_t i
    try:
        for i in range(count if fault == NONE else 0):
            numbers[i] = given[i]
            if not least <= numbers[i] <= MOST:
                return RANGE
    except OverflowError:
        return RANGE
    except TypeError:
        return KIND
    return fault


cdef Fault fault_of(object given, Py_ssize_t count) except? NONE:
    """Whether these are no sequence, or one of another length."""
    if not PySequence_Check(given):
        return KIND
    try:
        return NONE if len(given) == count else LENGTH
    except TypeError:    # an array without dimensions
        return KIND


cdef int refuse(Fault fault, str what, object given, Py_ssize_t least, str wanted) except -1:
    """Raise the error for what is wrong."""
    if fault == RANGE:
        raise ValueError(f"{what} must be numbers from {least} to {MOST}, got {given}")
    raise (TypeError if fault == KIND else ValueError)(f"{what} must be {wanted}, got {given!r}")
