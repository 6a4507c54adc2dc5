"""Calls of convolutions of images and sequences.

An image is (height, width, channels); a sequence (steps, channels) is an image of one row. Each
call fills the argument struct of a declared kernel by hand, and runs it (``call.pyx``). The twins
have the same names.
"""

from operator import index

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.arguments cimport *
from minidl._kernels.call cimport (
    Call, allocate_shape, check_no_overlap, check_writable, contiguous, data_of, run_with_scratch
)
from minidl._kernels.composites cimport ACTIVATIONS, add_column_sum, one_dtype
from minidl._kernels.dispatch cimport conv_scratch_of

from minidl._kernels.call import CALLS
from minidl._kernels.composites import linear, linear_grad_input, linear_grad_params

cnp.import_array()

cdef Call CONV = CALLS["conv"], CONV_GRAD_INPUT = CALLS["conv_grad_input"]
cdef Call CONV_GRAD_WEIGHT = CALLS["conv_grad_weight"]

cdef enum:
    MOST_PARTS = 16                  # partial sums of the gradient of a weight, at most ...
    ELEMENTS_OF_PARTS = 1 << 18      # ... and of so many elements together

MOST = 2 ** 31 - 1    # of a stride, padding or dilation, so that no product of sizes overflows


# --- geometry: where the windows lie ----------------------------------------------------

cdef int take_images(ndarray x, str name, Py_ssize_t *images, Py_ssize_t *height) except -1:
    """Check that x is images or sequences, none of them empty; sets how many, and their rows."""
    if x.ndim not in (3, 4) or cnp.PyArray_SIZE(x) == 0:
        raise ValueError(
            f"{name} must have shape (images, height, width, channels) or (images, steps, "
            f"channels) with no empty dimension, got {(<object>x).shape}"
        )
    images[0], height[0] = x.shape[0], x.shape[1] if x.ndim == 4 else 1
    return 0


cdef tuple numbers(str name, str what, object given, Py_ssize_t least):
    """Convert whole numbers from ``least`` to MOST to int."""
    values = tuple([index(value) for value in given])
    if not values or min(values) < least or max(values) > MOST:
        raise ValueError(f"{name}: {what} must be numbers from {least} to {MOST}, got {given}")
    return values


cdef tuple read_geometry(str name, object stride, object padding, object dilation):
    """Convert all numbers that tell where the windows lie.

    Converting may run Python code, which may even resize an array: so it comes before arrays are
    looked at.
    """
    sides = [numbers(name, "padding", pair, 0) for pair in padding]
    if any([len(pair) != 2 for pair in sides]):
        raise ValueError(f"{name}: padding must be pairs (before, after), got {padding}")
    return (
        numbers(name, "stride", stride, 1), tuple([pair[0] for pair in sides]),
        tuple([pair[1] for pair in sides]), numbers(name, "dilation", dilation, 1)
    )


cdef int place_windows(
    ConvArgs *args, str name, int dimensions, tuple geometry, Py_ssize_t groups
) except -1:
    """Check and set where the windows lie, given the sizes of x and of the weight.

    Raises ValueError where no window fits, or the channels do not belong to the groups.
    """
    if any([len(values) != dimensions for values in geometry]):
        raise ValueError(
            f"{name}: stride, padding and dilation must be for {dimensions} dimensions, got "
            f"{', '.join([str(len(values)) for values in geometry])} numbers"
        )
    strides, before, after, steps = geometry
    if dimensions == 1:    # an image of one row
        strides, before, after, steps = (1, *strides), (0, *before), (0, *after), (1, *steps)
    args.row_stride, args.column_stride = strides
    args.rows_before, args.columns_before = before
    args.row_step, args.column_step = steps
    args.groups = groups
    if groups < 1 or args.channels != groups * args.depth or args.outputs % groups:
        raise ValueError(
            f"{name}: {args.channels} channels and {args.outputs} outputs do not make {groups} "
            f"groups for a weight of {args.depth} channels"
        )
    height = args.height + before[0] + after[0] - (args.rows - 1) * args.row_step - 1
    width = args.width + before[1] + after[1] - (args.columns - 1) * args.column_step - 1
    if height < 0 or width < 0:
        raise ValueError(
            f"{name}: windows of {args.rows} x {args.columns} elements, {args.row_step} and "
            f"{args.column_step} apart, do not fit into {args.height} x {args.width} padded to "
            f"{args.height + before[0] + after[0]} x {args.width + before[1] + after[1]}"
        )
    args.out_height, args.out_width = height // args.row_stride + 1, width // args.column_stride + 1
    return 0


