"""The matrix product in steps: docs/kernels.md explains them, matmul_steps.py measures them.

Every step computes c (m x n) = a (m x k) . b (k x n); the rows of all three are contiguous.
`real`, `vec`, LANES and the tile of MR x NR are those of minidl's `simd.h`.
"""

cimport numpy as cnp
from simd cimport *

cnp.import_array()

cdef enum:
    MC = 240     # rows of a block of A; a multiple of every MR
    NC = 1024    # columns of a block of B; a multiple of every NR


cdef inline Py_ssize_t smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


# --- step 2 ---------------------------------------------------------------------------------


cdef void plain_loops(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """Compute the definition: one sum after the other."""
    cdef Py_ssize_t i, j, p
    cdef real total
    for i in range(m):
        for j in range(n):
            total = 0
            for p in range(k):
                total = total + a[i * k + p] * b[p * n + j]
            c[i * n + j] = total


# --- step 3 ---------------------------------------------------------------------------------


cdef void loop_order(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """Add rows of B, times elements of A, to rows of C."""
    rows_of_b(a, b, c, k, n, 0, m, 0, n)


cdef void rows_of_b(
    const real *a, const real *b, real *c, Py_ssize_t k, Py_ssize_t n,
    Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1
) noexcept nogil:
    """Compute rows i0 … i1 and columns j0 … j1 of c."""
    cdef Py_ssize_t i, j, p
    cdef real factor
    for i in range(i0, i1):
        for j in range(j0, j1):
            c[i * n + j] = 0
        for p in range(k):
            factor = a[i * k + p]
            for j in range(j0, j1):
                c[i * n + j] = c[i * n + j] + factor * b[p * n + j]


cdef void remainder(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n,
    Py_ssize_t whole_m, Py_ssize_t whole_n
) noexcept nogil:
    """Compute the remainder of c beside whole tiles, at the right and below."""
    rows_of_b(a, b, c, k, n, 0, whole_m, whole_n, n)
    rows_of_b(a, b, c, k, n, whole_m, m, 0, n)


# --- step 4 ---------------------------------------------------------------------------------


cdef enum:
    HEIGHT = 4
    WIDTH = 32


cdef void register_tile(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """Compute tiles of 4 x 32 sums, kept in registers over the whole depth."""
    cdef Py_ssize_t whole_m = m - m % HEIGHT, whole_n = n - n % WIDTH, i, j = 0
    while j < whole_n:
        i = 0
        while i < whole_m:
            scalar_tile(a + i * k, b + j, c + i * n + j, k, n)
            i += HEIGHT
        j += WIDTH
    remainder(a, b, c, m, k, n, whole_m, whole_n)


cdef inline void scalar_tile(
    const real *a, const real *b, real *c, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """c (HEIGHT x WIDTH) = a . b."""
    cdef real acc[HEIGHT][WIDTH]
    cdef Py_ssize_t p
    cdef int i, j
    for i in range(HEIGHT):
        for j in range(WIDTH):
            acc[i][j] = 0
    for p in range(k):
        for i in range(HEIGHT):
            for j in range(WIDTH):
                acc[i][j] = acc[i][j] + a[i * k + p] * b[p * n + j]
    for i in range(HEIGHT):
        for j in range(WIDTH):
            c[i * n + j] = acc[i][j]


# --- step 5 ---------------------------------------------------------------------------------


cdef void vector_tile(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """Compute tiles of MR x NR sums, which fill the vector registers."""
    cdef Py_ssize_t whole_m = m - m % MR, whole_n = n - n % NR, i, j = 0
    while j < whole_n:
        i = 0
        while i < whole_m:
            tile(a + i * k, k, 1, b + j, n, c + i * n + j, n, k, False)
            i += MR
        j += NR
    remainder(a, b, c, m, k, n, whole_m, whole_n)


cdef inline void tile(
    const real *a, Py_ssize_t a_row, Py_ssize_t a_col, const real *b, Py_ssize_t b_row,
    real *c, Py_ssize_t c_row, Py_ssize_t depth, bint accumulate
) noexcept nogil:
    """c (MR x NR) = a . b, or c += a . b."""
    cdef vec acc[MR][TILE_VECTORS]
    cdef vec row[TILE_VECTORS]
    cdef Py_ssize_t p
    cdef int i, j
    for i in range(MR):
        for j in range(TILE_VECTORS):
            acc[i][j] = fill(0)
    for p in range(depth):
        for j in range(TILE_VECTORS):
            row[j] = load(b + p * b_row + j * LANES)
        for i in range(MR):
            for j in range(TILE_VECTORS):
                acc[i][j] = acc[i][j] + a[i * a_row + p * a_col] * row[j]
    if accumulate:
        for i in range(MR):
            for j in range(TILE_VECTORS):
                acc[i][j] = acc[i][j] + load(c + i * c_row + j * LANES)
    for i in range(MR):
        for j in range(TILE_VECTORS):
            store(c + i * c_row + j * LANES, acc[i][j])


# --- step 6 ---------------------------------------------------------------------------------


cdef void blocking(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n
) noexcept nogil:
    """Run five loops over blocks that stay in the caches, and over the tiles of a block."""
    cdef Py_ssize_t whole_m = m - m % MR, whole_n = n - n % NR
    cdef Py_ssize_t jc = 0, pc, ic, jr, ir, depth
    while jc < whole_n:
        pc = 0
        while pc < k:
            depth = smaller(KC, k - pc)
            ic = 0
            while ic < whole_m:
                jr = jc
                while jr < smaller(jc + NC, whole_n):
                    ir = ic
                    while ir < smaller(ic + MC, whole_m):
                        tile(
                            a + ir * k + pc, k, 1, b + pc * n + jr, n,
                            c + ir * n + jr, n, depth, pc > 0
                        )
                        ir += MR
                    jr += NR
                ic += MC
            pc += KC
        jc += NC
    remainder(a, b, c, m, k, n, whole_m, whole_n)


# --- step 7 ---------------------------------------------------------------------------------


cdef void packing(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, real *packed
) noexcept nogil:
    """Run the five loops over copies of the blocks, packed in the order in which tiles read."""
    cdef Py_ssize_t whole_m = m - m % MR, whole_n = n - n % NR
    cdef Py_ssize_t jc = 0, pc, ic, jr, ir, depth, rows, columns
    cdef real *block_b = packed
    cdef real *block_a = packed + KC * NC
    while jc < whole_n:
        columns = smaller(NC, whole_n - jc)
        pc = 0
        while pc < k:
            depth = smaller(KC, k - pc)
            pack_b(b + pc * n + jc, n, block_b, depth, columns)
            ic = 0
            while ic < whole_m:
                rows = smaller(MC, whole_m - ic)
                pack_a(a + ic * k + pc, k, block_a, rows, depth)
                jr = 0
                while jr < columns:
                    ir = 0
                    while ir < rows:
                        tile(
                            block_a + ir * depth, 1, MR, block_b + jr * depth, NR,
                            c + (ic + ir) * n + jc + jr, n, depth, pc > 0
                        )
                        ir += MR
                    jr += NR
                ic += MC
            pc += KC
        jc += NC
    remainder(a, b, c, m, k, n, whole_m, whole_n)


cdef void pack_b(
    const real *b, Py_ssize_t b_row, real *packed, Py_ssize_t depth, Py_ssize_t columns
) noexcept nogil:
    """Pack panels of NR columns, row by row; columns that are missing are zeros."""
    cdef Py_ssize_t jr = 0, p, j, width
    while jr < columns:
        width = smaller(NR, columns - jr)
        for p in range(depth):
            for j in range(width):
                packed[p * NR + j] = b[p * b_row + jr + j]
            for j in range(width, NR):
                packed[p * NR + j] = 0
        packed = packed + depth * NR
        jr += NR


cdef void pack_a(
    const real *a, Py_ssize_t a_row, real *packed, Py_ssize_t rows, Py_ssize_t depth
) noexcept nogil:
    """Pack panels of MR rows, column by column; rows that are missing are zeros."""
    cdef Py_ssize_t ir = 0, p, i
    while ir < rows:
        for i in range(MR):
            for p in range(depth):
                packed[p * MR + i] = a[(ir + i) * a_row + p] if ir + i < rows else <real>0
        packed = packed + depth * MR
        ir += MR


# --- step 8 ---------------------------------------------------------------------------------


cdef void edges(
    const real *a, const real *b, real *c, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, real *packed
) noexcept nogil:
    """Run the five loops up to the edge of C, with partial tiles."""
    cdef Py_ssize_t jc = 0, pc, ic, jr, ir, depth, rows, columns
    cdef real *block_b = packed
    cdef real *block_a = packed + KC * NC
    while jc < n:
        columns = smaller(NC, n - jc)
        pc = 0
        while pc < k:
            depth = smaller(KC, k - pc)
            pack_b(b + pc * n + jc, n, block_b, depth, columns)
            ic = 0
            while ic < m:
                rows = smaller(MC, m - ic)
                pack_a(a + ic * k + pc, k, block_a, rows, depth)
                jr = 0
                while jr < columns:
                    ir = 0
                    while ir < rows:
                        any_tile(
                            block_a + ir * depth, block_b + jr * depth,
                            c + (ic + ir) * n + jc + jr, n, depth, pc > 0,
                            rows - ir, columns - jr
                        )
                        ir += MR
                    jr += NR
                ic += MC
            pc += KC
        jc += NC


cdef void any_tile(
    const real *a, const real *b, real *c, Py_ssize_t c_row, Py_ssize_t depth, bint accumulate,
    Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """Compute a whole tile if it fits, else one of only as many vectors as the columns need."""
    cdef real sums[MR * NR]
    if rows >= MR and columns >= NR:
        tile(a, 1, MR, b, NR, c, c_row, depth, accumulate)
        return
    if columns > 3 * LANES:
        part_of_tile(a, b, sums, depth, TILE_VECTORS)
    elif columns > 2 * LANES:
        part_of_tile(a, b, sums, depth, 3 if TILE_VECTORS > 2 else 2)
    elif columns > LANES:
        part_of_tile(a, b, sums, depth, 2)
    else:
        part_of_tile(a, b, sums, depth, 1)
    store_sums(sums, c, c_row, accumulate, smaller(rows, MR), smaller(columns, NR))


cdef inline void part_of_tile(
    const real *a, const real *b, real *sums, Py_ssize_t depth, const int vectors
) noexcept nogil:
    """sums (MR x vectors) = a . b."""
    cdef vec acc[MR][TILE_VECTORS]
    cdef vec row[TILE_VECTORS]
    cdef Py_ssize_t p
    cdef int i, j
    for i in range(MR):
        for j in range(vectors):
            acc[i][j] = fill(0)
    for p in range(depth):
        for j in range(vectors):
            row[j] = load(b + p * NR + j * LANES)
        for i in range(MR):
            for j in range(vectors):
                acc[i][j] = acc[i][j] + a[p * MR + i] * row[j]
    for i in range(MR):
        for j in range(vectors):
            store(sums + i * NR + j * LANES, acc[i][j])


cdef void store_sums(
    const real *sums, real *c, Py_ssize_t c_row, bint accumulate,
    Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """c = sums, or c += sums; nothing beyond these rows and columns is written."""
    cdef Py_ssize_t i, j, width
    cdef vec value
    for i in range(rows):
        j = 0
        while j < columns:
            width = smaller(LANES, columns - j)
            value = load(sums + i * NR + j)
            if accumulate:
                value = value + load_part(c + i * c_row + j, width, 0)
            store_part(c + i * c_row + j, value, width)
            j += LANES


# --- from Python ----------------------------------------------------------------------------


STEPS = (
    "plain_loops", "loop_order", "register_tile", "vector_tile", "blocking", "packing", "edges"
)
SIZES = {"MR": MR, "NR": NR, "MC": MC, "KC": KC, "NC": NC}


def scratch_bytes():
    """Return the bytes of both packed blocks."""
    return (KC * NC + MC * KC) * sizeof(real)


def multiply(
    str step, cnp.ndarray a not None, cnp.ndarray b not None, cnp.ndarray out not None,
    cnp.ndarray scratch not None, Py_ssize_t repeats=1
):
    """out = a @ b by one of STEPS, `repeats` times in a row."""
    cdef Py_ssize_t m = a.shape[0], k = a.shape[1], n = b.shape[1], _repeat
    cdef int number = STEPS.index(step)
    cdef const real *left = <const real *>cnp.PyArray_DATA(a)
    cdef const real *right = <const real *>cnp.PyArray_DATA(b)
    cdef real *c = <real *>cnp.PyArray_DATA(out)
    cdef real *packed = <real *>cnp.PyArray_DATA(scratch)
    for array in (a, b, out, scratch):
        if not (array.flags.c_contiguous and array.itemsize == sizeof(real)):
            raise ValueError("multiply: arrays must be contiguous and of the dtype of this build")
    if b.shape[0] != k or out.shape[0] != m or out.shape[1] != n:
        raise ValueError("multiply: shapes do not match")
    if scratch.nbytes < scratch_bytes():
        raise ValueError("multiply: scratch is too small")
    with nogil:
        for _repeat in range(repeats):
            if number == 0:
                plain_loops(left, right, c, m, k, n)
            elif number == 1:
                loop_order(left, right, c, m, k, n)
            elif number == 2:
                register_tile(left, right, c, m, k, n)
            elif number == 3:
                vector_tile(left, right, c, m, k, n)
            elif number == 4:
                blocking(left, right, c, m, k, n)
            elif number == 5:
                packing(left, right, c, m, k, n, packed)
            else:
                edges(left, right, c, m, k, n, packed)
