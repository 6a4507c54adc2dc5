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
from minidl._kernels.windows cimport Windows, integers

from minidl._kernels.call import CALLS
from minidl._kernels.composites import linear, linear_grad_input, linear_grad_params

cnp.import_array()

cdef Call CONV = CALLS["conv"], CONV_GRAD_INPUT = CALLS["conv_grad_input"]
cdef Call CONV_GRAD_WEIGHT = CALLS["conv_grad_weight"]

cdef enum:
    MOST_PARTS = 16                  # partial sums of the gradient of a weight, at most ...
    ELEMENTS_OF_PARTS = 1 << 18      # ... and of so many elements together


# --- arguments --------------------------------------------------------------------------

cdef int place(ConvArgs *args, Windows at, ndarray weight, str which, object groups) except -1:
    """Set all sizes, given where windows lie, the sizes of x, the weight and the groups.

    Raises ValueError where no window fits, or the channels do not belong to the groups.
    """
    cdef int dimensions = at.dimensions
    if weight.ndim != 2 + dimensions or cnp.PyArray_SIZE(weight) == 0:
        window = "height, width" if dimensions == 2 else "steps"
        raise ValueError(
            f"{at.name}: {which} must have shape ({window}, channels / groups, outputs) with no "
            f"empty dimension, got {(<object>weight).shape}"
        )
    at.kernel[0] = weight.shape[0] if dimensions == 2 else 1
    at.kernel[1] = weight.shape[dimensions - 1]
    args.depth, args.outputs = weight.shape[dimensions], weight.shape[dimensions + 1]
    if groups < 1 or at.channels != groups * args.depth or args.outputs % groups:
        raise ValueError(
            f"{at.name}: {at.channels} channels and {args.outputs} outputs do not make {groups} "
            f"groups for a weight of {args.depth} channels"
        )
    at.count()
    args.images, args.channels, args.groups = at.images, at.channels, groups
    args.height, args.width = at.sizes[0], at.sizes[1]
    args.rows, args.columns = at.kernel[0], at.kernel[1]
    args.out_height, args.out_width = at.counts[0], at.counts[1]
    args.row_stride, args.column_stride = at.stride[0], at.stride[1]
    args.rows_before, args.columns_before = at.before[0], at.before[1]
    args.row_step, args.column_step = at.dilation[0], at.dilation[1]
    return 0


cdef object whole_number(str name, object groups):
    """Convert the number of groups."""
    try:
        return index(groups)
    except TypeError:
        raise TypeError(f"{name}: groups must be an integer, got {groups!r}") from None


cdef bint is_pointwise(const ConvArgs *args) noexcept:
    """Whether windows are single pixels, each in one output: then y is a product of matrices."""
    return (
        args.rows == args.columns == args.groups == args.row_stride == args.column_stride == 1
        and args.out_height == args.height and args.out_width == args.width
    )


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


# --- convolutions -----------------------------------------------------------------------

def conv(
    x, weight, bias=None, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1,
    activation=None
):
    """y = activation(Σ over the window of x · W, + b), for every window of x."""
    cdef ConvArgs args
    cdef Windows at = Windows("conv", "x", x)
    cdef object split = whole_number("conv", groups)
    cdef ndarray seen = at.array("x", x), w = at.array("weight", weight)
    cdef ndarray b = at.array_or_none("bias", bias), y
    cdef int real = one_dtype(seen, w, "conv")
    if not (activation is None or isinstance(activation, str)) or activation not in ACTIVATIONS:
        raise ValueError(f"conv: unknown activation {activation!r}")
    args.activation = ACTIVATIONS[activation]
    seen, w = contiguous(seen), contiguous(w)
    at.lie(stride, padding, dilation)
    at.read(seen, "x", at.sizes)
    place(&args, at, w, "weight", split)
    if b is not None:
        one_dtype(seen, b, "conv")
        b = contiguous(b)
        if b.ndim != 1 or b.shape[0] != args.outputs:
            raise ValueError(f"conv: bias must be {(args.outputs,)}, got {(<object>b).shape}")
    if is_pointwise(&args):
        return linear(seen, w.reshape(args.depth, args.outputs), b, activation)
    y = at.images_of(at.counts, args.outputs, seen)
    args.x, args.weight = cnp.PyArray_DATA(seen), cnp.PyArray_DATA(w)
    args.bias, args.y = data_of(b), cnp.PyArray_DATA(y)
    run_with_scratch(
        CONV, real, &args, &args.scratch, &args.scratch_step, conv_scratch_of(real, &args)
    )
    return y


