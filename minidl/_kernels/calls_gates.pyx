"""Gates of LSTM and GRU: the Python-facing calls, twins in reference_recurrent.py."""

cimport numpy as cnp
from numpy cimport ndarray

from minidl._kernels.dispatch cimport dense, empty, run, same, shaped, table_of
from minidl._kernels.kernel_table cimport *

cnp.import_array()


cdef Py_ssize_t check_rows(ndarray z, Py_ssize_t gates, str name) except -1:
    """The width of the state, where each row of z has so many gates."""
    if z.ndim != 2 or z.shape[0] == 0 or z.shape[1] == 0 or z.shape[1] % gates:
        raise ValueError(
            f"{name} must have shape (batch, {gates} * hidden), got {(<object>z).shape}"
        )
    return z.shape[1] // gates


def lstm_gates(ndarray z not None, ndarray c not None):
    """i, f, o = σ(z_i), σ(z_f), σ(z_o); g = tanh(z_g); c' = f · c + i · g; h' = o · tanh(c')."""
    cdef LstmGatesArgs args
    cdef const KernelTable *table = table_of(z)
    cdef ndarray gates, new_c, h
    args.hidden, args.rows = check_rows(z, 4, "lstm_gates: z"), z.shape[0]
    z, c = dense(z), shaped(c, z, (args.rows, args.hidden), "lstm_gates: c")
    gates, new_c = empty(z, (<object>z).shape), empty(z, (<object>c).shape)
    h = empty(z, (<object>c).shape)
    args.z, args.c = cnp.PyArray_DATA(z), cnp.PyArray_DATA(c)
    args.gates, args.new_c = cnp.PyArray_DATA(gates), cnp.PyArray_DATA(new_c)
    args.h = cnp.PyArray_DATA(h)
    run("lstm_gates", "rrwww", table.lstm_gates, &args, sizeof(args))
    return gates, new_c, h


def lstm_gates_grad(
    ndarray dh not None,
    ndarray dc not None,
    ndarray gates not None,
    ndarray c not None,
    ndarray new_c not None,
):
    """From the gradients of h' and c': those of z and of c."""
    cdef LstmGatesGradArgs args
    cdef const KernelTable *table = table_of(gates)
    cdef ndarray dz, dc_before
    args.hidden, args.rows = check_rows(gates, 4, "lstm_gates_grad: gates"), gates.shape[0]
    gates = dense(gates)
    c = shaped(c, gates, (args.rows, args.hidden), "lstm_gates_grad: c")
    dh, dc = same(dh, c, "lstm_gates_grad: dh"), same(dc, c, "lstm_gates_grad: dc")
    new_c = same(new_c, c, "lstm_gates_grad: new_c")
    dz, dc_before = empty(gates, (<object>gates).shape), empty(gates, (<object>c).shape)
    args.dh, args.dc = cnp.PyArray_DATA(dh), cnp.PyArray_DATA(dc)
    args.gates, args.c = cnp.PyArray_DATA(gates), cnp.PyArray_DATA(c)
    args.new_c, args.dz = cnp.PyArray_DATA(new_c), cnp.PyArray_DATA(dz)
    args.dc_before = cnp.PyArray_DATA(dc_before)
    run("lstm_gates_grad", "rrrrrww", table.lstm_gates_grad, &args, sizeof(args))
    return dz, dc_before


def gru_gates(ndarray z not None, ndarray u not None, ndarray h not None):
    """r, z = σ(z_r + u_r), σ(z_z + u_z); n = tanh(z_n + r · u_n); h' = n + z · (h - n)."""
    cdef GruGatesArgs args
    cdef const KernelTable *table = table_of(z)
    cdef ndarray gates, new_h
    args.hidden, args.rows = check_rows(z, 3, "gru_gates: z"), z.shape[0]
    z, u = dense(z), same(u, z, "gru_gates: u")
    h = shaped(h, z, (args.rows, args.hidden), "gru_gates: h")
    gates, new_h = empty(z, (<object>z).shape), empty(z, (<object>h).shape)
    args.z, args.u, args.h = cnp.PyArray_DATA(z), cnp.PyArray_DATA(u), cnp.PyArray_DATA(h)
    args.gates, args.new_h = cnp.PyArray_DATA(gates), cnp.PyArray_DATA(new_h)
    args.u_n = NULL
    run("gru_gates", "rrrwww", table.gru_gates, &args, sizeof(args))
    return gates, new_h


def gru_gates_grad(
    ndarray dh not None, ndarray gates not None, ndarray u_n not None, ndarray h not None
):
    """From the gradient of h': those of z, of u, and of h where it does not pass through u."""
    cdef GruGatesGradArgs args
    cdef const KernelTable *table = table_of(gates)
    cdef ndarray dz, du, dh_before
    args.hidden, args.rows = check_rows(gates, 3, "gru_gates_grad: gates"), gates.shape[0]
    gates = dense(gates)
    h = shaped(h, gates, (args.rows, args.hidden), "gru_gates_grad: h")
    dh, u_n = same(dh, h, "gru_gates_grad: dh"), same(u_n, h, "gru_gates_grad: u_n")
    dz, du = empty(gates, (<object>gates).shape), empty(gates, (<object>gates).shape)
    dh_before = empty(gates, (<object>h).shape)
    args.dh, args.gates = cnp.PyArray_DATA(dh), cnp.PyArray_DATA(gates)
    args.u_n, args.h = cnp.PyArray_DATA(u_n), cnp.PyArray_DATA(h)
    args.dz, args.du = cnp.PyArray_DATA(dz), cnp.PyArray_DATA(du)
    args.dh_before = cnp.PyArray_DATA(dh_before)
    run("gru_gates_grad", "rrrrwww", table.gru_gates_grad, &args, sizeof(args))
    return dz, du, dh_before
