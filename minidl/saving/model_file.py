"""Writing a model to a file, reading it back, and asking what a file holds."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import overload

import numpy as np

from minidl._version import __version__
from minidl.files import AnyPath
from minidl.nn.layer import Layer
from minidl.nn.reshape import Flatten
from minidl.optim.optimizer import Optimizer
from minidl.saving.architecture import ARRAYS, NotDescribableError, described
from minidl.saving.contents import (
    BESIDE,
    CLASSES,
    COLUMNS,
    LIBRARY,
    MODEL,
    UNKNOWN,
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
from minidl.saving.rebuilding import ArchitectureError, parsed, rebuild
from minidl.saving.tensor_file import (
    DTYPES,
    ModelFileError,
    TensorFile,
    one_line,
    opened,
    shortened,
    write_tensor_file,
)
from minidl.typing import Array


def save(
    model: Layer,
    path: AnyPath,
    *,
    metadata: Mapping[str, str] | None = None,
    optimizer: Optimizer | None = None,
    classes: Sequence[str | int] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Write a model to a file: its architecture, parameters and state (running statistics, ...).

    ``load(path)`` builds the model again, without the code that built it first. A layer of your own
    comes back too if its class is defined there, and if it holds nothing but numbers, words,
    arrays, layers, parameters, and lists, tuples and dicts of these. If a layer holds something
    else, such as a function, the file has its parameters and state, for ``load(path, into=model)``.

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
        Strings to keep with the model, by name, such as what it was made from. Names that begin
        with ``minidl.`` are its own.
    optimizer
        Optimizer of the model's parameters, for training to continue later: its hyper-parameters,
        counters and moments are kept too. Not kept are a schedule (give the new optimizer the same
        one), a ``ReduceOnPlateau``, the averages of an ``EMA``, and a generator of the order of
        rows: ``Trainer.save`` keeps all of these.
    classes
        The labels of the classes, in the order of the outputs, for ``minidl predict``.
    columns
        The names of the inputs, in their order.

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
    >>> loaded = minidl.load(path)
    >>> loaded, bool((loaded.weight.data == model.weight.data).all())
    (Linear(3, 2), True)

    To continue training with the same moments:

    >>> other = nn.Linear(3, 2, rng=1)
    >>> optimizer = optim.Adam(other.parameters())
    >>> minidl.load(path, into=other, optimizer=optimizer)
    >>> optimizer.lr
    0.01
    """
    check_types("save", model, optimizer)
    words = checked_words({} if metadata is None else metadata)
    tensors, own = contents(model, optimizer)
    for name, labels in ((CLASSES, classes), (COLUMNS, columns)):
        if labels is not None:
            own[name] = json.dumps(_as_labels(name, labels))
    write_tensor_file(path, tensors, words, own)


def contents(model: Layer, optimizer: Optimizer | None) -> tuple[dict[str, Array], dict[str, str]]:
    """Return what a file holds of a model and an optimizer: tensors by name, and metadata."""
    tensors = {name: array_of(place) for name, place in places(model, optimizer).items()}
    own = {LIBRARY: __version__}
    try:
        own[MODEL], arrays = described(model)
    except NotDescribableError as error:
        own[UNKNOWN], arrays = str(error), {}
    if optimizer is not None:
        own["optimizer"] = class_name_of(optimizer)
    return tensors | arrays, own


def _as_labels(name: str, labels: Sequence[str | int]) -> list[str | int]:
    """Return labels as JSON has them."""
    what = f"save: {name.rpartition('.')[2]} are words or whole numbers"
    unordered = isinstance(labels, (str, bytes, set, frozenset, Mapping))
    if unordered or not isinstance(labels, Iterable):
        raise TypeError(f"{what} in a list, got {shortened(labels)}")
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    wrong = [label for label in plain if type(label) not in (str, int)]
    if wrong:
        raise TypeError(f"{what}, got {shortened(wrong[0])}")
    return plain


