"""Calls of the kernels that pool windows of pixels, and of dropout by channels.

They take images (batch, height, width, channels) and sequences (batch, steps, channels), which the
kernels see as images of one row.
"""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.arguments cimport *
from minidl._kernels.call cimport (
    Call, allocate, allocate_like, check_like, check_shape, contiguous, data_of, lengths_of,
    real_of, run
)

from minidl._kernels.call import CALLS
from minidl._kernels.twins.errors import RowError

cnp.import_array()

cdef Call MAX_POOL = CALLS["max_pool"], MAX_POOL_GRAD = CALLS["max_pool_grad"]
cdef Call AVG_POOL = CALLS["avg_pool"], AVG_POOL_GRAD = CALLS["avg_pool_grad"]
cdef Call DROPOUT_CHANNELS = CALLS["dropout_channels"]

MOST = 2 ** 31 - 1    # of a kernel or a stride, so that no product of sizes overflows


# --- where the windows lie --------------------------------------------------------------------

cdef class Windows:
    """The windows of a call: kernel, stride and padding, and how many of them an image has.

    A sequence is an image of one row, so each of these has a number for rows and one for columns.
    """
    cdef str name
    cdef int dimensions    # of the call: 1 or 2
    cdef Py_ssize_t[2] kernel
    cdef Py_ssize_t[2] stride
    cdef Py_ssize_t[2] before
    cdef Py_ssize_t[2] after
    cdef Py_ssize_t[2] sizes
    cdef Py_ssize_t[2] counts
    cdef Py_ssize_t images, channels

    def __init__(self, str name, kernel, stride, padding=None, sizes=None):
        # Converting a number may run Python code, which may resize an array: arrays come later.
        cdef int i, row
        self.name, self.dimensions = name, len(kernel)
        given = [numbers for numbers in (kernel, stride, padding, sizes) if numbers is not None]
        if self.dimensions not in (1, 2) or any([len(n) != self.dimensions for n in given]):
            raise ValueError(
                f"{name}: kernel, stride and padding must be one or two numbers each, got "
                f"{kernel}, {stride} and {padding}"
            )
        self.kernel, self.stride, self.sizes = [1, 1], [1, 1], [1, 1]
        self.counts, self.before, self.after = [1, 1], [0, 0], [0, 0]
        for i in range(self.dimensions):
            row = 2 - self.dimensions + i
            if not (1 <= kernel[i] <= MOST and 1 <= stride[i] <= MOST):
                raise ValueError(
                    f"{name}: kernel and stride must be numbers from 1 to {MOST}, got {kernel} "
                    f"and {stride}"
                )
            self.kernel[row], self.stride[row] = kernel[i], stride[i]
            if padding is not None:
                self.before[row], self.after[row] = padding[i]
            if sizes is not None:
                self.sizes[row] = sizes[i]
            # So that no window is padding alone.
            if not (
                0 <= self.before[row] < self.kernel[row]
                and 0 <= self.after[row] < self.kernel[row]
            ):
                raise ValueError(
                    f"{name}: padding must be >= 0 and smaller than the kernel {kernel}, "
                    f"got {padding}"
                )

    cdef int read(self, ndarray x, str which, Py_ssize_t *sizes) except -1:
        """Take images, channels and sizes from the shape of an array."""
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

    cdef int count(self) except -1:
        """Count the windows along each dimension."""
        cdef Py_ssize_t room
        cdef int i
        for i in range(2):
            room = self.sizes[i] + self.before[i] + self.after[i] - self.kernel[i]
            if self.sizes[i] < 1 or room < 0:
                raise ValueError(
                    f"{self.name}: a window of {self.kernel[i]} does not fit into "
                    f"{self.sizes[i]} pixels, padded by {self.before[i]} and {self.after[i]}"
                )
            self.counts[i] = room // self.stride[i] + 1
        return 0

    cdef int check(self, ndarray y, str which) except -1:
        """Check that an array has a pixel for each window."""
        between = [self.counts[i] for i in range(2 - self.dimensions, 2)]
        shape = (self.images, *between, self.channels)
        if (<object>y).shape != shape:
            raise ValueError(
                f"{self.name}: {which} must have shape {shape}, got {(<object>y).shape}"
            )
        return 0

    cdef ndarray images_of(self, Py_ssize_t *sizes, ndarray like):
        """Allocate images of these sizes."""
        cdef cnp.npy_intp[4] shape
        cdef int i
        shape[0], shape[self.dimensions + 1] = self.images, self.channels
        for i in range(self.dimensions):
            shape[1 + i] = sizes[2 - self.dimensions + i]
        return allocate(self.dimensions + 2, shape, cnp.PyArray_TYPE(like))


