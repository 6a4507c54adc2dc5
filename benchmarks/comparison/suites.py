"""Define the suites, their tasks, and the libraries that take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from comparison.convolutions import CONVOLUTIONAL
from comparison.networks import Network
from comparison.sequences import Sequences
from minidl.profiling import Case, cases
from minidl.profiling.cases import LAYERS, SQUARES

OURS = "ours"  # the module of libraries/ that is not a peer
# These choose their instruction set themselves: JAX at least for products, in spite of XLA flags.
NOT_HELD = {"jax_", "onnxruntime_"}


class Task(Protocol):
    """Work that contenders do."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    @property
    def groups(self) -> list[str]:
        """Groups whose means it counts in, beside the mean of all."""


@dataclass(frozen=True)
class Suite:
    """Tasks of one kind.

    Parameters
    ----------
    help
        One line for the command line.
    what
        The heading of the column of tasks.
    columns
        The module of ``libraries/`` that each column comes from, in the order of the table.
    bases
        Columns of minidl that peers are compared with; the last one is always there.
    tasks
        Function that makes the tasks of a dtype.
    flops
        Function that counts the flops of the matrix products of a task; 0 where these do not
        dominate.
    every_thread_count
        Whether to compare with one thread and with all cores, and count the better one.
    notes
        Explanations that a reader of the figures needs.
    """

    help: str
    what: str
    columns: Mapping[str, str]
    bases: Sequence[str]
    tasks: Callable[[Any], Sequence[Task]]
    flops: Callable[[Any], int]
    every_thread_count: bool = False
    notes: str = ""


@dataclass(frozen=True)
class KernelTask:
    """A case of ``minidl bench``."""

    case: Case

    @property
    def name(self) -> str:
        """Kernel and shape."""
        return self.case.name

    @property
    def groups(self) -> list[str]:
        """Functions or products, and small products among these."""
        if self.case.kernel != "matmul":
            return ["functions"]
        small = all(size <= 64 for size in sizes(self.case))
        return ["products", "<= 64"] if small else ["products"]


def sizes(case: Case) -> tuple[int, int, int]:
    """Return m, k and n of a product."""
    m, k, n = (int(size) for size in case.shape.split(" ")[-1].split("x"))
    return m, k, n


def kernel_tasks(dtype: Any) -> list[KernelTask]:
    """List products of squares and of layers in their three forms, and the other kernels."""
    products = {tuple(sorted(shape)) for shape in SQUARES + LAYERS}
    functions = ("sigmoid", "tanh", "softmax_cross_entropy", "adam")
    chosen = [
        case
        for case in cases(np.dtype(dtype), ["matmul"])
        if tuple(sorted(sizes(case))) in products
    ]
    chosen += [case for case in cases(np.dtype(dtype), functions) if case.shape != "17,226"]
    return [KernelTask(case) for case in chosen]


NETWORKS = [
    Network((4, 64, 64, 2), "tanh", 64),
    Network((4, 64, 64, 2), "tanh", 1, batches=2000),
    Network((10, 45, 45, 10), "relu", 128),
    Network((10, 46, 46, 10), "relu", 128),
    Network((64, 128, 64, 10), "relu", 32),
    Network((784, 256, 128, 10), "relu", 64, batches=100),
    Network((784, 512, 512, 10), "relu", 128, batches=20),
    Network((64,) * 21 + (10,), "tanh", 32, batches=100, label="20 x 64"),
    Network((4, 32, 16, 4), "tanh", 10000, batches=20),
]
SMALL = [Network((4, 64, 64, 2), "tanh", batch, batches=1) for batch in (1, 64)]


RECURRENT = [
    Sequences("RNN", 32, 64, 50, 32, batches=40),
    Sequences("LSTM", 64, 128, 50, 32),
    Sequences("GRU", 64, 128, 50, 32),
    Sequences("LSTM", 8, 32, 100, 16, batches=40),
    Sequences("LSTM", 64, 128, 50, 1, batches=40),
    Sequences("GRU", 64, 128, 50, 1, batches=40),
    Sequences("RNN", 32, 64, 50, 1, batches=200),
    Sequences("LSTM", 32, 32, 50, 128),
    Sequences("LSTM", 64, 256, 50, 32, batches=8),
    Sequences("GRU", 64, 256, 50, 128, batches=6),
    Sequences("RNN", 64, 256, 50, 128, batches=6),
]


