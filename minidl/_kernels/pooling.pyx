"""Calls of the kernels that pool windows of pixels, and of dropout by channels.

They take images (batch, height, width, channels) and sequences (batch, steps, channels), which the
kernels see as images of one row.
"""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.arguments cimport *
from minidl._kernels.call cimport (
    Call, allocate_like, check_like, check_shape, contiguous, data_of, lengths_of, real_of, run
)
from minidl._kernels.windows cimport Windows

from minidl._kernels.call import CALLS
from minidl._kernels.twins.errors import RowError

cnp.import_array()

cdef Call MAX_POOL = CALLS["max_pool"], MAX_POOL_GRAD = CALLS["max_pool_grad"]
cdef Call AVG_POOL = CALLS["avg_pool"], AVG_POOL_GRAD = CALLS["avg_pool_grad"]
cdef Call DROPOUT_CHANNELS = CALLS["dropout_channels"]


# --- arguments --------------------------------------------------------------------------------

cdef class Pool(Windows):
    """The windows of a pool, which never begin or end in so much padding that they lie in it."""
    cdef ndarray lengths    # of sequences: steps from there on are padding; or None

    cdef int take_windows(self, kernel, stride, padding, dilation) except -1:
        """Take where windows lie, and how large they are."""
        self.take(self.kernel, "kernel", kernel)
        self.lie(stride, padding, (1,) * self.dimensions if dilation is None else dilation)
        return 0

    cdef int place(self, object lengths, bint ceil_mode) except -1:
        """Count the windows, and take the lengths of so many images."""
        cdef int i
        for i in range(2):
            if max(self.before[i], self.after[i]) >= self.reach(i):
                raise ValueError(
                    f"{self.name}: padding must be smaller than a window, which reaches over "
                    f"{self.reach(i)}, got {(self.before[i], self.after[i])}"
                )
        self.count(ceil_mode)
        self.lengths = lengths_of(
            self.array_or_none("lengths", lengths), self.images, self.name
        )
        return 0


ctypedef fused PoolingArgs:
    MaxPoolArgs
    MaxPoolGradArgs
    AvgPoolArgs
    AvgPoolGradArgs


cdef void describe(PoolingArgs *args, Pool at):
    """Fill in sizes, windows and lengths."""
    args.lengths = <const Py_ssize_t *>data_of(at.lengths)
    args.images, args.channels = at.images, at.channels
    args.height, args.width = at.sizes[0], at.sizes[1]
    args.out_height, args.out_width = at.counts[0], at.counts[1]
    args.kernel_height, args.kernel_width = at.kernel[0], at.kernel[1]
    args.stride_height, args.stride_width = at.stride[0], at.stride[1]
    args.top, args.left = at.before[0], at.before[1]
    args.row_step, args.column_step = at.dilation[0], at.dilation[1]


ctypedef fused MeanArgs:
    AvgPoolArgs
    AvgPoolGradArgs


cdef void divide(MeanArgs *args, Pool at, bint count_include_pad):
    """Say by what the sum of a window is divided.

    That is how many pixels it has; which of them count differs from window to window where padding
    does not, or where windows reach out of it.
    """
    cdef bint alike = count_include_pad or at.lengths is None
    cdef Py_ssize_t padding, end
    cdef int i
    for i in range(2):
        padding = at.before[i] + at.after[i]
        end = (at.counts[i] - 1) * at.stride[i] + at.reach(i)    # of the last window
        if padding > 0 and not count_include_pad or end > at.sizes[i] + padding:
            alike = False
    args.divisor = at.kernel[0] * at.kernel[1] if alike else 0
    args.counted_height = at.sizes[0] + at.after[0] if count_include_pad else 0
    args.counted_width = at.sizes[1] + at.after[1] if count_include_pad else 0


cdef int run_pool(Call call, int real, void *args, Pool at) except -1:
    """Run a kernel, which refuses lengths that are not in 1 … width."""
    cdef Py_ssize_t bad = run(call, real, args)
    if bad:
        raise RowError("length", bad - 1, ndarray.item(at.lengths, bad - 1), at.sizes[1])
    return 0


# --- pooling ----------------------------------------------------------------------------------

def max_pool(x, kernel, stride, padding, lengths=None, dilation=None, bint ceil_mode=False):
    """y = max of the pixels in each window, for every channel; NaN if one of them is NaN."""
    cdef Pool at = Pool("max_pool", "x", x)
    cdef MaxPoolArgs args
    cdef ndarray pixels = contiguous(at.array("x", x)), y
    cdef int real = real_of(pixels)
    at.take_windows(kernel, stride, padding, dilation)
    at.read(pixels, "x", at.sizes)
    at.place(lengths, ceil_mode)
    y = at.images_of(at.counts, at.channels, pixels)
    args.x, args.y = cnp.PyArray_DATA(pixels), cnp.PyArray_DATA(y)
    describe(&args, at)
    run_pool(MAX_POOL, real, &args, at)
    return y