ctypedef fused PoolingArgs:
    MaxPoolArgs
    MaxPoolGradArgs
    AvgPoolArgs
    AvgPoolGradArgs


cdef void describe(PoolingArgs *args, Windows at, ndarray lengths):
    """Fill in sizes, windows and lengths."""
    args.lengths = <const Py_ssize_t *>data_of(lengths)
    args.images, args.channels = at.images, at.channels
    args.height, args.width = at.sizes[0], at.sizes[1]
    args.out_height, args.out_width = at.counts[0], at.counts[1]
    args.kernel_height, args.kernel_width = at.kernel[0], at.kernel[1]
    args.stride_height, args.stride_width = at.stride[0], at.stride[1]
    args.top, args.left = at.before[0], at.before[1]


cdef double divisor_of(Windows at, bint count_include_pad, ndarray lengths) noexcept:
    """By what a sum is divided: the pixels of a window; 0 where these are counted one by one."""
    cdef bint padded = (
        lengths is not None or at.before[0] + at.before[1] + at.after[0] + at.after[1] > 0
    )
    return 0 if padded and not count_include_pad else at.kernel[0] * at.kernel[1]


cdef int run_pool(Call call, int real, void *args, ndarray lengths, Windows at) except -1:
    """Run a kernel, which refuses lengths that are not in 1 … width."""
    cdef Py_ssize_t bad = run(call, real, args)
    if bad:
        raise RowError("length", bad - 1, ndarray.item(lengths, bad - 1), at.sizes[1])
    return 0


cdef ndarray averaged(Windows at, ndarray x, double divisor, ndarray lengths):
    """The sum of every window of x over the divisor, or over the number of its pixels."""
    cdef AvgPoolArgs args
    cdef int real = real_of(x)
    cdef ndarray y
    at.count()
    x = contiguous(x)
    y = at.images_of(at.counts, x)
    args.x, args.y, args.divisor = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y), divisor
    describe(&args, at, lengths)
    run_pool(AVG_POOL, real, &args, lengths, at)
    return y


cdef ndarray spread(Windows at, ndarray dy, double divisor, ndarray lengths):
    """For every pixel the sum of dy over the divisor, of all windows that hold it."""
    cdef AvgPoolGradArgs args
    cdef int real = real_of(dy)
    cdef ndarray dx
    dy = contiguous(dy)
    dx = at.images_of(at.sizes, dy)
    args.dy, args.dx, args.divisor = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(dx), divisor
    describe(&args, at, lengths)
    run_pool(AVG_POOL_GRAD, real, &args, lengths, at)
    return dx


# --- pooling ----------------------------------------------------------------------------------

def max_pool(ndarray x not None, kernel, stride, padding, ndarray lengths=None):
    """y = max of the pixels in each window, for every channel; NaN if one of them is NaN."""
    cdef Windows at = Windows("max_pool", kernel, stride, padding)
    cdef MaxPoolArgs args
    cdef int real = real_of(x)
    cdef ndarray y
    at.read(x, "x", at.sizes)
    at.count()
    x, lengths = contiguous(x), lengths_of(lengths, at.images, "max_pool")
    y = at.images_of(at.counts, x)
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    describe(&args, at, lengths)
    run_pool(MAX_POOL, real, &args, lengths, at)
    return y


