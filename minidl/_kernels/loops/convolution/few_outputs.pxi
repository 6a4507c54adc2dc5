# Convolutions with fewer outputs than a vector has lanes, such as the first one of LeNet-5: vectors
# along pixels. Vectors along outputs would be mostly empty, and forming the patches of so small a
# product would take longer than the product.
#
# One image at a time is copied into planes, one for each channel, with its padding around it. A
# plane is `line` elements wide, as many as windows reach over. Pixel t of y, counted along the
# lines of a plane, then needs element t + at(r, s) of each plane, for row r and column s of the
# window: so neighbouring pixels are a vector. At the end of each line are some t that are no pixels
# of y: what is computed there is left out, and their dy is 0.

cdef enum:
    PLANE_BYTES = 1 << 18    # of all planes of an image: they should stay in the L2 cache
    MOST_LANES = 16          # of any build: there are fewer outputs


cdef struct Planes:
    real *x                  # channels x size
    real *dy                 # outputs x pixels
    real *sums               # a vector for each element of the weight
    Py_ssize_t line, size    # elements of a line, and of a plane
    Py_ssize_t pixels        # t from 0 on, in whole vectors
    Py_ssize_t channels, outputs


cdef inline Planes planes_of(const ConvArgs *args, Py_ssize_t rows, real *scratch) noexcept nogil:
    """Lay out the planes for so many rows of y in scratch memory."""
    cdef Planes planes
    planes.channels, planes.outputs = args.channels, args.outputs
    planes.line = args.out_width + (args.columns - 1) * args.column_step
    planes.size = (rows + (args.rows - 1) * args.row_step) * planes.line
    planes.pixels = packed_row(rows * planes.line)
    planes.x = scratch
    planes.dy = scratch + packed_row(planes.channels * planes.size + beyond_planes(args))
    planes.sums = planes.dy + planes.outputs * planes.pixels
    return planes


cdef inline Py_ssize_t beyond_planes(const ConvArgs *args) noexcept nogil:
    """Elements behind the last plane that tiles read, though no pixel of y depends on them."""
    return args.columns * args.column_step + NR


cdef inline Py_ssize_t scratch_of_planes(const ConvArgs *args) noexcept nogil:
    """Elements of scratch memory that they take."""
    cdef Planes planes = planes_of(args, args.out_height, NULL)
    return planes.sums - planes.x + window_of(args) * args.outputs * LANES


cdef inline bint has_few_outputs(const ConvArgs *args) noexcept nogil:
    """Whether vectors lie along pixels."""
    return (
        args.groups == 1 and args.outputs < LANES
        and args.row_stride == 1 and args.column_stride == 1
        and larger(args.out_height, (args.rows - 1) * args.row_step) <= PLANE_BYTES
        and larger(args.out_width, (args.columns - 1) * args.column_step) <= PLANE_BYTES
        and args.channels <= PLANE_BYTES    # so that the product of all cannot overflow
        and scratch_of_planes(args) * <Py_ssize_t>sizeof(real) <= PLANE_BYTES
    )


