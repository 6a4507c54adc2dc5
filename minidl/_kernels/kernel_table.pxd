"""The interface between the Python-facing calls and the loops: one function per kernel.

Every kernel has the same signature. Its arguments are one struct, which begins with its
array pointers (inputs, then outputs, then scratch) and ends with sizes and scalars; it
computes share `thread` of `threads` of its outputs; it returns 0, or a positive number that
says why the result must not be used (stated beside the struct). A call is thus fully
described by (function pointer, struct), which is what makes it recordable.

Arrays are C-contiguous and of the table's dtype unless the struct says otherwise.
"""

ctypedef Py_ssize_t (*kernel_fn)(const void *args, int thread, int threads) noexcept nogil

cdef enum Activation:
    # The gradients multiply with the derivative where the activation gave `gate`.
    NO_ACTIVATION, RELU, SIGMOID, TANH, RELU_GRAD, SIGMOID_GRAD, TANH_GRAD

cdef enum Accumulate:
    # y = sum, y = y + sum, and y = 0 + sum: what adding to a cleared y gives, to the last bit
    # (0 + -0 is 0).
    WRITE, ADD, ADD_TO_ZERO

cdef struct MatmulArgs:
    # c (m x n) = a (m x k) . b (k x n); strides in elements, rows of c contiguous. And with the
    # same b, if m2 > 0: c2 (m2 x n) = a2 (m2 x k) . b, where a2 is like a but for a2_col, and
    # there is no bias, gate or activation (`put_together` of arguments.pyx).
    const void *a
    const void *b
    const void *bias           # n values added to every row, or NULL
    const void *gate           # m x n contiguous: for the gradient of an activation, else NULL
    void *c
    const void *a2
    void *c2
    void *partials             # of `matmul_split_k`
    void *scratch              # aligned; `scratch_step` bytes for each thread
    Py_ssize_t scratch_step    # at least matmul_scratch(args), a multiple of 64
    Py_ssize_t m, n, k, m2
    Py_ssize_t a_row, a_col, b_row, b_col, c_row, a2_col
    Accumulate accumulate
    Activation activation      # applied last

cdef struct UnaryArgs:
    # y[i] = f(x[i])
    const void *x
    void *y
    Py_ssize_t n

cdef struct BinaryArgs:
    # y[i] = f(a[i], b[i])
    const void *a
    const void *b
    void *y
    Py_ssize_t n

cdef struct UnaryWithArgs:
    # y[i] = f(x[i], parameter)
    const void *x
    void *y
    Py_ssize_t n
    double parameter

cdef struct BinaryWithArgs:
    # y[i] = f(a[i], b[i], parameter)
    const void *a
    const void *b
    void *y
    Py_ssize_t n
    double parameter

cdef struct ScaleArgs:
    # x[i] *= factor
    void *x
    Py_ssize_t n
    double factor

cdef enum:
    COPY_DIMENSIONS = 8

cdef struct CopyArgs:
    # y = x, which may have any strides (in elements); y is contiguous.
    const void *x
    void *y
    Py_ssize_t dimensions
    Py_ssize_t shape[COPY_DIMENSIONS]
    Py_ssize_t strides[COPY_DIMENSIONS]

cdef struct FollowArgs:
    # y[i] += weight * (x[i] - y[i])
    const void *x
    void *y
    Py_ssize_t n
    double weight

cdef struct ClearArgs:
    # x[i] = 0
    void *x
    Py_ssize_t n

cdef struct DropoutArgs:
    # y[i] = keep(key, i) ? x[i] / (1 - p) : 0
    const void *x
    const unsigned int *key    # two words drawn by dropout_key
    void *y
    Py_ssize_t n
    double p

cdef struct DropoutKeyArgs:
    # key = next(state); state is {seed, calls so far}
    unsigned long long *state
    unsigned int *key

cdef struct ColumnSumArgs:
    # sums[j] = sum over i of x[i, j], or added to what is there
    const void *x
    void *sums
    void *partials             # of `column_sum_split_k`
    Py_ssize_t rows, columns
    Accumulate accumulate

