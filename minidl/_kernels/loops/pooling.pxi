# Pooling: maxima and means over windows of pixels, and their gradients.
#
# An image has `height` rows of `width` pixels of `channels` numbers; vectors run along the channels.
# Where a pixel has fewer numbers than a vector has lanes, a whole vector is stored all the same:
# what it leaves in the pixels behind, these overwrite, for they come later. Only at the end of what
# this thread may write, a part of a vector is stored. Threads partition the rows of what is written.

cdef struct Windows:
    # Window (i, j) begins at row i * stride_height - top and column j * stride_width - left.
    Py_ssize_t height, width, channels, out_height, out_width
    Py_ssize_t kernel_height, kernel_width, stride_height, stride_width, top, left
    const Py_ssize_t *lengths    # of every image: its columns that are no padding; or NULL

cdef struct Span:
    # A range of rows or of columns: begin, begin + 1, ... end - 1.
    Py_ssize_t begin, end


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


cdef inline Span inside(
    Py_ssize_t window, Py_ssize_t stride, Py_ssize_t before, Py_ssize_t kernel, Py_ssize_t size
) noexcept nogil:
    """The part of a window that is no padding, along one dimension."""
    cdef Py_ssize_t begin = window * stride - before
    return Span(larger(begin, 0), smaller(begin + kernel, size))


