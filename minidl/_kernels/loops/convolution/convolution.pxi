# Convolutions as products of patches (patches.pxi), channels last.
#
#   conv               y = activation(patches . weight + bias)
#   conv_grad_weight   dweight = patches' . dy
#   conv_grad_input    the gradient of patches is dy . weight'; it is added to dx where they lie
#
# Threads partition the pixels of y, the rows of dx, and the partial sums of dweight, each of which
# is over some of the images. The order of a sum never depends on the number of threads: an element
# of y or of a patch's gradient is summed in the order of the product, dx in the order of the
# pixels, dweight in the order of a part's pixels, and then of the parts.

cdef inline ConvArgs forward_args(const ConvGradArgs *args) noexcept nogil:
    """The same convolution, without a bias and an activation."""
    cdef ConvArgs forward
    forward.x, forward.weight, forward.bias, forward.y = args.x, args.weight, NULL, <void *>args.y
    forward.images, forward.height, forward.width = args.images, args.height, args.width
    forward.channels, forward.rows, forward.columns = args.channels, args.rows, args.columns
    forward.depth, forward.outputs = args.depth, args.outputs
    forward.out_height, forward.out_width = args.out_height, args.out_width
    forward.row_stride, forward.column_stride = args.row_stride, args.column_stride
    forward.rows_before, forward.columns_before = args.rows_before, args.columns_before
    forward.row_step, forward.column_step = args.row_step, args.column_step
    forward.groups, forward.activation = args.groups, NO_ACTIVATION
    forward.scratch, forward.scratch_step = args.scratch, args.scratch_step
    return forward


# --- the products of some patches; none writes what another thread may write ---

cdef inline MatmulArgs plain_product(
    Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, const real *b, Py_ssize_t b_row
) noexcept nogil:
    """A product of so many rows, without its operands A and C."""
    cdef MatmulArgs product
    product.m, product.k, product.n, product.m2 = m, k, n, 0
    product.b, product.b_row, product.b_col = b, b_row, 1
    product.bias = product.gate = product.a2 = product.c2 = product.partials = NULL
    product.a2_col, product.activation, product.accumulate = 0, NO_ACTIVATION, WRITE
    return product


cdef inline MatmulArgs output_product(
    const ConvArgs *args, Py_ssize_t group, real *patches, Py_ssize_t count
) noexcept nogil:
    """The outputs of one group for so many patches."""
    cdef Py_ssize_t k = window_of(args), n = args.outputs // args.groups
    cdef MatmulArgs product = plain_product(
        count, k, n, <const real *>args.weight + group * n, args.outputs
    )
    product.a, product.a_row, product.a_col = patches, k, 1
    product.c_row, product.activation = args.outputs, args.activation
    if args.bias != NULL:
        product.bias = <const real *>args.bias + group * n
    return product


cdef inline MatmulArgs weight_product(
    const ConvArgs *args, Py_ssize_t group, real *patches, Py_ssize_t q, Py_ssize_t count
) noexcept nogil:
    """The gradient of one group's weight, from the patches of `count` pixels from q on."""
    cdef Py_ssize_t m = window_of(args), n = args.outputs // args.groups
    cdef MatmulArgs product = plain_product(
        m, count, n, <const real *>args.y + q * args.outputs + group * n, args.outputs
    )
    product.a, product.a_row, product.a_col = patches, 1, m
    product.c_row = args.outputs
    return product


cdef inline MatmulArgs patch_product(
    const ConvArgs *args, Py_ssize_t group, const real *transposed, Py_ssize_t q,
    Py_ssize_t count
) noexcept nogil:
    """The gradients of one group's patches, of `count` pixels from q on."""
    cdef Py_ssize_t k = args.outputs // args.groups, n = window_of(args)
    cdef MatmulArgs product = plain_product(count, k, n, transposed, n)
    product.a = <const real *>args.y + q * args.outputs + group * k
    product.a_row, product.a_col, product.c_row = args.outputs, 1, n
    return product


cdef Py_ssize_t conv_scratch(const ConvArgs *args) noexcept nogil:
    """Bytes of scratch memory that each thread needs for any of the three; a multiple of 64.

    That is room for patches, for the transposed weight, and for what a product packs.
    """
    cdef Py_ssize_t most = patches_at_a_time(args), weight = window_of(args) * args.outputs
    cdef Py_ssize_t packed = 0, count
    cdef MatmulArgs product
    if is_depthwise(args):
        return 64
    if has_few_outputs(args):
        packed = scratch_of_planes(args)
    for count in range(2):    # one patch, or as many as there may be
        product = output_product(args, 0, NULL, most if count else 1)
        packed = larger(packed, scratch_of_blocks(&product))
        product = weight_product(args, 0, NULL, 0, most if count else 1)
        packed = larger(packed, scratch_of_blocks(&product))
        product = patch_product(args, 0, NULL, 0, most if count else 1)
        packed = larger(packed, scratch_of_blocks(&product))
    return ceil_div(
        (size_of_patches(args) + packed_row(weight) + packed) * <Py_ssize_t>sizeof(real), 64
    ) * 64


