# Where the windows of pools lie, and which of their pixels are in the image.

cdef struct Windows:
    # Window (i, j) begins at row i * stride_height - top and column j * stride_width - left. Its
    # rows are row_step apart, its columns column_step.
    Py_ssize_t height, width, channels, out_height, out_width
    Py_ssize_t kernel_height, kernel_width, stride_height, stride_width, top, left
    Py_ssize_t row_step, column_step
    Py_ssize_t counted_height, counted_width    # of a mean: where padding ends that counts; or 0
    const Py_ssize_t *lengths    # of every image: its columns that are no padding; or NULL

cdef struct Span:
    # A range of rows or of columns: begin, begin + 1, ... end - 1.
    Py_ssize_t begin, end

ctypedef fused PoolingArgs:
    MaxPoolArgs
    MaxPoolGradArgs
    AvgPoolArgs
    AvgPoolGradArgs


cdef inline Windows windows_of(const PoolingArgs *args) noexcept nogil:
    """Where the windows of a call lie."""
    cdef Windows at = Windows(
        args.height, args.width, args.channels, args.out_height, args.out_width,
        args.kernel_height, args.kernel_width, args.stride_height, args.stride_width,
        args.top, args.left, args.row_step, args.column_step, 0, 0, args.lengths
    )
    if PoolingArgs is AvgPoolArgs or PoolingArgs is AvgPoolGradArgs:
        at.counted_height, at.counted_width = args.counted_height, args.counted_width
    return at


cdef inline Py_ssize_t width_of(const Windows *at, Py_ssize_t image) noexcept nogil:
    """How many columns of an image are no padding."""
    return at.width if at.lengths == NULL else at.lengths[image]


cdef Py_ssize_t first_bad_length(const Windows *at, Py_ssize_t images) noexcept nogil:
    """Return 1 + the first image whose length is not in 1 … width; 0 if there is none."""
    cdef Py_ssize_t i
    if at.lengths != NULL:
        for i in range(images):
            if not 1 <= at.lengths[i] <= at.width:
                return 1 + i
    return 0


cdef inline Py_ssize_t reach(Py_ssize_t kernel, Py_ssize_t step) noexcept nogil:
    """Over how many rows or columns a window reaches."""
    return (kernel - 1) * step + 1


cdef inline Span inside(
    Py_ssize_t begin, Py_ssize_t step, Py_ssize_t kernel, Py_ssize_t size
) noexcept nogil:
    """Which rows, or columns, of a window that begins there are no padding."""
    if step == 1:
        return Span(larger(-begin, 0), smaller(size - begin, kernel))
    return Span(larger(ceil_div(-begin, step), 0), smaller(ceil_div(size - begin, step), kernel))


cdef inline Py_ssize_t counted(
    Py_ssize_t begin, Py_ssize_t step, Py_ssize_t kernel, Py_ssize_t size, Py_ssize_t end
) noexcept nogil:
    """How many rows or columns of a window count: those before `end`; if it is 0, those inside."""
    cdef Span span = inside(begin, step, kernel, size)
    if end > 0:
        return smaller(ceil_div(end - begin, step), kernel)
    return larger(span.end - span.begin, 1)


cdef real share_of(
    const Windows *at, Py_ssize_t image, Py_ssize_t row, Py_ssize_t column
) noexcept nogil:
    """One over the number of a window's pixels that count; 1 if there are none."""
    cdef Py_ssize_t rows = counted(
        row * at.stride_height - at.top, at.row_step, at.kernel_height, at.height,
        at.counted_height
    )
    return <real>1 / (rows * counted(
        column * at.stride_width - at.left, at.column_step, at.kernel_width, width_of(at, image),
        at.counted_width
    ))


cdef inline Span windows_over(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t stride, Py_ssize_t before, Py_ssize_t wide,
    Py_ssize_t count
) noexcept nogil:
    """The windows that reach over any of the places begin … end - 1, along one dimension."""
    return Span(
        larger(begin + before - wide + stride, 0) // stride,
        smaller((end - 1 + before) // stride + 1, count)
    )


cdef inline vec lane_numbers() noexcept nogil:
    """0, 1, 2, ..."""
    cdef real[LANES] numbers
    cdef Py_ssize_t lane
    for lane in range(LANES):
        numbers[lane] = lane
    return load(numbers)


cdef inline Py_ssize_t next_channel(Py_ssize_t channel, Py_ssize_t c) noexcept nogil:
    """Where the next vector of a pixel of c channels begins; c after the last."""
    return c if channel + LANES >= c else smaller(channel + LANES, c - LANES)


cdef inline Py_ssize_t alike(
    const Windows *at, Py_ssize_t column, Py_ssize_t wide, Py_ssize_t width
) noexcept nogil:
    """How many windows from `column` on are `wide`, as this one is: one at an edge, else many."""
    if wide < at.kernel_width:
        return 1
    return smaller(
        (width + at.left - reach(wide, at.column_step)) // at.stride_width + 1, at.out_width
    ) - column


cdef inline bint is_dilated(const Windows *at) noexcept nogil:
    """Whether there are others between the rows or columns of a window."""
    return at.row_step > 1 or at.column_step > 1


cdef inline bint is_tiling(const Windows *at) noexcept nogil:
    """Whether windows lie side by side, and nothing is padded."""
    return (
        at.stride_height == at.kernel_height and at.stride_width == at.kernel_width
        and at.top == at.left == 0 and at.lengths == NULL and not is_dilated(at)
        and at.out_height * at.kernel_height <= at.height
        and at.out_width * at.kernel_width <= at.width
    )
