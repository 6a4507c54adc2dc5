# The gates of LSTM and GRU: what a step computes after its products. Threads partition the rows.

cdef enum:
    CELLS = 256    # elements of a row whose gradient is computed before its square is added up


# --- the gates of LSTM ---

cdef inline void lstm_columns(
    const LstmGatesArgs *args, const real *product, Py_ssize_t j, const Py_ssize_t width
) noexcept nogil:
    """Compute columns j … j + width, at most LANES of them, of one row.

    `product`, if not NULL, is added to z.
    """
    cdef Py_ssize_t n = args.hidden
    cdef const real *z = <const real *>args.z + j
    cdef real *gates = <real *>args.gates + j
    cdef vec i = load_columns(z, width), f = load_columns(z + n, width)
    cdef vec g = load_columns(z + 2 * n, width), o = load_columns(z + 3 * n, width)
    cdef vec c
    if product != NULL:
        i, f = i + load_columns(product + j, width), f + load_columns(product + n + j, width)
        g = g + load_columns(product + 2 * n + j, width)
        o = o + load_columns(product + 3 * n + j, width)
    i, f, g, o = sigmoid_vec(i), sigmoid_vec(f), tanh_vec(g), sigmoid_vec(o)
    c = f * load_columns(<const real *>args.c + j, width) + i * g
    store_columns(gates, i, width)
    store_columns(gates + n, f, width)
    store_columns(gates + 2 * n, g, width)
    store_columns(gates + 3 * n, o, width)
    store_columns(<real *>args.new_c + j, c, width)
    store_columns(<real *>args.h + j, o * tanh_vec(c), width)


cdef inline void lstm_row(const LstmGatesArgs *args, const real *product) noexcept nogil:
    cdef Py_ssize_t j = 0
    while j + LANES <= args.hidden:
        lstm_columns(args, product, j, LANES)
        j += LANES
    if j < args.hidden:
        lstm_columns(args, product, j, args.hidden - j)


cdef Py_ssize_t lstm_gates(const void *arguments, int thread, int threads) noexcept nogil:
    """i, f, o = sigmoid(z_i), …; g = tanh(z_g); c' = f c + i g; h' = o tanh(c')."""
    cdef LstmGatesArgs args = (<const LstmGatesArgs *>arguments)[0], row = args
    cdef Py_ssize_t b, n = args.hidden
    for b in range(
        partition(args.rows, 1, thread, threads), partition(args.rows, 1, thread + 1, threads)
    ):
        row.z, row.gates = <const real *>args.z + 4 * b * n, <real *>args.gates + 4 * b * n
        row.c, row.new_c = <const real *>args.c + b * n, <real *>args.new_c + b * n
        row.h = <real *>args.h + b * n
        lstm_row(&row, NULL)
    return 0


cdef inline void lstm_grad_columns(
    const LstmGatesGradArgs *args, Py_ssize_t j, const Py_ssize_t width
) noexcept nogil:
    cdef Py_ssize_t n = args.hidden
    cdef const real *gates = <const real *>args.gates + j
    cdef real *dz = <real *>args.dz + j
    cdef vec i = load_columns(gates, width), f = load_columns(gates + n, width)
    cdef vec g = load_columns(gates + 2 * n, width), o = load_columns(gates + 3 * n, width)
    cdef vec t = tanh_vec(load_columns(<const real *>args.new_c + j, width))
    cdef vec dh = load_columns(<const real *>args.dh + j, width)
    cdef vec dc = load_columns(<const real *>args.dc + j, width) + dh * o * (1 - t * t)
    store_columns(dz, dc * g * i * (1 - i), width)
    store_columns(
        dz + n, dc * load_columns(<const real *>args.c + j, width) * f * (1 - f), width
    )
    store_columns(dz + 2 * n, dc * i * (1 - g * g), width)
    store_columns(dz + 3 * n, dh * t * o * (1 - o), width)
    store_columns(<real *>args.dc_before + j, dc * f, width)


