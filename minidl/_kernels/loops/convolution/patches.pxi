# Patches: what the windows of a convolution see, gathered into the rows of a matrix.
#
# A patch is one row: the elements of a window, row of the window by row, all channels of a column
# side by side. With them a convolution is a matrix product: y = patches . weight. No matrix of all
# patches is ever formed: `convolution.pxi` takes some pixels of y at a time, whose patches stay in
# the L2 cache. That is what packing does with a block of A (`packing.pxi`).
#
# Where the columns of a window are next to each other and their channels belong to one group, a row
# of the window is one run of memory; else each column is a run by itself.

cdef enum:
    PATCH_BYTES = 1 << 17    # of the patches formed at a time, about
    MOST_PATCHES = 120       # a multiple of every MR, and one block of A whatever n is


cdef struct Pixel:
    # A pixel of y, and where its window begins in x.
    Py_ssize_t image, i, j    # its row and its column
    Py_ssize_t top, left      # of the window; negative within the padding


cdef inline Py_ssize_t window_of(const ConvArgs *args) noexcept nogil:
    """Elements of a patch of one group."""
    return args.rows * args.columns * args.depth


cdef inline Py_ssize_t patches_at_a_time(const ConvArgs *args) noexcept nogil:
    """How many patches are formed at a time: whole tiles of the product, at least one."""
    cdef Py_ssize_t room = PATCH_BYTES // (window_of(args) * <Py_ssize_t>sizeof(real))
    return smaller(MOST_PATCHES, larger(1, room // MR) * MR)


cdef inline Py_ssize_t size_of_patches(const ConvArgs *args) noexcept nogil:
    """Elements of these patches, and of the vector that may be stored beyond the last one."""
    return packed_row(patches_at_a_time(args) * window_of(args) + LANES)


cdef inline Pixel pixel_at(const ConvArgs *args, Py_ssize_t q) noexcept nogil:
    """Locate pixel q of y, counted through all images."""
    cdef Pixel pixel
    cdef Py_ssize_t row = q // args.out_width
    pixel.image, pixel.i = row // args.out_height, row % args.out_height
    pixel.j = q % args.out_width
    pixel.top = pixel.i * args.row_stride - args.rows_before
    pixel.left = pixel.j * args.column_stride - args.columns_before
    return pixel


cdef inline void next_pixel(const ConvArgs *args, Pixel *pixel) noexcept nogil:
    """Move on to the next pixel of y."""
    pixel.j, pixel.left = pixel.j + 1, pixel.left + args.column_stride
    if pixel.j == args.out_width:
        pixel.j, pixel.left = 0, -args.columns_before
        pixel.i, pixel.top = pixel.i + 1, pixel.top + args.row_stride
        if pixel.i == args.out_height:
            pixel.i, pixel.top, pixel.image = 0, -args.rows_before, pixel.image + 1


cdef inline bint is_whole_run(const ConvArgs *args, const Pixel *pixel) noexcept nogil:
    """Whether each row of a window is one run of memory, and none of its columns is padding."""
    return (
        args.column_step == 1 and args.depth == args.channels
        and pixel.left >= 0 and pixel.left + args.columns <= args.width
    )


cdef inline bint is_inside(const ConvArgs *args, const Pixel *pixel) noexcept nogil:
    """Whether no row of a window is padding."""
    return pixel.top >= 0 and pixel.top + (args.rows - 1) * args.row_step < args.height


cdef inline void copy_run(
    const real *source, real *patch, Py_ssize_t n, Py_ssize_t readable
) noexcept nogil:
    """Copy n elements, as whole vectors if these are readable.

    They may write behind the n elements of the patch, where the next ones are written later.
    """
    if packed_row(n) <= readable:
        copy_vectors(source, patch, n)
    else:
        memcpy(patch, source, n * sizeof(real))


cdef inline void copy_vectors(const real *source, real *patch, Py_ssize_t n) noexcept nogil:
    """Copy n elements as whole vectors."""
    cdef Py_ssize_t q = 0
    while q < n:
        store(patch + q, load(source + q))
        q += LANES


cdef void form_patches(
    const ConvArgs *args, Py_ssize_t group, Py_ssize_t q, Py_ssize_t count, real *patches
) noexcept nogil:
    """Form the patches of `count` pixels from pixel q on, for one group of channels."""
    cdef Pixel pixel = pixel_at(args, q)
    cdef Py_ssize_t n
    for n in range(count):
        form_patch(args, &pixel, group * args.depth, patches + n * window_of(args))
        next_pixel(args, &pixel)


cdef inline void form_patch(
    const ConvArgs *args, const Pixel *pixel, Py_ssize_t channel, real *patch
) noexcept nogil:
    """Form one patch; what lies in the padding is zero."""
    cdef const real *x = <const real *>args.x
    cdef Py_ssize_t elements = args.images * args.height * args.width * args.channels
    cdef Py_ssize_t line = args.width * args.channels, run = args.columns * args.depth
    cdef Py_ssize_t image = pixel.image * args.height, r, s, i, j, at
    cdef bint whole = is_whole_run(args, pixel)
    if whole and is_inside(args, pixel):    # the usual case: nothing but copies
        at = (image + pixel.top) * line + pixel.left * args.channels
        if at + (args.rows - 1) * args.row_step * line + packed_row(run) <= elements:
            for r in range(args.rows):
                copy_vectors(x + at, patch, run)
                at, patch = at + args.row_step * line, patch + run
            return
    for r in range(args.rows):
        i = pixel.top + r * args.row_step
        if not 0 <= i < args.height:
            memset(patch, 0, run * sizeof(real))
        elif whole:
            at = (image + i) * line + pixel.left * args.channels
            copy_run(x + at, patch, run, elements - at)
        else:
            for s in range(args.columns):
                j = pixel.left + s * args.column_step
                if 0 <= j < args.width:
                    at = (image + i) * line + j * args.channels + channel
                    copy_run(x + at, patch + s * args.depth, args.depth, elements - at)
                else:
                    memset(patch + s * args.depth, 0, args.depth * sizeof(real))
        patch = patch + run


# --- the way back: gradients of patches, added to the gradient of x ---

cdef inline void add_run(
    const real *patch, real *dx, Py_ssize_t n, Py_ssize_t room, ivec tail
) noexcept nogil:
    """Add n elements of a patch to dx. `tail` keeps those of the last vector.

    From dx on, `room` elements are this thread's: to these, zeros may be added behind the last one.
    """
    cdef Py_ssize_t whole = n // LANES * LANES, left = n - whole
    if packed_row(n) <= room:
        add_vectors(patch, dx, n, tail)
        return
    add_vectors(patch, dx, whole, tail)
    if left > 0:
        store_part(
            dx + whole, load_part(dx + whole, left, 0) + load_part(patch + whole, left, 0), left
        )


cdef inline void add_vectors(
    const real *patch, real *dx, Py_ssize_t n, ivec tail
) noexcept nogil:
    """Add n elements of a patch to dx, and zeros behind the last one, as whole vectors."""
    cdef Py_ssize_t q = 0
    while q + LANES <= n:
        store(dx + q, load(dx + q) + load(patch + q))
        q += LANES
    if q < n:
        store(dx + q, load(dx + q) + masked(load(patch + q), tail))


cdef void add_patches(
    const ConvArgs *args, Py_ssize_t group, Py_ssize_t q, Py_ssize_t count, const real *patches,
    Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Add the gradients of patches, in order, to the rows of dx from `begin` to `end`.

    These rows are counted through all images.
    """
    cdef Pixel pixel = pixel_at(args, q)
    cdef Py_ssize_t n
    for n in range(count):
        add_patch(args, &pixel, group * args.depth, patches + n * window_of(args), begin, end)
        next_pixel(args, &pixel)


cdef inline void add_patch(
    const ConvArgs *args, const Pixel *pixel, Py_ssize_t channel, const real *patch,
    Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Add the gradient of one patch, but for what lies in the padding or in other rows."""
    cdef real *dx = <real *>args.x
    cdef Py_ssize_t line = args.width * args.channels, run = args.columns * args.depth
    cdef Py_ssize_t image = pixel.image * args.height, r, s, i, j, at
    cdef bint whole = is_whole_run(args, pixel)
    cdef ivec tail = first_lanes(run % LANES if whole else args.depth % LANES)
    if whole and is_inside(args, pixel):    # the usual case, as above
        i = image + pixel.top
        at = i * line + pixel.left * args.channels
        i = i + (args.rows - 1) * args.row_step
        if begin <= image + pixel.top and i < end and (
            at + (args.rows - 1) * args.row_step * line + packed_row(run) <= end * line
        ):
            for r in range(args.rows):
                add_vectors(patch, dx + at, run, tail)
                at, patch = at + args.row_step * line, patch + run
            return
    for r in range(args.rows):
        i = pixel.top + r * args.row_step
        if 0 <= i < args.height and begin <= image + i < end:
            if whole:
                at = (image + i) * line + pixel.left * args.channels
                add_run(patch, dx + at, run, end * line - at, tail)
            else:
                for s in range(args.columns):
                    j = pixel.left + s * args.column_step
                    if 0 <= j < args.width:
                        at = (image + i) * line + j * args.channels + channel
                        add_run(
                            patch + s * args.depth, dx + at, args.depth, end * line - at, tail
                        )
        patch = patch + run