def networks(known: Sequence[Any], dtype: Any) -> Sequence[Any]:
    """Return the networks; raises ValueError for another dtype than float32."""
    if np.dtype(dtype) != np.float32:
        raise ValueError("networks are compared in float32 only")
    return known


SUITES = {
    "kernels": Suite(
        "products, functions, softmax cross entropy and Adam, one call from Python each",
        "kernel",
        {"minidl": OURS, "NumPy": "numpy_", "SciPy": "scipy_", "PyTorch": "pytorch", "JAX": "jax_"},
        ["minidl"],
        kernel_tasks,
        lambda task: task.case.flops if "products" in task.groups else 0,
        notes="out= is given where a library has it; what JAX takes to dispatch a call counts",
    ),
    "steps": Suite(
        "whole training steps: forward, backward, clipping by the global norm, Adam",
        "network",
        {
            "epoch": OURS,
            "shuffled": OURS,
            "step": OURS,
            "eager": OURS,
            "PyTorch": "pytorch",
            "torch.compile": "pytorch",
            "JAX jit": "jax_",
            "JAX scan": "jax_",
            "scikit-learn": "sklearn_",
            "Thinc": "thinc_",
        },
        ["epoch", "shuffled", "step", "eager"],
        partial(networks, NETWORKS),
        attrgetter("step_flops"),
        every_thread_count=True,
        notes="""\
epoch: minidl, all batches in one call, in order; shuffled: their rows in random order, gathered in
it, which no peer does; step: one recorded step a call; eager: the same function, not recorded.
JAX scan: all batches in one call. All others: one step a call. Peers hold their batches ready, in
arrays of their own. scikit-learn does not clip, Thinc clips each parameter by its own norm.""",
    ),
    "recurrent": Suite(
        "whole training steps of recurrent networks, with the same rest",
        "network",
        {
            "epoch": OURS,
            "shuffled": OURS,
            "step": OURS,
            "eager": OURS,
            "PyTorch": "pytorch",
            "torch.compile": "pytorch",
            "JAX jit": "jax_",
            "JAX scan": "jax_",
        },
        ["epoch", "shuffled", "step", "eager"],
        partial(networks, RECURRENT),
        attrgetter("step_flops"),
        every_thread_count=True,
        notes="""\
epoch: minidl, all batches in one call, in order; shuffled: their rows in random order, gathered in
it, which no peer does; step: one recorded step a call; eager: the same function, not recorded.
PyTorch runs its own nn.RNN, LSTM and GRU. JAX scans over time, the input's product for all steps
taken before; JAX scan: all batches in one call as well.""",
    ),
    "convolution": Suite(
        "whole training steps of convolutional networks, and LeNet-5's forward pass",
        "network",
        {
            "epoch": OURS,
            "shuffled": OURS,
            "step": OURS,
            "eager": OURS,
            "PyTorch": "pytorch_convolution",
            "torch.compile": "pytorch_convolution",
            "JAX jit": "jax_",
            "JAX scan": "jax_",
            "ONNX Runtime": "onnxruntime_",
        },
        ["epoch", "shuffled", "step", "eager"],
        partial(networks, CONVOLUTIONAL),
        attrgetter("flops"),
        every_thread_count=True,
        notes="""\
epoch: minidl, all batches in one call, in order; shuffled: their samples in random order, gathered
in it, which no peer does; step: one recorded step a call; eager: the same function, not recorded.
JAX scan: all batches in one call, unrolled. Of inference, step is the recorded model. PyTorch runs
in NCHW and channels_last, eager, compiled and (inference) scripted, JAX in NHWC, without running
statistics of BatchNorm, ONNX Runtime in NCHW. Batches are held ready in the layout of each.""",
    ),
    "inference": Suite(
        "one forward pass of a small network, from Python",
        "network",
        {
            "recorded": OURS,
            "eager": OURS,
            "NumPy": "numpy_",
            "ONNX Runtime": "onnxruntime_",
            "PyTorch": "pytorch",
            "TorchScript": "pytorch",
            "JAX jit": "jax_",
        },
        ["recorded", "eager"],
        partial(networks, SMALL),
        attrgetter("forward_flops"),
        notes="input and output are arrays of the library's own kind",
    ),
}
