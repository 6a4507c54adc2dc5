"""A model from its architecture in a file: ``architecture`` describes it, this builds it.

Nothing that a file says is run or imported. Classes are found by name among the subclasses of
``Layer`` that exist; a layer is made without a call of its constructor, and given what the file
holds; then ``fitness`` compares it with what its constructor makes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from minidl.nn.array_checks import float_dtype
from minidl.nn.forms import is_ours
from minidl.nn.layer import KEPT, Layer
from minidl.nn.parameter import Initializer, Parameter
from minidl.saving.architecture import INITIALIZERS, LARGEST_ZEROS, LAYERS, VERSION
from minidl.saving.fitness import check_fits
from minidl.saving.tensor_file import DTYPES, shortened
from minidl.typing import Array

MISSING = "the architecture in it is damaged"
# Modules with the layers of a graph that was loaded from ONNX.
GRAPHS = ("minidl.onnx.adapters", "minidl.onnx.network", "minidl.onnx.time_first")
INIT_ARGUMENTS = (bool, int, float, Initializer)
GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class ArchitectureError(ValueError):
    """An architecture of which no model can be built; the message says why."""


def parsed(text: str) -> dict[str, Any]:
    """Return the architecture that a text holds, if it is one of this version.

    Raises
    ------
    ArchitectureError
        If it is damaged, or of a later version.
    """
    try:
        content = json.loads(text, parse_constant=_refuse)
        version, layers, parameters = (content[k] for k in ("version", "layers", "parameters"))
        whole = isinstance(layers, list) and isinstance(parameters, list) and layers
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ArchitectureError(MISSING) from None
    if version != VERSION:
        raise ArchitectureError(
            f"its architecture is of version {shortened(version)}, and this minidl reads {VERSION}"
        )
    if not whole:
        raise ArchitectureError(MISSING)
    return dict(content)


def missing_class(architecture: Mapping[str, Any]) -> str:
    """Say which class of layers is not defined here; return "" if all are, or words are damaged."""
    missing = ""
    for words in architecture["layers"]:
        try:
            find_class(words["class"], words.get("module"))
        except ArchitectureError as error:
            missing = missing or str(error)
        except (AttributeError, KeyError, TypeError):
            return ""
    return missing


def rebuild(architecture: Mapping[str, Any], tensors: Mapping[str, Array]) -> Layer:
    """Build a model of its architecture, with these tensors by name as its arrays.

    Raises
    ------
    ArchitectureError
        If a class is not defined, or if no model can be like this.
    """
    try:
        model = Rebuilding(architecture, tensors).layer(0)
        for _, layer in model.layers():
            _check_state_names(layer)
            check_fits(layer)
        dict(model.named_parameters())
        return model
    except (ArchitectureError, MemoryError):
        raise
    except Exception as error:  # whatever comes of words that no model has written
        why = shortened(str(error)) if str(error) else type(error).__name__
        raise ArchitectureError(f"{MISSING}: {why}") from None


class Rebuilding:
    """Layers and parameters, built as they are met, each once."""

    def __init__(self, architecture: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        self._layers, self._parameters = architecture["layers"], architecture["parameters"]
        self._tensors = tensors
        self._built: dict[tuple[str, int], Any] = {}
        self._zeros = 0  # bytes of arrays of zeros so far

    def layer(self, number: int) -> Layer:
        """Build a layer by its number, with all that it holds."""
        if ("layer", number) not in self._built:
            words = _entry(self._layers, number)
            kind = find_class(words["class"], words.get("module"))
            self._built["layer", number] = None  # until it is complete
            layer = object.__new__(kind)
            for name, held in words["holds"].items():
                check_name(kind, name)
                vars(layer)[name] = self.decode(held)
            self._built["layer", number] = layer
        layer = self._built["layer", number]
        if layer is None:
            raise ArchitectureError(f"{MISSING}: layer {number} holds itself")
        return layer

    def parameter(self, number: int) -> Parameter:
        """Build a parameter by its number."""
        if ("parameter", number) not in self._built:
            words = _entry(self._parameters, number)
            seed = words["seed"]
            if type(seed) is not int or not 0 <= seed < 2**63:
                raise ArchitectureError(f"{MISSING}: a parameter has the seed {shortened(seed)}")
            values = self._tensors[words["tensor"]]
            float_dtype(values.dtype)
            initializer = decode_initializer(words["init"])
            parameter = Parameter.from_values(values, initializer, seed, words["drawn_as"])
            parameter.name = str(words["name"])
            if words["frozen"]:
                parameter.frozen = True
            self._built["parameter", number] = parameter
        return self._built["parameter", number]

    def decode(self, words: Any) -> Any:
        """Return the value that words of JSON stand for."""
        if not isinstance(words, dict):
            if isinstance(words, list):
                raise ArchitectureError(f"{MISSING}: a list says not of what")
            return words
        (kind, *rest) = words
        value = words[kind]
        if "number" in rest:
            self._built["generator", words["number"]] = decode_generator(value)
            return self._built["generator", words["number"]]
        match kind:
            case "layer":
                return self.layer(value)
            case "parameter":
                return self.parameter(value)
            case "tensor":
                return self._tensors[value]
            case "scalar":
                return _scalar(self.decode(value), words[rest[0]])
            case "same_generator":
                return self._built["generator", value]
            case "zeros":
                return self._zero_array(value, np.dtype(words[rest[0]]))
            case "list":
                return [self.decode(item) for item in value]
            case "tuple":
                return tuple(self.decode(item) for item in value)
            case "dict":
                return {key: self.decode(item) for key, item in value}
        return _decode_plain(kind, value)

    def _zero_array(self, shape: list[int], dtype: np.dtype[Any]) -> Array:
        if dtype not in DTYPES.values() or any(type(n) is not int or n < 0 for n in shape):
            raise ArchitectureError(f"{MISSING}: zeros of shape {shortened(shape)}")
        self._zeros += math.prod(shape) * dtype.itemsize
        if self._zeros > LARGEST_ZEROS:
            raise ArchitectureError(f"{MISSING}: {self._zeros:,} bytes of zeros are too many")
        return np.zeros(shape, dtype)


def _scalar(value: Any, name: Any) -> Any:
    """Return a number as a scalar of NumPy."""
    dtype = np.dtype(name)
    if dtype.kind not in "fiub" or type(value) not in (bool, int, float):
        raise ArchitectureError(f"{MISSING}: {shortened(value)} is no scalar of {shortened(name)}")
    return dtype.type(value)


def _entry(entries: list[Any], number: Any) -> dict[str, Any]:
    if type(number) is not int or not 0 <= number < len(entries):
        raise ArchitectureError(f"{MISSING}: there is no number {shortened(number)}")
    entry: dict[str, Any] = entries[number]
    return entry


def _decode_plain(kind: str, value: Any) -> Any:
    """Return a value that refers to nothing else in the file."""
    match kind:
        case "float":
            return float(value)
        case "init":
            return decode_initializer(value)
        case "dtype":
            return np.dtype({"float32": "f4", "float64": "f8"}.get(value, value))
        case "generator":
            return decode_generator(value)
        case "type":
            return find_class(value["class"], value.get("module"))
    raise ArchitectureError(f"{MISSING}: it is not known what {shortened(kind)} is")


def decode_initializer(words: Mapping[str, Any]) -> Initializer:
    """Return an initialiser by its name; one that is not known draws nothing."""
    name = words["name"]
    if "arguments" not in words:
        return Initializer(str(name), _draw_unknown)
    arguments = [decode_initializer(a) if isinstance(a, dict) else a for a in words["arguments"]]
    if name not in INITIALIZERS or not all(isinstance(a, INIT_ARGUMENTS) for a in arguments):
        raise ArchitectureError(f"{MISSING}: there is no initialiser {shortened(name)}")
    initializer: Initializer = INITIALIZERS[name](*arguments)
    return initializer


def _draw_unknown(*_: Any) -> Any:
    raise ValueError(
        "this model is from a file, and the function that draws its weights is not in it: set "
        "parameter.initializer before you reset the model"
    )


def decode_generator(words: Mapping[str, Any]) -> np.random.Generator:
    """Return a generator in the state that ``generator_words`` has described."""
    name = words["bit_generator"]
    if name not in GENERATORS:
        raise ArchitectureError(f"{MISSING}: there is no generator {shortened(name)}")
    bits = getattr(np.random, name)(0)
    bits.state = words
    return np.random.Generator(bits)


# --- classes by name --------------------------------------------------------------------------


def find_class(name: Any, module: Any = None) -> type[Layer]:
    """Return the class of layers of this name; one of ``minidl.nn`` if there is no module.

    A class of the user's may be in another module than it was, such as ``__main__``. Of several
    that are equal, as in a notebook, it is the one that was defined last.

    Raises
    ------
    ArchitectureError
        If there is none, or if several modules have one.
    """
    if module in GRAPHS:
        import_module("minidl.onnx")
    found = {
        kind.__module__: kind
        for kind in _subclasses(Layer)
        if kind.__qualname__ == name and kind.__module__.startswith(LAYERS) == (module is None)
    }
    if module in found:
        return found[module]
    if len(found) == 1:
        return next(iter(found.values()))
    shown = shortened(str(name))[1:-1]
    if not found and module is None:
        raise ArchitectureError(f"this minidl has no layer {shown}, which is in the model")
    if not found:
        raise ArchitectureError(
            f"the class {shown} of {shortened(module)} is in the model, and is not defined here: "
            "define or import it first"
        )
    raise ArchitectureError(
        f"the class {shown} of {shortened(module)} is in the model, and here several modules have "
        f"one: {', '.join(sorted(found))}"
    )


def _subclasses(kind: type[Layer]) -> Iterator[type[Layer]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def check_name(kind: type[Layer], name: str) -> None:
    """Raise ArchitectureError if an attribute of this name would hide a method or a property."""
    there = getattr(kind, name, None)
    hides = callable(there) or isinstance(there, property)
    if isinstance(there, (type, Layer, Initializer)) and not is_ours(kind):
        hides = False  # a class of the user's has it for its instances to replace
    if not name.isidentifier() or name.startswith("__") or name in KEPT or hides:
        raise ArchitectureError(f"{MISSING}: {kind.__name__} cannot hold {shortened(name)}")


def _check_state_names(layer: Layer) -> None:
    """Raise unless a layer has the state that it says it has."""
    for names in (layer.state_names, layer.transient_state_names, layer.constant_names):
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise ArchitectureError(f"{MISSING}: {type(layer).__name__} has no names of state")
    for name in layer.state_names:
        if not isinstance(vars(layer).get(name), np.ndarray):
            raise ArchitectureError(f"{MISSING}: {type(layer).__name__} has no {shortened(name)}")


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")
