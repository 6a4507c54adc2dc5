"""What a step leaves behind while it is recorded: every kernel call, and what its pointers mean."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels.reference import Array
from minidl.recording.arrays import RecordedArray, RecordingError
from minidl.recording.entries import (
    GRADIENT,
    INPUT,
    PARAMETER,
    STATE,
    TEMPORARY,
    VECTOR,
    Entry,
    Operand,
    Region,
)
from minidl.recording.failures import is_finite
from minidl.recording.nest import leaves_of

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
NOT_THE_SAME = "the recorded function does not do the same when it runs twice from the same state"
ADVICE = (
    "Keep what changes from step to step in arrays that kernels change (state_names of a layer), "
    "compute with minidl's kernels only, or run the function without minidl.record."
)


class Recorder:
    """Hears of every array and every kernel call of this thread, and what they belong to."""

    def __init__(self, inputs: tuple[Any, ...]) -> None:
        self.entries: list[Entry] = []
        self.regions: list[Region] = []
        self.watched: list[Any] = []  # layers, losses and optimizers taking part, outermost only
        self.optimizers: list[Any] = []
        self._lasting: list[Region] = []
        self._begins: list[int] = []  # of the temporaries, which are apart from each other
        self._temporaries: list[Region] = []
        self._labels = [("the recorded function", "")]
        self._seen: set[int] = set()
        self._stepped: set[int] = set()
        self._swapped: list[tuple[dict[str, Any], str, Any, Any]] = []  # …, before, meanwhile
        self._before: list[tuple[Array, Array]] = []
        self._rates: list[tuple[Array, Array]] = []
        self._first: tuple[list[Entry], list[bytes]] = [], []
        self._attributes: list[tuple[Any, dict[str, Any]]] = []
        self._modes: dict[int, tuple[Any, bool]] = {}  # of layers that the function has switched
        for number, x in enumerate(inputs):
            if isinstance(x, np.ndarray):
                self.add(Region(INPUT, f"input {number}", x, number))
                if x.flags.writeable:
                    self._before.append((x, x.copy()))

    # --- what dispatch.pyx calls ---

    def allocated(self, array: Array) -> Array:
        """A kernel call has allocated an array for what it returns."""
        region = Region(TEMPORARY, f"t{len(self._temporaries)}", array)
        place = bisect_right(self._begins, region.begin)
        self._begins.insert(place, region.begin)
        self._temporaries.insert(place, region)
        self.regions.append(region)
        return array.view(RecordedArray)

    def called(self, name: str, roles: str, function: int, args: bytes, scratch: int) -> None:
        """A kernel is about to run."""
        pointers = np.frombuffer(args[: 8 * len(roles)], np.uintp)
        operands = []
        for slot, (role, address) in enumerate(zip(roles, pointers.tolist(), strict=True)):
            if role != "s" and address:
                region = self.find(address)
                if region is None:
                    raise RecordingError(self._foreign(name, slot))
                operands.append(Operand(slot, role, region, address - region.begin))
        copy = bytearray(args)
        entry = Entry(name, function, copy, operands, scratch, *self._labels[-1])
        entry.scratch_slot = roles.find("s")
        self.entries.append(entry)

    def _foreign(self, kernel: str, slot: int) -> str:
        return (
            f"{self.where()} gives the kernel {kernel} an array (its argument {slot + 1}) that is "
            "neither an input of the step, nor a parameter or state of a layer, nor the output of "
            "a recorded kernel. Pass it as an argument of the recorded function, name it in the "
            "layer's state_names, or compute it with minidl's kernels; or run without "
            "minidl.record."
        )

    # --- regions ---

    def add(self, region: Region) -> None:
        """Let kernels use this array."""
        self._lasting.append(region)
        self.regions.append(region)

    def find(self, address: int) -> Region | None:
        """The smallest region that holds this address."""
        place = bisect_right(self._begins, address) - 1
        if place >= 0 and address < self._temporaries[place].end:
            return self._temporaries[place]
        holding = [region for region in self._lasting if region.begin <= address < region.end]
        return min(holding, key=lambda region: region.nbytes, default=None)

    # --- what layers, losses and optimizers call ---

    def forward(
        self, layer: Any, inputs: tuple[Any, ...], options: Mapping[str, Any] = NO_OPTIONS
    ) -> Any:
        """``layer.forward(*inputs, **options)``, written down under the layer's name."""
        if len(self._labels) == 1:
            self.watch(layer)
        with self._within(layer, "forward"):
            output = layer.forward(*inputs, **options)
            self._check(output)
        return output

    @contextmanager
    def _within(self, layer: Any, phase: str) -> Iterator[None]:
        label = getattr(layer, "label", None) or repr(layer)
        if "\n" in label:  # a table of the layers in it
            label = f"layer {layer.path} " * bool(layer.path) + type(layer).__name__
        self._labels.append((label, phase))
        try:
            yield
        finally:
            self._labels.pop()

    def _check(self, output: Any) -> None:
        for array in output if isinstance(output, tuple) else (output,):
            if isinstance(array, np.ndarray) and self.find(kernels.address_of(array)) is None:
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
            if id(layer) in self._seen:
                continue
            self._seen.add(id(layer))
            for parameter in layer.own_parameters():
                self.adopt_parameter(parameter)
            for name in layer.state_names:
                self.adopt(STATE, f"{path}.{name}".lstrip("."), getattr(layer, name))
            self._swap(vars(layer), *layer.state_names)
            heard = self._backward_of(layer)
            self._swapped.append((vars(layer), "backward", vars(layer).get("backward"), heard))
            vars(layer)["backward"] = heard

    def switch(self, layer: Any) -> None:
        """A layer is about to be switched to training or evaluation."""
        self._modes.setdefault(id(layer), (layer, layer._training))

    def adopt_parameter(self, parameter: Any) -> None:
        """Learn of a parameter: at the latest when it is first looked at."""
        if id(parameter) not in self._seen:
            self._seen.add(id(parameter))
            self.adopt(PARAMETER, parameter.name, parameter.data)
            self.adopt(GRADIENT, f"{parameter.name}.grad", parameter.grad)
            self._swap(vars(parameter), "_data", "_grad")

    def _backward_of(self, layer: Any) -> Any:
        own = layer.backward

        def backward(*inputs: Any) -> Any:
            with self._within(layer, "backward"):
                outputs = own(*inputs)
                self._check(outputs)
            return outputs

        return backward

    def optimize(self, optimizer: Any) -> None:
        """Learn of the vectors and the state of an optimizer."""
        if any(optimizer is known for known in self.optimizers):
            return
        self.optimizers.append(optimizer)
        self.watched.append(optimizer)
        flat = optimizer.flat
        for parameter in (*flat.parameters, *flat.frozen):
            self.adopt_parameter(parameter)
        self.adopt(VECTOR, "parameters", flat.data)
        self.adopt(VECTOR, "gradients", flat.grad)
        self._swap(vars(flat), "data", "grad")
        arrays = {n: a for n, a in vars(optimizer).items() if type(a) is np.ndarray}
        for name, array in arrays.items():
            self.adopt(STATE if array.dtype.names else VECTOR, name, array)
        optimizer.set_rate()
        self._rates.append((optimizer.states, optimizer.states["learning_rate"].copy()))
        self._swap(vars(optimizer), *arrays)

    def step_of(self, optimizer: Any) -> None:
        """An optimizer is about to make a step."""
        self.optimize(optimizer)
        if optimizer.scheduled() and id(optimizer) in self._stepped:
            raise RecordingError(
                f"{type(optimizer).__name__} has a schedule and makes two steps in one recorded "
                "function; record a function that makes one"
            )
        self._stepped.add(id(optimizer))

    def adopt(self, kind: str, name: str, array: Array) -> None:
        """Let kernels use memory that lives on, and remember its values."""
        if any(other.array is array and other.kind != INPUT for other in self._lasting):
            return
        region = Region(kind, name, array)
        for other in self._lasting:
            if other.kind == INPUT and other.begin < region.end and region.begin < other.end:
                raise RecordingError(
                    f"argument {other.number + 1} of the recorded function shares memory with "
                    f"{name}; pass a copy of it"
                )
        self.add(region)
        self._before.append((array, array.copy()))

    def _swap(self, owner: dict[str, Any], *names: str) -> None:
        # In place of the array, one of the same memory that NumPy must not change meanwhile.
        for name in names:
            meanwhile = owner[name].view(RecordedArray)
            self._swapped.append((owner, name, owner[name], meanwhile))
            owner[name] = meanwhile

    def first_not_finite(self) -> str:
        """Which kernel has first written a number that is not finite, or nothing."""
        for entry in self.entries:
            written = [operand.region for operand in entry.operands if operand.writes]
            if not all(is_finite(r.array) for r in written if r.kind == TEMPORARY):
                return entry.place
        return ""

    def where(self) -> str:
        """What is running: for messages."""
        label, phase = self._labels[-1]
        return f"{label}, going {phase}," if phase else label

    # --- the recording itself ---

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write down what happens inside. If it raises, all memory is as it was before."""
        kernels.set_recorder(self)
        try:
            yield
            self._check_attributes()
            self._check_rebound()
        except BaseException:
            self._rewind()
            for part, attributes in self._attributes:
                for name in plain_attributes(part).keys() - attributes.keys():
                    del vars(part)[name]
                vars(part).update(attributes)
            self._switch_back()
            raise
        finally:
            kernels.set_recorder(None)
            for owner, name, value, _ in reversed(self._swapped):
                if value is None:
                    del owner[name]
                else:
                    owner[name] = value
            self._forget_passes()

    def _switch_back(self) -> None:
        for layer, training in self._modes.values():
            layer.training = training

    def _rewind(self) -> None:
        # The earliest values last: an optimizer whose first deed follows a backward pass has its
        # vector of gradients remembered after those of the parameters in it have changed.
        for array, values in reversed(self._before):
            array[...] = values

    def outcome(self, output: Any) -> list[bytes]:
        """All bits that the function has written and returned."""
        leaves = [np.asarray(leaf) for leaf in leaves_of(output) if isinstance(leaf, np.ndarray)]
        return [x.tobytes() for x in (*(array for array, _ in self._before), *leaves)]

    def begin_again(self, output: Any) -> None:
        """Go back to how everything was before the function ran, to hear it once more."""
        self._first = self.entries, self.outcome(output)
        self._restart()
        self._switch_back()
        self.entries, self.regions = [], list(self._lasting)
        self._begins, self._temporaries = [], []
        self._stepped = set()
        self._forget_passes()

    def _restart(self) -> None:
        self._rewind()
        for states, rates in self._rates:
            states["learning_rate"] = rates

    def check_same(self, output: Any) -> None:
        """Raise RecordingError if the function has not done the same as the first time."""
        entries, outcome = self._first
        for first, second in zip_longest(entries, self.entries):
            if first is None or second is None or first.told != second.told:
                places = [entry.place if entry else "nothing" for entry in (first, second)]
                raise RecordingError(
                    f"{NOT_THE_SAME}: first {places[0]}, then {places[1]}. {ADVICE}"
                )
        if outcome != self.outcome(output):
            raise RecordingError(f"{NOT_THE_SAME}: its results differ. {ADVICE}")

    def check_replay(self, recorded: Any, inputs: tuple[Any, ...]) -> None:
        """Replay the step, and raise RecordingError if it does not do what the function did."""
        self._restart()
        # As it is timed, because that is how any program runs on any inputs.
        failed, _ = recorded.program.time(inputs, np.empty(len(recorded.entries) + 1, np.int64))
        if failed or self.outcome(recorded.result(inputs)) != self._first[1]:
            raise RecordingError(
                "the recorded function does something that its replay does not: it changes an "
                f"array with NumPy, or takes an array's values into Python. {ADVICE}"
            )

    def _check_rebound(self) -> None:
        for owner, name, _, meanwhile in self._swapped:
            if owner.get(name) is not meanwhile:
                raise RecordingError(
                    f"the recorded function sets {name!r}, an array that a layer or an optimizer "
                    "keeps from step to step, to another array; have a kernel change it in place"
                )

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

    def _forget_passes(self) -> None:
        """Drop what layers keep for a backward pass, which is memory of the recording."""
        for root in self.watched:
            for _, layer in root.layers() if hasattr(root, "layers") else ():
                layer.forget()
            if hasattr(root, "forget"):
                root.forget()


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
