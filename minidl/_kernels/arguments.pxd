"""The argument structs of all kernels, and what every kernel is to the executor: a function.

A kernel takes one struct, computes share ``thread`` of ``threads`` of its outputs, and returns 0,
or a positive number that says why the result must not be used (stated beside the struct). A call
is thus fully described by (function pointer, struct), which is what makes it recordable.

Every field has 8 bytes, in the order that the kernel's signature gives (``signature.py``):
pointers to operands, sizes, scalars, accumulates. Kernels of the same layout may share a struct.
Arrays are C-contiguous and of the build's dtype unless the struct says otherwise.
"""

ctypedef Py_ssize_t (*kernel_fn)(const void *args, int thread, int threads) noexcept nogil

ctypedef Py_ssize_t Activation    # 8 bytes, as all fields

cdef enum:
    # The gradients multiply with the derivative where the activation gave `gate`.
    NO_ACTIVATION, RELU, SIGMOID, TANH, RELU_GRAD, SIGMOID_GRAD, TANH_GRAD

ctypedef Py_ssize_t Accumulate

cdef enum:
    # y = sum, y = y + sum, and y = 0 + sum: what adding to a cleared y gives, to the last bit
    # (0 + -0 is 0).
    WRITE, ADD, ADD_TO_ZERO

cdef struct MatmulArgs:
    # c (m x n) = a (m x k) . b (k x n); strides in elements, rows of c contiguous. And with the
    # same b, if m2 > 0: c2 (m2 x n) = a2 (m2 x k) . b, where a2 is like a but for a2_col, and
    # there is no bias, gate or activation (`_merge` of recording/fuse.py).
    const void *a
    const void *b
    const void *bias           # n values added to every row, or NULL
    const void *gate           # m x n contiguous: for the gradient of an activation, else NULL
    void *c
    const void *a2
    void *c2
    void *partials             # of `matmul_split_k`
    void *scratch              # aligned; `scratch_step` bytes for each thread
    Py_ssize_t m, k, n, m2
    Py_ssize_t scratch_step    # at least matmul_scratch(args), a multiple of 64
    Py_ssize_t a_row, a_col, b_row, b_col, c_row, a2_col
    Activation activation      # applied last
    Accumulate accumulate

cdef struct ConvArgs:
    # y = activation(x * weight + bias): images, channels last. Of x, channels / groups are the
    # depth of the weight; before the first row and column lie so many of padding.
    const void *x              # images x height x width x channels
    const void *weight         # rows x columns x depth x outputs
    const void *bias           # outputs, or NULL
    void *y                    # images x out_height x out_width x outputs
    void *scratch              # aligned; `scratch_step` bytes for each thread
    Py_ssize_t images, height, width, channels
    Py_ssize_t rows, columns, depth, outputs
    Py_ssize_t out_height, out_width
    Py_ssize_t scratch_step    # at least conv_scratch(args), a multiple of 64
    Py_ssize_t row_stride, column_stride, rows_before, columns_before, row_step, column_step, groups
    Activation activation      # applied last

cdef struct ConvGradArgs:
    # As above. dx is written; or so many partial sums of dweight, each over as many images.
    void *x                    # or dx
    void *weight               # or the partial sums: parts x the size of the weight
    const void *y              # dy
    void *scratch
    Py_ssize_t images, height, width, channels
    Py_ssize_t rows, columns, depth, outputs
    Py_ssize_t out_height, out_width
    Py_ssize_t scratch_step
    Py_ssize_t row_stride, column_stride, rows_before, columns_before, row_step, column_step, groups
    Py_ssize_t parts           # of dweight

cdef struct ConcatArgs:
    # y (rows x all widths) = a, b, c and d, side by side
    const void *a
    const void *b
    const void *c              # or NULL, and third 0
    const void *d              # or NULL, and fourth 0
    void *y
    Py_ssize_t rows, first, second, third, fourth

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
    Py_ssize_t n               # elements
    Py_ssize_t dimensions
    Py_ssize_t shape[COPY_DIMENSIONS]
    Py_ssize_t strides[COPY_DIMENSIONS]

cdef struct LerpArgs:
    # average[i] += weight * (x[i] - average[i])
    void *average
    const void *x
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

cdef struct DropoutChannelsArgs:
    # y[i, :, j] = keep(key, i * channels + j) ? x[i, :, j] / (1 - p) : 0
    const void *x
    const unsigned int *key
    void *y
    Py_ssize_t images, pixels, channels
    double p

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
    Py_ssize_t training

