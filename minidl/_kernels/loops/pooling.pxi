# Pooling: maxima and means over windows of pixels, and their gradients.
#
# An image has `height` rows of `width` pixels of `channels` numbers; vectors run along channels.
# The last vector of a pixel ends with the pixel, and so may begin in the vector before. If a pixel
# has fewer numbers than a vector has lanes, a whole vector is stored nevertheless: it spills into
# the pixels behind, which are written later. Only at the end of a row, or of this thread's rows, is
# a part of a vector stored. Threads partition the rows of what is written.

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


# --- forward: fold every window ---

cdef inline void fold_windows(
    const real *x, const real *x_end, real *y, real *y_end, Py_ssize_t count, Py_ssize_t step,
    Py_ssize_t height, Py_ssize_t width, Py_ssize_t line, Py_ssize_t c, Py_ssize_t channels,
    real scale, vec (*fold)(vec, vec) noexcept nogil, const bint is_mean
) noexcept nogil:
    """y = the fold of each of `count` windows of height x width pixels, `step` elements apart.

    Rows of x are `line` elements apart, pixels c. Of each pixel so many channels are folded.
    """
    cdef Py_ssize_t last = (height - 1) * line + (width - 1) * c, i, j
    cdef vec folded
    for _ in range(count):
        folded = load_first(x, channels, x_end - (x + last))
        for i in range(height):
            for j in range(width):
                if i + j > 0:
                    folded = fold(
                        load_first(x + i * line + j * c, channels, x_end - (x + last)), folded
                    )
        if is_mean:
            folded = folded * scale
        store_first(y, folded, channels, y_end - y)
        x += step
        y += c


cdef inline void pool_windows(
    const Windows *at, const real *x, real *y, Py_ssize_t images, int thread, int threads,
    vec (*fold)(vec, vec) noexcept nogil, const bint is_mean, double divisor
) noexcept nogil:
    """y = the fold of all pixels of each window; for a mean, over the divisor.

    A window of padding alone gives -∞, or a mean of 0.
    """
    cdef Py_ssize_t c = at.channels, line = at.width * c, step = at.stride_width * c
    cdef Py_ssize_t begin = partition(images * at.out_height, 1, thread, threads)
    cdef Py_ssize_t end = partition(images * at.out_height, 1, thread + 1, threads)
    cdef const real *x_end = x + images * at.height * line
    cdef real *y_end = y + end * at.out_width * c
    cdef Py_ssize_t image, row, column, channel, high, wide, count, top
    cdef const real *corner
    cdef Span rows, columns
    cdef real scale = <real>(1 / divisor) if divisor > 0 else 1
    y += begin * at.out_width * c
    if is_dilated(at):
        pool_dilated(at, x, x_end, y, y_end, begin, end, is_mean, divisor)
        return
    for row in range(begin, end):
        image = row // at.out_height
        top = (row - image * at.out_height) * at.stride_height - at.top
        rows = inside(top, 1, at.kernel_height, at.height)
        high = rows.end - rows.begin
        column = 0
        while column < at.out_width:
            columns = inside(
                column * at.stride_width - at.left, 1, at.kernel_width, width_of(at, image)
            )
            wide = columns.end - columns.begin
            if wide <= 0:
                for channel in range((at.out_width - column) * c):
                    y[channel] = 0 if is_mean else -INFINITY
                y += (at.out_width - column) * c
                break
            count = alike(at, column, wide, width_of(at, image))
            if is_mean and divisor == 0:
                scale = share_of(at, image, row - image * at.out_height, column)
            corner = x + (image * at.height + top + rows.begin) * line
            corner = corner + (column * at.stride_width - at.left + columns.begin) * c
            channel = 0
            while channel < c:
                if high == 2 and wide == 2:    # the usual case, with loops unrolled
                    fold_windows(
                        corner + channel, x_end, y + channel, y_end, count, step,
                        2, 2, line, c, c - channel, scale, fold, is_mean
                    )
                else:
                    fold_windows(
                        corner + channel, x_end, y + channel, y_end, count, step,
                        high, wide, line, c, c - channel, scale, fold, is_mean
                    )
                channel = next_channel(channel, c)
            y += count * c
            column += count


