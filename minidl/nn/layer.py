"""What every layer is: parameters, state, a forward pass and a backward pass."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np

from minidl import _kernels, kernels
from minidl.nn.finding import PLAIN, Member, found_in
from minidl.nn.init import Initializer, Seed, as_generator
from minidl.typing import Array

# A context in which this thread evaluates, whatever the modes of the layers; see dispatch.pyx.
evaluating = _kernels.evaluating

DType = Any  # whatever numpy.dtype() accepts
# Layers with the shapes of their inputs, or with the inputs themselves where they are integers.
Examples = Iterator[tuple["Layer", tuple[Any, ...]]]


# Attributes that other libraries have and that would do nothing here, and what to write instead.
PARAMETER_WORDS = {
    "requires_grad": "set parameter.frozen, before the optimizer is built",
    "trainable": "set parameter.frozen, before the optimizer is built",
    "values": "set parameter.data",
}
LAYER_WORDS = {
    "requires_grad": "call layer.freeze(), before the optimizer is built",
    "trainable": "call layer.freeze(), before the optimizer is built",
    "frozen": "call layer.freeze(), before the optimizer is built",
}
# Methods that other libraries have.
LAYER_METHODS = {
    "load": "write minidl.load(path, into=model)",
    "load_weights": "write minidl.load(path, into=model)",
    "load_state_dict": "write minidl.load(path, into=model)",
    "save_weights": "write minidl.save(model, path)",
    "state_dict": "write minidl.save(model, path), or read named_parameters() and state()",
    "compile": "write trainer = minidl.Trainer(model, loss, optimizer)",
    "fit": "write minidl.Trainer(model, loss, optimizer).fit(X, y, epochs)",
    "evaluate": "write minidl.Trainer(model, loss, optimizer).evaluate(X, y)",
    "predict": "write minidl.Trainer(model, loss, optimizer).predict(X), or model(x)",
    "summary": "write print(model)",
    "float": "write model.astype(np.float32)",
    "double": "write model.astype(np.float64)",
    "to": "write model.astype(dtype); minidl computes on the CPU",
    "apply": "go over model.layers()",
    "modules": "go over model.layers()",
    "requires_grad_": "call model.freeze(), before the optimizer is built",
}


class Parameter(Member):
    """An array that training changes, and the gradient of the loss with respect to it.

    The values are drawn from ``initializer`` when they are first looked at. Another initialiser,
    as a container chooses that knows what follows the layer, draws them anew from the same seed,
    unless they have been changed since they were drawn: looking changes nothing. The seed is
    taken from ``rng`` at once, so that the order of looking at several parameters changes
    nothing either.

    Once an optimizer holds the parameter, ``data`` and ``grad`` are views into two flat
    vectors. Assigning to ``data`` copies into it.

    An optimizer that is built while the parameter is ``frozen`` leaves it alone: neither changes
    it, nor counts its gradient in the norm. Gradients still flow through to layers below.
    """

    _frozen = False

    def __init__(
        self,
        shape: tuple[int, ...],
        initializer: Initializer,
        rng: Seed = None,
        dtype: DType = np.float32,
    ) -> None:
        self.shape = shape
        self.dtype = self._drawn_as = float_dtype(dtype)
        self._initializer = initializer
        self.name = ""
        self.reset(rng)

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_word(type(self).__name__, name, PARAMETER_WORDS)
        object.__setattr__(self, name, value)

    @property
    def initializer(self) -> Initializer:
        """What the values are drawn from."""
        return self._initializer

    @initializer.setter
    def initializer(self, initializer: Initializer) -> None:
        as_drawn = self.drawn and np.array_equal(self._data, self._draw())
        self._initializer = initializer
        if as_drawn:
            self._data[...] = self._draw()

    def _draw(self) -> Array:
        """The values that the initialiser gives for the seed of this parameter."""
        values = self.initializer(self.shape, np.random.default_rng(self._seed))
        # Through the dtype it was made with: the values do not depend on when it is converted.
        return np.ascontiguousarray(np.asarray(values, self._drawn_as), self.dtype)

    def reset(self, rng: Seed = None) -> None:
        """Forget the values; they will be drawn anew, seeded by ``rng`` (None: by the system)."""
        self._seed = int(as_generator(rng).integers(2**63))
        _kernels.note_change()
        self.__dict__.pop("_data", None)
        self.__dict__.pop("_grad", None)

    @property
    def frozen(self) -> bool:
        """Whether optimizers that are built from now on leave it as it is."""
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._frozen = bool(frozen)
        _kernels.note_change()  # for recorded steps whose optimizer holds it

    @property
    def drawn(self) -> bool:
        """Whether the values exist already."""
        return "_data" in self.__dict__

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def data(self) -> Array:
        try:
            data: Array = self._data
        except AttributeError:
            # setdefault: of two threads that look at once, both get the array of the first.
            data = self.__dict__.setdefault("_data", self._draw())
        recorder = _kernels.recorder()
        return data if recorder is None else recorder.adopt("parameter", self.name, data)

    @data.setter
    def data(self, values: Any) -> None:
        self._copy(values, self.data)

    @property
    def grad(self) -> Array:
        grad: Array | None = self.__dict__.get("_grad")
        if grad is None:
            grad = self.__dict__.setdefault("_grad", np.zeros(self.shape, self.dtype))
        recorder = _kernels.recorder()
        return grad if recorder is None else recorder.adopt("gradient", f"{self.name}.grad", grad)

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

    def lies_in(self, data: Array, grad: Array) -> bool:
        """Whether values and gradient are kept in these very arrays."""
        held = self.__dict__
        return held.get("_data") is data and held.get("_grad") is grad

    def move(self, data: Array, grad: Array) -> None:
        """Keep values and gradient in these two arrays from now on."""
        data[...], grad[...] = self.data, self.grad
        self._data, self._grad = data, grad
        _kernels.note_change()

    def astype(self, dtype: DType) -> None:
        """Convert values and gradient."""
        dtype = float_dtype(dtype)
        if dtype != self.dtype:
            self.dtype = dtype
            for name in ("_data", "_grad"):  # what there is of them: to convert is not to look
                if name in self.__dict__:
                    self.__dict__[name] = self.__dict__[name].astype(dtype)
            _kernels.note_change()

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"


def kept_by(owner: Any) -> dict[str, Any]:
    """Where a layer or a loss keeps what its forward pass leaves to its backward pass.

    With itself; while this thread records a step, with the recorder, so that the layer stays as
    it is.
    """
    recorder = _kernels.recorder()
    return vars(owner) if recorder is None else recorder.kept_by(owner)


def _set_aside(own: dict[str, Any]) -> None:
    """Before another call in the same pass: set aside what the latest one of a layer saved."""
    earlier = own.setdefault("_earlier", [])
    if earlier and earlier[-1][0] is not own["_forward_pass"]:
        earlier.clear()
    earlier.append((own["_forward_pass"], own["_saved"], own["_output"]))


class Noticed:
    """Tells recorded steps when a public attribute is set, since they may have relied on it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            _kernels.note_change()
        object.__setattr__(self, name, value)