# --- the kernels ---

cdef Py_ssize_t conv(const void *arguments, int thread, int threads) noexcept nogil:
    """y = activation(x * weight + bias). Threads partition the pixels of y."""
    cdef const ConvArgs *args = <const ConvArgs *>arguments
    cdef real *scratch = <real *>(<char *>args.scratch + thread * args.scratch_step)
    cdef Py_ssize_t pixels = args.images * args.out_height * args.out_width
    cdef Py_ssize_t begin = partition(pixels, MR, thread, threads)
    cdef Py_ssize_t end = partition(pixels, MR, thread + 1, threads)
    if has_few_outputs(args):
        convolve_rows(
            args, first_row(args, args.out_height, thread, threads),
            first_row(args, args.out_height, thread + 1, threads), scratch
        )
    elif is_depthwise(args):
        convolve_depthwise(args, begin, end)
        activate_pixels(args, begin, end)
    else:
        convolve_patches(args, begin, end, scratch)
    return 0


cdef inline Py_ssize_t first_row(
    const ConvArgs *args, Py_ssize_t height, int thread, int threads
) noexcept nogil:
    """The first of a thread's rows, of all images: whole images, if these are enough."""
    return partition(
        args.images * height, height if args.images >= threads else 1, thread, threads
    )


cdef void convolve_rows(
    const ConvArgs *args, Py_ssize_t row, Py_ssize_t end, real *scratch
) noexcept nogil:
    """y = activation(x * weight + bias), with few outputs, for the rows of y from `row` to `end`.

    These rows are counted through all images, of which one is taken at a time.
    """
    cdef Py_ssize_t image, top, stop
    while row < end:
        image, top = row // args.out_height, row // args.out_height * args.out_height
        stop = smaller(end, top + args.out_height)
        convolve_few(args, image, row - top, stop - top, scratch)
        activate_pixels(args, row * args.out_width, stop * args.out_width)
        row = stop


cdef void convolve_patches(
    const ConvArgs *args, Py_ssize_t q, Py_ssize_t end, real *patches
) noexcept nogil:
    """y = activation(patches . weight + bias) for the pixels of y from q to `end`."""
    cdef real *scratch = patches + size_of_patches(args)
    cdef Py_ssize_t count, group
    cdef MatmulArgs product
    while q < end:
        count = smaller(patches_at_a_time(args), end - q)
        for group in range(args.groups):
            form_patches(args, group, q, count, patches)
            product = output_product(args, group, patches, count)
            product.c = <real *>args.y + q * args.outputs + group * product.n
            multiply_blocks(&product, scratch, 0, count, 0, product.n)
        q += count