cdef void pool_dilated(
    const Windows *at, const real *x, const real *x_end, real *y, real *y_end, Py_ssize_t begin,
    Py_ssize_t end, bint is_mean, double divisor
) noexcept nogil:
    """The same for the rows of y from `begin` to `end`, even if windows see padding alone."""
    cdef Py_ssize_t c = at.channels, row, image, column, channel, top, left, i, j
    cdef Span rows, columns
    cdef const real *pixel
    cdef real scale = <real>(1 / divisor) if divisor > 0 else 1
    cdef vec folded
    for row in range(begin, end):
        image = row // at.out_height
        top = (row - image * at.out_height) * at.stride_height - at.top
        rows = inside(top, at.row_step, at.kernel_height, at.height)
        for column in range(at.out_width):
            left = column * at.stride_width - at.left
            columns = inside(left, at.column_step, at.kernel_width, width_of(at, image))
            if is_mean and divisor == 0:
                scale = share_of(at, image, row - image * at.out_height, column)
            channel = 0
            while channel < c:
                folded = fill(0 if is_mean else -INFINITY)
                for i in range(rows.begin, rows.end):
                    for j in range(columns.begin, columns.end):
                        pixel = x + channel + c * (
                            (image * at.height + top + i * at.row_step) * at.width
                            + left + j * at.column_step
                        )
                        if is_mean:
                            folded = folded + load_first(pixel, c - channel, x_end - pixel)
                        else:
                            folded = maximum_or_nan(
                                load_first(pixel, c - channel, x_end - pixel), folded
                            )
                if is_mean:
                    folded = folded * scale
                store_first(y + channel, folded, c - channel, y_end - (y + channel))
                channel = next_channel(channel, c)
            y += c


cdef Py_ssize_t max_pool(const void *arguments, int thread, int threads) noexcept nogil:
    """y = max of each window; NaN if it holds one."""
    cdef const MaxPoolArgs *args = <const MaxPoolArgs *>arguments
    cdef Windows at = windows_of(args)
    cdef Py_ssize_t bad = first_bad_length(&at, args.images)
    if bad > 0:
        return bad
    pool_windows(
        &at, <const real *>args.x, <real *>args.y, args.images, thread, threads,
        maximum_or_nan, False, 1
    )
    return 0


cdef Py_ssize_t avg_pool(const void *arguments, int thread, int threads) noexcept nogil:
    """y = the sum of each window over the divisor, or over its number of pixels."""
    cdef const AvgPoolArgs *args = <const AvgPoolArgs *>arguments
    cdef Windows at = windows_of(args)
    cdef Py_ssize_t bad = first_bad_length(&at, args.images)
    if bad > 0:
        return bad
    pool_windows(
        &at, <const real *>args.x, <real *>args.y, args.images, thread, threads,
        add_vec, True, args.divisor
    )
    return 0


# --- backward ---

cdef inline void give_first_largest(
    const real *x, const real *x_end, const real *y, const real *y_end, const real *dy, real *dx,
    Py_ssize_t count, Py_ssize_t step, Py_ssize_t height, Py_ssize_t width, Py_ssize_t line,
    Py_ssize_t apart, Py_ssize_t c, Py_ssize_t begin, Py_ssize_t channels, vec lanes,
    Py_ssize_t room, Py_ssize_t own, bint after_relu, const bint add
) noexcept nogil:
    """Give dy of each of `count` windows to its first pixel, row by row, that is not below y.

    Where y is NaN, that is the first NaN or infinity. All other pixels are given 0. Windows are
    `step` elements apart, their rows `line`, and pixels in them `apart`; rows before row `own` are
    another thread's; in each row, `room` elements from the first window on may be written. Only
    lanes from `begin` on are added: those before have been added with the vector before.
    """
    cdef vec largest, pixel, given, gradient, first = fill(begin), end = fill(channels)
    cdef Py_ssize_t i, j, place
    for _ in range(count):
        largest = load_first(y, channels, y_end - y)
        largest = where_less(largest, fill(INFINITY), largest, fill(INFINITY))    # NaN: infinity
        gradient = load_first(dy, channels, y_end - y)
        gradient = where_less(lanes, end, gradient, fill(0))
        if add:
            gradient = where_less(lanes, first, fill(0), gradient)
        for i in range(height):
            for j in range(width):
                place = i * line + j * apart
                pixel = load_first(x + place, channels, x_end - (x + place))
                given = where_less(pixel, largest, fill(0), gradient)
                if after_relu:
                    given = relu_grad_vec(given, pixel)
                gradient = where_less(pixel, largest, gradient, fill(0))
                if i >= own:
                    if add:
                        given = given + load_first(dx + place, channels, room - j * apart)
                    store_first(dx + place, given, channels, room - j * apart)
        x += step
        dx += step
        y += c
        dy += c
        room -= step