cdef struct ReducePartialsArgs:
    # out[j] += sum over i of partials[i, j], i from the second thread's first partial sum on
    void *out
    void *partials             # (count + 1) x n
    Py_ssize_t n, count
    Py_ssize_t columns         # of each partial sum, if they are the transpose of out; else 0
    Accumulate accumulate      # then

cdef struct BatchNormArgs:
    const void *x
    const void *gamma
    const void *beta
    void *running_mean
    void *running_var
    void *y
    void *mean                 # what x was normalised with: saved for the gradient
    void *rstd
    Py_ssize_t rows, columns
    double momentum, eps
    bint training

cdef struct BatchNormGradArgs:
    const void *dy
    const void *x
    const void *gamma
    const void *mean
    const void *rstd
    void *dx
    void *dgamma               # sum of dy * x_hat
    void *dbeta                # sum of dy
    Py_ssize_t rows, columns
    Accumulate accumulate_gamma, accumulate_beta
    bint training

cdef struct PreluArgs:
    # One slope for every column, or one for all.
    const void *x
    const void *slope
    void *y
    Py_ssize_t rows, columns, slopes

cdef struct PreluGradArgs:
    const void *dy
    const void *x
    const void *slope
    void *dx
    void *dslope               # a sum for every column
    Py_ssize_t rows, columns, slopes
    Accumulate accumulate

cdef struct RowsArgs:
    const void *x
    void *y
    Py_ssize_t rows, columns

cdef struct RowsGradArgs:
    const void *dy
    const void *y
    void *dx
    Py_ssize_t rows, columns

cdef struct LayerNormArgs:
    const void *x
    const void *gamma
    const void *beta
    void *y
    void *mean                 # of every row: saved for the gradient
    void *rstd
    Py_ssize_t rows, columns
    double eps

cdef struct LayerNormGradInputArgs:
    const void *dy
    const void *x
    const void *gamma
    const void *mean
    const void *rstd
    void *dx
    Py_ssize_t rows, columns

cdef struct LayerNormGradParamsArgs:
    const void *dy
    const void *x
    const void *mean
    const void *rstd
    void *dgamma               # sum of dy * x_hat
    void *dbeta                # sum of dy
    Py_ssize_t rows, columns
    Accumulate accumulate_gamma, accumulate_beta

cdef struct StandardizeArgs:
    const void *x
    const void *mean           # or NULL
    const void *std
    void *y
    Py_ssize_t rows, columns

cdef struct CrossEntropyArgs:
    # Returns 1 + the first row whose label is not in [0, classes).
    const void *logits
    const Py_ssize_t *labels
    void *dlogits
    double *losses             # one per row
    const void *weight         # of every row, or NULL
    const void *class_weight   # of every class, or NULL
    const double *weights      # their total, by which losses and gradient are divided; or NULL
    Py_ssize_t rows, classes
    double scale               # of the gradient: 1 / rows for a mean
    double smoothing           # of the labels

cdef struct ElementLossArgs:
    # Losses summed over blocks of LOSS_BLOCK elements; with weights, over rows.
    const void *prediction
    const void *target
    void *dprediction
    double *losses             # one per block, or row
    const void *weight         # of every row, or NULL
    const double *weights      # their total, by which losses and gradient are divided; or NULL
    const void *pos_weight     # of every column, what a target of one counts; or NULL
    Py_ssize_t n, rows
    double scale
    double delta               # of Huber's loss

cdef struct WeightTotalArgs:
    # total[0] = sum of what the rows count: their weight, times that of their label's class.
    # Returns 1 if a weight is negative or NaN, or all are zero.
    const void *weight         # or NULL: 1
    const Py_ssize_t *labels   # or NULL
    const void *class_weight   # or NULL: 1
    double *total
    Py_ssize_t rows, classes

cdef struct SquaredNormArgs:
    const void *x
    double *sums               # one per block of NORM_BLOCK elements
    Py_ssize_t n

cdef struct TotalArgs:
    # total[0] = scale * sum of parts. Returns 1 if that is not finite.
    const double *parts
    double *total
    Py_ssize_t n
    double scale

