# Depthwise convolutions: every channel has a window of its own, and vectors lie along channels.

cdef inline bint is_depthwise(const ConvArgs *args) noexcept nogil:
    """Whether each of several channels gives one output, of no other channel."""
    return args.depth == 1 < args.groups and args.outputs == args.channels == args.groups


cdef inline const real *seen_by(
    const ConvArgs *args, const Pixel *pixel, Py_ssize_t r, Py_ssize_t s
) noexcept nogil:
    """The pixel of x at row r and column s of a window; NULL in the padding."""
    cdef Py_ssize_t i = pixel.top + r * args.row_step, j = pixel.left + s * args.column_step
    if not (0 <= i < args.height and 0 <= j < args.width):
        return NULL
    return (
        <const real *>args.x + ((pixel.image * args.height + i) * args.width + j) * args.channels
    )


cdef void convolve_depthwise(
    const ConvArgs *args, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """y = x * weight + bias, for the pixels of y from `begin` to `end`."""
    cdef const real *weight = <const real *>args.weight
    cdef Pixel pixel = pixel_at(args, begin)
    cdef const real *x
    cdef real *y
    cdef Py_ssize_t n = args.channels, q, r, s, c
    cdef vec sum
    for q in range(begin, end):
        y, c = <real *>args.y + q * n, 0
        while c < n:
            sum = fill(0)
            for r in range(args.rows):
                for s in range(args.columns):
                    x = seen_by(args, &pixel, r, s)
                    if x != NULL:
                        sum = sum + load_columns(x + c, n - c) * load_columns(
                            weight + (r * args.columns + s) * n + c, n - c
                        )
            if args.bias != NULL:
                sum = sum + load_columns(<const real *>args.bias + c, n - c)
            store_columns(y + c, sum, n - c)
            c += LANES
        next_pixel(args, &pixel)


cdef void add_depthwise(
    const ConvArgs *args, Py_ssize_t q, Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Add what `count` pixels of dy from pixel q on give to the rows of dx from `begin` to `end`."""
    cdef const real *weight = <const real *>args.weight
    cdef Pixel pixel = pixel_at(args, q)
    cdef const real *dy
    cdef real *dx
    cdef Py_ssize_t n = args.channels, p, r, s, c, row
    cdef vec gradient
    for p in range(q, q + count):
        dy, c = <const real *>args.y + p * n, 0
        while c < n:
            gradient = load_columns(dy + c, n - c)
            for r in range(args.rows):
                row = pixel.image * args.height + pixel.top + r * args.row_step
                for s in range(args.columns):
                    dx = <real *>seen_by(args, &pixel, r, s)
                    if dx != NULL and begin <= row < end:
                        store_columns(
                            dx + c,
                            load_columns(dx + c, n - c) + gradient * load_columns(
                                weight + (r * args.columns + s) * n + c, n - c
                            ),
                            n - c
                        )
            c += LANES
        next_pixel(args, &pixel)


cdef void sum_depthwise(
    const ConvArgs *args, Py_ssize_t begin, Py_ssize_t end, real *sums, Py_ssize_t c0,
    Py_ssize_t c1
) noexcept nogil:
    """sums = Σ x . dy over the pixels of y from `begin` to `end`, for channels c0 … c1."""
    cdef Pixel first = pixel_at(args, begin), pixel
    cdef const real *x
    cdef const real *dy
    cdef Py_ssize_t n = args.channels, q, r, s, c
    cdef vec sum
    for r in range(args.rows):
        for s in range(args.columns):
            c = c0
            while c < c1:
                sum, pixel = fill(0), first
                for q in range(begin, end):
                    x = seen_by(args, &pixel, r, s)
                    if x != NULL:
                        dy = <const real *>args.y + q * n
                        sum = sum + load_columns(x + c, n - c) * load_columns(dy + c, n - c)
                    next_pixel(args, &pixel)
                store_columns(sums + (r * args.columns + s) * n + c, sum, n - c)
                c += LANES