cdef inline void max_pool_rows(
    const Windows *at, const real *x, const real *x_end, const real *y, const real *y_end,
    const real *dy, real *dx, Py_ssize_t image, Span own, bint after_relu, const bint add
) noexcept nogil:
    """Rows `own` of dx of one image; x, y, dy and dx begin with the image."""
    cdef Py_ssize_t c = at.channels, line = at.width * c, step = at.stride_width * c
    cdef Py_ssize_t row, column, channel, done, high, wide, count, room, before, corner, place
    cdef Span rows, columns, over = windows_over(
        own.begin, own.end, at.stride_height, at.top, at.kernel_height, at.out_height
    )
    cdef vec lanes = lane_numbers()
    for row in range(over.begin, over.end):
        rows = inside(row * at.stride_height - at.top, 1, at.kernel_height, own.end)
        high = rows.end - rows.begin
        rows.begin += row * at.stride_height - at.top    # now in the image
        before = own.begin - rows.begin
        column = 0
        while column < at.out_width:
            columns = inside(
                column * at.stride_width - at.left, 1, at.kernel_width, width_of(at, image)
            )
            wide = columns.end - columns.begin
            columns.begin += column * at.stride_width - at.left
            if wide <= 0:
                break
            count = alike(at, column, wide, width_of(at, image))
            channel = done = 0
            while channel < c:
                place = (row * at.out_width + column) * c + channel
                corner = rows.begin * line + columns.begin * c + channel
                room = line - columns.begin * c - channel
                if high == 2 and wide == 2 and before <= 0:    # the usual case
                    give_first_largest(
                        x + corner, x_end, y + place, y_end, dy + place, dx + corner, count, step,
                        2, 2, line, c, c, done - channel, c - channel, lanes, room, 0,
                        after_relu, add
                    )
                else:
                    give_first_largest(
                        x + corner, x_end, y + place, y_end, dy + place, dx + corner, count, step,
                        high, wide, line, c, c, done - channel, c - channel, lanes, room,
                        before, after_relu, add
                    )
                done, channel = channel + LANES, next_channel(channel, c)
            column += count


cdef void max_pool_rows_dilated(
    const Windows *at, const real *x, const real *x_end, const real *y, const real *y_end,
    const real *dy, real *dx, Py_ssize_t image, Span own, bint after_relu
) noexcept nogil:
    """The same for windows with gaps between their rows and columns."""
    cdef Py_ssize_t c = at.channels, line = at.width * c
    cdef Py_ssize_t row, column, channel, done, top, left, before, corner, place
    cdef Span rows, columns, over = windows_over(
        own.begin, own.end, at.stride_height, at.top, reach(at.kernel_height, at.row_step),
        at.out_height
    )
    cdef vec lanes = lane_numbers()
    for row in range(over.begin, over.end):
        top = row * at.stride_height - at.top
        rows = inside(top, at.row_step, at.kernel_height, own.end)
        before = inside(top, at.row_step, at.kernel_height, own.begin).end - rows.begin
        for column in range(at.out_width):
            left = column * at.stride_width - at.left
            columns = inside(left, at.column_step, at.kernel_width, width_of(at, image))
            left += columns.begin * at.column_step
            channel = done = 0
            while channel < c:
                place = (row * at.out_width + column) * c + channel
                corner = (top + rows.begin * at.row_step) * line + left * c + channel
                give_first_largest(
                    x + corner, x_end, y + place, y_end, dy + place, dx + corner, 1, 0,
                    rows.end - rows.begin, columns.end - columns.begin, line * at.row_step,
                    c * at.column_step, c, done - channel, c - channel, lanes,
                    line - left * c - channel, before, after_relu, True
                )
                done, channel = channel + LANES, next_channel(channel, c)


