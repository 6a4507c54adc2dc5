"""Writing a model to a file, reading it back, and asking what a file holds."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from itertools import repeat

import numpy as np

from minidl.files import AnyPath
from minidl.nn.layer import Layer
from minidl.optim.optimizer import Optimizer
from minidl.saving.contents import (
    array_of,
    check_format,
    check_like,
    check_names,
    check_optimizer,
    check_state,
    check_types,
    checked_words,
    class_name_of,
    places,
)
from minidl.saving.tensor_file import ModelFileError, opened, write_tensor_file


def save(
    model: Layer,
    path: AnyPath,
    *,
    metadata: Mapping[str, str] | None = None,
    optimizer: Optimizer | None = None,
) -> None:
    """Write the parameters and the state (running statistics, generators) of a model to a file.

    The file gets its name only when it is complete and on the disk. Readers find the old file or
    the new one, even if this process dies meanwhile. Several threads and processes may save to one
    path at once.

    Parameters
    ----------
    model
        Any layer.
    path
        Where to write. An existing file is replaced, and the new one has its mode; a symbolic link
        stays, and the file that it leads to is replaced.
    metadata
        Strings to keep with the model, by name, such as what it was made from.
    optimizer
        Optimizer of the model's parameters, for training to continue later: its hyper-parameters,
        counters and moments are kept too. Not kept are a schedule (give the new optimizer the same
        one), a ``ReduceOnPlateau``, the averages of an ``EMA``, and a generator of the order of
        rows.

    Raises
    ------
    TypeError
        For metadata that are not strings.
    ValueError
        For an optimizer of another model, for metadata under a name that ``save`` itself uses, or
        for more than 16 MB of metadata.
    RuntimeError
        For an optimizer that one of its parameters has left.
    OSError
        If the file cannot be written, or is no regular file: a folder, a pipe, a device.

    Examples
    --------
    >>> import minidl, tempfile, pathlib
    >>> from minidl import nn, optim
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> model = nn.Linear(3, 2, rng=0)
    >>> optimizer = optim.Adam(model.parameters(), lr=0.01)
    >>> minidl.save(model, path, optimizer=optimizer)
    >>> other = nn.Linear(3, 2, rng=1)
    >>> minidl.load(path, into=other)
    >>> bool((other.weight.data == model.weight.data).all())
    True

    To continue training with the same moments:

    >>> optimizer = optim.Adam(other.parameters())
    >>> minidl.load(path, into=other, optimizer=optimizer)
    >>> optimizer.lr
    0.01
    """
    check_types("save", model, optimizer)
    words = checked_words(metadata or {})
    tensors = {name: array_of(place) for name, place in places(model, optimizer).items()}
    own = {} if optimizer is None else {"optimizer": class_name_of(optimizer)}
    write_tensor_file(path, tensors, words, own)


def load(path: AnyPath, into: Layer, *, optimizer: Optimizer | None = None) -> None:
    """Fill a model, and an optimizer if one is given, with what ``save`` has written.

    Everything is checked first and then copied at once: if anything is wrong, or Ctrl-C comes,
    model and optimizer stay as they are.

    Parameters
    ----------
    path
        A file that ``save`` has written, or another program that keeps weights as minidl does and
        says so by the metadata ``"format": "minidl"``. PyTorch's files have the weights of a
        ``Linear`` transposed.
    into
        A model of the same layers, shapes and dtype.
    optimizer
        Optimizer of the parameters of ``into``, of the class that was saved and with the same
        groups. Its hyper-parameters become those of the file. None: an optimizer in the file is
        ignored.

    Raises
    ------
    ModelFileError
        If the file is damaged, or of another model or optimizer, or holds an impossible value such
        as a negative variance or learning rate; names the tensor. It is a ``ValueError``.
    ValueError, RuntimeError
        For an optimizer that does not belong to ``into``, as in ``save``.
    OSError
        If the file cannot be read.
    """
    check_types("load", into, optimizer)
    with opened(path) as file:
        check_format(file)
        kept = places(into, optimizer)
        check_names(file, kept, optimizer)
        for name, place in kept.items():
            check_like(file, name, place)
        file.check_layout()
        found = file.read(kept)
    try:
        check_state(into, found)
        if optimizer is not None:
            check_optimizer(optimizer, found)
    except ValueError as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from None
    arrays = [array_of(place) for place in kept.values()]
    values = [found[name] for name in kept]
    # One call that runs in C from end to end: no signal handler comes between two arrays.
    deque(map(np.ndarray.__setitem__, arrays, repeat(...), values), maxlen=0)


def metadata(path: AnyPath) -> dict[str, str]:
    """Return the metadata that ``save`` has kept with a model, after checking the whole file.

    Raises
    ------
    ModelFileError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    with opened(path) as file:
        file.check_layout()
        file.read({})
        return file.words


def description(path: AnyPath) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Return the metadata of a model file and the shapes of its tensors.

    Only the header is read, and checked against the size of the file. ``load`` finds damage in the
    numbers.

    Raises
    ------
    ModelFileError
        If the header is damaged.
    OSError
        If the file cannot be read.
    """
    with opened(path) as file:
        file.check_layout()
        return file.words, {name: tensor.shape for name, tensor in file.tensors.items()}
