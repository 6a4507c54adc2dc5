# Dropout. The mask is a hash of (key, position): it does not depend on the number of threads, and
# is never stored.

cdef inline uint32_t mix32(uint32_t h, uint32_t key) noexcept nogil:
    """Hash h and the key: every bit of both reaches the upper bits of the result."""
    h = (h ^ (h >> 16)) * <uint32_t>0x85EBCA6BU ^ key
    return (h ^ (h >> 13)) * <uint32_t>0xC2B2AE35U


cdef Py_ssize_t dropout_key(const void *arguments, int thread, int threads) noexcept nogil:
    """key = the two words of SplitMix64 at the next position of the generator, state + 1."""
    cdef const DropoutKeyArgs *args = <const DropoutKeyArgs *>arguments
    cdef uint64_t z
    if thread == 0:
        args.state[1] += 1
        z = args.state[0] + args.state[1] * <uint64_t>0x9E3779B97F4A7C15ULL
        z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
        z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EBULL
        z = z ^ (z >> 31)
        args.key[0] = <uint32_t>z
        args.key[1] = <uint32_t>(z >> 32)


cdef Py_ssize_t dropout(const void *arguments, int thread, int threads) noexcept nogil:
    """y[i] = x[i] / (1 - p) where hash(key, i) / 2^32 >= p, else 0. Threads partition elements."""
    cdef const DropoutArgs *args = <const DropoutArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.y
    cdef real factor = <real>(1 / (1 - args.p))
    cdef uint32_t threshold = <uint32_t>(args.p * 4294967296.0)
    cdef uint32_t key0 = args.key[0], key1 = args.key[1], salt
    cdef Py_ssize_t begin = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    cdef Py_ssize_t i, stop
    while begin < end:
        # The upper half of the position enters through the salt, once per 2^32 elements.
        stop = smaller(end, ((begin >> 32) + 1) << 32)
        salt = mix32(<uint32_t>(begin >> 32), key0)
        for i in range(begin, stop):
            y[i] = x[i] * factor if mix32(<uint32_t>i ^ salt, key1) >= threshold else 0
        begin = stop


cdef Py_ssize_t dropout_channels(const void *arguments, int thread, int threads) noexcept nogil:
    """y = x / (1 - p) in channels where `dropout` of images x channels keeps an element, else 0.

    Threads partition the images. Where a pixel has fewer channels than a vector has lanes, a whole
    vector is stored: what it leaves in the pixels behind, these overwrite.
    """
    cdef const DropoutChannelsArgs *args = <const DropoutChannelsArgs *>arguments
    cdef Py_ssize_t c = args.channels, size = args.pixels * c
    cdef Py_ssize_t begin = partition(args.images, 1, thread, threads)
    cdef Py_ssize_t end = partition(args.images, 1, thread + 1, threads)
    cdef const real *x = <const real *>args.x
    cdef const real *x_end = x + args.images * size
    cdef real *y = <real *>args.y
    cdef real *y_end = y + end * size
    cdef vec factor = fill(<real>(1 / (1 - args.p))), kept, value
    cdef uint32_t threshold = <uint32_t>(args.p * 4294967296.0), salt
    cdef real[LANES] keep
    cdef Py_ssize_t image, channel, pixel, place, lane
    for image in range(begin, end):
        channel = 0
        while channel < c:
            for lane in range(LANES):
                place = image * c + channel + lane
                salt = mix32(<uint32_t>(place >> 32), args.key[0])
                keep[lane] = mix32(<uint32_t>place ^ salt, args.key[1]) >= threshold
            kept = load(keep)
            for pixel in range(args.pixels):
                place = (image * args.pixels + pixel) * c + channel
                value = factor * load_first(x + place, c - channel, x_end - (x + place))
                value = where_less(fill(0), kept, value, fill(0))
                store_first(y + place, value, c - channel, y_end - (y + place))
            # The last vector ends with the pixel.
            channel = c if channel + LANES >= c else smaller(channel + LANES, c - LANES)
    return 0


KERNELS["dropout_key"] = entry(dropout_key, sizeof(DropoutKeyArgs))
KERNELS["dropout"] = entry(dropout, sizeof(DropoutArgs))
KERNELS["dropout_channels"] = entry(dropout_channels, sizeof(DropoutChannelsArgs))