cdef bint is_pointwise(const ConvArgs *args) noexcept:
    """Whether windows are single pixels, each in one output: then y is a product of matrices."""
    return (
        args.rows == args.columns == args.groups == args.row_stride == args.column_stride == 1
        and args.out_height == args.height and args.out_width == args.width
    )


cdef tuple shape_of(int dimensions, Py_ssize_t n, Py_ssize_t i, Py_ssize_t j, Py_ssize_t channels):
    """The shape of images, or of sequences."""
    if dimensions == 1:
        return (n, j, channels)
    return (n, i, j, channels)


cdef int take_weight(ConvArgs *args, ndarray weight, int dimensions, str name) except -1:
    """Set the sizes of the window, the channels it sees, and the outputs."""
    if weight.ndim != 2 + dimensions or cnp.PyArray_SIZE(weight) == 0:
        window = "height, width" if dimensions == 2 else "steps"
        raise ValueError(
            f"{name} must have shape ({window}, channels / groups, outputs) with no empty "
            f"dimension, got {(<object>weight).shape}"
        )
    args.rows = weight.shape[0] if dimensions == 2 else 1
    args.columns, args.depth = weight.shape[dimensions - 1], weight.shape[dimensions]
    args.outputs = weight.shape[dimensions + 1]
    return 0


cdef int run_gradient(Call call, int real, ConvArgs *of, void *x, void *weight, void *dy,
                      Py_ssize_t parts) except -1:
    """Run the kernel of one gradient: that of x, or the partial sums of that of the weight."""
    cdef ConvGradArgs args
    args.x, args.weight, args.y, args.parts = x, weight, dy, parts
    args.images, args.height, args.width = of.images, of.height, of.width
    args.channels, args.rows, args.columns = of.channels, of.rows, of.columns
    args.depth, args.outputs = of.depth, of.outputs
    args.out_height, args.out_width = of.out_height, of.out_width
    args.row_stride, args.column_stride = of.row_stride, of.column_stride
    args.rows_before, args.columns_before = of.rows_before, of.columns_before
    args.row_step, args.column_step, args.groups = of.row_step, of.column_step, of.groups
    run_with_scratch(
        call, real, &args, &args.scratch, &args.scratch_step, conv_scratch_of(real, of)
    )
    return 0


cdef ndarray check_gradient(ConvArgs *args, ndarray dy, int dimensions, str name):
    """Check the shape of the gradient of the output; returns it contiguous."""
    shape = shape_of(dimensions, args.images, args.out_height, args.out_width, args.outputs)
    if (<object>dy).shape != shape:
        raise ValueError(f"{name}: dy must have shape {shape}, got {(<object>dy).shape}")
    return contiguous(dy)


# --- convolutions -----------------------------------------------------------------------

def conv(
    ndarray x not None, ndarray weight not None, ndarray bias=None, stride=(1, 1),
    padding=((0, 0), (0, 0)), dilation=(1, 1), Py_ssize_t groups=1, activation=None
):
    """y = activation(Σ over the window of x · W, + b), for every window of x."""
    cdef ConvArgs args
    cdef tuple geometry = read_geometry("conv", stride, padding, dilation)
    cdef object code = ACTIVATIONS.get(activation)
    cdef int real = one_dtype(x, weight, "conv"), dimensions = x.ndim - 2
    cdef ndarray y
    if code is None:
        raise ValueError(f"conv: unknown activation {activation!r}")
    args.activation = code
    x, weight = contiguous(x), contiguous(weight)
    take_images(x, "conv: x", &args.images, &args.height)
    args.width, args.channels = x.shape[dimensions], x.shape[dimensions + 1]
    take_weight(&args, weight, dimensions, "conv: weight")
    place_windows(&args, "conv", dimensions, geometry, groups)
    if bias is not None:
        one_dtype(x, bias, "conv")
        bias = contiguous(bias)
        if bias.ndim != 1 or bias.shape[0] != args.outputs:
            raise ValueError(f"conv: bias must be {(args.outputs,)}, got {(<object>bias).shape}")
    if is_pointwise(&args):
        return linear(x, weight.reshape(args.depth, args.outputs), bias, activation)
    y = allocate_shape(
        shape_of(dimensions, args.images, args.out_height, args.out_width, args.outputs),
        cnp.PyArray_TYPE(x)
    )
    args.x, args.weight = cnp.PyArray_DATA(x), cnp.PyArray_DATA(weight)
    args.bias, args.y = data_of(bias), cnp.PyArray_DATA(y)
    run_with_scratch(
        CONV, real, &args, &args.scratch, &args.scratch_step, conv_scratch_of(real, &args)
    )
    return y


