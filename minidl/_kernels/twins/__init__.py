"""The NumPy twin of every kernel: its definition, in one to five lines.

The twin is what the tests hold the compiled loops against, what the benchmarks compare
with, and a complete backend (``MINIDL_ISA=reference``). Read it first: a compiled kernel
does the same arithmetic, only faster. Above each stands the kernel's declaration, in the grammar
of ``signature.py``. Gradients are named after the variable that they belong to: ``dx`` is the
derivative of the loss with respect to ``x``.

Arrays are float32 or float64, rows are the batch, columns the features; an input of more
than two dimensions is treated as the matrix of its last dimension.
"""

from __future__ import annotations

from minidl._kernels.twins.activations import *  # noqa: F403 (a part of the twin)
from minidl._kernels.twins.convolution import *  # noqa: F403
from minidl._kernels.twins.elementwise import *  # noqa: F403
from minidl._kernels.twins.losses import *  # noqa: F403
from minidl._kernels.twins.normalization import *  # noqa: F403
from minidl._kernels.twins.optimizers import *  # noqa: F403
from minidl._kernels.twins.pooling import *  # noqa: F403
from minidl._kernels.twins.products import *  # noqa: F403
from minidl._kernels.twins.sequences import *  # noqa: F403
from minidl._kernels.twins.watching import *  # noqa: F403