cdef inline Span windows_over(
    Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t stride, Py_ssize_t before, Py_ssize_t kernel, Py_ssize_t count
) noexcept nogil:
    """The windows that reach over any of the places begin … end - 1, along one dimension."""
    return Span(
        larger(begin + before - kernel + stride, 0) // stride,
        smaller((end - 1 + before) // stride + 1, count)
    )


# --- forward: fold every window ---

cdef inline void pool_windows(
    const Windows *at, const real *x, real *y, Py_ssize_t images, int thread, int threads,
    vec (*fold)(vec, vec) noexcept nogil, real start, const bint is_mean, double divisor
) noexcept nogil:
    """y = the fold of all pixels of each window; for a mean, over the divisor.

    A window of padding alone, beyond the length of its image, gives 0.
    """
    cdef Py_ssize_t c = at.channels, line = at.width * c
    cdef const real *x_end = x + images * at.height * line
    cdef real *y_end = y + partition(images * at.out_height, 1, thread + 1, threads) * (
        at.out_width * c
    )
    cdef Py_ssize_t image, row, column, channel, i, j, room
    cdef const real *corner
    cdef Span rows, columns
    cdef real scale = <real>(1 / divisor) if divisor > 0 else 1
    cdef vec folded
    row = partition(images * at.out_height, 1, thread, threads)
    y += row * at.out_width * c
    while y < y_end:
        image = row // at.out_height
        rows = inside(
            row - image * at.out_height, at.stride_height, at.top, at.kernel_height, at.height
        )
        corner = x + (image * at.height + rows.begin) * line
        for column in range(at.out_width):
            columns = inside(
                column, at.stride_width, at.left, at.kernel_width, width_of(at, image)
            )
            if is_mean and divisor == 0:
                scale = <real>1 / ((rows.end - rows.begin) * (columns.end - columns.begin))
            channel = 0
            while channel < c:
                # From here, or from any earlier pixel of the window, so many may be read.
                room = x_end - (
                    corner + (rows.end - rows.begin - 1) * line + (columns.end - 1) * c + channel
                )
                folded = fill(start)
                for i in range(rows.end - rows.begin):
                    for j in range(columns.begin, columns.end):
                        folded = fold(
                            load_columns(corner + i * line + j * c + channel, room), folded
                        )
                if columns.begin >= columns.end:
                    folded = fill(0)
                elif is_mean:
                    folded = folded * scale
                if y_end - (y + channel) >= LANES:
                    store(y + channel, folded)
                else:
                    store_part(y + channel, folded, c - channel)
                channel += LANES
            y += c
        row += 1


cdef Py_ssize_t max_pool(const void *arguments, int thread, int threads) noexcept nogil:
    """y = max of each window; NaN if it holds one."""
    cdef const MaxPoolArgs *args = <const MaxPoolArgs *>arguments
    cdef Windows at = Windows(
        args.height, args.width, args.channels, args.out_height, args.out_width,
        args.kernel_height, args.kernel_width, args.stride_height, args.stride_width,
        args.top, args.left, args.lengths
    )
    cdef Py_ssize_t bad = first_bad_length(&at, args.images)
    if bad > 0:
        return bad
    pool_windows(
        &at, <const real *>args.x, <real *>args.y, args.images, thread, threads,
        maximum_or_nan, -INFINITY, False, 1
    )
    return 0


cdef Py_ssize_t avg_pool(const void *arguments, int thread, int threads) noexcept nogil:
    """y = the sum of each window over the divisor, or over its number of pixels."""
    cdef const AvgPoolArgs *args = <const AvgPoolArgs *>arguments
    cdef Windows at = Windows(
        args.height, args.width, args.channels, args.out_height, args.out_width,
        args.kernel_height, args.kernel_width, args.stride_height, args.stride_width,
        args.top, args.left, args.lengths
    )
    cdef Py_ssize_t bad = first_bad_length(&at, args.images)
    if bad > 0:
        return bad
    pool_windows(
        &at, <const real *>args.x, <real *>args.y, args.images, thread, threads,
        add_vec, 0, True, args.divisor
    )
    return 0


# --- backward ---

cdef inline void give_pixel(
    real *dx, vec given, Py_ssize_t room, bint add
) noexcept nogil:
    """Write the gradient of some channels of a pixel, or add to it; zeros beyond them do no harm."""
    if add:
        given = given + load_columns(dx, room)
    store_columns(dx, given, room)


cdef inline void give_first_largest(
    const Windows *at, const real *x, const real *x_end, vec y, vec dy, real *dx,
    Span rows, Span columns, Py_ssize_t own, Py_ssize_t channel, bint add
) noexcept nogil:
    """Give dy to the first pixel of a window, row by row, that is not below the maximum y.

    Where y is NaN, that is the first NaN or infinity. Rows before `own` are another thread's.
    """
    cdef Py_ssize_t c = at.channels, line = at.width * c, place, room, i, j
    cdef vec pixel
    y = where_less(y, fill(INFINITY), y, fill(INFINITY))    # infinity for NaN
    for i in range(rows.begin, rows.end):
        for j in range(columns.begin, columns.end):
            place = i * line + j * c + channel
            pixel = load_columns(x + place, x_end - (x + place))
            if i >= own:
                # Of several vectors to a pixel, the last must not reach into the next pixel.
                room = (i + 1) * line - place if c <= LANES else c - channel
                give_pixel(dx + place, where_less(pixel, y, fill(0), dy), room, add)
            dy = where_less(pixel, y, dy, fill(0))


cdef Py_ssize_t max_pool_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = dy at the first largest pixel of each window, 0 elsewhere. Threads partition dx."""
    cdef const MaxPoolGradArgs *args = <const MaxPoolGradArgs *>arguments
    cdef Windows at = Windows(
        args.height, args.width, args.channels, args.out_height, args.out_width,
        args.kernel_height, args.kernel_width, args.stride_height, args.stride_width,
        args.top, args.left, args.lengths
    )
    cdef Py_ssize_t c = at.channels, size = at.height * at.width * c
    cdef Py_ssize_t begin = partition(args.images * at.height, 1, thread, threads)
    cdef Py_ssize_t end = partition(args.images * at.height, 1, thread + 1, threads)
    cdef bint overlap = at.stride_height < at.kernel_height or at.stride_width < at.kernel_width
    cdef const real *x = <const real *>args.x
    cdef const real *y
    cdef const real *dy
    cdef const real *y_end = <const real *>args.y + args.images * at.out_height * at.out_width * c
    cdef real *dx = <real *>args.dx
    cdef real[LANES] numbers
    cdef Py_ssize_t image, row, column, channel, place
    cdef Span own, rows, columns, over
    cdef vec lanes, gradient
    for place in range(LANES):
        numbers[place] = place
    lanes = load(numbers)
    memset(dx + begin * at.width * c, 0, (end - begin) * at.width * c * sizeof(real))
    if begin >= end:
        return 0
    for image in range(begin // at.height, (end - 1) // at.height + 1):
        own = Span(
            larger(begin - image * at.height, 0), smaller(end - image * at.height, at.height)
        )
        over = windows_over(
            own.begin, own.end, at.stride_height, at.top, at.kernel_height, at.out_height
        )
        for row in range(over.begin, over.end):
            rows = inside(row, at.stride_height, at.top, at.kernel_height, own.end)
            for column in range(at.out_width):
                columns = inside(
                    column, at.stride_width, at.left, at.kernel_width, width_of(&at, image)
                )
                place = ((image * at.out_height + row) * at.out_width + column) * c
                y, dy = <const real *>args.y + place, <const real *>args.dy + place
                channel = 0
                while channel < c:
                    gradient = load_columns(dy + channel, y_end - (y + channel))
                    give_first_largest(
                        &at, x + image * size, x + args.images * size,
                        load_columns(y + channel, y_end - (y + channel)),
                        where_less(lanes, fill(c - channel), gradient, fill(0)),
                        dx + image * size, rows, columns, own.begin, channel, overlap
                    )
                    channel += LANES
    return 0


cdef inline real share_of(
    const Windows *at, Py_ssize_t image, Py_ssize_t row, Py_ssize_t column, double divisor
) noexcept nogil:
    """What a pixel counts in the mean of a window."""
    cdef Span rows, columns
    if divisor > 0:
        return <real>(1 / divisor)
    rows = inside(row, at.stride_height, at.top, at.kernel_height, at.height)
    columns = inside(
        column, at.stride_width, at.left, at.kernel_width, width_of(at, image)
    )
    return <real>1 / ((rows.end - rows.begin) * (columns.end - columns.begin))


cdef Py_ssize_t avg_pool_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = the sum over all windows that hold a pixel, of dy over the divisor."""
    cdef const AvgPoolGradArgs *args = <const AvgPoolGradArgs *>arguments
    cdef Windows at = Windows(
        args.height, args.width, args.channels, args.out_height, args.out_width,
        args.kernel_height, args.kernel_width, args.stride_height, args.stride_width,
        args.top, args.left, args.lengths
    )
    cdef Py_ssize_t c = at.channels
    cdef Py_ssize_t line = partition(args.images * at.height, 1, thread, threads)
    cdef Py_ssize_t end = partition(args.images * at.height, 1, thread + 1, threads)
    cdef const real *dy
    cdef const real *dy_end = <const real *>args.dy + args.images * at.out_height * at.out_width * c
    cdef real *dx = <real *>args.dx + line * at.width * c
    cdef real *dx_end = <real *>args.dx + end * at.width * c
    cdef Py_ssize_t image, row, column, channel, i, j
    cdef Span rows, columns
    cdef vec total
    while line < end:
        image, row = line // at.height, line % at.height
        rows = windows_over(
            row, row + 1, at.stride_height, at.top, at.kernel_height, at.out_height
        )
        dy = <const real *>args.dy + image * at.out_height * at.out_width * c
        columns = Span(0, 0)
        for column in range(at.width):
            while (
                columns.end < at.out_width and columns.end * at.stride_width - at.left <= column
            ):
                columns.end += 1
            while columns.begin * at.stride_width - at.left + at.kernel_width <= column:
                columns.begin += 1
            if column >= width_of(&at, image):
                columns.end = columns.begin
            channel = 0
            while channel < c:
                total = fill(0)
                for i in range(rows.begin, rows.end):
                    for j in range(columns.begin, columns.end):
                        total = total + share_of(&at, image, i, j, args.divisor) * load_columns(
                            dy + (i * at.out_width + j) * c + channel,
                            dy_end - (dy + (i * at.out_width + j) * c + channel)
                        )
                if dx_end - (dx + channel) >= LANES:
                    store(dx + channel, total)
                else:
                    store_part(dx + channel, total, c - channel)
                channel += LANES
            dx += c
        line += 1
    return 0


KERNELS["max_pool"] = entry(max_pool, sizeof(MaxPoolArgs))
KERNELS["max_pool_grad"] = entry(max_pool_grad, sizeof(MaxPoolGradArgs))
KERNELS["avg_pool"] = entry(avg_pool, sizeof(AvgPoolArgs))
KERNELS["avg_pool_grad"] = entry(avg_pool_grad, sizeof(AvgPoolGradArgs))
