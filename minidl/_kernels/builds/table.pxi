# One build of all kernels: the loops, and the table that names them.

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport INFINITY, NAN, frexp, ldexp, pow, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from minidl._kernels.kernel_table cimport *
from simd cimport *

include "loops/vector/partition.pxi"
include "loops/vector/vector_math.pxi"
include "loops/elementwise.pxi"
include "loops/activations.pxi"
include "loops/dropout.pxi"
include "loops/product/packing.pxi"
include "loops/product/microkernel.pxi"
include "loops/product/algorithm.pxi"
include "loops/product/blocking.pxi"
include "loops/product/matmul.pxi"
include "loops/product/skinny.pxi"
include "loops/product/transposed.pxi"
include "loops/column_sum.pxi"
include "loops/product/split_k.pxi"
include "loops/batch_norm.pxi"
include "loops/layer_norm.pxi"
include "loops/losses.pxi"
include "loops/softmax.pxi"
include "loops/optimizers.pxi"
include "loops/gates.pxi"
include "loops/sequences.pxi"
include "loops/gather.pxi"
include "loops/peak.pxi"

cdef KernelTable TABLE = KernelTable(
    matmul=matmul,
    matmul_scratch=matmul_scratch,
    matmul_reduction=matmul_reduction,
    column_sum_reduction=column_sum_reduction,
    matmul_split_k=matmul_split_k,
    column_sum_split_k=column_sum_split_k,
    reduce_partials=reduce_partials,
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