class Layer(Noticed, Member):
    """A pair of functions: ``forward`` computes the output, ``backward`` applies the chain rule.

    A subclass writes

    - ``forward(x)``, which keeps what the gradient needs with ``self.save(...)``;
    - ``backward(dy)``, which gets it back with ``self.saved(dy)``, *adds* to the gradient of
      every parameter, and returns the gradient with respect to ``x``;
    - ``examples()``, a few small instances with the shapes of their inputs (integer inputs as
      they are), from which the tests and ``minidl check`` verify the layer.

    Parameters and layers that are attributes are found by themselves, also in lists, tuples and
    dicts, however nested; in sets, generators and dataclasses they are refused, and other objects
    are not looked into. Arrays that a forward pass changes (running statistics, the state of a
    generator) are named in ``state_names``.
    Call the layer itself, ``layer(x)``, rather than ``forward``: the call checks its input.
    Inputs and outputs are kept, not copied: do not change them in place before ``backward``.

    Within one call of a model, a layer may be called several times; what each call saved is
    taken back by the backward passes in reverse order, and gradients add up. A new call of the
    model forgets what the one before it left.

    A layer whose ``forward`` has an argument ``lengths`` gets the lengths of padded sequences
    from the containers around it.
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
    _checks_as_usual = True  # whether no class has a check_input or a dtype of its own
    # The initialiser that suits weights whose output this layer receives. "skip" means
    # that the layer after this one decides; None that none is preferred.
    preferred_init: str | Initializer | None = None

    path = ""
    _training = True
    _saved: tuple[Any, ...] | None = None
    _output: Any = None  # of the latest call, for the check of its gradient
    _forward_pass: object = None  # to which both belong: the outermost call of a layer around them
    # Earlier calls in the same pass that no backward pass has undone: (pass, saved, output).
    _earlier: Any = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in KEPT & cls.__dict__.keys():
            refuse_kept(cls.__name__, name)
        if "examples" in cls.__dict__:
            Layer.registry.append(cls)
        if "forward" in cls.__dict__ and "takes_lengths" not in cls.__dict__:
            cls.takes_lengths = "lengths" in inspect.signature(cls.forward).parameters
        own = (cls.check_input, cls.check_array, cls.dtype)
        cls._checks_as_usual = own == (Layer.check_input, Layer.check_array, Layer.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        owner = type(self).__name__
        if name in KEPT:
            refuse_kept(owner, name)
        refuse_word(owner, name, {} if hasattr(type(self), name) else LAYER_WORDS)
        held = list(found_in(f"{owner}.{name}", value, (Layer, Parameter)))
        old = self.__dict__.get(name)
        if isinstance(old, Parameter) and not (held or value is None):
            raise TypeError(
                f"{owner}.{name} is a parameter, and {type(value).__name__} is none; set its "
                f"values by layer.{name}.data = ..."
            )
        self.__dict__.pop("_first_parameter", None)
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # which would take every attribute for known

        def __getattr__(self, name: str) -> Any:
            owner = type(self).__name__
            words = LAYER_METHODS.get(name)
            raise AttributeError(
                f"{owner!r} object has no attribute {name!r}" + (f"; {words}" if words else ""),
                name=name,
                obj=self,
            )

    @classmethod
    def examples(cls) -> Examples:
        """Pairs of a small layer and the shapes of its inputs, or integer inputs themselves."""
        return iter(())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward pass")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward pass")

    def __call__(self, *inputs: Array, **options: Any) -> Any:
        forward_pass = _kernels.forward_pass()
        if forward_pass is None:  # the outermost call: with all in it, one forward pass
            return _kernels.in_forward_pass(Layer.__call__, (self, *inputs), options)
        recorder = _kernels.recorder()
        own = self.__dict__ if recorder is None else recorder.kept_by(self)
        if forward_pass and own.get("_saved") is not None:
            if own.get("_forward_pass") is forward_pass:
                _set_aside(own)
            own["_saved"] = None
        if options or len(inputs) != 1:
            output = self._call_with(recorder, inputs, options)
        else:  # as a rule
            (x,) = inputs
            if not (self._checks_as_usual and self._surely_fits(x)):
                self.check_input(x)
            output = self.forward(x) if recorder is None else recorder.forward(self, inputs)
        if forward_pass:
            own["_output"], own["_forward_pass"] = output, forward_pass
        return output

    def _call_with(self, recorder: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A call with several inputs or options."""
        if len(inputs) > 1 and self.takes_lengths and is_lengths(inputs[-1]):
            *inputs, options["lengths"] = inputs  # type: ignore[assignment]
        self.check_input(*inputs, **options)
        if recorder is None:
            return self.forward(*inputs, **options)
        return recorder.forward(self, tuple(inputs), options)

    # --- what the forward pass keeps for the backward pass ---

    def save(self, *values: Any) -> None:
        """Keep values for the backward pass that follows; inside ``evaluating()`` there is none.

        To write a model to a file, call ``minidl.save(model, path)``.

        Raises
        ------
        TypeError
            For a path, outside of a forward pass.
        """
        forward_pass = _kernels.forward_pass()
        if forward_pass is None:  # `forward` was called by itself, or who called wants a file
            if values and is_path(values[0]):
                raise TypeError(
                    f"{self.label}: save keeps values for the backward pass, and writes no file; "
                    f"write minidl.save(model, {os.fspath(values[0])!r})"
                )
            forward_pass = not _kernels.is_evaluating()
        if forward_pass:
            recorder = _kernels.recorder()
            own = self.__dict__ if recorder is None else recorder.kept_by(self)
            own["_saved"] = values

    def saved(self, dy: Array) -> Any:
        """What ``save`` kept (a tuple, if it was several values), once.

        Raises if there is nothing, or if ``dy`` is not a gradient of the layer's output.
        """
        recorder = _kernels.recorder()
        own = self.__dict__ if recorder is None else recorder.kept_by(self)
        values, output, earlier = own.get("_saved"), own.get("_output"), own.get("_earlier")
        if values is None:
            raise RuntimeError(
                f"{self.label}: backward without a forward pass before it. "
                "Every backward pass needs a forward pass of its own, outside of nn.evaluating()."
                if output is None
                else f"{self.label}: its forward pass saved nothing for the backward pass; keep "
                "what the gradient needs with self.save(...) in forward"
            )
        if output is not None:
            self.check_gradient(dy, output)
        if earlier and earlier[-1][0] is own["_forward_pass"]:
            own["_forward_pass"], own["_saved"], own["_output"] = earlier.pop()
        else:
            own["_saved"] = own["_output"] = None
        return values[0] if len(values) == 1 else values

    def forget(self) -> None:
        """Drop what was kept for a backward pass."""
        own = kept_by(self)
        own["_saved"] = own["_output"] = None
        own.pop("_earlier", None)

    # --- checks ---

    @property
    def label(self) -> str:
        """The layer as error messages name it: its place in the model and its repr."""
        name = self.short_name()
        return f"layer {self.path} {name}" if self.path else name

    def short_name(self) -> str:
        """The layer in one line."""
        text = repr(self)
        return type(self).__name__ if "\n" in text else text

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """dtype of the parameters; None where there are none."""
        try:
            first = self.__dict__["_first_parameter"]
        except KeyError:
            first = self._find_first_parameter()
        return None if first is None else first.dtype

    def _find_first_parameter(self) -> Parameter | None:
        """The parameter whose dtype is the layer's; kept where none but assignments can change it.

        A layer in it may get another parameter, and a list or a dict another item, without this
        layer hearing of it: then nothing is kept.
        """
        first = next((p for p in self._members(Parameter)), (None, None))[1]
        if first is None:
            first = next((p for _, layer in self.children() for p in layer.parameters()), None)
            values = (value for name, value in vars(self).items() if name not in KEPT)
            if any(isinstance(value, (Layer, list, tuple, dict)) for value in values):
                return first
        self.__dict__["_first_parameter"] = first
        return first

    def _surely_fits(self, x: Any) -> bool:
        """Whether ``check_input`` would accept this: a quick yes, or a no that may be wrong."""
        first = self.__dict__.get("_first_parameter", self)
        if first is self:  # not looked for yet
            return False
        return _kernels.is_batch(x, FLOAT32 if first is None else first.dtype, self.in_features)

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Raise TypeError or ValueError, naming the layer, if an input cannot be used.

        Indices are for the layer to check that looks them up.
        """
        first = getattr(args[0], "dtype", FLOAT32) if args else FLOAT32
        for x in args[1:] if self.takes_indices and first.kind in "iu" else args:
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
        if isinstance(x, np.ndarray):
            expected, dtype = self.dtype, x.dtype
            known = dtype is expected or (is_float(x) if expected is None else dtype == expected)
            if known and x.ndim > 1 and x.size and (features is None or x.shape[-1] == features):
                return
        self._refuse_array(x, features, name)

    def _refuse_array(self, x: Any, features: int | None, name: str) -> NoReturn:
        if not isinstance(x, np.ndarray):
            raise TypeError(
                f"{self.label}: expected {name} to be a NumPy array, got {type(x).__name__}; "
                "write np.asarray(x, dtype=np.float32)"
            )
        expected = self.dtype
        if x.dtype != expected if expected is not None else not is_float(x):
            dtype = np.dtype(np.float32) if expected is None else expected
            raise TypeError(
                f"{self.label}: expected {dtype} {name}, got {x.dtype}; write x.astype(np.{dtype})"
            )
        width = "features" if features is None else features
        raise ValueError(
            f"{self.label}: expected {name} of shape (batch, ..., {width}) with no empty "
            f"dimension, got {x.shape}"
        )

    # --- the tree of layers ---

    def children(self) -> Iterator[tuple[str, Layer]]:
        """(name, layer) of every layer that is an attribute, or in a list or dict that is one."""
        return self._members(Layer)

    def _members(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if type(value) not in PLAIN and name not in KEPT:
                yield from found_in(name, value, kind)

    def layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """(path, layer) of this layer and all below it, in forward order, each once."""
        yield from self._layers(prefix, set())

    def _layers(self, path: str, seen: set[int]) -> Iterator[tuple[str, Layer]]:
        if id(self) not in seen:
            seen.add(id(self))
            yield path, self
            for name, child in self.children():
                yield from child._layers(f"{path}.{name}" if path else name, seen)

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
        return self._training and not _kernels.is_evaluating()

    @training.setter
    def training(self, mode: bool) -> None:
        if (recorder := _kernels.recorder()) is not None:
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
        if (recorder := _kernels.recorder()) is not None:
            recorder.watch(self)
        for parameter in self.parameters():
            kernels.clear(parameter.grad)

    def freeze(self, frozen: bool = True) -> Self:
        """Have optimizers that are built from now on leave all parameters as they are."""
        for parameter in self.parameters():
            parameter.frozen = frozen
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


FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

# Attributes of a layer that belong to a pass, or are kept for speed, and are no part of the model.
KEPT = frozenset(
    {"_saved", "_output", "_forward_pass", "_earlier", "_calls", "_first_parameter", "_said"}
)


def is_float(x: Array) -> bool:
    """Whether an array is of a dtype that minidl computes in."""
    return x.dtype in (FLOAT32, FLOAT64)


def is_path(value: Any) -> bool:
    """Whether a value names a file."""
    return isinstance(value, str) or hasattr(value, "__fspath__")


def is_lengths(x: Any) -> bool:
    """Whether an input is the lengths of sequences: whole numbers, one for each."""
    return isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "iu"


def refuse_word(owner: str, name: str, words: dict[str, str]) -> None:
    """Raise AttributeError for an attribute that would do nothing, with what to write instead."""
    if name in words:
        raise AttributeError(f"{owner} has no {name}, setting it would do nothing: {words[name]}")


def refuse_kept(owner: str, name: str) -> NoReturn:
    """Raise AttributeError for a name under which every layer keeps something else."""
    raise AttributeError(
        f"{owner}.{name}: every layer keeps something of its own under this name; choose another"
    )


def float_dtype(dtype: DType) -> np.dtype[Any]:
    """The dtype, if minidl computes in it."""
    result = np.dtype(dtype)
    if result not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {result}")
    return result
