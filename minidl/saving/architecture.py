"""The architecture of a model as text: which layers it has, and what each of them holds.

    {"version": 1, "layers": [
        {"class": "Sequential", "holds": {"stack": {"tuple": [{"layer": 1}, {"layer": 2}]}}},
        {"class": "Linear", "holds": {"in_features": 64, …, "weight": {"parameter": 0}}}, …],
     "parameters": [{"tensor": "0.weight", "init": {"name": "he_normal", "arguments": []}, …}]}

Layer 0 is the model. Whatever is shared is there once, under one number. Numbers and words stand
for themselves. ``Description.encode`` has all that can be described; ``rebuilding`` reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl.nn import init
from minidl.nn.forms import is_ours
from minidl.nn.layer import KEPT, Layer
from minidl.nn.parameter import Initializer, Parameter
from minidl.nn.rectifiers import he_normal_for
from minidl.saving.tensor_file import DTYPES, KEPT_DTYPES
from minidl.typing import Array

VERSION = 1
LAYERS = "minidl.nn."  # begins the modules of layers that need no other name than their own
ARRAYS = "array/"  # begins the names of tensors that are neither parameters nor state
LARGEST_ZEROS = 1 << 28  # bytes of arrays that a file need not hold, because they are zero


class NotDescribableError(ValueError):
    """A model that holds what no file can; the message says what, and where."""


def _he_normal(*slope: float) -> Initializer:
    return he_normal_for(*slope) if slope else init.he_normal()


# Makes an initialiser from its arguments, by its name.
INITIALIZERS: Mapping[str, Any] = {
    **init.NAMED,
    "he_normal": _he_normal,
    "constant": init.constant,
    "uniform": init.uniform,
    "normal": init.normal,
    "truncated_normal": init.truncated_normal,
    "by_gate": init.by_gate,
    "critical": init.critical_of,
}


def described(model: Layer) -> tuple[str, dict[str, Array]]:
    """Return a model's architecture as JSON, and the arrays that it needs beside parameters, state.

    Raises
    ------
    NotDescribableError
        If a layer holds something that no file can, such as a function.
    """
    description = Description(model)
    description.layer(model, "model")
    content = {
        "version": VERSION,
        "layers": description.layers,
        "parameters": description.parameters,
    }
    return json.dumps(content, allow_nan=False), description.arrays


class Description:
    """The layers and parameters of a model, described as they are met.

    Attributes
    ----------
    layers, parameters
        Their descriptions, by number.
    arrays
        Arrays that belong to no state, by the names of their tensors.
    """

    def __init__(self, model: Layer) -> None:
        self.layers: list[dict[str, Any]] = []
        self.parameters: list[dict[str, Any]] = []
        self.arrays: dict[str, Array] = {}
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        transient = {
            id(getattr(layer, name))
            for _, layer in model.layers()
            for name in layer.transient_state_names
        }
        state = {id(array): name for name, array in model.state().items()}
        self._state = {key: name for key, name in state.items() if key not in transient}
        self._transient = transient
        self._numbers: dict[int, int] = {}  # of layers, parameters and arrays, by identity
        self._generators: dict[int, dict[str, Any]] = {}  # their descriptions, by identity
        self._open: set[int] = set()  # layers that are being described

    def layer(self, layer: Layer, where: str) -> dict[str, Any]:
        """Describe a layer and what it holds, once; return a reference to it."""
        if id(layer) in self._open:
            raise NotDescribableError(f"{where}: {type(layer).__name__} holds itself")
        if id(layer) not in self._numbers:
            self._numbers[id(layer)] = len(self.layers)
            held: dict[str, Any] = {}
            self.layers.append({**class_words(type(layer)), "holds": held})
            self._open.add(id(layer))
            for name, value in vars(layer).items():
                if name not in KEPT and name not in layer.pass_names:
                    if isinstance(value, np.generic) and is_ours(type(layer)):
                        value = value.item()  # minidl's layers compute with it as a number
                    held[name] = self.encode(value, f"{where}.{name}")
            self._open.remove(id(layer))
        return {"layer": self._numbers[id(layer)]}

    def parameter(self, parameter: Parameter, where: str) -> dict[str, Any]:
        """Describe a parameter, once; return a reference to it."""
        if id(parameter) not in self._names or type(parameter) is not Parameter:
            raise NotDescribableError(f"{where} is no parameter that the model finds by itself")
        if id(parameter) not in self._numbers:
            self._numbers[id(parameter)] = len(self.parameters)
            self.parameters.append(
                {
                    "tensor": self._names[id(parameter)],
                    "init": initializer_words(parameter.initializer),
                    "seed": parameter.seed,
                    "drawn_as": parameter.drawn_as.name,
                    "frozen": parameter.frozen,
                    "name": parameter.name,
                }
            )
        return {"parameter": self._numbers[id(parameter)]}

    def encode(self, value: Any, where: str) -> Any:
        """Return a value in words of JSON."""
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, np.generic) and value.dtype.kind in "fiub":
            # Its dtype is part of the arithmetic: float32 times np.float64 is float64.
            return {"scalar": _number(value), "dtype": value.dtype.name}
        if isinstance(value, float):
            return _number(value)
        if isinstance(value, Layer):
            return self.layer(value, where)
        if isinstance(value, Parameter):
            return self.parameter(value, where)
        if isinstance(value, Initializer):
            return {"init": initializer_words(value)}
        if isinstance(value, np.ndarray):
            return self._array(value, where)
        if isinstance(value, np.dtype) and value.kind in "fiub":
            return {"dtype": value.name}
        if type(value) is np.random.Generator:
            return self._generator(value)
        if isinstance(value, type) and issubclass(value, Layer):
            return {"type": class_words(value)}
        if type(value) in (list, tuple):
            items = [self.encode(item, f"{where}.{i}") for i, item in enumerate(value)]
            return {type(value).__name__: items}
        if type(value) is dict and all(type(key) in (str, int) for key in value):
            pairs = [[key, self.encode(item, f"{where}.{key}")] for key, item in value.items()]
            return {"dict": pairs}
        kind = type(value).__name__
        raise NotDescribableError(f"{where} is of type {kind}, which no file can hold")

    def _generator(self, generator: np.random.Generator) -> dict[str, Any]:
        """Describe a generator, once; one that several layers hold gets a number."""
        known = self._generators.setdefault(id(generator), {})
        if known:
            known.setdefault("number", list(self._generators).index(id(generator)))
            return {"same_generator": known["number"]}
        known["generator"] = generator_words(generator)
        return known

    def _array(self, array: Array, where: str) -> dict[str, Any]:
        """Refer to an array of the state, or take it down as one more tensor."""
        if id(array) in self._transient:
            if array.nbytes > LARGEST_ZEROS:
                raise NotDescribableError(f"{where} has {array.nbytes:,} bytes, too many")
            return {"zeros": list(array.shape), "dtype": array.dtype.name}
        if id(array) in self._state:
            return {"tensor": self._state[id(array)]}
        if array.dtype.newbyteorder("<") not in DTYPES.values():
            raise NotDescribableError(
                f"{where} is an array of {array.dtype}, and a file keeps {KEPT_DTYPES}"
            )
        number = self._numbers.setdefault(id(array), len(self.arrays))
        self.arrays[f"{ARRAYS}{number}"] = array
        return {"tensor": f"{ARRAYS}{number}"}


def class_words(kind: type[Layer]) -> dict[str, str]:
    """Return the name of a class of layers, with its module unless it is one of ``minidl.nn``."""
    if kind.__module__.startswith(LAYERS):
        return {"class": kind.__qualname__}
    return {"class": kind.__qualname__, "module": kind.__module__}


def initializer_words(initializer: Initializer) -> dict[str, Any]:
    """Describe an initialiser: its name, and its arguments if minidl knows it."""
    name, arguments = initializer.name, initializer.arguments
    try:
        known = INITIALIZERS[name](*arguments) == initializer
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        return {"name": str(name)}
    words = [initializer_words(a) if isinstance(a, Initializer) else _number(a) for a in arguments]
    return {"name": name, "arguments": words}


def generator_words(generator: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator; that of ``MT19937`` holds arrays, which become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value

    words: dict[str, Any] = plain(generator.bit_generator.state)
    return words


def _number(value: Any) -> Any:
    """Return a number as JSON has it; those that are not finite by name."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if math.isfinite(value) else {"float": repr(float(value))}