cdef Py_ssize_t max_pool_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = dy at the first largest pixel of each window, 0 elsewhere. Threads partition dx."""
    cdef const MaxPoolGradArgs *args = <const MaxPoolGradArgs *>arguments
    cdef Windows at = windows_of(args)
    cdef Py_ssize_t begin = partition(args.images * at.height, 1, thread, threads)
    cdef Py_ssize_t end = partition(args.images * at.height, 1, thread + 1, threads)
    cdef bint add = at.stride_height < at.kernel_height or at.stride_width < at.kernel_width
    cdef Py_ssize_t line = at.width * at.channels, image
    cdef Py_ssize_t x_size = at.height * line, y_size = at.out_height * at.out_width * at.channels
    cdef const real *x = <const real *>args.x
    cdef const real *y = <const real *>args.y
    cdef const real *dy = <const real *>args.dy
    cdef real *dx = <real *>args.dx
    cdef const real *x_end = x + args.images * x_size
    cdef const real *y_end = y + args.images * y_size
    cdef Span own
    cdef Py_ssize_t bad = first_bad_length(&at, args.images)
    if bad > 0:
        return bad
    # Whether each pixel lies in one window, so that it is written once and need not be cleared.
    cdef bint everything = (
        is_tiling(&at) and at.out_height * at.kernel_height == at.height
        and at.out_width * at.kernel_width == at.width
    )
    for image in range(begin // at.height, ceil_div(end, at.height)):
        own = Span(
            larger(begin - image * at.height, 0), smaller(end - image * at.height, at.height)
        )
        if not everything:
            memset(
                dx + image * x_size + own.begin * line, 0,
                (own.end - own.begin) * line * sizeof(real)
            )
        if is_dilated(&at):
            max_pool_rows_dilated(
                &at, x + image * x_size, x_end, y + image * y_size, y_end, dy + image * y_size,
                dx + image * x_size, image, own, args.after_relu
            )
        elif add:
            max_pool_rows(
                &at, x + image * x_size, x_end, y + image * y_size, y_end, dy + image * y_size,
                dx + image * x_size, image, own, args.after_relu, True
            )
        else:
            max_pool_rows(
                &at, x + image * x_size, x_end, y + image * y_size, y_end, dy + image * y_size,
                dx + image * x_size, image, own, args.after_relu, False
            )
    return 0


cdef inline void spread_line(
    const real *dy, const real *dy_end, real *dx, real *dx_end, Py_ssize_t count,
    Py_ssize_t width, Py_ssize_t c, Py_ssize_t channels, real scale
) noexcept nogil:
    """dx = scale dy, so many channels of each of `count` pixels repeated `width` times."""
    cdef Py_ssize_t j
    cdef vec pixel
    for _ in range(count):
        pixel = scale * load_first(dy, channels, dy_end - dy)
        for j in range(width):
            store_first(dx + j * c, pixel, channels, dx_end - (dx + j * c))
        dx += width * c
        dy += c


cdef inline void spread_blocks(
    const Windows *at, const real *dy, const real *dy_end, real *dx, real *dx_end,
    Py_ssize_t begin, Py_ssize_t end, real scale
) noexcept nogil:
    """dx = scale dy, each pixel spread over its window, where windows lie side by side."""
    cdef Py_ssize_t c = at.channels, line, image, row, channel
    cdef Py_ssize_t used = at.out_width * at.kernel_width
    cdef const real *pixels
    for line in range(begin, end):
        image = line // at.height
        row = (line - image * at.height) // at.kernel_height
        if row >= at.out_height:
            memset(dx, 0, at.width * c * sizeof(real))
        else:
            pixels, channel = dy + (image * at.out_height + row) * at.out_width * c, 0
            while channel < c:
                spread_line(
                    pixels + channel, dy_end, dx + channel, dx_end, at.out_width,
                    at.kernel_width, c, c - channel, scale
                )
                channel = next_channel(channel, c)
            memset(dx + used * c, 0, (at.width - used) * c * sizeof(real))
        dx += at.width * c


cdef inline Span windows_at(
    Py_ssize_t place, Py_ssize_t stride, Py_ssize_t before, Py_ssize_t kernel, Py_ssize_t step,
    Py_ssize_t count
) noexcept nogil:
    """The windows that reach over a place, from the first that has a row, or column, there.

    Others may have none there, as it lies between two of their rows.
    """
    cdef Span over = windows_over(place, place + 1, stride, before, reach(kernel, step), count)
    while over.begin < over.end and (place + before - over.begin * stride) % step:
        over.begin += 1
    return over


cdef inline Py_ssize_t next_at(
    Py_ssize_t stride, Py_ssize_t step, Py_ssize_t count
) noexcept nogil:
    """How many windows on is the next one that has a row, or column, at the same place."""
    cdef Py_ssize_t n = 1
    while n < count and n * stride % step:
        n += 1
    return n


cdef inline vec sum_windows(
    const Windows *at, const real *dy, const real *dy_end, Py_ssize_t image, Span rows,
    Span columns, Py_ssize_t channel, real scale, const bint alike
) noexcept nogil:
    """The sum of dy over some windows of an image, times the scale if it is that of all windows."""
    cdef Py_ssize_t c = at.channels, i, j, place
    cdef vec total = fill(0)
    for i in range(rows.begin, rows.end):
        for j in range(columns.begin, columns.end):
            place = (i * at.out_width + j) * c + channel
            if not alike:
                scale = share_of(at, image, i, j)
            total = total + scale * load_first(dy + place, c - channel, dy_end - (dy + place))
    return total


cdef void spread_dilated(
    const Windows *at, const real *dy, const real *dy_end, real *dx, real *dx_end,
    Py_ssize_t line, Py_ssize_t end, double divisor
) noexcept nogil:
    """The rows of dx from `line` to `end`, for windows with gaps between their rows and columns."""
    cdef Py_ssize_t row_next = next_at(at.stride_height, at.row_step, at.out_height)
    cdef Py_ssize_t column_next = next_at(at.stride_width, at.column_step, at.out_width)
    cdef Py_ssize_t c = at.channels, image, row, column, channel, i, j
    cdef real scale = <real>(1 / divisor) if divisor > 0 else 1
    cdef const real *pixel
    cdef Span rows, columns
    cdef vec total
    for line in range(line, end):
        image, row = line // at.height, line % at.height
        rows = windows_at(
            row, at.stride_height, at.top, at.kernel_height, at.row_step, at.out_height
        )
        for column in range(at.width):
            columns = windows_at(
                column, at.stride_width, at.left, at.kernel_width, at.column_step, at.out_width
            )
            if column >= width_of(at, image):
                columns.end = columns.begin
            channel = 0
            while channel < c:
                total, i = fill(0), rows.begin
                while i < rows.end:
                    j = columns.begin
                    while j < columns.end:
                        pixel = dy + ((image * at.out_height + i) * at.out_width + j) * c + channel
                        if divisor == 0:
                            scale = share_of(at, image, i, j)
                        total = total + scale * load_first(pixel, c - channel, dy_end - pixel)
                        j += column_next
                    i += row_next
                store_first(dx + channel, total, c - channel, dx_end - (dx + channel))
                channel = next_channel(channel, c)
            dx += c


cdef Py_ssize_t avg_pool_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = the sum over all windows that hold a pixel, of dy over the divisor."""
    cdef const AvgPoolGradArgs *args = <const AvgPoolGradArgs *>arguments
    cdef Windows at = windows_of(args)
    cdef Py_ssize_t c = at.channels
    cdef Py_ssize_t line = partition(args.images * at.height, 1, thread, threads)
    cdef Py_ssize_t end = partition(args.images * at.height, 1, thread + 1, threads)
    cdef const real *dy
    cdef const real *dy_end = <const real *>args.dy + args.images * at.out_height * at.out_width * c
    cdef real *dx = <real *>args.dx + line * at.width * c
    cdef real *dx_end = <real *>args.dx + end * at.width * c
    cdef real scale = <real>(1 / args.divisor) if args.divisor > 0 else 1
    cdef Py_ssize_t image, row, column, channel
    cdef Span rows, columns
    cdef vec total
    cdef Py_ssize_t bad = first_bad_length(&at, args.images)
    if bad > 0:
        return bad
    if is_tiling(&at) and args.divisor > 0:
        spread_blocks(&at, <const real *>args.dy, dy_end, dx, dx_end, line, end, scale)
        return 0
    if is_dilated(&at):
        spread_dilated(&at, <const real *>args.dy, dy_end, dx, dx_end, line, end, args.divisor)
        return 0
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
                if args.divisor > 0:
                    total = sum_windows(
                        &at, dy, dy_end, image, rows, columns, channel, scale, True
                    )
                else:
                    total = sum_windows(
                        &at, dy, dy_end, image, rows, columns, channel, scale, False
                    )
                store_first(dx + channel, total, c - channel, dx_end - (dx + channel))
                channel = next_channel(channel, c)
            dx += c
        line += 1
    return 0


KERNELS["max_pool"] = entry(max_pool, sizeof(MaxPoolArgs))
KERNELS["max_pool_grad"] = entry(max_pool_grad, sizeof(MaxPoolGradArgs))
KERNELS["avg_pool"] = entry(avg_pool, sizeof(AvgPoolArgs))
KERNELS["avg_pool_grad"] = entry(avg_pool_grad, sizeof(AvgPoolGradArgs))