cdef struct BatchNormGradArgs:
    const void *dy
    const void *x
    const void *gamma
    const void *mean
    const void *rstd
    void *dgamma               # sum of dy * x_hat
    void *dbeta                # sum of dy
    void *dx
    Py_ssize_t rows, columns
    Py_ssize_t training
    Accumulate accumulate_dgamma, accumulate_dbeta

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
    void *dslope               # a sum for every column
    void *dx
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
    Accumulate accumulate_dgamma, accumulate_dbeta

cdef struct RmsNormArgs:
    const void *x
    const void *gamma
    void *y
    void *rstd                 # one per row: saved for the gradient
    Py_ssize_t rows, columns
    double eps

cdef struct RmsNormGradInputArgs:
    const void *dy
    const void *x
    const void *gamma
    const void *rstd
    void *dx
    Py_ssize_t rows, columns

cdef struct RmsNormGradParamsArgs:
    const void *dy
    const void *x
    const void *rstd
    void *dgamma               # sum of dy * x * rstd
    Py_ssize_t rows, columns
    Accumulate accumulate

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
    const void *weight         # of every row, or NULL
    const void *class_weight   # of every class, or NULL
    const double *weights      # their total, by which losses and gradient are divided; or NULL
    void *dlogits
    double *losses             # one per row
    Py_ssize_t rows, classes
    double scale               # of the gradient: 1 / rows for a mean
    double smoothing           # of the labels
    double ignore_index        # the label of rows that count nothing; -infinity: none

cdef struct ElementLossArgs:
    # Losses summed over blocks of LOSS_BLOCK elements; with `weight` or `column`, over rows; or of
    # each element.
    const void *prediction
    const void *target
    const void *weight         # of every row, or NULL
    const double *weights      # their total, by which losses and gradient are divided; or NULL
    const void *column         # of every column: what a target of one counts, a quantile; or NULL
    void *dprediction
    double *losses             # one per block, row or element
    Py_ssize_t n, rows
    double scale
    double delta               # of Huber's loss; what is added to rates of Poisson's
    Py_ssize_t full            # whether what does not depend on the prediction counts
    Py_ssize_t each            # whether losses are stored for each element

cdef struct VectorLossArgs:
    # A loss of each step, a vector of `both` numbers, against `columns` numbers of the target. Of
    # `rows` with weights, each has steps // rows steps.
    const void *prediction
    const void *target
    const void *weight         # of every row, or NULL
    const double *weights      # their total, by which losses and gradient are divided; or NULL
    void *dprediction
    double *losses             # one per step; of `gaussian_nll` with `each`, one per target
    Py_ssize_t steps, both, columns, rows
    double scale
    double delta               # the least log variance; the margin of different vectors
    Py_ssize_t full            # whether what does not depend on the prediction counts
    Py_ssize_t each            # whether losses are stored for each target

cdef struct WeightTotalArgs:
    # total[0] = sum of what the rows count: their weight, times that of their label's class.
    # Returns 1 if a weight is negative or NaN, the total is infinite, or zero where a mean divides
    # by it.
    const void *weight         # or NULL: 1
    const Py_ssize_t *labels   # or NULL
    const void *class_weight   # or NULL: 1
    double *total
    Py_ssize_t rows, classes
    double ignore_index        # the label of rows that count nothing; -infinity: none
    Py_ssize_t for_mean        # whether the total may not be zero

cdef struct SquaredNormArgs:
    const void *x
    double *sums               # one per block of NORM_BLOCK elements
    Py_ssize_t n

cdef struct DotArgs:
    const void *x
    const void *y
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
    # step reads it. OPTIMIZER_STATE of the twins is the same layout for NumPy.
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

cdef struct SgdArgs:
    # Of sgd and adagrad, with one moment; and so on.
    void *data
    const void *grad
    void *moment               # velocity (NULL without momentum), or squares so far
    const OptimizerState *state
    Py_ssize_t n

cdef struct AdamArgs:
    void *data
    const void *grad
    void *m
    void *v
    const OptimizerState *state
    Py_ssize_t n

cdef struct RmspropArgs:
    void *data
    const void *grad
    void *square
    void *mean
    void *velocity
    const OptimizerState *state
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
    Py_ssize_t steps, batch, hidden
    Py_ssize_t scratch_step    # room for the weight, in rows of 64 bytes, and the batch's product
    Py_ssize_t reverse
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
    double *cell_norms         # of LSTM: that of each c; or NULL
    void *scratch
    Py_ssize_t steps, batch, hidden
    Py_ssize_t scratch_step    # room for the transposed weight, in rows of 64 bytes
    Py_ssize_t reverse
    Activation activation

