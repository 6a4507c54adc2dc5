# Pooling: maxima and means over windows of pixels, and their gradients.
#
# An image has `height` rows of `width` pixels of `channels` numbers; vectors run along channels.
# The last vector of a pixel ends with the pixel, and so may begin in the vector before. If a pixel
# has fewer numbers than a vector has lanes, a whole vector is stored nevertheless: it spills into
# the pixels behind, which are written later. Only at the end of a row, or of this thread's rows, is
# a part of a vector stored. Threads partition the rows of what is written.

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


cdef inline bint are_whole(
    Span windows, Py_ssize_t stride, Py_ssize_t before, Py_ssize_t kernel, Py_ssize_t size
) noexcept nogil:
    """Whether none of these windows has a row, or column, outside of the image."""
    return (
        windows.begin * stride >= before
        and (windows.end - 1) * stride - before + kernel <= size
    )


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
    # That of windows inside of the image, if not of all.
    cdef real scale = <real>(1 / args.divisor) if args.divisor > 0 else (
        <real>1 / (at.kernel_height * at.kernel_width)
    )
    cdef Py_ssize_t image, row, column, channel
    cdef bint rows_alike, alike
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
        rows_alike = are_whole(rows, at.stride_height, at.top, at.kernel_height, at.height)
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
            alike = args.divisor > 0 or rows_alike and are_whole(
                columns, at.stride_width, at.left, at.kernel_width, width_of(&at, image)
            )
            channel = 0
            while channel < c:
                if alike:
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
