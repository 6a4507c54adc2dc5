"""What every layer is: parameters, state, a forward pass and a backward pass."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np

from minidl import _kernels, kernels
from minidl.nn.array_checks import (
    FLOAT32,
    is_float,
    is_lengths,
    is_path,
    refuse_array,
    refuse_gradient,
)
from minidl.nn.foreign_names import (
    LAYER_ATTRIBUTES,
    RENAMED_OF_LAYERS,
    advice_for_method,
    refuse_attribute,
    refuse_renamed,
)
from minidl.nn.hooks import (
    InvalidatesRecordings,
    active_recorder,
    forward_pass,
    in_forward_pass,
    is_evaluating,
    kept_by,
    register,
    register_mode,
    run_forward,
)
from minidl.nn.members import PLAIN, Member, found_in
from minidl.nn.parameter import Initializer, Parameter
from minidl.seeds import as_generator
from minidl.typing import Array, DType, Seed

# Layers with the shapes of their inputs, or with the inputs themselves where they are integers.
Examples = Iterator[tuple["Layer", tuple[Any, ...]]]

# Attributes of every layer that belong to a pass or save time, and are no part of the model. In
# `_said`, suspicion.py keeps the warnings that were given already.
KEPT = frozenset({"_saved", "_output", "_forward_pass", "_earlier", "_first_parameter", "_said"})


class Layer(InvalidatesRecordings, Member):
    """A pair of functions: ``forward`` computes the output, ``backward`` applies the chain rule.

    A subclass writes

    - ``forward(x)``, which keeps what the gradient needs with ``self.save(...)``;
    - ``backward(dy)``, which gets it back with ``self.saved(dy)``, *adds* to the gradient of
      every parameter, and returns the gradient with respect to ``x``;
    - ``examples()``, a few small instances with the shapes of their inputs (integer inputs as
      they are), from which the tests and ``minidl check`` verify the layer.

    Parameters and layers that are attributes are found by themselves, also in lists, tuples and
    dicts, however nested. In sets, generators and dataclasses they are refused; other objects are
    not searched. Arrays that are not trained, but belong to the model (running statistics, the
    state of a generator), are named in ``state_names``.

    Call the layer itself, ``layer(x)``, rather than ``forward``: the call checks its input.
    Inputs and outputs are kept, not copied: do not change them in place before ``backward``.

    A tuple is several inputs: ``layer((a, b))`` is ``layer(a, b)``, unless ``forward`` takes one
    argument only. A layer with several outputs returns a tuple of them, and its ``backward`` takes
    a gradient for each.

    Within one call of a model, a layer may be called several times. Backward passes take these
    calls back one by one, the latest first, and gradients add up. A new call of the model drops
    what the previous one has left.

    A layer whose ``forward`` has an argument ``lengths`` gets the lengths of padded sequences
    from the containers around it.
    """

    registry: ClassVar[list[type[Layer]]] = []

    # --- what a subclass may declare ---

    state_names: tuple[str, ...] = ()  # arrays that are not trained, but belong to the model
    transient_state_names: tuple[str, ...] = ()  # those of them that belong in no model file
    constant_names: tuple[str, ...] = ()  # those of them that stay constant in training
    pass_names: tuple[str, ...] = ()  # attributes that belong to a pass, and to no model file
    # The least value that an array of state_names may hold: a model file with less is refused.
    state_minimum: ClassVar[Mapping[str, float]] = {}
    # Width of the last dimension of the input; None: any.
    in_features: int | None = None
    # Numbers of dimensions that the input may have, the batch among them; none: any.
    input_ranks: tuple[int, ...] = ()
    # Whether the input holds integers (words, characters), which a Trainer must not cast.
    takes_indices = False
    # How many different integers such an input may hold, from 0 on; None where it is not known.
    index_limit: int | None = None
    # Whether forward has an argument `lengths`: of the sequences of a padded batch.
    takes_lengths = False
    # The initialiser for weights whose output this layer receives. "skip": the layer after this
    # one decides; None: no preference.
    preferred_init: str | Initializer | None = None
    # Of an activation that saturates: the largest value of its derivative, from which a
    # GradientMonitor tells how much of the derivative is lost. None: any other layer.
    largest_slope: float | None = None

    # --- what minidl sets ---

    path = ""  # the layer's place in the model, such as "2.body.0"
    most_inputs: ClassVar[int | None] = None  # how many inputs forward takes; None: any number
    # Whether each axis of the output belongs to the axis of the input in the same place.
    keeps_axes: ClassVar[bool] = True
    _training = True
    _checks_as_usual = True  # whether the class has the check_input and the dtype of Layer
    # Whether backward may also take back calls of earlier forward passes: cells are called once for
    # every step of a sequence, and then taken back step by step.
    _undoes_earlier_passes = False

    @classmethod
    def examples(cls) -> Examples:
        """Yield pairs of a small layer and the shapes of its inputs (integers: the inputs)."""
        return iter(())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward pass")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward pass")

    # --- the forward pass, and what it keeps for the backward pass ---

    def __call__(self, *inputs: Array, **options: Any) -> Any:
        current = forward_pass()
        if current is None:  # the outermost call: with all calls inside it, one forward pass
            return in_forward_pass(Layer.__call__, (self, *inputs), options)
        recorder = active_recorder()
        kept = self.__dict__ if recorder is None else recorder.kept_by(self)
        if current and kept.get("_saved") is not None:
            if self._undoes_earlier_passes or kept.get("_forward_pass") is current:
                self._set_aside(kept)
            kept["_saved"] = None
        if options or len(inputs) != 1 or isinstance(inputs[0], tuple):
            output = self._call_with(inputs, options)
        else:  # the usual case: one input, no options
            (x,) = inputs
            if not (self._checks_as_usual and self._surely_fits(x)):
                self.check_input(x)
            output = self.forward(x) if recorder is None else recorder.forward(self, inputs)
        if current:
            kept["_output"], kept["_forward_pass"] = output, current
        return output

    def _call_with(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Check and run a call with several inputs, maybe in a tuple, or with options."""
        if len(inputs) == 1 and isinstance(inputs[0], tuple) and self.most_inputs != 1:
            (inputs,) = inputs
        given = options.get("lengths") is not None  # then such integers are an input of a branch
        if len(inputs) > 1 and self.takes_lengths and not given and is_lengths(inputs[-1]):
            *inputs, options["lengths"] = inputs  # type: ignore[assignment]
        self.check_input(*inputs, **options)
        return run_forward(self, tuple(inputs), options)

    def _set_aside(self, kept: dict[str, Any]) -> None:
        """Push what the latest call keeps on a stack, before the layer is called again."""
        stack = kept.setdefault("_earlier", [])
        if stack and stack[-1][0] is not kept["_forward_pass"] and not self._undoes_earlier_passes:
            stack.clear()
        stack.append((kept["_forward_pass"], kept["_saved"], kept["_output"]))

    def save(self, *values: Any) -> None:
        """Keep values for the backward pass that follows.

        Inside ``evaluating()`` nothing is kept, because no backward pass follows. To write a model
        to a file, call ``minidl.save(model, path)``.

        Raises
        ------
        TypeError
            For a path, outside of a forward pass.
        """
        current = forward_pass()
        if current is None:  # `forward` was called directly, or the caller means a file
            if values and is_path(values[0]):
                raise TypeError(
                    f"{self.label}: save keeps values for the backward pass, and writes no file; "
                    f"write minidl.save(model, {os.fspath(values[0])!r})"
                )
            current = not is_evaluating()
        if current:
            kept_by(self)["_saved"] = values

    def saved(self, dy: Array, *more: Array) -> Any:
        """Return, once, what the latest call saved: the value, or a tuple of several values.

        Parameters
        ----------
        dy, *more
            The gradient of the output, or of each of several outputs, to be checked.

        Raises
        ------
        RuntimeError
            If nothing is saved.
        TypeError, ValueError
            If the gradients do not fit the output.
        """
        kept = kept_by(self)
        values, output, stack = kept.get("_saved"), kept.get("_output"), kept.get("_earlier")
        if values is None:
            self._refuse_backward(called=output is not None)
        if output is not None:
            if isinstance(output, tuple):
                self.check_gradients((dy, *more), output)
            else:
                self.check_gradient(dy, output)
        if stack and (self._undoes_earlier_passes or stack[-1][0] is kept["_forward_pass"]):
            kept["_forward_pass"], kept["_saved"], kept["_output"] = stack.pop()
        else:
            kept["_saved"] = kept["_output"] = None
        return values[0] if len(values) == 1 else values

    def _refuse_backward(self, called: bool) -> NoReturn:
        """Raise RuntimeError for a backward pass for which nothing is saved."""
        raise RuntimeError(
            f"{self.label}: its forward pass saved nothing for the backward pass; keep "
            "what the gradient needs with self.save(...) in forward"
            if called
            else f"{self.label}: backward without a forward pass before it. "
            "Every backward pass needs a forward pass of its own, outside of nn.evaluating()."
        )

    def forget(self) -> None:
        """Drop what is kept for backward passes."""
        kept = kept_by(self)
        kept["_saved"] = kept["_output"] = None
        kept.pop("_earlier", None)

    # --- modes ---

    @property
    def training(self) -> bool:
        """Whether the layer trains: its own mode, and False on a thread that is evaluating."""
        return self._training and not is_evaluating()

    @training.setter
    def training(self, mode: bool) -> None:
        register_mode(self)
        self._training = bool(mode)

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (batch statistics, dropout on)."""
        for _, layer in self.layers():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode (running statistics, dropout off)."""
        return self.train(False)

    # --- the tree of layers ---

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield (name, layer) of the layers that are attributes, also in lists, tuples and dicts.

        Containers may be nested; the name of a layer in one is such as ``"blocks.0"``.
        """
        return self._members(Layer)

    def _members(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if type(value) not in PLAIN and name not in KEPT:
                yield from found_in(name, value, kind)

    def layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield (path, layer) of this layer and all below it, each once.

        They come in the order in which they were assigned: in a ``Sequential`` that is the order of
        the forward pass.
        """
        seen: set[int] = set()
        waiting: list[tuple[str, Layer]] = [(prefix, self)]  # the next one last: no recursion
        while waiting:
            path, layer = waiting.pop()
            if id(layer) not in seen:
                seen.add(id(layer))
                yield path, layer
                below = [(joined(path, name), child) for name, child in layer.children()]
                waiting += reversed(below)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter) of all parameters, each once."""
        seen = set()
        for path, layer in self.layers():
            for name, parameter in layer._members(Parameter):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield joined(path, name), parameter

    def own_parameters(self) -> list[Parameter]:
        """Return the parameters of this layer, without those of the layers in it."""
        return [parameter for _, parameter in self._members(Parameter)]

    def parameters(self) -> list[Parameter]:
        """Return all parameters, in the order of ``layers()``."""
        return [parameter for _, parameter in self.named_parameters()]

    def state(self) -> dict[str, Array]:
        """Return, by path, the arrays named in ``state_names``: running statistics and so on."""
        return {
            joined(path, name): getattr(layer, name)
            for path, layer in self.layers()
            for name in layer.state_names
        }

    def saved_state(self) -> dict[str, Array]:
        """Return the part of ``state()`` that belongs in a model file."""
        transient = {
            joined(path, name)
            for path, layer in self.layers()
            for name in layer.transient_state_names
        }
        return {path: array for path, array in self.state().items() if path not in transient}

    def assign_paths(self) -> None:
        """Set ``path`` of all layers and ``name`` of all parameters.

        Containers call this when they are built.
        """
        for path, layer in self.layers():
            layer.path = path
        for name, parameter in self.named_parameters():
            parameter.name = name

    # --- parameters and state as a whole ---

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        register(self)
        for parameter in self.parameters():
            kernels.clear(parameter.grad)

    def freeze(self, frozen: bool = True) -> Self:
        """Freeze all parameters: optimizers that are built from now on do not change them."""
        for parameter in self.parameters():
            parameter.frozen = frozen
        return self

    def reset(self, rng: Seed = None) -> Self:
        """Draw all parameters anew and start the state afresh, seeded by ``rng``.

        What ``Standardize`` has measured stays: it belongs to the data.
        """
        rng = as_generator(rng)
        for _, layer in self.layers():
            layer.reset_own(rng)
        return self

    def reset_own(self, rng: np.random.Generator) -> None:
        """Do the part of ``reset`` that concerns this layer and not those below it."""
        for parameter in self.own_parameters():
            parameter.reset(rng)

    def astype(self, dtype: DType) -> Self:
        """Convert parameters and state to float32 or float64, in place.

        Convert before an optimizer is built: it holds the parameters in its own vectors.
        """
        for parameter in self.parameters():
            parameter.astype(dtype)
        for _, layer in self.layers():
            for name in layer.state_names:
                array = getattr(layer, name)
                if array.dtype.kind == "f":
                    setattr(layer, name, array.astype(dtype))
        return self

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """dtype of the parameters; None where there are none."""
        try:
            first = self.__dict__["_first_parameter"]
        except KeyError:
            first = self._find_first_parameter()
        return None if first is None else first.dtype

    def _find_first_parameter(self) -> Parameter | None:
        """Find the parameter whose dtype is the layer's, and remember it if that is safe.

        It is not safe if the layer has another layer, a list or a dict as an attribute: this layer
        would not notice if an item there were replaced.
        """
        first = next((p for p in self._members(Parameter)), (None, None))[1]
        if first is None:
            first = next((p for _, layer in self.children() for p in layer.parameters()), None)
            values = (value for name, value in vars(self).items() if name not in KEPT)
            if any(_may_hold_others(value) for value in values):
                return first
        self.__dict__["_first_parameter"] = first
        return first

    # --- checks ---

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Raise TypeError or ValueError, naming the layer, if an input cannot be used.

        Integer indices are checked by the layer that uses them.
        """
        first = getattr(args[0], "dtype", FLOAT32) if args else FLOAT32
        for x in args[1:] if self.takes_indices and first.kind in "iu" else args:
            self.check_array(x, self.in_features)

    def _surely_fits(self, x: Any) -> bool:
        """Return True only if ``check_input`` would accept x; a quick test that may say False."""
        first = self.__dict__.get("_first_parameter", self)
        if first is self:  # not looked for yet
            return False
        return _kernels.is_batch(x, FLOAT32 if first is None else first.dtype, self.in_features)

    def check_array(self, x: Array, features: int | None = None, name: str = "input") -> None:
        """Raise TypeError or ValueError if an input is not an array of this many features."""
        expected = self.dtype
        if isinstance(x, np.ndarray):
            known = x.dtype is expected or (
                is_float(x) if expected is None else x.dtype == expected
            )
            if known and x.ndim > 1 and x.size and (features is None or x.shape[-1] == features):
                return
        refuse_array(self.label, x, expected, features, name)

    def check_gradient(self, dy: Array, output: Array) -> None:
        """Raise TypeError or ValueError if ``dy`` does not fit the output."""
        fits = isinstance(dy, np.ndarray) and dy.dtype == output.dtype and dy.shape == output.shape
        if not fits:
            refuse_gradient(self.label, dy, output)

    def check_gradients(self, dys: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        """Raise TypeError or ValueError unless there is a fitting gradient for every output."""
        if len(dys) != len(outputs):
            raise ValueError(
                f"{self.label}: backward expected {len(outputs)} gradients, one for each output, "
                f"got {len(dys)}"
            )
        for dy, output in zip(dys, outputs, strict=True):
            if isinstance(output, tuple):
                self.check_gradients(dy if isinstance(dy, tuple) else (dy,), output)
            else:
                self.check_gradient(dy, output)

    # --- attributes ---

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in KEPT & cls.__dict__.keys():
            refuse_kept(cls.__name__, name)
        refuse_renamed(cls, RENAMED_OF_LAYERS)
        if "examples" in cls.__dict__:
            Layer.registry.append(cls)
        if "forward" in cls.__dict__:
            parameters = inspect.signature(cls.forward).parameters
            if "takes_lengths" not in cls.__dict__:
                cls.takes_lengths = "lengths" in parameters
            cls.most_inputs = most_arguments(list(parameters.values())[1:])
        own = (cls.check_input, cls.check_array, cls.dtype)
        cls._checks_as_usual = own == (Layer.check_input, Layer.check_array, Layer.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        owner = type(self).__name__
        if name in KEPT:
            refuse_kept(owner, name)
        refuse_attribute(owner, name, {} if hasattr(type(self), name) else LAYER_ATTRIBUTES)
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
            raise AttributeError(
                f"{owner!r} object has no attribute {name!r}{advice_for_method(name)}",
                name=name,
                obj=self,
            )

    # --- what a reader sees ---

    @property
    def label(self) -> str:
        """The layer as error messages name it: its place in the model and its repr."""
        name = self.short_name()
        return f"layer {self.path} {name}" if self.path else name

    def short_name(self) -> str:
        """Return the layer in one line."""
        text = repr(self)
        return type(self).__name__ if "\n" in text else text

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """Return the shape of the output for an input of this shape; None where it is not known.

        Sizes that are not known are words, such as ``("batch", "height", "width", 3)``. Unless a
        subclass says otherwise, it is the shape of the only input, and of several not known.
        """
        several = input_shape is not None and any(isinstance(size, tuple) for size in input_shape)
        return None if several else input_shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def joined(path: str, name: str) -> str:
    """Return the path of a member: ``"0.weight"``."""
    return f"{path}.{name}" if path else name


def _may_hold_others(value: Any) -> bool:
    """Return whether a layer or a parameter may come into a value unnoticed, later."""
    if isinstance(value, tuple):
        return any(map(_may_hold_others, value))
    return isinstance(value, (Layer, list, dict))


def most_arguments(parameters: list[inspect.Parameter]) -> int | None:
    """Return how many arguments by place a function takes at most; None for any number."""
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def refuse_kept(owner: str, name: str) -> NoReturn:
    """Raise AttributeError for a name that minidl itself uses in every layer."""
    raise AttributeError(
        f"{owner}.{name}: every layer keeps something of its own under this name; choose another"
    )
