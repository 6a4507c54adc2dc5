"""State dicts of PyTorch: read into a model, and written from one. PyTorch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.files import AnyPath, as_path, open_regular
from minidl.nn.layer import Layer
from minidl.saving.tensor_file import FORMAT, ModelFileError, opened, write_tensor_file
from minidl.torch.feature_order import feature_orders
from minidl.torch.names import NONE, Orders, Slot, slots
from minidl.typing import Array

PICKLED = (b"PK\x03\x04", b"\x80\x02")  # how files of torch.save begin, and a few others


class StateDictError(ValueError):
    """A state dict that does not fit the model. ``report`` has all that is wrong."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class Report:
    """What ``load_state_dict`` has found.

    ``loaded`` are names of tensors that are in the model now, ``missing`` those that it lacks a
    tensor for, ``unknown`` those that it has no place for, and ``misshapen`` sentences on tensors
    of another shape or dtype.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, unknown or misshapen."""
        return not (self.missing or self.unknown or self.misshapen)

    def __str__(self) -> str:
        lists = {
            "missing": self.missing,
            "unknown": self.unknown,
            "misshapen": self.misshapen,
        }
        wrong = [f"{what}: {'; '.join(names)}" for what, names in lists.items() if names]
        return "\n".join((f"state dict: {len(self.loaded)} tensors fit", *wrong))


def load_state_dict(
    source: AnyPath | Mapping[str, Any], into: Layer, *, strict: bool = True
) -> Report:
    """Fill a model with the tensors of a state dict of PyTorch.

    W = weightᵀ of a Linear; b = bias_ih + bias_hh of an RNN or LSTM

    Names are those of a module built alike, such as ``"0.weight"`` in a ``Sequential``,
    ``"0.weight_ih_l0"`` of a recurrent layer. Every weight of a ``Linear`` or a recurrent layer is
    transposed, a square one, too: PyTorch keeps (out_features, in_features). Numbers of 16 bits
    (float16, bfloat16) are widened, all others rounded to the dtype of the model.

    PyTorch has the channels of images on axis 1, so that its ``Flatten`` gives features in another
    order than ``Flatten()`` here, where channels are last. The parameters over such features are
    reordered, also by ``state_dict``. Two things are taken for granted: a network without layers
    for images takes what the module takes; layers of your own do what those of the module do.

    Parameters
    ----------
    source
        A safetensors file, or a dict of tensors or arrays. Files of ``torch.save`` are programs:
        load them with PyTorch, ``torch.load(path, weights_only=True)``, which returns the dict.
    into
        A model of layers of the same sizes, and all of it: a ``Linear`` alone does not show that
        its features come from flattened images.
    strict
        Whether anything missing, unknown or misshapen is an error. Else what fits is loaded.

    Raises
    ------
    StateDictError
        If strict, with everything that does not fit; the model stays as it is. It is a
        ``ValueError``.
    ModelFileError
        For a file that is damaged, or that minidl itself has written: ``minidl.load`` reads that.
    TypeError
        For a layer with parameters that PyTorch may keep in any way.
    UnknownOrderError
        For features of flattened images whose order in PyTorch does not follow from the model, such
        as those of unknown channels; write ``Flatten(channels_first=True)``. A ``ValueError``.

    Examples
    --------
    >>> import numpy as np, minidl.torch
    >>> from minidl import nn
    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> tensors = {"0.weight": np.array([[1, 2], [3, 4.0]]), "0.bias": np.array([5, 6.0])}
    >>> print(minidl.torch.load_state_dict(tensors, model))
    state dict: 2 tensors fit
    >>> model(np.array([[1, 10]], np.float32))  # 1 · 1 + 10 · 2 + 5, 1 · 3 + 10 · 4 + 6
    array([[26., 49.]], dtype=float32)
    """
    if not isinstance(into, Layer):
        raise TypeError(f"load_state_dict fills a model, got {into!r}")
    given = source if isinstance(source, Mapping) else read_file(source)
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"state dict: the names of tensors must be strings, got {name!r}")
    tensors = {name: as_array(name, tensor) for name, tensor in given.items()}
    wanted = list(slots(into, orders=feature_orders(into).of))
    report = compared(tensors, wanted)
    if strict and not report.complete:
        raise StateDictError(report)
    fill(wanted, {name: tensors[name] for name in report.loaded})
    return report


def compared(tensors: Mapping[str, Array], wanted: list[Slot]) -> Report:
    """Return which tensors fit the slots, and which do not."""
    missing: list[str] = []
    misshapen: list[str] = []
    loaded: list[str] = []
    for slot in wanted:
        absent = [name for name in slot.names if name not in tensors]
        wrong = [
            words
            for name in slot.names
            if name in tensors and (words := _misfit(name, tensors[name], slot))
        ]
        if not (absent or wrong):
            loaded += slot.names
        missing += [] if slot.optional else absent
        misshapen += wrong
    known = {name for slot in wanted for name in slot.names}
    unknown = tuple(name for name in tensors if name not in known)
    return Report(tuple(loaded), tuple(missing), unknown, tuple(misshapen))


