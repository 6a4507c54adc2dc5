"""How the work of a kernel is counted: the same for a kernel alone and for one in a recorded step.

**Flops.** An addition, multiplication, division, comparison or square root of one number is one
flop, a multiply-add two. exp, log and tanh have no count of their own: ``EXP`` flops stand for
what a polynomial of that accuracy takes. Integer arithmetic, such as the hash of dropout, is not
counted.

**Bytes.** What a kernel cannot avoid: every array that it reads once, every array that it writes
once, and so twice for one that it updates in place. A kernel that passes over its input twice
pays for that by a smaller fraction of the ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

EXP = 20  # 7 multiply-adds of a polynomial, 3 to reduce the argument and to scale back

# Flops of an element.
UNARY = {
    "relu": 1,
    "exp": EXP,
    "log": EXP,
    "sigmoid": EXP + 2,
    "tanh": EXP + 3,
    "leaky_relu": 2,
    "elu": EXP + 2,
    "silu": EXP + 3,
    "softplus": 2 * EXP + 4,
    "gelu": 2 * EXP + 12,  # an exp, a polynomial like one, and the square in two parts
    "softmax": EXP + 4,  # max, subtract, sum, divide
    "log_softmax": EXP + 4,
}
GRADIENTS = {
    "relu_grad": 1,
    "sigmoid_grad": 3,
    "tanh_grad": 3,
    "leaky_relu_grad": 2,
    "elu_grad": 3,
    "silu_grad": EXP + 7,
    "softplus_grad": EXP + 4,
    "gelu_grad": 2 * EXP + 16,
    "softmax_grad": 4,
    "log_softmax_grad": EXP + 3,
}
ELEMENT = {
    "copy": 0,
    "clear": 0,
    "add": 1,
    "scale": 1,
    "clamp": 2,
    "follow": 3,
    **UNARY,
    **GRADIENTS,
    "prelu": 2,
    "prelu_grad": 4,
    "dropout_key": 0,
    "dropout": 2,
    "column_sum": 1,
    "batch_norm": 8,  # in training: mean 1, variance 3; then normalize 4
    "batch_norm_grad": 9,  # x_hat 2, the two sums 3, dx 4
    "layer_norm": 8,
    "layer_norm_grad_input": 11,  # g 1, the two sums 4, x_hat 2, dx 4
    "layer_norm_grad_params": 5,
    "standardize": 2,
    "lstm_gates": 5 * EXP + 16,
    "lstm_gates_grad": EXP + 24,
    "gru_gates": 3 * EXP + 14,
    "gru_gates_grad": 16,
    "time_first": 0,
    "batch_first": 0,
    "embedding": 0,
    "embedding_grad": 1,
    "softmax_cross_entropy": EXP + 4,  # max, subtract, sum, scale
    "nll": 1,
    "mse": 4,
    "absolute_error": 4,
    "huber": 7,
    "bce_with_logits": 2 * EXP + 9,
    "squared_norm": 2,
    "total": 1,
    "clip": 4,
    "sgd": 7,
    "adam": 16,
    "nadam": 18,
    "rmsprop": 11,
    "adagrad": 9,
}
# How many gates, and the flops of an element of the state beside the product.
SEQUENCES = {
    "rnn_sequence": (1, EXP + 4),
    "rnn_sequence_grad": (1, 6),
    "lstm_sequence": (4, ELEMENT["lstm_gates"] + 4),
    "lstm_sequence_grad": (4, ELEMENT["lstm_gates_grad"] + 3),
    "gru_sequence": (3, ELEMENT["gru_gates"] + 3),
    "gru_sequence_grad": (3, ELEMENT["gru_gates_grad"] + 3),
}
BATCH_NORM_EVAL = 4  # only normalize


def flops_of(
    kernel: str, extent: Sequence[int], training: bool = True, fused: Sequence[str] = ()
) -> int:
    """Flops of a kernel.

    Parameters
    ----------
    kernel
        Its name, in ``_kernels.NAMES`` or among those that these consist of.
    extent
        (m, k, n) of a product; for others the sizes of what they work on, (rows, columns) or
        (elements,).
    training
        Which of the two a batch normalization does.
    fused
        Elementwise kernels that a product applies to its output: an activation or the gradient
        of one, or ``add`` for the bias.

    Examples
    --------
    >>> flops_of("matmul", (32, 64, 128), fused=["add", "relu"]) - 2 * 32 * 64 * 128
    8192
    """
    count = math.prod(extent)
    if kernel in SEQUENCES:  # of every step the product with the state, and the gates
        gates, own = SEQUENCES[kernel]
        return count * (2 * gates * extent[2] + own)
    if kernel == "matmul":
        m, _, n = extent
        return 2 * count + m * n * sum(ELEMENT.get(name, 0) for name in fused)
    if kernel == "batch_norm" and not training:
        return BATCH_NORM_EVAL * count
    if kernel == "softmax_cross_entropy":
        return count * ELEMENT[kernel] + extent[0] * EXP  # and a log for every row
    return count * ELEMENT.get(kernel, 0)
