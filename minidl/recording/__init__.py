"""Record once, replay without Python.

A training step is nothing but kernel calls on arrays of known shape. ``record`` wraps a function
made of such calls: its first call writes them down, later calls run the list in C. Nothing is
compiled, and no second description of a layer exists.

Read in this order:

1. ``trace.py`` runs the function and writes down its kernel calls. Its arrays are copies of all
   memory that lives on (``shadow.py``).
2. ``guards.py`` defines these arrays, which refuse NumPy, and the hooks that ask the recorder.
3. ``verify.py`` rehearses the function, and proves that the program does what the function did.
4. ``minidl/_kernels/executor/calls.py`` defines a recorded call, and the memory that it uses.
5. ``fuse.py`` merges calls.
6. ``plan.py`` gives temporaries their memory, and kernels their threads.
7. ``program.py`` makes the program. ``interface.py`` says what it takes and returns;
   ``participants.py`` holds the layers, losses and optimizers that must stay as they are.
8. ``step.py`` is what users see. ``recorded_function.py``, below it, finds the program that serves
   a call. The choice depends on arguments (``inputs.py``), on modes and attributes
   (``traits.py``), and on the objects that names in the function refer to (``names.py``).
9. ``epoch.py`` runs a program over a data set.

``errors.py`` and ``pytree.py`` are small and serve all of them. ``minidl/_kernels/executor`` runs
programs in C; ``minidl/profiling`` lists, times and draws them.
"""

import functools
from collections.abc import Callable
from typing import Any

from minidl.recording.guards import RecordingError
from minidl.recording.step import Step

__all__ = ["RecordingError", "Step", "record"]


def record(function: Callable[..., Any] | None = None, *, copy: bool = False) -> Any:
    """Write down what a function computes, and from then on run that, without Python.

    At the first call with inputs of some shape, every kernel call is written down with its
    arguments. (The function runs on copies of all memory; then twice more without kernels, to see
    whether it always does the same. Then the list runs, and must give the same to the last bit.)
    From then on the list runs in C: no Python, no allocation, several threads where that pays. The
    results are those of the function itself, to the last bit.

    Parameters
    ----------
    function
        Takes arrays, and computes with layers, losses, optimizers and kernels of minidl only:
        a training step, an evaluation, a forward pass. Other arguments are constants: another
        value is another recording. Positional parameters may also be given by name.
    copy
        Whether to return copies of arrays. By default, a call returns the arrays of the recorded
        program: the same ones every time, which the next call overwrites. Numbers are always
        copied. With copies, each of several threads that share a step gets its own results.

    Returns
    -------
    Step
        Called like the function; ``step.epoch(X, Y, batch_size)`` runs a whole epoch in one call.

    Raises
    ------
    RecordingError
        At the first call, if the function computes with NumPy, reads values into Python or uses an
        array that it was not given, naming the layer; nothing is changed then. At later
        calls, if a parameter or a moment was replaced.

    Notes
    -----
    What changes between steps lives in memory that kernels read: the learning rate and what else
    an optimizer holds, the state of generators, running statistics. The function is recorded again
    when something else changes that it may depend on: numbers that are attributes of layers, such
    as the rate of a dropout; train or eval mode; the models, losses, optimizers and functions that
    names in it mean. Other Python values are taken as they were when it was recorded. On
    the NumPy twin (``MINIDL_ISA=reference``) nothing is recorded, and every call simply runs the
    function.

    Examples
    --------
    >>> import numpy as np
    >>> import minidl
    >>> from minidl import nn, optim
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), rng=0)
    >>> loss = nn.MSELoss()
    >>> optimizer = optim.Adam(model.parameters(), lr=0.05, max_norm=1.0)
    >>> @minidl.record
    ... def step(x, y):
    ...     value = loss(model(x), y)
    ...     optimizer.zero_grad()
    ...     model.backward(loss.backward())
    ...     optimizer.step()
    ...     return value
    >>> X = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
    >>> Y = X[:, :1] * X[:, 1:]
    >>> first = float(step(X[:32], Y[:32]))
    >>> losses = [step.epoch(X, Y, batch_size=32, rng=epoch) for epoch in range(100)]
    >>> losses[-1] < first / 20
    True
    """
    if function is None:
        return functools.partial(record, copy=copy)
    if isinstance(function, Step):
        raise TypeError(f"record: {function!r} is recorded already")
    if not callable(function):
        raise TypeError(f"record takes a function, got {function!r}")
    return Step(function, copy)