def _misfit(name: str, tensor: Array, slot: Slot) -> str:
    """Return what is wrong with a tensor; nothing if it fits."""
    if tensor.shape != slot.shape:
        turned = slot.order is not None and tensor.shape == slot.place.shape
        hint = ", the other way round" if turned else ""
        return f"{name} is {tensor.shape}, expected {slot.shape}{hint}"
    if tensor.dtype.kind != slot.place.dtype.kind:
        return f"{name} is {tensor.dtype}, expected {slot.place.dtype}"
    if slot.least > -np.inf and not (tensor >= slot.least).all():
        return f"{name} must be at least {slot.least:g}, and holds {tensor.min():g}"
    with np.errstate(over="ignore"):
        beyond = np.isinf(tensor.astype(slot.place.dtype)) & np.isfinite(tensor)
    if beyond.any():
        return f"{name} holds {tensor[beyond][0]:g}, which {slot.place.dtype} has no room for"
    return ""


def fill(wanted: list[Slot], tensors: Mapping[str, Array]) -> None:
    """Copy tensors into their slots; those without a tensor stay as they are."""
    for slot in wanted:
        if all(name in tensors for name in slot.names):
            first, *others = (tensors[name] for name in slot.names)
            slot.fill(sum((tensor.astype(np.float64) for tensor in others), start=first))


def state_dict(model: Layer) -> dict[str, Array]:
    """Return the parameters and state of a model as PyTorch names and keeps them.

    weight = Wᵀ of a Linear; bias_ih = b and bias_hh = 0 of an RNN or LSTM

    Parameters over features of flattened images are in the order of PyTorch's ``Flatten``, as
    ``load_state_dict`` takes them.

    Raises
    ------
    TypeError
        For a layer with parameters that PyTorch may keep in any way.
    UnknownOrderError
        For features of flattened images, as in ``load_state_dict``.

    Examples
    --------
    >>> import minidl.torch
    >>> from minidl import nn
    >>> tensors = minidl.torch.state_dict(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    >>> {name: tensor.shape for name, tensor in tensors.items()}
    {'0.weight': (3, 2), '0.bias': (3,), '1.weight': (3,), '1.bias': (3,)}
    """
    if not isinstance(model, Layer):
        raise TypeError(f"state_dict takes a model, got {model!r}")
    return tensors_of(model, feature_orders(model).of)


def tensors_of(model: Layer, orders: Orders = NONE) -> dict[str, Array]:
    """Return the parameters and state by name, and their features in these orders."""
    found: dict[str, Array] = {}
    for slot in slots(model, orders=orders):
        first, *others = slot.names
        found[first] = slot.values
        found |= {name: np.zeros_like(found[first]) for name in others}
    return found


def save_state_dict(model: Layer, path: AnyPath) -> None:
    """Write the parameters and state of a model to a safetensors file, for PyTorch to load.

    weight = Wᵀ of a Linear, and so on: the tensors of ``state_dict(model)``

    There, ``module.load_state_dict(safetensors.torch.load_file(path))`` reads it.

    Raises
    ------
    TypeError
        For a layer with parameters that PyTorch may keep in any way.
    UnknownOrderError
        For features of flattened images, as in ``load_state_dict``.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import minidl.torch, pathlib, tempfile
    >>> from minidl import nn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> minidl.torch.save_state_dict(nn.Linear(2, 3, rng=0), path)
    >>> minidl.torch.load_state_dict(path, into=nn.Linear(2, 3)).loaded
    ('weight', 'bias')
    """
    if not isinstance(model, Layer):
        raise TypeError(f"save_state_dict takes a model, got {model!r}")
    write_tensor_file(path, state_dict(model), {}, {"format": "pt"})


def read_file(path: AnyPath) -> dict[str, Array]:
    """Return the tensors of a safetensors file of PyTorch's.

    Raises
    ------
    ModelFileError
        For a file of ``torch.save`` or of minidl, and for one that is damaged.
    """
    path = as_path(path)
    try:
        with opened(path) as file:
            words = file.words
            file.check_layout()
            tensors = file.read_widened()
    except ModelFileError as error:
        if not _looks_pickled(path):
            raise
        raise ModelFileError(
            f"{path}: if this is a file of torch.save, which may run programs, give "
            "load_state_dict(torch.load(path, weights_only=True), into=model)"
        ) from error
    if words.get("format") == FORMAT:
        raise ModelFileError(
            f"{path}: keeps weights as minidl does, not as PyTorch; write "
            "minidl.load(path, into=model)"
        )
    return tensors


def _looks_pickled(path: AnyPath) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(4).startswith(PICKLED)
    except ValueError:  # a pipe or a device
        return False


def as_array(name: str, tensor: Any) -> Array:
    """Return a tensor of any library as an array, numbers of 16 bits as float32.

    Raises
    ------
    TypeError
        For what holds no numbers, or complex ones.
    """
    if getattr(tensor, "is_meta", False):
        raise TypeError(f"state dict: {name} is on PyTorch's meta device, without any numbers")
    if hasattr(tensor, "detach"):  # of PyTorch: NumPy has no bfloat16
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
    array = np.asarray(tensor)
    if array.dtype.kind == "c":
        raise TypeError(f"state dict: {name} is {array.dtype}, and minidl has real numbers only")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"state dict: {name} holds no numbers, but {type(tensor).__name__}")
    return array.astype(np.float32) if array.dtype == np.float16 else array
