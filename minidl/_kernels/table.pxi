# One build of all kernels: the loops, and the table that names them.

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport INFINITY, NAN, frexp, ldexp, pow, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from minidl._kernels.kernel_table cimport *
from minidl._kernels.simd cimport *

include "parts.pxi"
include "vector_math.pxi"
include "elementwise.pxi"
include "packing.pxi"
include "microkernel.pxi"
include "matvec.pxi"
include "blocking.pxi"
include "matmul.pxi"
include "normalization.pxi"
include "pieces.pxi"
include "losses.pxi"
include "activations.pxi"
include "rows.pxi"
include "optimizers.pxi"
include "gates.pxi"
include "recurrent.pxi"
include "gather.pxi"
include "peak.pxi"

cdef KernelTable TABLE = KernelTable(
    matmul=matmul,
    matmul_scratch=matmul_scratch,
    matmul_rest=matmul_rest,
    column_sum_rest=column_sum_rest,
    matmul_in_pieces=matmul_in_pieces,
    column_sum_in_pieces=column_sum_in_pieces,
    add_pieces=add_pieces,
    copy=copy,
    clear=clear,
    add=add,
    scale=scale,
    clamp=clamp,
    follow=follow,
    relu=relu,
    relu_grad=relu_grad,
    exp=exp,
    log=log,
    sigmoid=sigmoid,
    sigmoid_grad=sigmoid_grad,
    tanh=tanh,
    tanh_grad=tanh_grad,
    leaky_relu=leaky_relu,
    leaky_relu_grad=leaky_relu_grad,
    prelu=prelu,
    prelu_grad=prelu_grad,
    elu=elu,
    elu_grad=elu_grad,
    silu=silu,
    silu_grad=silu_grad,
    softplus=softplus,
    softplus_grad=softplus_grad,
    gelu=gelu,
    gelu_grad=gelu_grad,
    softmax=softmax,
    softmax_grad=softmax_grad,
    log_softmax=log_softmax,
    log_softmax_grad=log_softmax_grad,
    dropout_key=dropout_key,
    dropout=dropout,
    column_sum=column_sum,
    batch_norm=batch_norm,
    batch_norm_grad=batch_norm_grad,
    layer_norm=layer_norm,
    layer_norm_grad_input=layer_norm_grad_input,
    layer_norm_grad_params=layer_norm_grad_params,
    standardize=standardize,
    softmax_cross_entropy=softmax_cross_entropy,
    mse=mse,
    bce_with_logits=bce_with_logits,
    absolute_error=absolute_error,
    huber=huber,
    nll=nll,
    weight_total=weight_total,
    squared_norm=squared_norm,
    total=total,
    clip=clip,
    sgd=sgd,
    adam=adam,
    nadam=nadam,
    rmsprop=rmsprop,
    adagrad=adagrad,
    lstm_gates=lstm_gates,
    lstm_gates_grad=lstm_gates_grad,
    gru_gates=gru_gates,
    gru_gates_grad=gru_gates_grad,
    rnn_sequence=rnn_sequence,
    rnn_sequence_grad=rnn_sequence_grad,
    lstm_sequence=lstm_sequence,
    lstm_sequence_grad=lstm_sequence_grad,
    gru_sequence=gru_sequence,
    gru_sequence_grad=gru_sequence_grad,
    time_first=time_first,
    batch_first=batch_first,
    embedding=embedding,
    embedding_grad=embedding_grad,
    fma_peak=fma_peak,
    read_peak=read_peak,
    peak_flops=2 * 2 * MR * LANES,
)

kernel_table = PyCapsule_New(&TABLE, "minidl.kernel_table", NULL)
