# Pools whose windows have gaps between their rows and columns.
#
# A window may lie in the image with its gaps alone, and then has padding only.

cdef void pool_dilated(
    const Windows *at, const real *x, const real *x_end, real *y, real *y_end, Py_ssize_t begin,
    Py_ssize_t end, bint is_mean, double divisor
) noexcept nogil:
    """y = the maximum or mean of each window, for the rows of y from `begin` to `end`."""
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


cdef void max_pool_rows_dilated(
    const Windows *at, const real *x, const real *x_end, const real *y, const real *y_end,
    const real *dy, real *dx, Py_ssize_t image, Span own, bint after_relu
) noexcept nogil:
    """Add to rows `own` of dx of one image; x, y, dy and dx begin with the image."""
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


cdef void spread_dilated(
    const Windows *at, const real *dy, const real *dy_end, real *dx, real *dx_end,
    Py_ssize_t line, Py_ssize_t end, double divisor
) noexcept nogil:
    """dx = the sum of dy / n over the windows that hold a pixel, rows from `line` to `end`."""
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
