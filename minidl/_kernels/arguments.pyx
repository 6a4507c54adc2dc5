"""Argument structs of recorded kernels, as Python sees and changes them."""

from minidl._kernels.kernel_table cimport *

cdef dict ACTIVATIONS = {
    "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH,
    "relu_grad": RELU_GRAD, "sigmoid_grad": SIGMOID_GRAD, "tanh_grad": TANH_GRAD,
}


cdef tuple VECTORS = ("clear", "scale", "clamp")
cdef tuple UNARY = ("relu", "exp", "log", "sigmoid", "tanh", "silu", "gelu")
cdef tuple UNARY_WITH = ("leaky_relu", "elu", "softplus")
cdef tuple BINARY = ("add", "relu_grad", "sigmoid_grad", "tanh_grad", "silu_grad", "gelu_grad")
cdef tuple BINARY_WITH = ("leaky_relu_grad", "elu_grad", "softplus_grad")
cdef tuple ALONG_ROWS = ("softmax", "log_softmax")
cdef tuple ALONG_ROWS_GRAD = ("softmax_grad", "log_softmax_grad")
cdef tuple ELEMENT_LOSSES = ("mse", "bce_with_logits", "absolute_error", "huber")
cdef tuple SEQUENCES = ("rnn_sequence", "lstm_sequence", "gru_sequence")
cdef tuple SEQUENCES_GRAD = ("rnn_sequence_grad", "lstm_sequence_grad", "gru_sequence_grad")
cdef tuple UPDATES = ("sgd", "adam", "nadam", "rmsprop", "adagrad")


cdef MatmulArgs *product(bytearray args) noexcept:
    return <MatmulArgs *><char *>args


def product_shape(bytearray args not None):
    """(m, k, n) of a matrix product; m counts the rows of both, if it holds two."""
    return product(args).m + product(args).m2, product(args).k, product(args).n


def second_rows(bytearray args not None):
    """Those of the rows of a matrix product that belong to a second one."""
    return product(args).m2


def extent(str kernel not None, bytearray args not None):
    """What a kernel works on: (m, k, n) of a product, (rows, columns), or (elements,)."""
    cdef char *at = args
    cdef SequenceArgs *sequence
    cdef SequenceGradArgs *grad
    cdef TimeFirstArgs *there
    cdef BatchFirstArgs *back
    if kernel == "matmul":
        return product_shape(args)
    if kernel == "copy":
        return tuple([(<CopyArgs *>at).shape[i] for i in range((<CopyArgs *>at).dimensions)])
    if kernel == "column_sum":
        return (<ColumnSumArgs *>at).rows, (<ColumnSumArgs *>at).columns
    if kernel == "batch_norm":
        return (<BatchNormArgs *>at).rows, (<BatchNormArgs *>at).columns
    if kernel == "batch_norm_grad":
        return (<BatchNormGradArgs *>at).rows, (<BatchNormGradArgs *>at).columns
    if kernel in ("softmax_cross_entropy", "nll"):
        return (<CrossEntropyArgs *>at).rows, (<CrossEntropyArgs *>at).classes
    if kernel in ALONG_ROWS:
        return (<RowsArgs *>at).rows, (<RowsArgs *>at).columns
    if kernel in ALONG_ROWS_GRAD:
        return (<RowsGradArgs *>at).rows, (<RowsGradArgs *>at).columns
    if kernel == "prelu":
        return (<PreluArgs *>at).rows, (<PreluArgs *>at).columns
    if kernel == "prelu_grad":
        return (<PreluGradArgs *>at).rows, (<PreluGradArgs *>at).columns
    if kernel == "layer_norm":
        return (<LayerNormArgs *>at).rows, (<LayerNormArgs *>at).columns
    if kernel == "layer_norm_grad_input":
        return (<LayerNormGradInputArgs *>at).rows, (<LayerNormGradInputArgs *>at).columns
    if kernel == "layer_norm_grad_params":
        return (<LayerNormGradParamsArgs *>at).rows, (<LayerNormGradParamsArgs *>at).columns
    if kernel == "lstm_gates":
        return (<LstmGatesArgs *>at).rows, (<LstmGatesArgs *>at).hidden
    if kernel == "lstm_gates_grad":
        return (<LstmGatesGradArgs *>at).rows, (<LstmGatesGradArgs *>at).hidden
    if kernel == "gru_gates":
        return (<GruGatesArgs *>at).rows, (<GruGatesArgs *>at).hidden
    if kernel == "gru_gates_grad":
        return (<GruGatesGradArgs *>at).rows, (<GruGatesGradArgs *>at).hidden
    if kernel in SEQUENCES:
        sequence = <SequenceArgs *>at
        return sequence.steps, sequence.batch, sequence.hidden
    if kernel in SEQUENCES_GRAD:
        grad = <SequenceGradArgs *>at
        return grad.steps, grad.batch, grad.hidden
    if kernel == "time_first":
        there = <TimeFirstArgs *>at
        return there.steps, there.batch, there.width
    if kernel == "batch_first":
        back = <BatchFirstArgs *>at
        return back.batch, back.steps, back.width + back.other_width
    if kernel == "embedding":
        return (<EmbeddingArgs *>at).count, (<EmbeddingArgs *>at).features
    if kernel == "embedding_grad":
        return (<EmbeddingGradArgs *>at).count, (<EmbeddingGradArgs *>at).features
    if kernel == "standardize":
        return (<StandardizeArgs *>at).rows, (<StandardizeArgs *>at).columns
    if kernel in UNARY_WITH:
        return ((<UnaryWithArgs *>at).n,)
    if kernel in BINARY_WITH:
        return ((<BinaryWithArgs *>at).n,)
    if kernel in VECTORS:
        return ((<ClearArgs *>at).n,)
    if kernel in UNARY:
        return ((<UnaryArgs *>at).n,)
    if kernel in BINARY:
        return ((<BinaryArgs *>at).n,)
    if kernel == "reduce_partials":
        return (<ReducePartialsArgs *>at).count, (<ReducePartialsArgs *>at).n
    if kernel == "dropout":
        return ((<DropoutArgs *>at).n,)
    if kernel in ELEMENT_LOSSES:
        return ((<ElementLossArgs *>at).n,)
    if kernel == "squared_norm":
        return ((<SquaredNormArgs *>at).n,)
    if kernel == "total":
        return ((<TotalArgs *>at).n,)
    if kernel == "follow":
        return ((<FollowArgs *>at).n,)
    if kernel in UPDATES:
        return ((<UpdateArgs *>at).n,)
    return (1,)


