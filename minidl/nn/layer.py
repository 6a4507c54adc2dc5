"""What every layer is: parameters, state, a forward pass and a backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels.reference import Array
from minidl.nn.init import Initializer, Seed, as_generator

# A context in which this thread evaluates, whatever the modes of the layers; see dispatch.pyx.
evaluating = kernels.evaluating

DType = Any  # whatever numpy.dtype() accepts
# Layers with the shapes of their inputs, or with the inputs themselves where they are integers.
Examples = Iterator[tuple["Layer", tuple[Any, ...]]]


class Parameter:
    """An array that training changes, and the gradient of the loss with respect to it.

    The values are drawn from ``initializer`` when they are first looked at, so that a
    container which knows what follows the layer can still choose a better initialiser; once
    looked at, they stay. The seed is taken from ``rng`` at once, so that the order of looking
    at several parameters changes nothing.

    Once an optimizer holds the parameter, ``data`` and ``grad`` are views into two flat
    vectors. Assigning to ``data`` copies into it.

    An optimizer that is built while the parameter is ``frozen`` leaves it alone: neither changes
    it, nor counts its gradient in the norm. Gradients still flow through to layers below.
    """

    frozen = False

    def __init__(
        self,
        shape: tuple[int, ...],
        initializer: Initializer,
        rng: Seed = None,
        dtype: DType = np.float32,
    ) -> None:
        self.shape = shape
        self.dtype = float_dtype(dtype)
        self.initializer = initializer
        self.name = ""
        self.reset(rng)

    def reset(self, rng: Seed = None) -> None:
        """Forget the values; they will be drawn anew, seeded by ``rng`` (None: by the system)."""
        self._seed = int(as_generator(rng).integers(2**63))
        kernels.note_change()
        self.__dict__.pop("_data", None)
        self.__dict__.pop("_grad", None)

    @property
    def drawn(self) -> bool:
        """Whether the values exist already."""
        return "_data" in self.__dict__

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def data(self) -> Array:
        data: Array | None = self.__dict__.get("_data")
        if data is None:
            values = self.initializer(self.shape, np.random.default_rng(self._seed))
            # setdefault: of two threads that look at once, both get the array of the first.
            data = self.__dict__.setdefault("_data", np.ascontiguousarray(values, self.dtype))
        if (recorder := kernels.recorder()) is not None:
            recorder.adopt_parameter(self)
            return self.__dict__["_data"]
        return data

    @data.setter
    def data(self, values: Any) -> None:
        self._copy(values, self.data)

    @property
    def grad(self) -> Array:
        grad: Array | None = self.__dict__.get("_grad")
        if grad is None:
            grad = self.__dict__.setdefault("_grad", np.zeros(self.shape, self.dtype))
        if (recorder := kernels.recorder()) is not None:
            recorder.adopt_parameter(self)
            return self.__dict__["_grad"]
        return grad

    @grad.setter
    def grad(self, values: Any) -> None:
        # `parameter.grad += g` ends here with the very array that was changed in place.
        if values is not self.grad:
            self._copy(values, self.grad)

    def _copy(self, values: Any, array: Array) -> None:
        values = np.asarray(values)
        if values.shape != self.shape or values.dtype.kind not in "fiu":
            raise ValueError(
                f"parameter {self.name} holds numbers of shape {self.shape}, "
                f"not {values.dtype} of shape {values.shape}"
            )
        array[...] = values

    def move(self, data: Array, grad: Array) -> None:
        """Keep values and gradient in these two arrays from now on."""
        data[...], grad[...] = self.data, self.grad
        self._data, self._grad = data, grad
        kernels.note_change()

    def astype(self, dtype: DType) -> None:
        """Convert values and gradient."""
        dtype = float_dtype(dtype)
        if dtype != self.dtype:
            data, grad = self.data.astype(dtype), self.grad.astype(dtype)
            self.dtype, self._data, self._grad = dtype, data, grad
            kernels.note_change()

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"


class Noticed:
    """Tells recorded steps when a public attribute is set, since they may have relied on it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            kernels.note_change()
        object.__setattr__(self, name, value)


