"""Windows over images and sequences, as the calls of convolutions and pools are told of them.

Images are (batch, height, width, channels), sequences (batch, steps, channels).
"""

from operator import index

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.call cimport allocate

cnp.import_array()

MOST = 2 ** 31 - 1    # of a kernel, stride, padding or dilation: no product of sizes overflows


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
        for i, number in enumerate(integers(self.name, what, given, self.dimensions, 1)):
            numbers[2 - self.dimensions + i] = number
        return 0

    cdef int take_padding(self, object given) except -1:
        """Take what is padded before and after each dimension."""
        try:
            pairs = [(index(before), index(after)) for before, after in given]
        except (TypeError, ValueError):    # what is no pair, or no integer
            pairs = None
        if pairs is None or len(pairs) != self.dimensions:
            such = "((1, 1), (1, 1))" if self.dimensions == 2 else "((1, 1),)"
            raise (TypeError if pairs is None else ValueError)(
                f"{self.name}: padding must be a pair of integers (before, after) for each of "
                f"{self.dimensions} dimensions, such as {such}, got {given!r}"
            )
        for i, pair in enumerate(pairs):
            if min(pair) < 0 or max(pair) > MOST:
                raise ValueError(
                    f"{self.name}: padding must be numbers from 0 to {MOST}, got {given}"
                )
            self.before[2 - self.dimensions + i], self.after[2 - self.dimensions + i] = pair
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
        cdef Py_ssize_t room, more
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
            if ceil_mode and (self.counts[i] - 1) * self.stride[i] >= self.sizes[i] + self.before[i]:
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

    cdef ndarray allocate(self, Py_ssize_t *sizes, Py_ssize_t channels, ndarray like):
        """Allocate images of these sizes, of the dtype of another array."""
        cdef cnp.npy_intp[4] shape
        cdef int i
        shape[0], shape[self.dimensions + 1] = self.images, channels
        for i in range(self.dimensions):
            shape[1 + i] = sizes[2 - self.dimensions + i]
        return allocate(self.dimensions + 2, shape, cnp.PyArray_TYPE(like))


cdef tuple integers(str name, str what, object given, Py_ssize_t number, Py_ssize_t least):
    """Convert so many integers from ``least`` to MOST."""
    try:
        values = tuple([index(value) for value in given])
    except TypeError:    # what cannot be iterated over, or is no integer
        values = None
    if values is None or len(values) != number:
        raise (TypeError if values is None else ValueError)(
            f"{name}: {what} must be a tuple of {number} integer{'s' * (number > 1)}, such as "
            f"{(2,) * number}, got {given!r}"
        )
    if min(values) < least or max(values) > MOST:
        raise ValueError(f"{name}: {what} must be numbers from {least} to {MOST}, got {given}")
    return values