cdef struct TimeFirstArgs:
    # y (steps x batch x width) = columns begin ... of x (batch x steps x features)
    const void *x
    const Py_ssize_t *lengths  # or NULL; beyond them y is 0
    void *y
    Py_ssize_t batch, steps, features, width, begin

cdef struct BatchFirstArgs:
    # y (batch x steps x both widths) = x and other, side by side
    const void *x              # steps x batch x width
    const Py_ssize_t *lengths
    const void *other          # or NULL, and other_width 0
    void *y
    Py_ssize_t steps, batch, width, other_width

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
    Py_ssize_t count, features, rows

cdef struct MaxPoolArgs:
    # Window (i, j) begins at row i * stride_height - top and column j * stride_width - left. Its
    # rows are row_step apart, its columns column_step.
    # Returns 1 + the first image whose length is not in 1 ... width.
    const void *x
    const Py_ssize_t *lengths  # of every image: columns from there on are padding; or NULL
    void *y
    Py_ssize_t images, height, width, channels, out_height, out_width
    Py_ssize_t kernel_height, kernel_width, stride_height, stride_width, top, left
    Py_ssize_t row_step, column_step

cdef struct MaxPoolGradArgs:
    const void *dy
    const void *x
    const void *y
    const Py_ssize_t *lengths
    void *dx
    Py_ssize_t images, out_height, out_width, channels, height, width
    Py_ssize_t kernel_height, kernel_width, stride_height, stride_width, top, left
    Py_ssize_t row_step, column_step
    Py_ssize_t after_relu      # whether dx is that of what a ReLU was given, which gave x

cdef struct AvgPoolArgs:
    const void *x
    const Py_ssize_t *lengths
    void *y
    Py_ssize_t images, height, width, channels, out_height, out_width
    Py_ssize_t kernel_height, kernel_width, stride_height, stride_width, top, left
    Py_ssize_t row_step, column_step
    Py_ssize_t counted_height, counted_width    # where padding ends that counts; 0: none counts
    double divisor             # of the sum of a window; 0: as many as it has pixels that count

cdef struct AvgPoolGradArgs:
    const void *dy
    const Py_ssize_t *lengths
    void *dx
    Py_ssize_t images, out_height, out_width, channels, height, width
    Py_ssize_t kernel_height, kernel_width, stride_height, stride_width, top, left
    Py_ssize_t row_step, column_step, counted_height, counted_width
    double divisor

cdef struct MomentPartsArgs:
    # Of every block of NORM_BLOCK elements four: how many, their sum, that of squares, zeros. Of
    # several groups of columns, four of each, and a block has the rows that fit.
    const void *x
    double *parts
    Py_ssize_t n
    Py_ssize_t columns, groups
    Accumulate accumulate      # to `parts`, of a single block

cdef struct NormPartsArgs:
    # Of every block two: the sum of x^2, and that of (x - before)^2.
    const void *x
    const void *before         # or NULL: the second is 0
    double *parts
    Py_ssize_t n
    Accumulate accumulate

cdef struct CollectArgs:
    # sums[j] += sum over i of parts[i, j]
    const double *parts
    double *sums
    Py_ssize_t blocks, k

cdef struct NoteRowsArgs:
    # sums[i] += sum over j of parts[i, j]
    const double *parts
    double *sums
    Py_ssize_t rows, columns

cdef struct NoteLengthsArgs:
    # sums += rows, sum of lengths
    const Py_ssize_t *lengths
    double *sums
    Py_ssize_t rows

cdef struct NoteActiveArgs:
    # active[j] = 1 if any x[i, j] is not 0
    const void *x
    void *active
    Py_ssize_t rows, columns

cdef struct CountInactiveArgs:
    # sums = how many are 0 in active and in before, n
    const void *active
    const void *before
    double *sums
    Py_ssize_t n

cdef struct NoteStateArgs:
    # sums = number of the step, norm, scale, learning rate
    const OptimizerState *state
    const unsigned long long *clock
    double *sums

cdef enum:
    # What stands where in the clock of a watch.
    CLOCK_STEPS, CLOCK_NEXT, CLOCK_EVERY, CLOCK_RECORDS, CLOCK_ROOM

cdef struct StoreRecordArgs:
    # journal[clock[CLOCK_RECORDS]] = sums; sums = 0
    double *sums
    double *journal
    const unsigned long long *clock
    Py_ssize_t n, records

cdef struct CountRecordArgs:
    unsigned long long *clock

cdef struct PeakArgs:
    # fma_peak: nothing but multiply-adds, flops = peak_flops * repetitions of every thread.
    # read_peak: nothing but reads of the n elements of x, so often.
    void *x
    Py_ssize_t n, repetitions
