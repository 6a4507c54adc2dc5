# Kernels that treat every element alike.

cdef enum:
    BLOCK = 1024    # elements; threads share whole grains


cdef inline void map_one(
    const void *arguments, int thread, int threads, vec (*f)(vec) noexcept nogil
) noexcept nogil:
    """y[i] = f(x[i])."""
    cdef const UnaryArgs *args = <const UnaryArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.y
    cdef Py_ssize_t i = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    cdef vec first, second
    while i + 2 * LANES <= end:    # two at a time: one computes while the other waits
        first, second = f(load(x + i)), f(load(x + i + LANES))
        store(y + i, first)
        store(y + i + LANES, second)
        i += 2 * LANES
    while i + LANES <= end:
        store(y + i, f(load(x + i)))
        i += LANES
    if i < end:
        store_part(y + i, f(load_part(x + i, end - i, 0)), end - i)


cdef inline void map_two(
    const void *arguments, int thread, int threads, vec (*f)(vec, vec) noexcept nogil
) noexcept nogil:
    """y[i] = f(a[i], b[i])."""
    cdef const BinaryArgs *args = <const BinaryArgs *>arguments
    cdef const real *a = <const real *>args.a
    cdef const real *b = <const real *>args.b
    cdef real *y = <real *>args.y
    cdef Py_ssize_t i = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    while i + LANES <= end:
        store(y + i, f(load(a + i), load(b + i)))
        i += LANES
    if i < end:
        store_part(y + i, f(load_part(a + i, end - i, 0), load_part(b + i, end - i, 0)), end - i)


cdef inline vec relu_vec(vec x) noexcept nogil:
    return maximum(fill(0), x)    # in this order NaN stays NaN


cdef inline vec relu_grad_vec(vec dy, vec y) noexcept nogil:
    return where_less(fill(0), y, dy, fill(0))


cdef inline vec sigmoid_grad_vec(vec dy, vec y) noexcept nogil:
    return dy * y * (1 - y)


cdef inline vec tanh_grad_vec(vec dy, vec y) noexcept nogil:
    return dy * (1 - y * y)


cdef inline vec add_vec(vec a, vec b) noexcept nogil:
    return a + b


cdef Py_ssize_t relu(const void *args, int thread, int threads) noexcept nogil:
    map_one(args, thread, threads, relu_vec)


cdef Py_ssize_t exp(const void *args, int thread, int threads) noexcept nogil:
    map_one(args, thread, threads, exp_vec)


cdef Py_ssize_t log(const void *args, int thread, int threads) noexcept nogil:
    map_one(args, thread, threads, log_vec)


cdef Py_ssize_t sigmoid(const void *args, int thread, int threads) noexcept nogil:
    map_one(args, thread, threads, sigmoid_vec)


cdef Py_ssize_t tanh(const void *args, int thread, int threads) noexcept nogil:
    map_one(args, thread, threads, tanh_vec)


cdef Py_ssize_t relu_grad(const void *args, int thread, int threads) noexcept nogil:
    map_two(args, thread, threads, relu_grad_vec)


cdef Py_ssize_t sigmoid_grad(const void *args, int thread, int threads) noexcept nogil:
    map_two(args, thread, threads, sigmoid_grad_vec)


cdef Py_ssize_t tanh_grad(const void *args, int thread, int threads) noexcept nogil:
    map_two(args, thread, threads, tanh_grad_vec)


cdef Py_ssize_t add(const void *args, int thread, int threads) noexcept nogil:
    map_two(args, thread, threads, add_vec)


cdef Py_ssize_t scale(const void *arguments, int thread, int threads) noexcept nogil:
    """x[i] *= factor."""
    cdef const ScaleArgs *args = <const ScaleArgs *>arguments
    cdef real *x = <real *>args.x
    cdef real factor = <real>args.factor
    cdef Py_ssize_t i
    for i in range(
        partition(args.n, BLOCK, thread, threads), partition(args.n, BLOCK, thread + 1, threads)
    ):
        x[i] = x[i] * factor


cdef Py_ssize_t clear(const void *arguments, int thread, int threads) noexcept nogil:
    """x[i] = 0."""
    cdef const ClearArgs *args = <const ClearArgs *>arguments
    cdef Py_ssize_t begin = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    memset(<real *>args.x + begin, 0, (end - begin) * sizeof(real))


cdef Py_ssize_t copy(const void *arguments, int thread, int threads) noexcept nogil:
    """y = x, whose rows may have any strides; threads share the rows of the first dimension."""
    cdef const CopyArgs *args = <const CopyArgs *>arguments
    cdef Py_ssize_t begin = partition(args.shape[0], 1, thread, threads)
    cdef Py_ssize_t end = partition(args.shape[0], 1, thread + 1, threads)
    cdef Py_ssize_t i, size = 1
    if args.dimensions < 2:
        if thread == 0:
            copy_from(args, 0, <const real *>args.x, <real *>args.y)
        return 0
    for i in range(1, args.dimensions):
        size *= args.shape[i]
    for i in range(begin, end):
        copy_from(args, 1, <const real *>args.x + i * args.strides[0], <real *>args.y + i * size)
    return 0


cdef real *copy_from(const CopyArgs *args, int axis, const real *x, real *y) noexcept nogil:
    """The dimensions from `axis` on; returns where y goes on."""
    cdef Py_ssize_t i
    if axis == args.dimensions:
        y[0] = x[0]
        return y + 1
    for i in range(args.shape[axis]):
        if axis + 1 == args.dimensions:
            y[i] = x[i * args.strides[axis]]
        else:
            y = copy_from(args, axis + 1, x + i * args.strides[axis], y)
    return y + args.shape[axis] if axis + 1 == args.dimensions else y


# --- dropout: the mask is a hash of (key, position) ---

cdef inline uint32_t mix32(uint32_t h, uint32_t key) noexcept nogil:
    """Every bit of h, and then of the key, reaches the upper bits of the result."""
    h = (h ^ (h >> 16)) * <uint32_t>0x85EBCA6BU ^ key
    return (h ^ (h >> 13)) * <uint32_t>0xC2B2AE35U


cdef Py_ssize_t dropout_key(const void *arguments, int thread, int threads) noexcept nogil:
    """Two words of SplitMix64 at the next position of the generator."""
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
    """y[i] = x[i] / (1 - p) where the hash of i is at least p, else 0."""
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
