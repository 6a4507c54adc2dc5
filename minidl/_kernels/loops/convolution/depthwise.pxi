# Depthwise convolutions: every channel has a window of its own, and vectors lie along channels.

cdef struct Inside:
    # The part of a window that is not in the padding: rows r0 … r1 - 1, columns s0 … s1 - 1.
    Py_ssize_t r0, r1, s0, s1


cdef inline bint is_depthwise(const ConvArgs *args) noexcept nogil:
    """Whether each of several channels gives one output, of no other channel."""
    return args.depth == 1 < args.groups and args.outputs == args.channels == args.groups


cdef inline Inside inside_of(const ConvArgs *args, const Pixel *pixel) noexcept nogil:
    """Find the part of a window that is not in the padding."""
    cdef Inside inside
    inside.r0 = larger(0, ceil_div(-pixel.top, args.row_step))
    inside.r1 = smaller(args.rows, ceil_div(args.height - pixel.top, args.row_step))
    inside.s0 = larger(0, ceil_div(-pixel.left, args.column_step))
    inside.s1 = smaller(args.columns, ceil_div(args.width - pixel.left, args.column_step))
    return inside


cdef inline Py_ssize_t seen_at(
    const ConvArgs *args, const Pixel *pixel, Py_ssize_t r, Py_ssize_t s
) noexcept nogil:
    """Where in x the pixel at row r and column s of a window begins."""
    cdef Py_ssize_t i = pixel.image * args.height + pixel.top + r * args.row_step
    return (i * args.width + pixel.left + s * args.column_step) * args.channels


cdef void convolve_depthwise(
    const ConvArgs *args, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """y = x * weight + bias, for the pixels of y from `begin` to `end`."""
    cdef Pixel pixel = pixel_at(args, begin)
    cdef Inside inside
    cdef const real *x
    cdef const real *weight
    cdef Py_ssize_t n = args.channels, q, r, s, c
    cdef vec sum
    for q in range(begin, end):
        inside, c = inside_of(args, &pixel), 0
        while c < n:
            sum = fill(0)
            for r in range(inside.r0, inside.r1):
                x = <const real *>args.x + seen_at(args, &pixel, r, inside.s0) + c
                weight = <const real *>args.weight + (r * args.columns + inside.s0) * n + c
                for s in range(inside.s0, inside.s1):
                    sum = sum + load_columns(x, n - c) * load_columns(weight, n - c)
                    x, weight = x + args.column_step * n, weight + n
            if args.bias != NULL:
                sum = sum + load_columns(<const real *>args.bias + c, n - c)
            store_columns(<real *>args.y + q * n + c, sum, n - c)
            c += LANES
        next_pixel(args, &pixel)


cdef void add_depthwise(
    const ConvArgs *args, Py_ssize_t q, Py_ssize_t count, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Add what `count` pixels of dy from q on give to the rows of dx from `begin` to `end`."""
    cdef Pixel pixel = pixel_at(args, q)
    cdef Inside inside
    cdef const real *weight
    cdef real *dx
    cdef Py_ssize_t n = args.channels, p, r, s, c, row
    cdef vec dy
    for p in range(q, q + count):
        inside, c = inside_of(args, &pixel), 0
        while c < n:
            dy = load_columns(<const real *>args.y + p * n + c, n - c)
            for r in range(inside.r0, inside.r1):
                row = pixel.image * args.height + pixel.top + r * args.row_step
                if not begin <= row < end:
                    continue
                dx = <real *>args.x + seen_at(args, &pixel, r, inside.s0) + c
                weight = <const real *>args.weight + (r * args.columns + inside.s0) * n + c
                for s in range(inside.s0, inside.s1):
                    store_columns(
                        dx, load_columns(dx, n - c) + dy * load_columns(weight, n - c), n - c
                    )
                    dx, weight = dx + args.column_step * n, weight + n
            c += LANES
        next_pixel(args, &pixel)


cdef void sum_depthwise(
    const ConvArgs *args, Py_ssize_t begin, Py_ssize_t end, real *dweight
) noexcept nogil:
    """dweight = Σ x . dy over the pixels of y from `begin` to `end`."""
    cdef Pixel pixel = pixel_at(args, begin)
    cdef Inside inside
    cdef const real *x
    cdef real *sums
    cdef Py_ssize_t n = args.channels, q, r, s, c
    cdef vec dy
    memset(dweight, 0, args.rows * args.columns * n * sizeof(real))
    for q in range(begin, end):
        inside, c = inside_of(args, &pixel), 0
        while c < n:
            dy = load_columns(<const real *>args.y + q * n + c, n - c)
            for r in range(inside.r0, inside.r1):
                x = <const real *>args.x + seen_at(args, &pixel, r, inside.s0) + c
                sums = dweight + (r * args.columns + inside.s0) * n + c
                for s in range(inside.s0, inside.s1):
                    store_columns(
                        sums, load_columns(sums, n - c) + load_columns(x, n - c) * dy, n - c
                    )
                    x, sums = x + args.column_step * n, sums + n
            c += LANES
        next_pixel(args, &pixel)