class Layer(Noticed):
    """A pair of functions: ``forward`` computes the output, ``backward`` applies the chain rule.

    A subclass writes

    - ``forward(x)``, which keeps what the gradient needs with ``self.save(...)``;
    - ``backward(dy)``, which gets it back with ``self.saved(dy)``, *adds* to the gradient of
      every parameter, and returns the gradient with respect to ``x``;
    - ``examples()``, a few small instances with the shapes of their inputs (integer inputs as
      they are), from which the tests and ``minidl check`` verify the layer.

    Parameters and layers that are attributes, or in a list or tuple that is one, are found by
    themselves. Arrays that a forward
    pass changes (running statistics, the state of a generator) are named in ``state_names``.
    Call the layer itself, ``layer(x)``, rather than ``forward``: the call checks its input.
    Inputs and outputs are kept, not copied: do not change them in place before ``backward``.
    """

    registry: ClassVar[list[type[Layer]]] = []
    state_names: tuple[str, ...] = ()
    passing_names: tuple[str, ...] = ()  # of state_names, what belongs in no model file
    constant_names: tuple[str, ...] = ()  # of state_names, what no forward pass changes
    # The least that arrays of state_names may hold: a model file with less, or NaN, is refused.
    state_minimum: ClassVar[Mapping[str, float]] = {}
    in_features: int | None = None
    # Whether the input holds integers (words, characters), which a Trainer must not cast.
    takes_indices = False
    # How many different integers such an input may hold, from 0 on; None where it is not known.
    index_limit: int | None = None
    # Whether forward has an argument `lengths`: of the sequences of a padded batch.
    takes_lengths = False
    # The initialiser that suits weights whose output this layer receives. "skip" means
    # that the layer after this one decides; None that none is preferred.
    preferred_init: str | Initializer | None = None

    path = ""
    _training = True
    _saved: tuple[Any, ...] | None = None
    _output: Any = None  # of the latest call, for the check of its gradient

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "examples" in cls.__dict__:
            Layer.registry.append(cls)

    @classmethod
    def examples(cls) -> Examples:
        """Pairs of a small layer and the shapes of its inputs, or integer inputs themselves."""
        return iter(())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward pass")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward pass")

    def __call__(self, *inputs: Array, **options: Any) -> Any:
        self.check_input(*inputs, **options)
        if (recorder := kernels.recorder()) is None:
            output = self.forward(*inputs, **options)
        else:
            output = recorder.forward(self, inputs, options)
        if not kernels.is_evaluating():
            vars(self)["_output"] = output
        return output

    # --- what the forward pass keeps for the backward pass ---

    def save(self, *values: Any) -> None:
        """Keep values for the backward pass that follows; inside ``evaluating()`` there is none."""
        if not kernels.is_evaluating():
            vars(self)["_saved"] = values

    def saved(self, dy: Array) -> Any:
        """What ``save`` kept (a tuple, if it was several values), once.

        Raises if there is nothing, or if ``dy`` is not a gradient of the layer's output.
        """
        if self._saved is None:
            raise RuntimeError(
                f"{self.label}: backward without a forward pass before it. "
                "Every backward pass needs a forward pass of its own."
            )
        if self._output is not None:
            self.check_gradient(dy, self._output)
        values = self._saved
        self.forget()
        return values if len(values) > 1 else values[0]

    def forget(self) -> None:
        """Drop what was kept for a backward pass."""
        vars(self)["_saved"] = vars(self)["_output"] = None

    # --- checks ---

    @property
    def label(self) -> str:
        """The layer as error messages name it: its place in the model and its repr."""
        return f"layer {self.path} {self!r}" if self.path else repr(self)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """dtype of the parameters; None where there are none."""
        return next((parameter.dtype for parameter in self.parameters()), None)

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Raise TypeError or ValueError, naming the layer, if an input cannot be used."""
        for x in args:
            self.check_array(x, self.in_features)

    def check_gradient(self, dy: Array, output: Array) -> None:
        """Raise TypeError or ValueError if ``dy`` does not fit the output."""
        if not isinstance(dy, np.ndarray) or dy.dtype != output.dtype:
            got = dy.dtype if isinstance(dy, np.ndarray) else type(dy).__name__
            raise TypeError(f"{self.label}: backward expected a {output.dtype} gradient, got {got}")
        if dy.shape != output.shape:
            raise ValueError(
                f"{self.label}: backward expected a gradient of the shape of the output, "
                f"{output.shape}, got {dy.shape}"
            )

    def check_array(self, x: Array, features: int | None = None, name: str = "input") -> None:
        """Raise TypeError or ValueError if an input is not an array of this many features."""
        if not isinstance(x, np.ndarray):
            raise TypeError(
                f"{self.label}: expected {name} to be a NumPy array, got {type(x).__name__}; "
                "write np.asarray(x, dtype=np.float32)"
            )
        expected = self.dtype
        if x.dtype != expected if expected else x.dtype not in (np.float32, np.float64):
            dtype = expected or np.dtype(np.float32)
            raise TypeError(
                f"{self.label}: expected {dtype} {name}, got {x.dtype}; write x.astype(np.{dtype})"
            )
        if x.ndim < 2 or x.size == 0 or (features is not None and x.shape[-1] != features):
            width = "features" if features is None else features
            raise ValueError(
                f"{self.label}: expected {name} of shape (batch, ..., {width}) with no empty "
                f"dimension, got {x.shape}"
            )

    # --- the tree of layers ---

    def children(self) -> Iterator[tuple[str, Layer]]:
        """(name, layer) of every layer that is an attribute, or in a list that is one."""
        return self._members(Layer)

    def _members(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if name in ("_saved", "_output"):
                continue
            if isinstance(value, kind):
                yield name, value
            elif isinstance(value, (list, tuple)):
                items = enumerate(value)
                yield from ((f"{name}.{i}", item) for i, item in items if isinstance(item, kind))

    def layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """(path, layer) of this layer and all below it, in forward order."""
        yield prefix, self
        for name, child in self.children():
            yield from child.layers(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of all parameters, each once."""
        seen = set()
        for path, layer in self.layers():
            for name, parameter in layer._members(Parameter):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def own_parameters(self) -> list[Parameter]:
        """The parameters of this layer, without those of the layers in it."""
        return [parameter for _, parameter in self._members(Parameter)]

    def parameters(self) -> list[Parameter]:
        """All parameters, in forward order."""
        return [parameter for _, parameter in self.named_parameters()]

    def state(self) -> dict[str, Array]:
        """The arrays, by path, that forward passes change: part of the model, not parameters."""
        return {
            f"{path}.{name}" if path else name: getattr(layer, name)
            for path, layer in self.layers()
            for name in layer.state_names
        }

    def lasting_state(self) -> dict[str, Array]:
        """What of the state belongs to the model wherever it is used: what is saved."""
        passing = {
            f"{path}.{name}" if path else name
            for path, layer in self.layers()
            for name in layer.passing_names
        }
        return {path: array for path, array in self.state().items() if path not in passing}

    def adopt_children(self) -> None:
        """Tell every layer and parameter below its path. Containers call it when they are built."""
        for path, layer in self.layers():
            layer.path = path
        for name, parameter in self.named_parameters():
            parameter.name = name

    # --- modes ---

    @property
    def training(self) -> bool:
        """Whether the layer trains: its own mode, and False on a thread that is evaluating."""
        return self._training and not kernels.is_evaluating()

    @training.setter
    def training(self, mode: bool) -> None:
        if (recorder := kernels.recorder()) is not None:
            recorder.switch(self)
        self._training = bool(mode)

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (batch statistics, dropout on)."""
        for _, layer in self.layers():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode (running statistics, dropout off)."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if (recorder := kernels.recorder()) is not None:
            recorder.watch(self)
        for parameter in self.parameters():
            kernels.clear(parameter.grad)

    def freeze(self, frozen: bool = True) -> Self:
        """Have optimizers that are built from now on leave all parameters as they are."""
        for parameter in self.parameters():
            parameter.frozen = frozen
            kernels.note_change()  # for recorded steps whose optimizer holds it
        return self

    def reset(self, rng: Seed = None) -> Self:
        """Draw all parameters anew and start all state afresh, seeded by ``rng``."""
        rng = as_generator(rng)
        for _, layer in self.layers():
            layer.reset_own(rng)
        return self

    def reset_own(self, rng: np.random.Generator) -> None:
        """The part of ``reset`` that concerns this layer and not those below it."""
        for _, parameter in self._members(Parameter):
            parameter.reset(rng)

    def astype(self, dtype: DType) -> Self:
        """Convert parameters and state to float32 or float64, in place.

        Do so before an optimizer is built: it holds the parameters in its own vectors.
        """
        for parameter in self.parameters():
            parameter.astype(dtype)
        for _, layer in self.layers():
            for name in layer.state_names:
                array = getattr(layer, name)
                if array.dtype.kind == "f":
                    setattr(layer, name, array.astype(dtype))
        return self

    # --- what a reader sees ---

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """Shape of the output for an input of this shape; None where it is not known."""
        return input_shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def float_dtype(dtype: DType) -> np.dtype[Any]:
    """The dtype, if minidl computes in it."""
    result = np.dtype(dtype)
    if result not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {result}")
    return result


def is_lengths(x: Any) -> bool:
    """Whether an input is the lengths of sequences: whole numbers, one for each."""
    return isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "iu"