def is_plain(bytearray args not None):
    """Whether a matrix product only writes its output, with no activation."""
    return not product(args).accumulate and product(args).activation == NO_ACTIVATION


def set_activation(bytearray args not None, str name not None):
    """Have a matrix product apply this activation, or this gradient of one, to its output."""
    product(args).activation = ACTIVATIONS[name]


def put_together(bytearray args not None, bytearray other not None):
    """If another product with the same B may be the second one in this product, make it so, and
    return True.

    Both are gradients of weights, A transposed, and so large that on no instruction set they would
    take another way than that of blocks (`uses_rows`, `uses_dots`, `uses_narrow`, `turns`), which
    alone knows of a second product: then no bit of either changes. And `packs_a` says the same of
    both, as both are transposed.
    """
    cdef MatmulArgs *here = product(args)
    cdef MatmulArgs *there = product(other)
    if not (
        here.m2 == there.m2 == 0 and here.n == there.n >= 64 and here.k == there.k > 1
        and here.m > 1 and there.m > 1
        and here.a_row == there.a_row == 1 and here.a_col > 1 and there.a_col > 1
        and here.b_row == there.b_row and here.b_col == there.b_col == 1
        and here.c_row == there.c_row and here.bias == there.bias == NULL
        and here.accumulate == there.accumulate
        and here.activation == there.activation == NO_ACTIVATION
    ):
        return False
    here.m2, here.a2_col = there.m, there.a_col
    return True


def set_scratch(bytearray args not None, int slot, size_t address, Py_ssize_t step):
    """Where a kernel finds its scratch memory, `step` bytes for each thread: behind the pointer
    in this slot stands the step."""
    cdef char *at = args
    (<size_t *>at)[slot], (<Py_ssize_t *>at)[slot + 1] = address, step


def write_whole(str kernel not None, bytearray args not None, int slot, Py_ssize_t size):
    """If this kernel adds to all `size` elements behind a slot, have it add to zero instead, and
    return True."""
    cdef MatmulArgs *matmul = product(args)
    cdef ColumnSumArgs *sums = <ColumnSumArgs *><char *>args
    cdef BatchNormGradArgs *norm = <BatchNormGradArgs *><char *>args
    cdef PreluGradArgs *prelu = <PreluGradArgs *><char *>args
    cdef LayerNormGradParamsArgs *layer_norm = <LayerNormGradParamsArgs *><char *>args
    if kernel == "matmul" and matmul.m * matmul.n == size and matmul.c_row == matmul.n:
        matmul.accumulate = ADD_TO_ZERO
        return True
    if kernel == "column_sum" and slot == 1 and sums.columns == size:
        sums.accumulate = ADD_TO_ZERO
        return True
    if kernel == "batch_norm_grad" and norm.columns == size and slot == 6:
        norm.accumulate_gamma = ADD_TO_ZERO
        return True
    if kernel == "batch_norm_grad" and norm.columns == size and slot == 7:
        norm.accumulate_beta = ADD_TO_ZERO
        return True
    if kernel == "prelu_grad" and prelu.slopes == prelu.columns == size and slot == 4:
        prelu.accumulate = ADD_TO_ZERO
        return True
    if kernel == "layer_norm_grad_params" and layer_norm.columns == size and slot == 4:
        layer_norm.accumulate_gamma = ADD_TO_ZERO
        return True
    if kernel == "layer_norm_grad_params" and layer_norm.columns == size and slot == 5:
        layer_norm.accumulate_beta = ADD_TO_ZERO
        return True
    return False


def cleared_bytes(bytearray args not None, Py_ssize_t itemsize):
    """How much memory a `clear` sets to zero."""
    return (<ClearArgs *><char *>args).n * itemsize


def with_count(bytearray args not None, Py_ssize_t n):
    """A copy of the arguments of a `clear`, for n elements."""
    cdef bytearray copy = bytearray(args)
    (<ClearArgs *><char *>copy).n = n
    return copy