cdef inline void lstm_grad_row(const LstmGatesGradArgs *args) noexcept nogil:
    cdef Py_ssize_t j = 0
    while j + LANES <= args.hidden:
        lstm_grad_columns(args, j, LANES)
        j += LANES
    if j < args.hidden:
        lstm_grad_columns(args, j, args.hidden - j)


cdef double cell_gradient_square(const LstmGatesGradArgs *args) noexcept nogil:
    """Sum of (dc + dh o (1 - tanh(c')²))² over a row: of what arrives at c' from later steps, and
    from h'."""
    cdef real d[CELLS]
    cdef const real *dh = <const real *>args.dh
    cdef const real *dc = <const real *>args.dc
    cdef const real *c = <const real *>args.new_c
    cdef const real *o = <const real *>args.gates + 3 * args.hidden
    cdef vec t
    cdef double sum = 0
    cdef Py_ssize_t begin = 0, j, n
    while begin < args.hidden:
        n, j = smaller(CELLS, args.hidden - begin), 0
        while j < n:
            t = tanh_vec(load_columns(c + begin + j, n - j))
            t = load_columns(dh + begin + j, n - j) * load_columns(o + begin + j, n - j) * (1 - t * t)
            store_columns(d + j, t + load_columns(dc + begin + j, n - j), n - j)
            j += LANES
        sum += squared_norm_block(d, n)
        begin += CELLS
    return sum


cdef Py_ssize_t lstm_gates_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """With d = dc + dh o (1 - tanh(c')²): dz_i = d g i (1 - i), dz_f = d c f (1 - f),
    dz_g = d i (1 - g²), dz_o = dh tanh(c') o (1 - o), dc_before = d f."""
    cdef LstmGatesGradArgs args = (<const LstmGatesGradArgs *>arguments)[0], row = args
    cdef Py_ssize_t b, n = args.hidden
    for b in range(
        partition(args.rows, 1, thread, threads), partition(args.rows, 1, thread + 1, threads)
    ):
        row.dh, row.dc = <const real *>args.dh + b * n, <const real *>args.dc + b * n
        row.gates, row.dz = <const real *>args.gates + 4 * b * n, <real *>args.dz + 4 * b * n
        row.c, row.new_c = <const real *>args.c + b * n, <const real *>args.new_c + b * n
        row.dc_before = <real *>args.dc_before + b * n
        lstm_grad_row(&row)
    return 0


# --- the gates of GRU ---

cdef inline void gru_columns(
    const GruGatesArgs *args, Py_ssize_t j, const Py_ssize_t width
) noexcept nogil:
    """Compute columns j … j + width, at most LANES, of one row. The gates may overwrite u."""
    cdef Py_ssize_t n = args.hidden
    cdef const real *z = <const real *>args.z + j
    cdef const real *u = <const real *>args.u + j
    cdef real *gates = <real *>args.gates + j
    cdef vec h = load_columns(<const real *>args.h + j, width)
    cdef vec u_n = load_columns(u + 2 * n, width)
    cdef vec r = sigmoid_vec(load_columns(z, width) + load_columns(u, width))
    cdef vec update = sigmoid_vec(load_columns(z + n, width) + load_columns(u + n, width))
    cdef vec new = tanh_vec(load_columns(z + 2 * n, width) + r * u_n)
    if args.u_n != NULL:
        store_columns(<real *>args.u_n + j, u_n, width)
    store_columns(gates, r, width)
    store_columns(gates + n, update, width)
    store_columns(gates + 2 * n, new, width)
    store_columns(<real *>args.new_h + j, new + update * (h - new), width)


cdef inline void gru_row(const GruGatesArgs *args) noexcept nogil:
    cdef Py_ssize_t j = 0
    while j + LANES <= args.hidden:
        gru_columns(args, j, LANES)
        j += LANES
    if j < args.hidden:
        gru_columns(args, j, args.hidden - j)


