"""What a step leaves behind while it is recorded: every kernel call, and what its pointers mean.

While the function runs, this thread sees arrays of the recording in the place of its inputs, of
parameters, and of what layers and optimizers keep: whoever reads such an attribute is given them
by the recorder. Their memory is a copy, so that the model stays as it is, for other threads and for
a child that is forked meanwhile, until the program is run for the first time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Any

import numpy as np

from minidl import _kernels
from minidl._kernels.signature import SCRATCH, Kernel
from minidl.nn.nonfinite import first_not_finite
from minidl.recording.calls import INPUT, STATE, TEMPORARY, VECTOR, Buffer, KernelCall, Operand
from minidl.recording.guards import RecordedArray, RecordingError
from minidl.recording.hearing import arrays_of, hear_arrays, hear_backward
from minidl.recording.pytree import leaves_of
from minidl.recording.shadow import Shadow, fill
from minidl.signals import deferred
from minidl.typing import Array

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
NOT_THE_SAME = "the recorded function does not do the same when it runs again from the same state"
ADVICE = (
    "Keep what changes from step to step in arrays that kernels change (state_names of a layer), "
    "compute with minidl's kernels only, or run the function without minidl.record."
)


class Recorder:
    """Hears of every array and every kernel call of this thread, and what they belong to."""

    def __init__(self, inputs: tuple[Any, ...]) -> None:
        self.entries: list[KernelCall] = []
        self.regions: list[Buffer] = []
        self.shadows: list[Shadow] = []
        self.watched: list[Any] = []  # layers, losses and optimizers taking part, outermost only
        self.optimizers: list[Any] = []
        self._arrays: dict[int, Array] = {}  # given out in the place of those that live on
        self._begins: list[int] = []  # of the temporaries, which are apart from each other
        self._temporaries: list[Buffer] = []
        self._labels = [("the recorded function", "")]
        self._seen: set[int] = set()
        self._stepped: set[int] = set()
        self._kept: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._attributes: list[tuple[Any, dict[str, Any]]] = []
        self._modes: dict[int, tuple[Any, bool]] = {}  # of layers that the function has switched
        self._inputs: list[Buffer] = []
        self.inputs = tuple(self._input(number, x) for number, x in enumerate(inputs))

    def _input(self, number: int, x: Any) -> Any:
        """An argument, as the function gets it."""
        if isinstance(x, np.ndarray):
            self._inputs.append(Buffer(INPUT, f"input {number}", x, number))
            return self._give_out(self._inputs[-1])
        return x

    # --- what dispatch.pyx calls ---

    def allocated(self, array: Array) -> Array:
        """A kernel call has allocated an array for what it returns."""
        number = len(self._temporaries)
        region = Buffer(TEMPORARY, f"t{number}", array, number)
        place = bisect_right(self._begins, region.begin)
        self._begins.insert(place, region.begin)
        self._temporaries.insert(place, region)
        self.regions.append(region)
        return array.view(RecordedArray)

    def called(self, kernel: Kernel, function: int, args: bytes, scratch: int) -> bool:
        """A kernel is about to run; True if it need not."""
        pointers = np.frombuffer(args, np.uintp, len(kernel.operands)).tolist()
        operands = []
        for declared, address in zip(kernel.operands, pointers, strict=True):
            role = kernel.role(declared, args)
            if role != SCRATCH and address:
                found = self.find(address)
                if found is None:
                    raise RecordingError(self._foreign(kernel.name, declared.name))
                operands.append(Operand(declared.name, role, *found))
        own = bytearray(args)
        self.entries.append(KernelCall(kernel, function, own, operands, scratch, *self._labels[-1]))
        return False

    def _foreign(self, kernel: str, operand: str) -> str:
        return (
            f"{self.where()} gives the kernel {kernel} an array (its {operand}) that is "
            "neither an input of the step, nor a parameter or state of a layer, nor the output of "
            "a recorded kernel. Pass it as an argument of the recorded function, name it in the "
            "layer's state_names, or compute it with minidl's kernels; or run without "
            "minidl.record."
        )

    def attribute(self, owner: Any, name: str) -> Any:
        """Somebody reads an attribute that holds an array (``hear_arrays``)."""
        array = vars(owner)[name]
        if type(array) is not np.ndarray:
            return array
        of_layer = name in getattr(owner, "state_names", ())
        full = f"{owner.path}.{name}".lstrip(".") if of_layer else name
        return self.adopt(STATE if of_layer or array.dtype.names else VECTOR, full, array)

    def refuse_to_replace(self, name: str) -> None:
        """Somebody sets such an attribute."""
        raise RecordingError(
            f"the recorded function sets {name!r}, an array that a layer or an optimizer "
            "keeps from step to step, to another array; have a kernel change it in place"
        )

    # --- regions ---

    def find(self, address: int) -> tuple[Buffer, int] | None:
        """The smallest region that holds this address, and where in it that is."""
        place = bisect_right(self._begins, address) - 1
        if place >= 0 and address < self._temporaries[place].end:
            return self._temporaries[place], address - self._begins[place]
        found = (shadow.find(address) for shadow in self.shadows)
        return next((place for place in found if place is not None), None)

    def adopt(self, kind: str, name: str, array: Array) -> Array:
        """Let kernels use memory that lives on; returns the array that stands in for it."""
        if id(array) not in self._arrays:
            region = Buffer(kind, name, array)
            for other in self._inputs:
                if other.begin < region.end and region.begin < other.end:
                    raise RecordingError(
                        f"argument {other.number + 1} of the recorded function shares memory with "
                        f"{name}; pass a copy of it"
                    )
            self._arrays[id(array)] = self._give_out(region)
        return self._arrays[id(array)]

    def shadow_of(self, region: Buffer) -> Shadow:
        """What stands in for the memory that an array lies in."""
        shadow = next((shadow for shadow in self.shadows if shadow.covers(region)), None)
        if shadow is None:
            shadow = self._shadow(region)
            self.shadows.append(shadow)
        return shadow

    def _give_out(self, region: Buffer) -> Array:
        shadow = self.shadow_of(region)
        shadow.regions.append(region)
        self.regions.append(region)
        array = shadow.of(region.array)
        array.flags.writeable = region.array.flags.writeable
        return array.view(RecordedArray)

    def _shadow(self, region: Buffer) -> Shadow:
        return Shadow(region.array, alone=region.kind == INPUT)

    # --- what layers, losses and optimizers call ---

    def kept_by(self, owner: Any) -> dict[str, Any]:
        """What a layer or a loss keeps for its backward pass."""
        return self._kept.setdefault(id(owner), (owner, {}))[1]

    def forward(
        self, layer: Any, inputs: tuple[Any, ...], options: Mapping[str, Any] = NO_OPTIONS
    ) -> Any:
        """``layer.forward(*inputs, **options)``, written down under the layer's name."""
        if len(self._labels) == 1:
            self.watch(layer)
        return self._within(layer, "forward", layer.forward, *inputs, **options)

    def backward(
        self, layer: Any, own: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        """The layer's own function for the backward pass, written down under its name."""
        return self._within(layer, "backward", own, layer, *inputs, **options)

    def _within(self, layer: Any, phase: str, function: Any, *inputs: Any, **options: Any) -> Any:
        label = getattr(layer, "label", None) or repr(layer)
        if "\n" in label:  # a table of the layers in it
            label = f"layer {layer.path} " * bool(layer.path) + type(layer).__name__
        self._labels.append((label, phase))
        try:
            output = function(*inputs, **options)
            self._check(output)
        finally:
            self._labels.pop()
        return output

    def _check(self, output: Any) -> None:
        for array in output if isinstance(output, tuple) else (output,):
            if isinstance(array, np.ndarray) and self.find(_kernels.address_of(array)) is None:
                raise RecordingError(
                    f"{self.where()} returns an array that no kernel has written, so it was "
                    "computed with NumPy. Such a layer trains eagerly: run the function without "
                    "minidl.record, or write the layer with minidl's kernels."
                )

    def watch(self, root: Any) -> None:
        """Learn of the parameters and state of a layer, and hear of its backward passes."""
        if any(root is known for known in self.watched):
            return
        self.watched.append(root)
        self._attributes += [(part, plain_attributes(part)) for part in parts_of(root)]
        for path, layer in root.layers() if hasattr(root, "layers") else ():
            if id(layer) not in self._seen:
                self._seen.add(id(layer))
                self._watch_layer(path, layer)

    def _watch_layer(self, path: str, layer: Any) -> None:
        for parameter in layer.own_parameters():
            _ = parameter.data, parameter.grad  # to look at them is to adopt them
        hear_arrays(layer, *layer.state_names)
        hear_backward(layer)
        for name in layer.state_names:
            if type(array := vars(layer).get(name)) is np.ndarray:
                self.adopt(STATE, f"{path}.{name}".lstrip("."), array)

    def switch(self, layer: Any) -> None:
        """A layer is about to be switched to training or evaluation."""
        self._modes.setdefault(id(layer), (layer, layer._training))

    def optimize(self, optimizer: Any) -> None:
        """Learn of the vectors and the state of an optimizer."""
        if any(optimizer is known for known in self.optimizers):
            return
        self.optimizers.append(optimizer)
        self.watched.append(optimizer)
        for owner in (optimizer.flat, optimizer):
            hear_arrays(owner, *arrays_of(owner))
        flat, held = vars(optimizer.flat), vars(optimizer)
        self.adopt(VECTOR, "parameters", flat["data"])
        self.adopt(VECTOR, "gradients", flat["grad"])
        for name in arrays_of(optimizer):
            self.adopt(STATE if held[name].dtype.names else VECTOR, name, held[name])
        self._set_rates(optimizer)

    def _set_rates(self, optimizer: Any) -> None:
        """Let the copies of an optimizer's state have the rates of the step to come."""
        array = vars(optimizer)["states"]
        with self.aside():
            rates = [(group.index, group.rates(1)[0]) for group in optimizer.scheduled()]
        shadow = next(s for s in self.shadows if s.begin <= _kernels.address_of(array) < s.end)
        for copy in (shadow.first, shadow.second):
            if copy is not None:
                for index, rate in rates:
                    shadow.of(array, copy)["learning_rate"][index] = rate

    def step_of(self, optimizer: Any) -> None:
        """An optimizer is about to make a step."""
        self.optimize(optimizer)
        if optimizer.scheduled() and id(optimizer) in self._stepped:
            raise RecordingError(
                f"{type(optimizer).__name__} has a schedule and makes two steps in one recorded "
                "function; record a function that makes one"
            )
        self._stepped.add(id(optimizer))

    def first_not_finite(self) -> str:
        """Which kernel has first written a number that is not finite, or nothing."""
        return first_not_finite(
            (entry.place, operand.region.array)
            for entry in self.entries
            for operand in entry.operands
            if operand.writes and operand.region.kind == TEMPORARY
        )

    def where(self) -> str:
        """What is running: for messages."""
        label, phase = self._labels[-1]
        return f"{label}, going {phase}," if phase else label

    # --- the recording itself ---

    def run(self, function: Any, signals: deferred) -> Any:
        """Call the function and write down what it does; signals are heard meanwhile.

        The modes and attributes of layers that it has set are put back if it raises.
        """
        try:
            with signals.at_once(self._run_handler):
                _kernels.set_recorder(self)
                output = function(*self.inputs)
                _kernels.set_recorder(None)
            self._check_attributes()
        except BaseException:
            self.put_back()
            raise
        finally:
            _kernels.set_recorder(None)
        return output

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens inside is not written down."""
        recorder = _kernels.recorder()
        _kernels.set_recorder(None)
        try:
            yield
        finally:
            _kernels.set_recorder(recorder)

    def _run_handler(self, handler: Any, number: int, frame: FrameType | None) -> None:
        with self.aside():
            handler(number, frame)

    def put_back(self) -> None:
        """Put modes and attributes of layers back to what they were before the function ran."""
        for part, attributes in self._attributes:
            for name in plain_attributes(part).keys() - attributes.keys():
                del vars(part)[name]
            vars(part).update(attributes)
        self.switch_back()

    def switch_back(self) -> None:
        """Put the modes of layers back."""
        for layer, training in self._modes.values():
            layer.training = training

    def _check_attributes(self) -> None:
        for part, before in self._attributes:
            for name, value in plain_attributes(part).items():
                if name not in before or not _same(before[name], value):
                    raise RecordingError(
                        f"{getattr(part, 'label', None) or repr(part)} sets its attribute {name!r} "
                        "as it runs, which a replay would not. Keep what changes from step to "
                        "step in an array of state_names that kernels change; or run without "
                        "minidl.record."
                    )

    def shown(self, leaf: Any) -> Any:
        """What the function returned, as NumPy may use it: inputs as they were given."""
        found = isinstance(leaf, np.ndarray) and self.find(_kernels.address_of(leaf))
        if found and found[0].kind == INPUT:
            return np.ndarray(leaf.shape, leaf.dtype, found[0].array, found[1], leaf.strides)
        return np.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf

    def described(self, output: Any) -> list[Any]:
        """Where the arrays that the function returned come from, and what else it returned."""
        return [self._described(leaf) for leaf in leaves_of(output)]

    def _described(self, leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return repr(leaf) if _is_plain(leaf) else type(leaf)
        region, offset = self.find(_kernels.address_of(leaf)) or (None, 0)
        return getattr(region, "key", None), offset, leaf.dtype, leaf.shape, leaf.strides


class Rehearsal(Recorder):
    """Hears a function once more, to find out whether it always does the same.

    No kernel runs, and every array holds one number, ``look``: whoever reads a value by a way that
    nobody hears of, and does something else for it, is found out.
    """

    def __init__(self, inputs: tuple[Any, ...], first: Recorder, look: float) -> None:
        self._look, self._expected = look, first.entries
        super().__init__(inputs)

    def _shadow(self, region: Buffer) -> Shadow:
        return Shadow(region.array, self._look, alone=region.kind == INPUT)

    def _set_rates(self, optimizer: Any) -> None:
        pass

    def allocated(self, array: Array) -> Array:
        fill(array.reshape(-1).view(np.uint8), array.dtype, self._look)
        return super().allocated(array)

    def called(self, kernel: Kernel, function: int, args: bytes, scratch: int) -> bool:
        super().called(kernel, function, args, scratch)
        self._compare(len(self.entries) - 1)
        return True

    def _compare(self, index: int) -> None:
        runs = self._expected, self.entries
        first, now = (run[index] if index < len(run) else None for run in runs)
        if first is None or now is None or first.fingerprint != now.fingerprint:
            places = [entry.place if entry else "nothing" for entry in (first, now)]
            raise RecordingError(f"{NOT_THE_SAME}: first {places[0]}, then {places[1]}. {ADVICE}")

    def finish(self) -> None:
        """Raise RecordingError if the function did less than the first time."""
        if len(self.entries) < len(self._expected):
            self._compare(len(self.entries))


def _same(old: Any, new: Any) -> bool:
    return old is new or (type(old) is type(new) and old == new)


def parts_of(root: Any) -> list[Any]:
    """A layer and all below it; a loss or an optimizer alone."""
    return [layer for _, layer in root.layers()] if hasattr(root, "layers") else [root]


def plain_attributes(part: Any) -> dict[str, Any]:
    """The numbers, flags and words among the public attributes of a layer or a loss, and tuples
    of them.
    """
    return {
        name: value
        for name, value in vars(part).items()
        if not name.startswith("_") and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str, np.generic, type(None)))