cdef void activate_pixels(const ConvArgs *args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Apply the activation to the pixels of y from `begin` to `end`."""
    cdef MatmulArgs product
    product.c, product.n, product.c_row = args.y, args.outputs, args.outputs
    product.activation = args.activation
    if args.activation != NO_ACTIVATION:
        activate(&product, begin, end, 0, args.outputs)


cdef Py_ssize_t conv_grad_weight(const void *arguments, int thread, int threads) noexcept nogil:
    """sums[part] = patches' . dy over the images of each part. Threads partition the parts.

    A single part is partitioned by the elements of a patch instead.
    """
    cdef const ConvGradArgs *given = <const ConvGradArgs *>arguments
    cdef ConvArgs args = forward_args(given)
    cdef Py_ssize_t window = window_of(&args), pixels = args.out_height * args.out_width
    cdef Py_ssize_t each = ceil_div(args.images, given.parts) * pixels, part
    cdef real *sums = <real *>given.weight
    cdef real *scratch = <real *>(<char *>args.scratch + thread * args.scratch_step)
    if given.parts == 1:
        sum_patches(
            &args, 0, each, sums, scratch,
            partition(window, MR, thread, threads), partition(window, MR, thread + 1, threads)
        )
        return 0
    for part in range(
        partition(given.parts, 1, thread, threads), partition(given.parts, 1, thread + 1, threads)
    ):
        sum_patches(
            &args, part * each, smaller(part * each + each, args.images * pixels),
            sums + part * window * args.outputs, scratch, 0, window
        )
    return 0


cdef void sum_patches(
    const ConvArgs *args, Py_ssize_t begin, Py_ssize_t end, real *sums, real *scratch,
    Py_ssize_t i0, Py_ssize_t i1
) noexcept nogil:
    """sums = patches' . dy over the pixels from `begin` to `end`, elements i0 … i1 of a patch."""
    cdef Py_ssize_t q = begin, count, group
    cdef MatmulArgs product
    if i0 == i1:
        return
    if has_few_outputs(args):
        sum_few(
            args, begin // (args.out_height * args.out_width),
            end // (args.out_height * args.out_width), sums, scratch, i0, i1
        )
        return
    if is_depthwise(args):
        if i0 == 0:    # one thread takes all elements
            sum_depthwise(args, begin, end, sums)
        return
    while q < end:
        count = smaller(patches_at_a_time(args), end - q)
        for group in range(args.groups):
            form_patches(args, group, q, count, scratch)
            product = weight_product(args, group, scratch, q, count)
            product.c = sums + group * product.n
            product.accumulate = WRITE if q == begin else ADD
            multiply_blocks(&product, scratch + size_of_patches(args), i0, i1, 0, product.n)
        q += count


cdef Py_ssize_t conv_grad_input(const void *arguments, int thread, int threads) noexcept nogil:
    """dx = the sum of the gradients of all patches that an element is in.

    Threads partition the rows of dx: by whole images, if these are enough. At a border within an
    image, both compute the patches that reach over it, and each adds them to its own rows.
    """
    cdef ConvArgs args = forward_args(<const ConvGradArgs *>arguments)
    cdef real *scratch = <real *>(<char *>args.scratch + thread * args.scratch_step)
    cdef Py_ssize_t line = args.width * args.channels, image
    cdef Py_ssize_t begin = first_row(&args, args.height, thread, threads)
    cdef Py_ssize_t end = first_row(&args, args.height, thread + 1, threads)
    if begin == end:
        return 0
    memset(<real *>args.x + begin * line, 0, (end - begin) * line * sizeof(real))
    if not is_depthwise(&args):
        transpose_weight(&args, scratch + size_of_patches(&args))
    for image in range(begin // args.height, (end - 1) // args.height + 1):
        add_gradients(
            &args, image, larger(begin, image * args.height),
            smaller(end, (image + 1) * args.height), scratch
        )
    return 0


cdef void transpose_weight(const ConvArgs *args, real *transposed) noexcept nogil:
    """Transpose the weight of each group, so that products find its rows in vectors."""
    cdef Py_ssize_t window = window_of(args), n = args.outputs // args.groups, group
    for group in range(args.groups):
        pack_transposed(
            <const real *>args.weight + group * n, args.outputs, transposed + group * n * window,
            n, window, window, window
        )


cdef void add_gradients(
    const ConvArgs *args, Py_ssize_t image, Py_ssize_t begin, Py_ssize_t end, real *scratch
) noexcept nogil:
    """Add what one image's pixels of dy give to the rows of dx from `begin` to `end`."""
    cdef Py_ssize_t top = begin - image * args.height + args.rows_before
    cdef Py_ssize_t bottom = end - 1 - image * args.height + args.rows_before
    cdef Py_ssize_t first = larger(
        0, ceil_div(top - (args.rows - 1) * args.row_step, args.row_stride)
    )
    cdef Py_ssize_t last = smaller(args.out_height - 1, bottom // args.row_stride)
    cdef Py_ssize_t window = window_of(args), count, group
    cdef Py_ssize_t q = (image * args.out_height + first) * args.out_width
    cdef Py_ssize_t stop = (image * args.out_height + last + 1) * args.out_width
    cdef real *transposed = scratch + size_of_patches(args)
    cdef real *packed = transposed + packed_row(window * args.outputs)
    cdef MatmulArgs product
    if is_depthwise(args):
        if q < stop:
            add_depthwise(args, q, stop - q, begin, end)
        return
    while q < stop:
        count = smaller(patches_at_a_time(args), stop - q)
        for group in range(args.groups):
            product = patch_product(
                args, group, transposed + group * (args.outputs // args.groups) * window, q, count
            )
            product.c = scratch
            multiply_blocks(&product, packed, 0, count, 0, window)
            add_patches(args, group, q, count, scratch, begin, end)
        q += count


KERNELS["conv"] = entry(conv, sizeof(ConvArgs))
KERNELS["conv_grad_weight"] = entry(conv_grad_weight, sizeof(ConvGradArgs))
KERNELS["conv_grad_input"] = entry(conv_grad_input, sizeof(ConvGradArgs))
KERNELS["conv_scratch"] = <size_t>conv_scratch, 0