def max_pool_grad(
    ndarray dy not None, ndarray x not None, ndarray y not None, kernel, stride, padding,
    ndarray lengths=None,
):
    """dx = dy at the first largest pixel of each window, in the order of rows; 0 elsewhere."""
    cdef Windows at = Windows("max_pool_grad", kernel, stride, padding)
    cdef MaxPoolGradArgs args
    cdef int real = real_of(x)
    cdef ndarray dx
    at.read(x, "x", at.sizes)
    at.count()
    at.check(y, "y")
    dy = check_like(dy, y, "max_pool_grad: dy")
    y = check_shape(y, x, (<object>y).shape, "max_pool_grad: y")
    x, lengths = contiguous(x), lengths_of(lengths, at.images, "max_pool_grad")
    dx = allocate_like(x)
    args.dy, args.x = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(x)
    args.y, args.dx = cnp.PyArray_DATA(y), cnp.PyArray_DATA(dx)
    args.after_relu = False    # only recorded steps merge both (`_after_relu` of recording/fuse.py)
    describe(&args, at, lengths)
    run_pool(MAX_POOL_GRAD, real, &args, lengths, at)
    return dx


def avg_pool(
    ndarray x not None, kernel, stride, padding, bint count_include_pad=True, ndarray lengths=None
):
    """y = Σ x / n over the pixels of each window, for every channel; padding is 0."""
    cdef Windows at = Windows("avg_pool", kernel, stride, padding)
    at.read(x, "x", at.sizes)
    lengths = lengths_of(lengths, at.images, "avg_pool")
    return averaged(at, x, divisor_of(at, count_include_pad, lengths), lengths)


def avg_pool_grad(
    ndarray dy not None, sizes, kernel, stride, padding, bint count_include_pad=True,
    ndarray lengths=None,
):
    """dx = Σ dy / n over the windows that hold a pixel; ``sizes`` are those of x, between."""
    cdef Windows at = Windows("avg_pool_grad", kernel, stride, padding, sizes)
    at.read(dy, "dy", at.counts)
    at.count()
    at.check(dy, "dy")
    lengths = lengths_of(lengths, at.images, "avg_pool_grad")
    return spread(at, dy, divisor_of(at, count_include_pad, lengths), lengths)


def upsample(ndarray x not None, scale):
    """y = x, with every pixel repeated ``scale`` times along each dimension."""
    cdef Windows at = Windows("upsample", scale, scale)
    at.read(x, "x", at.counts)
    at.sizes = [at.kernel[0] * at.counts[0], at.kernel[1] * at.counts[1]]
    return spread(at, x, 1, None)


def upsample_grad(ndarray dy not None, scale):
    """dx = Σ dy over the block of every pixel."""
    cdef Windows at = Windows("upsample_grad", scale, scale)
    at.read(dy, "dy", at.sizes)
    return averaged(at, dy, 1, None)


# --- dropout ----------------------------------------------------------------------------------

def dropout_channels(ndarray x not None, ndarray key not None, double p):
    """y = x / (1 - p) in channels that are kept, with probability 1 - p, else 0."""
    cdef DropoutChannelsArgs args
    cdef int real = real_of(x)
    cdef ndarray y
    if not 0 <= p < 1:
        raise ValueError(f"dropout_channels: p must be in [0,1), got {p}")
    if x.ndim < 2 or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(
            "dropout_channels: x must have shape (batch, ..., channels) with no empty dimension, "
            f"got {(<object>x).shape}"
        )
    if cnp.PyArray_TYPE(key) != cnp.NPY_UINT32 or key.ndim != 1 or key.shape[0] != 2:
        raise TypeError("dropout_channels: key must be two numbers of uint32")
    x, key = contiguous(x), contiguous(key)
    y = allocate_like(x)
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    args.key = <const unsigned int *>cnp.PyArray_DATA(key)
    args.images, args.channels, args.p = x.shape[0], x.shape[x.ndim - 1], p
    args.pixels = cnp.PyArray_SIZE(x) // (args.images * args.channels)
    run(DROPOUT_CHANNELS, real, &args)
    return y
