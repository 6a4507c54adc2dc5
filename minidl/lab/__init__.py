"""Experiments: each one file, one command, one figure, and a lesson that says how to read them.

Every file has ``compute(...)``, which returns the numbers; these print themselves, ``lines()``, and
draw themselves, ``plot(FILE)``. ``minidl lab NAME`` calls the three.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# In the order of the lessons.
EXPERIMENTS = {
    "linear-unit": "lesson 1: what a weight and an input do to one sum; W to the power of L",
    "by-hand": "lesson 2: two neurons forward, backward, and a step, number by number",
    "chain": "lesson 3: the gradient of a product of weights: 72 or 0.0072",
    "sigmoid-table": "lesson 3: the derivative of ten sigmoids in a row",
    "exploding": "lesson 4: weights twice too large, and what becomes of the loss",
    "linear-draws": "lesson 5: (n Var W)^L over many random networks, mean and median",
    "critical-line": "lesson 6: n Var(W) kappa = 1 for sigmoid, tanh, ReLU and ELU",
    "loan": "lesson 7: an income in dollars, and the sigmoid that it saturates",
    "batchnorm": "lesson 7: what normalization cures, and the growth that it costs",
    "residual": "lesson 8: J = I + dF/dx, and the gradient through 200 layers",
    "rnn-radius": "lesson 9: spectral radius, largest singular value, and the T-th power",
    "gates": "lesson 10: RNN, LSTM and GRU: the gradient by time step",
    "clipping": "lesson 11: a cliff, and the step that is not taken",
    "ravine": "lesson 11: descent, momentum, RMSprop and Adam where curvatures differ",
    "curvature": "lesson 12: the largest rate is 2 / curvature",
    "landscape": "lesson 12: the loss around a deep network, with and without shortcuts",
    "resnet": "lesson 13: convolutional networks of 20 to 56 layers, plain and residual",
    "depth": "thirty layers that do not learn, one remedy at a time: docs/depth.md",
}


def module(name: str) -> Any:
    """Import the file of an experiment.

    Examples
    --------
    >>> from minidl import lab
    >>> lab.module("by-hand").compute().loss < 0.09
    True
    """
    return import_module(f"minidl.lab.{name.replace('-', '_')}")