def max_pool_grad(
    dy, x, y, kernel, stride, padding, lengths=None, dilation=None, bint ceil_mode=False
):
    """dx = dy at the first largest pixel of each window, in the order of rows; 0 elsewhere."""
    cdef Pool at = Pool("max_pool_grad", "x", x)
    cdef MaxPoolGradArgs args
    cdef ndarray pixels = contiguous(at.array("x", x)), most = at.array("y", y)
    cdef ndarray given = at.array("dy", dy), dx
    cdef int real = real_of(pixels)
    at.take_windows(kernel, stride, padding, dilation)
    at.read(pixels, "x", at.sizes)
    at.place(lengths, ceil_mode)
    at.check(most, "y", at.channels)
    given = check_like(given, most, "max_pool_grad: dy")
    most = check_shape(most, pixels, (<object>most).shape, "max_pool_grad: y")
    dx = allocate_like(pixels)
    args.dy, args.x = cnp.PyArray_DATA(given), cnp.PyArray_DATA(pixels)
    args.y, args.dx = cnp.PyArray_DATA(most), cnp.PyArray_DATA(dx)
    args.after_relu = False    # only recorded steps merge both (`_after_relu` of recording/fuse.py)
    describe(&args, at)
    run_pool(MAX_POOL_GRAD, real, &args, at)
    return dx


def avg_pool(
    x, kernel, stride, padding, bint count_include_pad=True, lengths=None, dilation=None,
    bint ceil_mode=False
):
    """y = Σ x / n over the pixels of each window, for every channel; padding is 0."""
    cdef Pool at = Pool("avg_pool", "x", x)
    cdef AvgPoolArgs args
    cdef ndarray pixels = contiguous(at.array("x", x))
    at.take_windows(kernel, stride, padding, dilation)
    at.read(pixels, "x", at.sizes)
    at.place(lengths, ceil_mode)
    divide(&args, at, count_include_pad)
    return averaged(&args, at, pixels)


def avg_pool_grad(
    dy, sizes, kernel, stride, padding, bint count_include_pad=True, lengths=None, dilation=None,
    bint ceil_mode=False
):
    """dx = Σ dy / n over the windows that hold a pixel; ``sizes`` are those of x, between."""
    cdef Pool at = Pool("avg_pool_grad", "dy", dy)
    cdef AvgPoolGradArgs args
    cdef ndarray given = contiguous(at.array("dy", dy))
    at.take_windows(kernel, stride, padding, dilation)
    at.take(at.sizes, "sizes", sizes)
    at.read(given, "dy", at.counts)
    at.place(lengths, ceil_mode)
    at.check(given, "dy", at.channels)
    divide(&args, at, count_include_pad)
    return spread(&args, at, given)


cdef ndarray averaged(AvgPoolArgs *args, Pool at, ndarray x):
    """The sum of every window of x over the divisor, or over the number of its pixels."""
    cdef int real = real_of(x)
    cdef ndarray y = at.images_of(at.counts, at.channels, x)
    args.x, args.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    describe(args, at)
    run_pool(AVG_POOL, real, args, at)
    return y


cdef ndarray spread(AvgPoolGradArgs *args, Pool at, ndarray dy):
    """For every pixel the sum of dy over the divisor, of all windows that hold it."""
    cdef int real = real_of(dy)
    cdef ndarray dx = at.images_of(at.sizes, at.channels, dy)
    args.dy, args.dx = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(dx)
    describe(args, at)
    run_pool(AVG_POOL_GRAD, real, args, at)
    return dx


# --- upsampling: the same with a divisor of 1 -------------------------------------------------

def upsample(x, scale):
    """y = x, with every pixel repeated ``scale`` times along each dimension."""
    cdef Pool at = blocks("upsample", "x", x, scale)
    cdef AvgPoolGradArgs args
    cdef ndarray pixels = contiguous(x)
    at.read(pixels, "x", at.counts)
    at.sizes = [at.kernel[0] * at.counts[0], at.kernel[1] * at.counts[1]]
    args.divisor, args.counted_height, args.counted_width = 1, 0, 0
    return spread(&args, at, pixels)


def upsample_grad(dy, scale):
    """dx = Σ dy over the block of every pixel."""
    cdef Pool at = blocks("upsample_grad", "dy", dy, scale)
    cdef AvgPoolArgs args
    cdef ndarray given = contiguous(dy)
    at.read(given, "dy", at.sizes)
    at.count()
    args.divisor, args.counted_height, args.counted_width = 1, 0, 0
    return averaged(&args, at, given)


cdef Pool blocks(str name, str which, x, scale):
    """Windows side by side."""
    cdef Pool at = Pool(name, which, x)
    at.take(at.kernel, "scale along each axis", scale)
    at.stride = at.kernel
    return at


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