def conv_grad_params(
    x, dy, dweight, dbias=None, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1
):
    """dW += Σ over all windows of x' · dy, and db += Σ dy."""
    cdef ConvArgs args
    cdef Windows at = Windows("conv_grad_params", "x", x)
    cdef object split = whole_number("conv_grad_params", groups)
    cdef ndarray seen = contiguous(at.array("x", x)), given = at.array("dy", dy)
    cdef ndarray dw = at.array("dweight", dweight), db = at.array_or_none("dbias", dbias), sums
    cdef int real = one_dtype(seen, given, "conv_grad_params")
    cdef Py_ssize_t parts, each, size = cnp.PyArray_SIZE(dw)
    dw = check_writable(dw, seen, "conv_grad_params: dweight")
    check_no_overlap(dw, (seen, given), "conv_grad_params: dweight")
    at.lie(stride, padding, dilation)
    at.read(seen, "x", at.sizes)
    place(&args, at, dw, "dweight", split)
    at.check(given, "dy", args.outputs)
    given = contiguous(given)
    if db is not None:
        db = check_writable(db, seen, "conv_grad_params: dbias")
        check_no_overlap(db, (seen, given, dw), "conv_grad_params: dbias")
        if db.ndim != 1 or db.shape[0] != args.outputs:
            raise ValueError(
                f"conv_grad_params: dbias must be {(args.outputs,)}, got {(<object>db).shape}"
            )
    if is_pointwise(&args):
        linear_grad_params(seen, given, dw.reshape(args.depth, args.outputs), db)
        return
    # Shapes alone decide how sums are split, so that no bit depends on the number of threads.
    parts = max(1, min(MOST_PARTS, args.images, ELEMENTS_OF_PARTS // size))
    each = (args.images + parts - 1) // parts
    parts = (args.images + each - 1) // each
    sums = allocate_shape((parts, *(<object>dw).shape), cnp.PyArray_TYPE(seen))
    run_gradient(
        CONV_GRAD_WEIGHT, real, &args, cnp.PyArray_DATA(seen), cnp.PyArray_DATA(sums),
        cnp.PyArray_DATA(given), parts
    )
    add_column_sum(real, sums, parts, size, dw)
    if db is not None:
        add_column_sum(real, given, cnp.PyArray_SIZE(given) // args.outputs, args.outputs, db)


def conv_grad_input(
    dy, weight, x_shape, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1
):
    """dx = Σ over the windows that an element of x is in, of dy · W'."""
    cdef ConvArgs args
    cdef Windows at = Windows("conv_grad_input", "dy", dy)
    cdef object split = whole_number("conv_grad_input", groups)
    cdef Py_ssize_t[4] sizes
    cdef ndarray given = at.array("dy", dy), w = contiguous(at.array("weight", weight)), dx
    cdef int real = one_dtype(given, w, "conv_grad_input"), i
    at.lie(stride, padding, dilation)
    integers(sizes, "conv_grad_input", "x_shape", x_shape, at.dimensions + 2, 1)
    at.images, at.channels = sizes[0], sizes[at.dimensions + 1]
    for i in range(at.dimensions):
        at.sizes[2 - at.dimensions + i] = sizes[1 + i]
    place(&args, at, w, "weight", split)
    at.check(given, "dy", args.outputs)
    given = contiguous(given)
    if is_pointwise(&args):
        return linear_grad_input(given, w.reshape(args.depth, args.outputs))
    dx = at.images_of(at.sizes, at.channels, given)
    run_gradient(
        CONV_GRAD_INPUT, real, &args, cnp.PyArray_DATA(dx), cnp.PyArray_DATA(w),
        cnp.PyArray_DATA(given), 1
    )
    return dx