def conv_grad_params(
    ndarray x not None, ndarray dy not None, ndarray dweight not None, ndarray dbias=None,
    stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), Py_ssize_t groups=1
):
    """dW += Σ over all windows of x' · dy, and db += Σ dy."""
    cdef ConvArgs args
    cdef tuple geometry = read_geometry("conv_grad_params", stride, padding, dilation)
    cdef int real = one_dtype(x, dy, "conv_grad_params"), dimensions = x.ndim - 2
    cdef Py_ssize_t parts, each, size = cnp.PyArray_SIZE(dweight)
    cdef ndarray sums
    x = contiguous(x)
    dweight = check_writable(dweight, x, "conv_grad_params: dweight")
    check_no_overlap(dweight, (x, dy), "conv_grad_params: dweight")
    take_images(x, "conv_grad_params: x", &args.images, &args.height)
    args.width, args.channels = x.shape[dimensions], x.shape[dimensions + 1]
    take_weight(&args, dweight, dimensions, "conv_grad_params: dweight")
    place_windows(&args, "conv_grad_params", dimensions, geometry, groups)
    dy = check_gradient(&args, dy, dimensions, "conv_grad_params")
    if dbias is not None:
        dbias = check_writable(dbias, x, "conv_grad_params: dbias")
        check_no_overlap(dbias, (x, dy, dweight), "conv_grad_params: dbias")
        if dbias.ndim != 1 or dbias.shape[0] != args.outputs:
            raise ValueError(
                f"conv_grad_params: dbias must be {(args.outputs,)}, got {(<object>dbias).shape}"
            )
    if is_pointwise(&args):
        linear_grad_params(x, dy, dweight.reshape(args.depth, args.outputs), dbias)
        return
    # Shapes alone decide how sums are split, so that no bit depends on the number of threads.
    parts = max(1, min(MOST_PARTS, args.images, ELEMENTS_OF_PARTS // size))
    each = (args.images + parts - 1) // parts
    parts = (args.images + each - 1) // each
    sums = allocate_shape((parts, *(<object>dweight).shape), cnp.PyArray_TYPE(x))
    run_gradient(
        CONV_GRAD_WEIGHT, real, &args, cnp.PyArray_DATA(x), cnp.PyArray_DATA(sums),
        cnp.PyArray_DATA(dy), parts
    )
    add_column_sum(real, sums, parts, size, dweight)
    if dbias is not None:
        add_column_sum(real, dy, cnp.PyArray_SIZE(dy) // args.outputs, args.outputs, dbias)


def conv_grad_input(
    ndarray dy not None, ndarray weight not None, x_shape, stride=(1, 1),
    padding=((0, 0), (0, 0)), dilation=(1, 1), Py_ssize_t groups=1
):
    """dx = Σ over the windows that an element of x is in, of dy · W'."""
    cdef ConvArgs args
    cdef tuple geometry = read_geometry("conv_grad_input", stride, padding, dilation)
    cdef tuple sizes = tuple([index(size) for size in x_shape])    # like these before the arrays
    cdef int real = one_dtype(dy, weight, "conv_grad_input"), dimensions = dy.ndim - 2
    cdef ndarray dx
    if dimensions not in (1, 2) or len(sizes) != dy.ndim or min(sizes) < 1:
        raise ValueError(f"conv_grad_input: x_shape must be {dy.ndim} sizes >= 1, got {x_shape}")
    weight = contiguous(weight)
    args.images, args.height = sizes[0], sizes[1] if dimensions == 2 else 1
    args.width, args.channels = sizes[dimensions], sizes[dimensions + 1]
    take_weight(&args, weight, dimensions, "conv_grad_input: weight")
    place_windows(&args, "conv_grad_input", dimensions, geometry, groups)
    dy = check_gradient(&args, dy, dimensions, "conv_grad_input")
    if is_pointwise(&args):
        return linear_grad_input(dy, weight.reshape(args.depth, args.outputs))
    dx = allocate_shape(sizes, cnp.PyArray_TYPE(dy))
    run_gradient(
        CONV_GRAD_INPUT, real, &args, cnp.PyArray_DATA(dx), cnp.PyArray_DATA(weight),
        cnp.PyArray_DATA(dy), 1
    )
    return dx