cdef void fill_planes(
    const ConvArgs *args, const Planes *planes, Py_ssize_t image, Py_ssize_t top
) noexcept nogil:
    """Copy the lines from row `top` of the padded image on, all that there is room for."""
    cdef const real *x
    cdef real *line
    cdef Py_ssize_t c, i, j, n = args.channels, row = top - args.rows_before
    cdef Py_ssize_t before = smaller(args.columns_before, planes.line)
    cdef Py_ssize_t width = smaller(args.width, planes.line - before)
    memset(planes.x, 0, (n * planes.size + beyond_planes(args)) * sizeof(real))
    for i in range(planes.size // planes.line):
        if 0 <= row + i < args.height:
            x = <const real *>args.x + (image * args.height + row + i) * args.width * n
            for c in range(n):
                line = planes.x + c * planes.size + i * planes.line + before
                if n == 1:
                    memcpy(line, x, width * sizeof(real))
                else:
                    for j in range(width):
                        line[j] = x[j * n + c]


cdef void fill_gradients(
    const ConvArgs *args, const Planes *planes, Py_ssize_t image
) noexcept nogil:
    """Copy dy of one image into planes, one for each output."""
    cdef vec square[LANES]
    cdef const real *dy
    cdef Py_ssize_t n = args.outputs, pixels = args.out_height * args.out_width, i, j, lane, q, wide
    memset(planes.dy, 0, n * planes.pixels * sizeof(real))
    for i in range(args.out_height):
        j = 0
        while j < args.out_width:
            q = (image * pixels + i * args.out_width + j) * n
            dy = <const real *>args.y + q
            wide = smaller(LANES, args.out_width - j)
            if q + (LANES - 1) * n + LANES > args.images * pixels * n:    # of the last pixels
                for lane in range(LANES):
                    square[lane] = load_part(dy + lane * n, n, 0) if lane < wide else fill(0)
            else:
                for lane in range(LANES):
                    square[lane] = load(dy + lane * n)
                for lane in range(wide, LANES):
                    square[lane] = fill(0)
            transpose_to_few(square, n)
            # Zeros at the end of a line may reach into the next one, for now.
            for lane in range(n):
                store_columns(
                    planes.dy + lane * planes.pixels + i * planes.line + j, square[lane],
                    planes.pixels - i * planes.line - j
                )
            j += LANES


cdef inline void transpose_few(vec *square, Py_ssize_t n) noexcept nogil:
    """Transpose a square of which only the first n rows are not zero."""
    cdef int lane
    if 2 * n > LANES or LANES < 4:
        transpose(square)
        return
    merge_half(square)
    # A row now has two columns of the transpose: in its lower half one, in its higher half the one
    # LANES / 2 further on. Of columns, only the first n elements matter.
    for lane in range(LANES // 2):
        square[lane + LANES // 2] = merge_high(square[lane], square[lane], LANES // 2)


cdef inline void transpose_to_few(vec *square, Py_ssize_t n) noexcept nogil:
    """Transpose a square of whose transpose only the first n rows are wanted."""
    cdef int lane
    if 2 * n > LANES or LANES < 4:
        transpose(square)
        return
    for lane in range(LANES // 2):
        square[lane] = merge_low(square[lane], square[lane + LANES // 2], LANES // 2)
    merge_half(square)


cdef inline void merge_half(vec *square) noexcept nogil:
    """Transpose both halves of LANES / 2 rows, each a square."""
    if LANES > 2:
        merge_first_rows(square, 1)
    if LANES > 4:
        merge_first_rows(square, 2)
    if LANES > 8:
        merge_first_rows(square, 4)


cdef inline void merge_first_rows(vec *square, const int step) noexcept nogil:
    """Exchange lanes between vectors `step` apart, of the first LANES / 2."""
    cdef vec upper, lower
    cdef int i
    for i in range(LANES // 2):
        if not i & step:
            upper = square[i]
            lower = square[i + step]
            square[i] = merge_low(upper, lower, step)
            square[i + step] = merge_high(upper, lower, step)


# --- y: tiles of outputs x pixels ---

cdef inline void tile_of_pixels(
    const ConvArgs *args, const Planes *planes, const real *x, const real *weight, real *sums,
    const int outputs, const int vectors
) noexcept nogil:
    """sums (outputs x NR) = the window's sum for as many pixels as these vectors hold."""
    cdef vec acc[MR][TILE_VECTORS]
    cdef vec row[TILE_VECTORS]
    cdef const real *at
    cdef Py_ssize_t r, s, c
    cdef int i, j
    for i in range(outputs):
        for j in range(vectors):
            acc[i][j] = fill(0)
    for r in range(args.rows):
        for s in range(args.columns):
            at = x + r * args.row_step * planes.line + s * args.column_step
            for c in range(args.channels):
                for j in range(vectors):
                    row[j] = load(at + j * LANES)
                for i in range(outputs):
                    for j in range(vectors):
                        acc[i][j] = acc[i][j] + weight[i] * row[j]
                at, weight = at + planes.size, weight + args.outputs
    for i in range(outputs):
        for j in range(vectors):
            store(sums + i * NR + j * LANES, acc[i][j])


cdef inline void tile_of_outputs(
    const ConvArgs *args, const Planes *planes, const real *x, const real *weight, real *sums,
    Py_ssize_t outputs, const int vectors
) noexcept nogil:
    """The same for a number of outputs that is no constant."""
    if outputs == 6:
        tile_of_pixels(args, planes, x, weight, sums, 6, vectors)
    elif outputs == 5:
        tile_of_pixels(args, planes, x, weight, sums, 5, vectors)
    elif outputs == 4:
        tile_of_pixels(args, planes, x, weight, sums, 4, vectors)
    elif outputs == 3:
        tile_of_pixels(args, planes, x, weight, sums, 3, vectors)
    elif outputs == 2:
        tile_of_pixels(args, planes, x, weight, sums, 2, vectors)
    else:
        tile_of_pixels(args, planes, x, weight, sums, 1, vectors)


cdef void convolve_few(
    const ConvArgs *args, Py_ssize_t image, Py_ssize_t begin, Py_ssize_t end, real *scratch
) noexcept nogil:
    """y = x * weight + bias, for the rows of y from `begin` to `end` of one image."""
    cdef Planes planes = planes_of(args, end - begin, scratch)
    cdef const real *weight = <const real *>args.weight
    cdef Py_ssize_t tiles = ceil_div(args.outputs, MR), t = 0, o, height, tile, vectors
    cdef real sums[MOST_LANES * NR]
    fill_planes(args, &planes, image, begin)
    while t < planes.pixels:
        o, vectors = 0, TILE_VECTORS if t + NR <= planes.pixels else 1
        for tile in range(tiles):    # of nearly equal height
            height = (args.outputs - o) // (tiles - tile)
            if vectors == TILE_VECTORS:    # constants, so that each has a loop of its own
                tile_of_outputs(
                    args, &planes, planes.x + t, weight + o, sums + o * NR, height, TILE_VECTORS
                )
            else:
                tile_of_outputs(args, &planes, planes.x + t, weight + o, sums + o * NR, height, 1)
            o += height
        for tile in range(vectors):
            store_pixels(args, &planes, sums + tile * LANES, image, begin, end, t)
            t += LANES


cdef inline void store_pixels(
    const ConvArgs *args, const Planes *planes, const real *sums, Py_ssize_t image,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t t
) noexcept nogil:
    """Store as many pixels as a vector holds, from t on, with the bias added.

    Whole vectors are stored: they reach into pixels that are stored after them.
    """
    cdef vec square[LANES]
    cdef vec bias = fill(0)
    cdef Py_ssize_t n = args.outputs, width = args.out_width, line = planes.line
    cdef Py_ssize_t i = begin + t // line, j = t % line, lane
    cdef real *y = <real *>args.y + image * args.out_height * width * n
    cdef const real *stop = y + end * width * n    # behind the last pixel
    y = y + (i * width + smaller(j, width)) * n
    if args.bias != NULL:
        bias = load_part(<const real *>args.bias, n, 0)
    for lane in range(LANES):
        square[lane] = load(sums + lane * NR) if lane < n else fill(0)
    transpose_few(square, n)
    for lane in range(LANES):
        if j < width and y < stop:
            if stop - y >= LANES:
                store(y, square[lane] + bias)
            else:
                store_part(y, square[lane] + bias, n)
            y = y + n
        j = j + 1 if j + 1 < line else 0


# --- dweight: tiles of elements of a window x outputs, a vector of partial sums for each ---

cdef inline Py_ssize_t place_in_planes(
    const ConvArgs *args, const Planes *planes, Py_ssize_t p
) noexcept nogil:
    """Where element p of a window lies in the planes, from that of its first element on."""
    cdef Py_ssize_t c = p % args.channels, s = p // args.channels % args.columns
    cdef Py_ssize_t r = p // args.channels // args.columns
    return c * planes.size + r * args.row_step * planes.line + s * args.column_step


cdef inline void tile_of_weights(
    const ConvArgs *args, const Planes *planes, Py_ssize_t p, Py_ssize_t o, const int elements,
    const int outputs
) noexcept nogil:
    """Add to the sums of some elements of the window, for some outputs, one image's pixels."""
    cdef vec acc[TILE_VECTORS][MR]
    cdef vec x[TILE_VECTORS]
    cdef vec dy
    cdef const real *at[TILE_VECTORS]
    cdef real *sums = planes.sums + (p * args.outputs + o) * LANES
    cdef Py_ssize_t t = 0
    cdef int i, j
    for j in range(elements):
        at[j] = planes.x + place_in_planes(args, planes, p + j)
        for i in range(outputs):
            acc[j][i] = load(sums + (j * args.outputs + i) * LANES)
    while t < planes.pixels:
        for j in range(elements):
            x[j] = load(at[j] + t)
        for i in range(outputs):
            dy = load(planes.dy + (o + i) * planes.pixels + t)
            for j in range(elements):
                acc[j][i] = acc[j][i] + x[j] * dy
        t += LANES
    for j in range(elements):
        for i in range(outputs):
            store(sums + (j * args.outputs + i) * LANES, acc[j][i])


cdef inline void tile_of_elements(
    const ConvArgs *args, const Planes *planes, Py_ssize_t p, Py_ssize_t o, const int elements,
    Py_ssize_t outputs
) noexcept nogil:
    """The same for a number of outputs that is no constant."""
    if outputs == 6:
        tile_of_weights(args, planes, p, o, elements, 6)
    elif outputs == 5:
        tile_of_weights(args, planes, p, o, elements, 5)
    elif outputs == 4:
        tile_of_weights(args, planes, p, o, elements, 4)
    elif outputs == 3:
        tile_of_weights(args, planes, p, o, elements, 3)
    elif outputs == 2:
        tile_of_weights(args, planes, p, o, elements, 2)
    else:
        tile_of_weights(args, planes, p, o, elements, 1)


cdef void sum_few(
    const ConvArgs *args, Py_ssize_t begin, Py_ssize_t end, real *sums, real *scratch,
    Py_ssize_t p0, Py_ssize_t p1
) noexcept nogil:
    """sums = patches' . dy over the images from `begin` to `end`, for elements p0 … p1."""
    cdef Planes planes = planes_of(args, args.out_height, scratch)
    cdef Py_ssize_t tiles = ceil_div(args.outputs, MR), image, p, o, height, tile
    memset(planes.sums, 0, window_of(args) * args.outputs * VEC_BYTES)
    for image in range(begin, end):
        fill_planes(args, &planes, image, 0)
        fill_gradients(args, &planes, image)
        o = 0
        for tile in range(tiles):
            height, p = (args.outputs - o) // (tiles - tile), p0
            while p < p1:
                if p + TILE_VECTORS <= p1:
                    tile_of_elements(args, &planes, p, o, TILE_VECTORS, height)
                    p += TILE_VECTORS
                else:
                    tile_of_elements(args, &planes, p, o, 1, height)
                    p += 1
            o += height
    for p in range(p0 * args.outputs, p1 * args.outputs):
        sums[p] = lane_sum(load(planes.sums + p * LANES))