cdef enum:
    LOSS_BLOCK = 1024
    NORM_BLOCK = 4096

cdef struct OptimizerState:
    # What an optimizer changes between steps lives here, in memory, where a recorded
    # step reads it. reference.OPTIMIZER_STATE is the same layout for NumPy.
    double learning_rate, weight_decay
    double max_norm            # 0: no clipping
    double norm                # of the gradients of the last step, before clipping
    double scale               # what clipping multiplies the gradients with
    double step                # steps taken
    double momentum, nesterov
    double beta1, beta2, eps
    double l1
    double max_value           # 0: no clipping
    double alpha, centered     # of RMSprop
    double decoupled           # 1: weights decay apart from the gradient (AdamW)
    double momentum_decay
    double mu_product          # of Nadam's momentum at all steps so far; 0 elsewhere

cdef struct ClipArgs:
    # Fills norm and scale and counts the step. Returns 1 if the norm is not finite.
    const double *squared_norm
    const void *grad           # of float64: for a norm whose square is no float64; else NULL
    OptimizerState *state      # one for each group of parameters
    Py_ssize_t n, groups

cdef struct UpdateArgs:
    const void *grad
    const OptimizerState *state
    void *data
    void *moment1              # velocity of SGD (NULL without momentum), m of Adam, mean of RMSprop
    void *moment2              # v of Adam, mean square of RMSprop and AdaGrad
    void *moment3              # velocity of RMSprop
    Py_ssize_t n

cdef struct LstmGatesArgs:
    # Gates follow one another in a row: i, f, g, o.
    const void *z              # rows x 4 hidden
    const void *c
    void *gates                # rows x 4 hidden
    void *new_c
    void *h
    Py_ssize_t rows, hidden

cdef struct LstmGatesGradArgs:
    const void *dh
    const void *dc
    const void *gates
    const void *c
    const void *new_c
    void *dz
    void *dc_before            # may be dc
    Py_ssize_t rows, hidden

cdef struct GruGatesArgs:
    # Gates follow one another in a row: r, z, n.
    const void *z              # rows x 3 hidden
    const void *u              # rows x 3 hidden
    const void *h
    void *gates                # rows x 3 hidden; may be u
    void *new_h
    void *u_n                  # the last third of u, or NULL
    Py_ssize_t rows, hidden

cdef struct GruGatesGradArgs:
    const void *dh
    const void *gates
    const void *u_n            # rows x hidden
    const void *h
    void *dz
    void *du
    void *dh_before            # may be dh
    Py_ssize_t rows, hidden

cdef struct SequenceArgs:
    # Returns 1 + the first row whose length is not in 1 ... steps.
    const void *z              # steps x batch x gates * hidden: what the inputs add
    const void *weight         # hidden x gates * hidden
    const void *bias           # of GRU, or NULL
    const void *h              # the initial state, or NULL: zero
    const void *c              # of LSTM, likewise
    const Py_ssize_t *lengths  # of every sequence, or NULL
    void *states               # (steps + 1) x batch x hidden
    void *cells                # of LSTM, likewise
    void *gates                # of LSTM and GRU: steps x batch x gates * hidden; may be z
    void *u_n                  # of GRU: steps x batch x hidden
    void *scratch              # aligned; `scratch_step` bytes for each thread
    Py_ssize_t scratch_step    # room for the weight, in rows of 64 bytes, and the batch's product
    Py_ssize_t steps, batch, hidden
    bint reverse
    Activation activation      # of RNN

cdef struct SequenceGradArgs:
    const void *dy             # steps x batch x hidden, or NULL: zero
    const void *dh             # of the last state, or NULL: zero
    const void *dc
    const void *states         # and from here on as above
    const void *cells
    const void *gates
    const void *u_n
    const void *weight
    const Py_ssize_t *lengths
    void *dz                   # may be gates
    void *du                   # of GRU
    void *dh0                  # of the initial state
    void *dc0
    double *norms              # steps x batch: the squared norm of the gradient of each state
    void *scratch
    Py_ssize_t scratch_step    # room for the transposed weight, in rows of 64 bytes
    Py_ssize_t steps, batch, hidden
    bint reverse
    Activation activation

