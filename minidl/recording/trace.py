"""Trace a function: run it once, and write down every kernel call and the memory that it uses.

The function gets copies of inputs, of parameters and of what layers and optimizers keep. So the
model stays as it is, for other threads and for a child that is forked meanwhile, until the program
runs for the first time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Any

import numpy as np

from minidl import _kernels
from minidl._kernels.executor.calls import (
    INPUT,
    STATE,
    TEMPORARY,
    VECTOR,
    Buffer,
    KernelCall,
    Operand,
)
from minidl._kernels.signature import SCRATCH, Kernel
from minidl.nn.nonfinite import first_not_finite
from minidl.recording.guards import RecordingError, arrays_of, hook_arrays, hook_backward
from minidl.recording.pytree import tree_leaves
from minidl.recording.shadow import Shadow, TracedMemory
from minidl.recording.traits import Rewind, is_plain
from minidl.signals import deferred
from minidl.typing import Array

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Recorder:
    """Writes down the kernel calls of a function, and to what their arrays belong.

    Kernel calls, layers, losses and optimizers call the methods, on the thread that runs the
    function.

    Parameters
    ----------
    inputs
        Arguments of the function.
    """

    def __init__(self, inputs: tuple[Any, ...]) -> None:
        self.calls: list[KernelCall] = []
        self.memory = TracedMemory(self._make_shadow)
        self.rewind = Rewind()
        self.watched: list[Any] = []  # layers, losses and optimizers taking part, outermost only
        self.optimizers: list[Any] = []
        self._labels = [("the recorded function", "")]
        self._part = ""  # what the names of losses begin with: of a head, in a MultiLoss
        self._seen: set[int] = set()  # layers, by their id
        self._stepped: set[int] = set()  # optimizers, by their id
        self._kept: dict[int, tuple[Any, dict[str, Any]]] = {}
        self.inputs = tuple(
            self.memory.add_input(number, x) if isinstance(x, np.ndarray) else x
            for number, x in enumerate(inputs)
        )

    def _make_shadow(self, buffer: Buffer) -> Shadow:
        return Shadow(buffer.array, alone=buffer.kind == INPUT)

    # --- called by kernel calls (call.pyx) ---

    def allocated(self, array: Array) -> Array:
        """Note an array that a kernel call has allocated; returns the one that the call returns."""
        return self.memory.add_temporary(array)

    def called(self, kernel: Kernel, function: int, args: bytes, scratch: int) -> bool:
        """Write down a kernel that is about to run; returns whether not to run it."""
        pointers = np.frombuffer(args, np.uintp, len(kernel.operands)).tolist()
        operands = []
        for declared, address in zip(kernel.operands, pointers, strict=True):
            role = kernel.role(declared, args)
            if role != SCRATCH and address:
                found = self.memory.find(address)
                if found is None:
                    raise RecordingError(self._foreign(kernel.name, declared.name))
                operands.append(Operand(declared.name, role, *found))
        own = bytearray(args)
        self.calls.append(KernelCall(kernel, function, own, operands, scratch, *self._labels[-1]))
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
        """Return the array that stands in for an attribute that is read (``hook_arrays``)."""
        array = vars(owner)[name]
        if type(array) is not np.ndarray:
            return array
        of_layer = name in getattr(owner, "state_names", ())
        full = f"{owner.path}.{name}".lstrip(".") if of_layer else name
        return self.adopt(STATE if of_layer or array.dtype.names else VECTOR, full, array)

    def refuse_to_replace(self, name: str) -> None:
        """Raise RecordingError: the function sets an attribute that holds an array."""
        raise RecordingError(
            f"the recorded function sets {name!r}, an array that a layer or an optimizer "
            "keeps from step to step, to another array; have a kernel change it in place"
        )

    # --- called by layers and losses ---

    def adopt(self, kind: str, name: str, array: Array) -> Array:
        """Let kernels use an array that lives on; returns the array that stands in for it."""
        return self.memory.adopt(kind, name, array)

    def kept_by(self, owner: Any) -> dict[str, Any]:
        """Return the dict of what a layer or a loss keeps for its backward pass while traced."""
        return self._kept.setdefault(id(owner), (owner, {}))[1]

    def forward(
        self, layer: Any, inputs: tuple[Any, ...], options: Mapping[str, Any] = NO_OPTIONS
    ) -> Any:
        """Call ``layer.forward(*inputs, **options)`` under the layer's name."""
        if len(self._labels) == 1:
            self.watch(layer)
        return self._within(layer, "forward", layer.forward, *inputs, **options)

    def backward(
        self, layer: Any, own: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        """Call the layer's own backward function under the layer's name."""
        return self._within(layer, "backward", own, layer, *inputs, **options)

    @contextmanager
    def named_within(self, part: str) -> Iterator[None]:
        """Begin the names of losses that are computed in the block with that of a part."""
        self._part = f"{part}: "
        try:
            yield
        finally:
            self._part = ""

    def _within(self, layer: Any, phase: str, function: Any, *inputs: Any, **options: Any) -> Any:
        label = getattr(layer, "label", None) or repr(layer)
        if "\n" in label:  # a table of the layers in it
            label = f"layer {layer.path} " * bool(layer.path) + type(layer).__name__
        self._labels.append((self._part + label, phase))
        try:
            output = function(*inputs, **options)
            self._check(output)
        finally:
            self._labels.pop()
        return output

    def _check(self, output: Any) -> None:
        for array in tree_leaves(output):
            if isinstance(array, np.ndarray) and self.home_of(array) is None:
                raise RecordingError(
                    f"{self.where()} returns an array that no kernel has written, so it was "
                    "computed with NumPy. Such a layer trains eagerly: run the function without "
                    "minidl.record, or write the layer with minidl's kernels."
                )

    def watch(self, root: Any) -> None:
        """Note the parameters and state of a layer and of all layers in it."""
        if any(root is known for known in self.watched):
            return
        self.watched.append(root)
        self.rewind.note_attributes(root)
        for path, layer in root.layers() if hasattr(root, "layers") else ():
            if id(layer) not in self._seen:
                self._seen.add(id(layer))
                self._watch_layer(path, layer)

    def _watch_layer(self, path: str, layer: Any) -> None:
        for parameter in layer.own_parameters():
            _ = parameter.data, parameter.grad  # reading them adopts them
        hook_arrays(layer, *layer.state_names)
        hook_backward(layer)
        for name in layer.state_names:
            if type(array := vars(layer).get(name)) is np.ndarray:
                self.adopt(STATE, f"{path}.{name}".lstrip("."), array)

    def switch(self, layer: Any) -> None:
        """Note that a layer is about to be switched to training or evaluation."""
        self.rewind.note_mode(layer)

    # --- called by optimizers ---

    def optimize(self, optimizer: Any) -> None:
        """Note the vectors and the state of an optimizer."""
        if any(optimizer is known for known in self.optimizers):
            return
        self.optimizers.append(optimizer)
        self.watched.append(optimizer)
        for owner in (optimizer.flat, optimizer):
            hook_arrays(owner, *arrays_of(owner))
        flat, held = vars(optimizer.flat), vars(optimizer)
        self.adopt(VECTOR, "parameters", flat["data"])
        self.adopt(VECTOR, "gradients", flat["grad"])
        for name in arrays_of(optimizer):
            self.adopt(STATE if held[name].dtype.names else VECTOR, name, held[name])
        self._set_rates(optimizer)

    def _set_rates(self, optimizer: Any) -> None:
        """Write the learning rates of the next step into the copies of an optimizer's state."""
        array = vars(optimizer)["states"]
        with self.aside():
            rates = [(group.index, group.rates(1)[0]) for group in optimizer.scheduled()]
        address = _kernels.address_of(array)
        shadow = next(s for s in self.memory.shadows if s.begin <= address < s.end)
        for copy in (shadow.first, shadow.second):
            if copy is not None:
                for index, rate in rates:
                    shadow.of(array, copy)["learning_rate"][index] = rate

    def step_of(self, optimizer: Any) -> None:
        """Note that an optimizer is about to make a step."""
        self.optimize(optimizer)
        if optimizer.scheduled() and id(optimizer) in self._stepped:
            raise RecordingError(
                f"{type(optimizer).__name__} has a schedule and makes two steps in one recorded "
                "function; record a function that makes one"
            )
        self._stepped.add(id(optimizer))

    # --- the run ---

    def run(self, function: Any, signals: deferred) -> Any:
        """Call the function and write down what it does; signals are handled meanwhile.

        If it raises, modes and attributes of layers that it has set are put back.
        """
        try:
            with signals.at_once(self._run_handler):
                _kernels.set_recorder(self)
                output = function(*self.inputs)
                _kernels.set_recorder(None)
            self.rewind.check_attributes()
        except BaseException:
            self.rewind.put_back()
            raise
        finally:
            _kernels.set_recorder(None)
        return output

    def _run_handler(self, handler: Any, number: int, frame: FrameType | None) -> None:
        with self.aside():
            handler(number, frame)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Pause the recording inside the block."""
        recorder = _kernels.recorder()
        _kernels.set_recorder(None)
        try:
            yield
        finally:
            _kernels.set_recorder(recorder)

    # --- questions ---

    def where(self) -> str:
        """Name the layer and the pass under way, for messages."""
        label, phase = self._labels[-1]
        return f"{label}, going {phase}," if phase else label

    def home_of(self, array: Array) -> tuple[Buffer, int] | None:
        """Find the buffer that an array lies in, and the offset in it."""
        return self.memory.find(_kernels.address_of(array))

    def first_not_finite(self) -> str:
        """Name the first kernel that has written a number that is not finite, or return ""."""
        return first_not_finite(
            (call.place, operand.buffer.array)
            for call in self.calls
            for operand in call.operands
            if operand.writes and operand.buffer.kind == TEMPORARY
        )

    def as_numpy(self, leaf: Any) -> Any:
        """Convert a leaf that the function returned so that NumPy may use it; inputs as given."""
        if not isinstance(leaf, np.ndarray):
            return leaf
        buffer, offset = self.home_of(leaf) or (None, 0)
        if buffer is not None and buffer.kind == INPUT:
            return np.ndarray(leaf.shape, leaf.dtype, buffer.array, offset, leaf.strides)
        return np.asarray(leaf)

    def described(self, output: Any) -> list[Any]:
        """Describe where returned arrays come from, and what else the function returned."""
        return [self._described(leaf) for leaf in tree_leaves(output)]

    def _described(self, leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return repr(leaf) if is_plain(leaf) else type(leaf)
        buffer, offset = self.home_of(leaf) or (None, 0)
        return getattr(buffer, "key", None), offset, leaf.dtype, leaf.shape, leaf.strides