@overload
def load(path: AnyPath) -> Layer: ...
@overload
def load(path: AnyPath, into: Layer, *, optimizer: Optimizer | None = None) -> None: ...
def load(
    path: AnyPath, into: Layer | None = None, *, optimizer: Optimizer | None = None
) -> Layer | None:
    """Build the model that ``save`` has written; or fill one that is there, and its optimizer.

    Nothing in a file is executed, and no module is imported for it: classes are those that are
    defined. Sizes are compared with that of the file before memory is taken.

    Everything is checked first and then copied at once: if anything is wrong, or Ctrl-C comes,
    model and optimizer stay as they are.

    Parameters
    ----------
    path
        A file that ``save`` has written, or another program that keeps weights as minidl does and
        says so by the metadata ``"format": "minidl"``. PyTorch's files have the weights of a
        ``Linear`` transposed.
    into
        A model of the same layers, shapes and dtype, which is filled. Settings without arrays, such
        as a stride, are not compared, but for the order in which ``Flatten`` gives pixels. None:
        the model is built, and returned; its layers are in the modes in which they were saved.
    optimizer
        Optimizer of the parameters of ``into``, of the class that was saved and with the same
        groups. Its hyper-parameters become those of the file. None: an optimizer in the file is
        ignored.

    Raises
    ------
    ModelFileError
        If the file is damaged, or of another model or optimizer, or holds an impossible value such
        as a negative variance or learning rate; names the tensor. If the model is to be built, and
        the file does not say how, as those of version 0.1, or a class of layers is not defined.
        It is a ``ValueError``.
    ValueError, RuntimeError
        For an optimizer that does not belong to ``into``, as in ``save``.
    OSError
        If the file cannot be read.
    """
    if into is None:
        if optimizer is not None:
            raise TypeError("load: an optimizer is of the parameters of a model: give it, as into=")
        return _load_new(path)
    check_types("load", into, optimizer)
    with opened(path) as file:
        check_format(file)
        kept = places(into, optimizer)
        check_names(file, kept, optimizer)
        for name, place in kept.items():
            check_like(file, name, place)
        _check_flattened(file, into)
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
    return None


def _check_flattened(file: TensorFile, model: Layer) -> None:
    """Raise ModelFileError for weights of flattened images whose order is not the model's."""
    try:
        layers = parsed(file.words.get(MODEL, ""))["layers"]
        saved = [
            bool(words["holds"].get("channels_first"))
            for words in layers
            if words["class"] == Flatten.__name__ and "module" not in words
        ]
    except (ArchitectureError, AttributeError, KeyError, TypeError):
        return  # a file without an architecture, or none that can be read
    flattens = [layer for _, layer in model.layers() if type(layer) is Flatten]
    if len(saved) != len(flattens):
        return
    for layer, first in zip(flattens, saved, strict=True):
        if layer.channels_first != first:
            raise file.error(
                f"its weights are for Flatten(channels_first={first}), {layer.label} gives pixels "
                f"in another order; build the model with Flatten(channels_first={first}), or load "
                "the model by minidl.load(path)"
            )


def _load_new(path: AnyPath) -> Layer:
    """Build the model of a file, with the values in it."""
    with opened(path) as file:
        check_format(file)
        text = _architecture(file)
        beside = tuple(prefix for prefix in BESIDE if prefix != ARRAYS)
        names = [name for name in file.tensors if not name.startswith(beside)]
        for name in names:
            if file.tensors[name].dtype not in DTYPES:
                raise file.error(f"{one_line(name)} is not described as a tensor of minidl's")
        file.check_layout()
        try:
            architecture = parsed(text)
            found = file.read(dict.fromkeys(names))
            model = rebuild(architecture, found)
            check_names(file, places(model, None), None)
            check_state(model, found)
        except ModelFileError:
            raise
        except ValueError as error:
            raise file.error(str(error)) from None
    return model


def _architecture(file: TensorFile) -> str:
    """Return the architecture in a file, as text."""
    if (text := file.words.get(MODEL)) is not None:
        return text
    why = file.words.get(UNKNOWN)
    why = f" ({shortened(why)[1:-1]})" if why else ""
    raise file.error(
        f"holds parameters, and not the architecture of the model{why}: build the model, and then "
        "minidl.load(path, into=model)"
    )


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