cdef struct TimeFirstArgs:
    # y (steps x batch x width) = columns begin ... of x (batch x steps x features)
    const void *x
    const Py_ssize_t *lengths  # or NULL; beyond them y is 0
    void *y
    Py_ssize_t batch, steps, features, begin, width

cdef struct BatchFirstArgs:
    # y (batch x steps x both widths) = x and other, side by side
    const void *x              # steps x batch x width
    const void *other          # or NULL, and other_width 0
    const Py_ssize_t *lengths
    void *y
    Py_ssize_t batch, steps, width, other_width

cdef struct EmbeddingArgs:
    # Returns 1 + the first of `count` indices that is not in [0, rows).
    const Py_ssize_t *indices
    const void *weight         # rows x features
    void *y
    Py_ssize_t count, rows, features

cdef struct EmbeddingGradArgs:
    const Py_ssize_t *indices
    const void *dy
    void *dweight
    Py_ssize_t count, rows, features

cdef struct PeakArgs:
    # fma_peak: nothing but multiply-adds, flops = peak_flops * repetitions of every thread.
    # read_peak: nothing but reads of the n elements of x, so often.
    void *x
    Py_ssize_t n, repetitions

cdef struct KernelTable:
    kernel_fn matmul
    Py_ssize_t (*matmul_scratch)(const MatmulArgs *args) noexcept nogil    # bytes
    bint (*matmul_reduction)(const MatmulArgs *args, ReducePartialsArgs *then) noexcept nogil
    bint (*column_sum_reduction)(const ColumnSumArgs *args, ReducePartialsArgs *then) noexcept nogil
    kernel_fn matmul_split_k
    kernel_fn column_sum_split_k
    kernel_fn reduce_partials
    kernel_fn copy
    kernel_fn clear
    kernel_fn add
    kernel_fn scale
    kernel_fn clamp
    kernel_fn follow
    kernel_fn relu
    kernel_fn relu_grad
    kernel_fn exp
    kernel_fn log
    kernel_fn sigmoid
    kernel_fn sigmoid_grad
    kernel_fn tanh
    kernel_fn tanh_grad
    kernel_fn leaky_relu
    kernel_fn leaky_relu_grad
    kernel_fn prelu
    kernel_fn prelu_grad
    kernel_fn elu
    kernel_fn elu_grad
    kernel_fn silu
    kernel_fn silu_grad
    kernel_fn softplus
    kernel_fn softplus_grad
    kernel_fn gelu
    kernel_fn gelu_grad
    kernel_fn softmax
    kernel_fn softmax_grad
    kernel_fn log_softmax
    kernel_fn log_softmax_grad
    kernel_fn dropout_key
    kernel_fn dropout
    kernel_fn column_sum
    kernel_fn batch_norm
    kernel_fn batch_norm_grad
    kernel_fn layer_norm
    kernel_fn layer_norm_grad_input
    kernel_fn layer_norm_grad_params
    kernel_fn standardize
    kernel_fn softmax_cross_entropy
    kernel_fn mse
    kernel_fn bce_with_logits
    kernel_fn absolute_error
    kernel_fn huber
    kernel_fn nll
    kernel_fn weight_total
    kernel_fn squared_norm
    kernel_fn total
    kernel_fn clip
    kernel_fn sgd
    kernel_fn adam
    kernel_fn nadam
    kernel_fn rmsprop
    kernel_fn adagrad
    kernel_fn lstm_gates
    kernel_fn lstm_gates_grad
    kernel_fn gru_gates
    kernel_fn gru_gates_grad
    kernel_fn rnn_sequence
    kernel_fn rnn_sequence_grad
    kernel_fn lstm_sequence
    kernel_fn lstm_sequence_grad
    kernel_fn gru_sequence
    kernel_fn gru_sequence_grad
    kernel_fn time_first
    kernel_fn batch_first
    kernel_fn embedding
    kernel_fn embedding_grad
    kernel_fn fma_peak
    kernel_fn read_peak
    Py_ssize_t peak_flops      # of one repetition of fma_peak