cdef Py_ssize_t gru_gates(const void *arguments, int thread, int threads) noexcept nogil:
    """r, z = sigmoid(z_r + u_r), …; n = tanh(z_n + r u_n); h' = n + z (h - n)."""
    cdef GruGatesArgs args = (<const GruGatesArgs *>arguments)[0], row = args
    cdef Py_ssize_t b, n = args.hidden
    for b in range(
        partition(args.rows, 1, thread, threads), partition(args.rows, 1, thread + 1, threads)
    ):
        row.z, row.u = <const real *>args.z + 3 * b * n, <const real *>args.u + 3 * b * n
        row.gates, row.h = <real *>args.gates + 3 * b * n, <const real *>args.h + b * n
        row.new_h = <real *>args.new_h + b * n
        gru_row(&row)
    return 0


cdef inline void gru_grad_columns(
    const GruGatesGradArgs *args, Py_ssize_t j, const Py_ssize_t width
) noexcept nogil:
    cdef Py_ssize_t n = args.hidden
    cdef const real *gates = <const real *>args.gates + j
    cdef real *dz = <real *>args.dz + j
    cdef real *du = <real *>args.du + j
    cdef vec r = load_columns(gates, width), update = load_columns(gates + n, width)
    cdef vec new = load_columns(gates + 2 * n, width)
    cdef vec dh = load_columns(<const real *>args.dh + j, width)
    cdef vec dn = dh * (1 - update) * (1 - new * new)
    cdef vec dr = dn * load_columns(<const real *>args.u_n + j, width) * r * (1 - r)
    cdef vec dupdate = load_columns(<const real *>args.h + j, width) - new
    dupdate = dh * dupdate * update * (1 - update)
    store_columns(dz, dr, width)
    store_columns(dz + n, dupdate, width)
    store_columns(dz + 2 * n, dn, width)
    store_columns(du, dr, width)
    store_columns(du + n, dupdate, width)
    store_columns(du + 2 * n, dn * r, width)
    store_columns(<real *>args.dh_before + j, dh * update, width)


cdef inline void gru_grad_row(const GruGatesGradArgs *args) noexcept nogil:
    cdef Py_ssize_t j = 0
    while j + LANES <= args.hidden:
        gru_grad_columns(args, j, LANES)
        j += LANES
    if j < args.hidden:
        gru_grad_columns(args, j, args.hidden - j)


cdef Py_ssize_t gru_gates_grad(const void *arguments, int thread, int threads) noexcept nogil:
    """dn = dh (1 - z) (1 - n²), dz_z = dh (h - n) z (1 - z), dz_r = dn u_n r (1 - r); du is dz but
    for du_n = dn r; dh_before = dh z, which reaches h directly, not by way of u."""
    cdef GruGatesGradArgs args = (<const GruGatesGradArgs *>arguments)[0], row = args
    cdef Py_ssize_t b, n = args.hidden
    for b in range(
        partition(args.rows, 1, thread, threads), partition(args.rows, 1, thread + 1, threads)
    ):
        row.dh, row.h = <const real *>args.dh + b * n, <const real *>args.h + b * n
        row.gates = <const real *>args.gates + 3 * b * n
        row.u_n = <const real *>args.u_n + b * n
        row.dz, row.du = <real *>args.dz + 3 * b * n, <real *>args.du + 3 * b * n
        row.dh_before = <real *>args.dh_before + b * n
        gru_grad_row(&row)
    return 0


KERNELS["lstm_gates"] = entry(lstm_gates, sizeof(LstmGatesArgs))
KERNELS["lstm_gates_grad"] = entry(lstm_gates_grad, sizeof(LstmGatesGradArgs))
KERNELS["gru_gates"] = entry(gru_gates, sizeof(GruGatesArgs))
KERNELS["gru_gates_grad"] = entry(gru_gates_grad, sizeof(GruGatesGradArgs))
