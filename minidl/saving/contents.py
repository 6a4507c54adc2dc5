"""Which arrays of a model and its optimizer are kept, and whether a file has just these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl._kernels.twins import OPTIMIZER_STATE
from minidl.nn.layer import Layer, joined
from minidl.nn.parameter import Parameter
from minidl.optim.optimizer import Optimizer
from minidl.saving.architecture import ARRAYS
from minidl.saving.tensor_file import DTYPES, FORMAT, TensorFile, one_line, shortened
from minidl.typing import Array

OPTIMIZER = "optimizer/"  # begins the names of tensors that are not the model's
TRAINING = "training/"  # begins the names of what else a training needs to go on
BESIDE = (OPTIMIZER, TRAINING, ARRAYS)  # begin the names of all that a model has no place for
MODEL = "minidl.model"  # metadata with the architecture of the model
UNKNOWN = "minidl.unknown"  # or with the reason why it is not there
LIBRARY = "minidl.version"
CLASSES, COLUMNS = "minidl.classes", "minidl.columns"
# Metadata of a training: all that it needs beside arrays, and the columns of its tables.
STATE_OF_TRAINING, COLUMNS_OF_TRAINER = "minidl.training", "minidl.columns_of_inputs"
TABLE = "minidl.table"  # of a network that was trained on a table: what became of its columns
IMAGES = "minidl.images"  # of one that was trained on images: what became of their pixels
# Metadata that minidl itself writes, beside those whose names begin with "minidl.".
OWN, OWN_WORDS = "minidl.", ("format", "crc32", "optimizer")

# The place of a tensor of the file in a model or an optimizer.
Place = Parameter | Array


def check_types(caller: str, model: Any, optimizer: Any) -> None:
    """Raise TypeError if this is not a model, and an optimizer or None."""
    if not isinstance(model, Layer):
        hint = "; an optimizer goes with its model, as optimizer=optimizer"
        raise TypeError(
            f"{caller} takes a model, got {model!r}{hint if isinstance(model, Optimizer) else ''}"
        )
    if not isinstance(optimizer, Optimizer | None):
        raise TypeError(f"{caller}: optimizer must be one, or None, got {optimizer!r}")


def checked_words(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata if every reader of the format can read them, else raise."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"save: metadata are strings by name in a dict, got {shortened(metadata)}")
    words = dict(metadata)
    taken = [name for name in words if name in OWN_WORDS or str(name).startswith(OWN)]
    if taken:
        raise ValueError(
            f"save: the metadata {', '.join(sorted(map(str, taken)))} are its own, rename yours "
            f"(its own are {', '.join(OWN_WORDS)}, and all that begin with {OWN})"
        )
    for name, word in words.items():
        if not isinstance(name, str) or not isinstance(word, str):
            raise TypeError(
                f"save: metadata are strings by name, got {shortened(name)}: {shortened(word)}; "
                "write str(...) or json.dumps(...) of what is none"
            )
        try:
            (name + word).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"save: the metadata {shortened(name)} hold half a surrogate pair, which no file "
                "in UTF-8 can"
            ) from None
    return words


def class_name_of(optimizer: Optimizer) -> str:
    """Return the name of an optimizer's class, with its module unless that is minidl's."""
    cls = type(optimizer)
    own = cls.__module__.startswith("minidl.")
    return cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"


def places(model: Layer, optimizer: Optimizer | None) -> dict[str, Place]:
    """Return what is kept, by name. Parameters are not read: that would draw their values."""
    state = {} if optimizer is None else _state(optimizer, model)
    kept = {f"{OPTIMIZER}{name}": array for name, array in state.items()}
    return {**dict(model.named_parameters()), **model.saved_state(), **kept}


def array_of(place: Place) -> Array:
    """Return the array of a place itself, not a copy: filling it loads the model."""
    return place.data if isinstance(place, Parameter) else place


def _state(optimizer: Optimizer, model: Layer) -> dict[str, Array]:
    """Return what future steps depend on, by name.

    For each group these are its hyper-parameters and counters, as ``0/learning_rate``, and for each
    parameter its part of all vectors with the layout of the parameters, as ``0/moment1/2.weight``.
    """
    flat = optimizer.flat
    flat.check()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in flat.parameters:
        if id(parameter) not in names:
            raise ValueError(f"{optimizer!r} is not of this model: {parameter!r} is not in it")
    vectors = optimizer.vectors()
    found: dict[str, Array] = {}
    starts = iter(flat.starts)
    for index, group in enumerate(flat.groups):
        for field in OPTIMIZER_STATE.names or ():
            found[f"{index}/{field}"] = optimizer.states[field][index : index + 1].reshape(())
        for parameter, start in zip(group, starts, strict=False):
            for name, vector in vectors.items():
                part = vector[start : start + parameter.size].reshape(parameter.shape)
                found[f"{index}/{name}/{names[id(parameter)]}"] = part
    return found


def check_state(model: Layer, found: Mapping[str, Array]) -> None:
    """Raise ValueError for state that a layer can never reach, such as a negative variance."""
    for path, layer in model.layers():
        for name, least in layer.state_minimum.items():
            full = joined(path, name)
            numbers = np.asarray(found.get(full, least), np.float64)  # the dtype of least
            if len(wrong := numbers[~(numbers >= least)]):
                raise ValueError(f"{full} must be at least {least:g}, and holds {wrong[0]:g}")


def check_optimizer(optimizer: Optimizer, found: Mapping[str, Array]) -> None:
    """Raise ValueError for values that the optimizer refuses or that no step can reach."""
    states = optimizer.states.copy()
    for name, array in found.items():
        if name.startswith(OPTIMIZER):
            index, field, *rest = name.removeprefix(OPTIMIZER).split("/")
            if not rest:
                states[field][int(index)] = array
                continue
            least = 0.0 if field in optimizer.never_negative else -np.inf
            if not (np.isfinite(array) & (array >= least)).all():
                what = "not finite" if least else "negative or not finite"
                raise ValueError(f"{name} holds a number that is {what}")
    optimizer.check_states(states)


# --- does a file fit? -------------------------------------------------------------------------


def check_format(file: TensorFile) -> None:
    """Raise ModelFileError unless the file says that it keeps weights as minidl does."""
    if (kind := file.words.get("format")) != FORMAT:
        says = "do not say whose it is" if kind is None else f"say {shortened(kind)}"
        raise file.error(
            f"not a file of minidl: its metadata {says}, so that it is not known which way "
            "round its weights are. A Linear of PyTorch keeps (out_features, in_features): write "
            "minidl.torch.load_state_dict(path, into=model). If it keeps all weights as minidl "
            'does, (in_features, out_features), write it with the metadata {"format": "minidl"}'
        )


def check_names(file: TensorFile, kept: Mapping[str, Place], optimizer: Optimizer | None) -> None:
    """Raise ModelFileError unless the file has the tensors of this model and optimizer."""
    beside = BESIDE if optimizer is None else BESIDE[1:]
    names = {name for name in file.tensors if not name.startswith(beside)}
    if optimizer is not None and (
        (held := file.words.get("optimizer")) != class_name_of(optimizer)
    ):
        holds = "no optimizer" if held is None else one_line(held)
        raise file.error(f"holds {holds}, not {class_name_of(optimizer)}")
    missing, unknown = kept.keys() - names, names - kept.keys()
    if missing or unknown:
        lists = (("without", missing), ("with unknown", unknown))
        raise file.error(
            f"not this model{' and optimizer' if optimizer else ''}; "
            + "; ".join(
                f"{words} {', '.join(one_line(name) for name in sorted(names)[:5])}"
                for words, names in lists
                if names
            )
        )


def check_like(file: TensorFile, name: str, place: Place) -> None:
    """Raise ModelFileError unless dtype and shape are those of the model's array."""
    tensor = file.tensors[name]
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise file.error(f"{name} is not described as a tensor of minidl's: {tensor.dtype}")
    if dtype != place.dtype or tensor.shape != place.shape:
        here = f"here it is {place.dtype} {place.shape}"
        raise file.error(f"{name} is {dtype.name} {shortened(tensor.shape)}, {here}")
