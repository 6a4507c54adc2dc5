# Kernels that treat every element alike, and the maps they are made of. Threads partition the
# elements.

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


cdef inline void map_one_with(
    const void *arguments, int thread, int threads, vec (*f)(vec, vec) noexcept nogil
) noexcept nogil:
    """y[i] = f(x[i], parameter)."""
    cdef const UnaryWithArgs *args = <const UnaryWithArgs *>arguments
    cdef const real *x = <const real *>args.x
    cdef real *y = <real *>args.y
    cdef vec parameter = fill(<real>args.parameter)
    cdef Py_ssize_t i = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    while i + LANES <= end:
        store(y + i, f(load(x + i), parameter))
        i += LANES
    if i < end:
        store_part(y + i, f(load_part(x + i, end - i, 0), parameter), end - i)


cdef inline void map_two_with(
    const void *arguments, int thread, int threads, vec (*f)(vec, vec, vec) noexcept nogil
) noexcept nogil:
    """y[i] = f(a[i], b[i], parameter)."""
    cdef const BinaryWithArgs *args = <const BinaryWithArgs *>arguments
    cdef const real *a = <const real *>args.a
    cdef const real *b = <const real *>args.b
    cdef real *y = <real *>args.y
    cdef vec own, parameter = fill(<real>args.parameter)
    cdef Py_ssize_t i = partition(args.n, BLOCK, thread, threads)
    cdef Py_ssize_t end = partition(args.n, BLOCK, thread + 1, threads)
    while i + LANES <= end:
        store(y + i, f(load(a + i), load(b + i), parameter))
        i += LANES
    if i < end:
        own = f(load_part(a + i, end - i, 0), load_part(b + i, end - i, 0), parameter)
        store_part(y + i, own, end - i)


cdef inline vec add_vec(vec a, vec b) noexcept nogil:
    return a + b


cdef Py_ssize_t add(const void *args, int thread, int threads) noexcept nogil:
    """y = a + b"""
    map_two(args, thread, threads, add_vec)


cdef inline vec multiply_vec(vec a, vec b) noexcept nogil:
    return a * b


cdef Py_ssize_t multiply(const void *args, int thread, int threads) noexcept nogil:
    """y = a b"""
    map_two(args, thread, threads, multiply_vec)


cdef Py_ssize_t exp(const void *args, int thread, int threads) noexcept nogil:
    """y = exp(x)"""
    map_one(args, thread, threads, exp_vec)


cdef Py_ssize_t log(const void *args, int thread, int threads) noexcept nogil:
    """y = log(x); -infinity for 0, NaN for less"""
    map_one(args, thread, threads, log_vec)


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
    """y = x, where x may have any strides; threads partition the first dimension."""
    cdef const CopyArgs *args = <const CopyArgs *>arguments
    cdef Py_ssize_t begin = partition(args.shape[0], 1, thread, threads)
    cdef Py_ssize_t end = partition(args.shape[0], 1, thread + 1, threads)
    cdef Py_ssize_t i, size = 1
    if args.dimensions < 2:
        if thread == 0:
            copy_axis(args, 0, <const real *>args.x, <real *>args.y)
        return 0
    for i in range(1, args.dimensions):
        size *= args.shape[i]
    for i in range(begin, end):
        copy_axis(args, 1, <const real *>args.x + i * args.strides[0], <real *>args.y + i * size)
    return 0


cdef real *copy_axis(const CopyArgs *args, int axis, const real *x, real *y) noexcept nogil:
    """Copy the dimensions from `axis` on. Returns where y goes on."""
    cdef Py_ssize_t i
    if axis == args.dimensions:
        y[0] = x[0]
        return y + 1
    if axis + 1 == args.dimensions and args.strides[axis] == 1:
        memcpy(y, x, args.shape[axis] * sizeof(real))
        return y + args.shape[axis]
    for i in range(args.shape[axis]):
        if axis + 1 == args.dimensions:
            y[i] = x[i * args.strides[axis]]
        else:
            y = copy_axis(args, axis + 1, x + i * args.strides[axis], y)
    return y + args.shape[axis] if axis + 1 == args.dimensions else y


cdef Py_ssize_t concat(const void *arguments, int thread, int threads) noexcept nogil:
    """y = a, b, c and d, side by side; threads partition the rows."""
    cdef const ConcatArgs *args = <const ConcatArgs *>arguments
    cdef const void **parts = [args.a, args.b, args.c, args.d]
    cdef Py_ssize_t *widths = [args.first, args.second, args.third, args.fourth]
    cdef Py_ssize_t row, width = args.first + args.second + args.third + args.fourth
    cdef real *y = <real *>args.y + partition(args.rows, BLOCK_ROWS, thread, threads) * width
    cdef int part
    for row in range(
        partition(args.rows, BLOCK_ROWS, thread, threads),
        partition(args.rows, BLOCK_ROWS, thread + 1, threads),
    ):
        for part in range(4):
            if widths[part] > 0:
                memcpy(
                    y, <const real *>parts[part] + row * widths[part], widths[part] * sizeof(real)
                )
                y += widths[part]
    return 0


KERNELS["add"] = entry(add, sizeof(BinaryArgs))
KERNELS["multiply"] = entry(multiply, sizeof(BinaryArgs))
KERNELS["exp"] = entry(exp, sizeof(UnaryArgs))
KERNELS["log"] = entry(log, sizeof(UnaryArgs))
KERNELS["scale"] = entry(scale, sizeof(ScaleArgs))
KERNELS["clear"] = entry(clear, sizeof(ClearArgs))
KERNELS["copy"] = entry(copy, sizeof(CopyArgs))
KERNELS["concat"] = entry(concat, sizeof(ConcatArgs))
