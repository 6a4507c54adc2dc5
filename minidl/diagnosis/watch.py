"""Watching the steps of one model and one optimizer, whoever makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np

from minidl import _kernels, kernels
from minidl.diagnosis.probes import LayerProbe, ParameterProbe, RecurrentProbe
from minidl.diagnosis.tracks import Clock, Notebook
from minidl.nn import Dropout, Flatten, Identity, Layer, Loss
from minidl.nn.hooks import is_recording, stand_in
from minidl.nn.recurrent.sequence import Recurrent
from minidl.nn.watching import Replacement, replaced
from minidl.optim import Optimizer
from minidl.typing import Array

# What stands where in the track of a step: its number, the norm before clipping, the clip factor
# and the learning rate; the backward passes whose mean it is, and the sum of their losses.
STATE, NUMBER, NORM, CLIP_FACTOR, LEARNING_RATE, PASSES, LOSSES, STEP_SIZE = slice(4), *range(7)

PASSIVE = (Dropout, Flatten, Identity)  # which only pass on what others compute


def watched_layers(model: Layer) -> list[tuple[str, Layer]]:
    """List (path, layer) of the layers that compute, in forward order: no containers."""
    inside: set[int] = set()
    found = []
    for path, layer in model.layers():
        if id(layer) in inside or isinstance(layer, PASSIVE):
            continue
        if isinstance(layer, Recurrent):
            inside |= {id(inner) for _, inner in layer.layers()}
        elif any(layer.children()) and not layer.own_parameters():
            continue
        found.append((path, layer))
    return found


class StepWatch:
    """Notes what kernels see of a step, where it is due.

    Parameters
    ----------
    model, optimizer, loss
        Whose steps they are; without the loss, its value is not noted.
    layers
        (path, layer) of those to watch.
    every
        Steps from one that is watched to the next.
    known
        Notes of the same model by another watch, to go on with if they are of the same things.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss: Loss | None,
        layers: list[tuple[str, Layer]],
        every: int,
        known: Notebook | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.layers = layers
        self._one = np.ones((1, 1))
        self._probes = {
            id(x): RecurrentProbe(x, path) if isinstance(x, Recurrent) else LayerProbe(x, path)
            for path, x in layers
        }
        places = {
            id(parameter): slice(start, start + parameter.size)
            for parameter, start in zip(
                optimizer.flat.parameters, optimizer.flat.starts, strict=True
            )
        }
        self._parameters = [
            ParameterProbe(parameter, path, places.get(id(parameter)))
            for path, parameter in self._named_parameters()
        ]
        probes: list[LayerProbe | ParameterProbe] = [*self._probes.values(), *self._parameters]
        layout = [("", "step", STEP_SIZE), *(part for probe in probes for part in probe.layout())]
        fits = known is not None and known.layout == layout
        self.notes = known if known is not None and fits else Notebook(Clock(every), layout)
        self.clock = self.notes.clock
        for probe in probes:
            probe.notes = self.notes

    def _named_parameters(self) -> Iterator[tuple[str, Any]]:
        """Yield (path, parameter) of all parameters of the watched layers, each once."""
        seen: set[int] = set()
        names = {id(parameter): path for path, parameter in self.model.named_parameters()}
        for _, layer in self.layers:
            for parameter in parameters_of(layer):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield names[id(parameter)], parameter

    @property
    def version(self) -> int:
        """Rises when recordings of watched steps no longer hold."""
        return self.notes.version

    def is_of(self, model: Layer, optimizer: Optimizer, loss: Loss | None) -> bool:
        """Whether these are the parts that are watched; without a loss, any loss."""
        parts = self.model is model and self.optimizer is optimizer
        return parts and (loss is None or self.loss is loss)

    def make_room(self) -> None:
        """See to it that the journals have room for another record."""
        if self.clock.is_full:
            self.notes.read_journals()

    def clear(self) -> None:
        """Drop the notes of a step that has come to nothing."""
        self.notes.clear()

    # --- while a step runs ---

    @contextmanager
    def noting(self, recording: bool) -> Iterator[None]:
        """Note what happens in a step inside the block: one that is recorded, or that runs.

        If it raises, the notes of the step are dropped.
        """
        if not recording:
            self.make_room()
        step = self.optimizer, "step", partial(self._hook, recording, self.make_step)
        with self.noting_passes(recording), replaced([step]):
            yield

    @contextmanager
    def noting_passes(self, recording: bool) -> Iterator[None]:
        """Note the passes of a step, but not what the optimizer does."""
        hook = partial(self._hook, recording)
        changes: list[tuple[Any, str, Any]] = [
            (self.model, "backward", partial(hook, self._backward))
        ]
        changes += [
            (layer, "backward", partial(hook, self._probes[id(layer)].backward))
            for _, layer in self.layers
        ]
        if self.loss is not None:
            changes.append((self.loss, "forward", partial(hook, self._loss)))
        try:
            with replaced(changes):
                yield
        except BaseException:
            self.clear()
            raise

    @staticmethod
    def _hook(recording: bool, note: Callable[..., Any], own: Callable[..., Any]) -> Any:
        """Return the function in place of an object's own method, which notes what that does."""

        def run(*inputs: Any, **options: Any) -> Any:
            if is_recording() != recording:
                return own(*inputs, **options)
            return note(own, *inputs, **options)

        return run

    @property
    def _sums(self) -> Array:
        return self.notes.sums("", "step")

    def _loss(self, own: Any, *inputs: Any, **options: Any) -> Any:
        """Run the loss's own forward pass, and note its value."""
        value, gradient = own(*inputs, **options)
        number = value if is_recording() else np.asarray(value, np.float64)
        kernels.note_rows(number.reshape(1, 1), self._sums[LOSSES : LOSSES + 1])
        return value, gradient

    def _backward(self, own: Any, *inputs: Any, **options: Any) -> Any:
        """Run the backward pass of the whole model, and count it if passes are averaged."""
        result = own(*inputs, **options)
        if getattr(self.loss, "reduction", "mean") != "sum":
            one = stand_in("state", "one", self._one)
            kernels.note_rows(one, self._sums[PASSES : PASSES + 1])
        self.notes.collect()
        return result

    def make_step(self, own: Callable[[], Any]) -> Any:
        """Make the optimizer's step, and a record of it."""
        before = kernels.copy(self.optimizer.flat.data)
        for probe in self._parameters:
            probe.note_gradient()
        try:
            norm = own()
        except BaseException:  # nothing was changed
            self.clear()
            raise
        for probe in self._parameters:
            probe.note_change(before)
        kernels.note_state(self.optimizer.state, self.clock.shared, self._sums[STATE])
        self.notes.collect()
        self.notes.store()
        return norm


def parameters_of(layer: Layer) -> list[Any]:
    """Return the parameters of a layer itself; of a recurrent one, those of its cells."""
    return layer.parameters() if isinstance(layer, Recurrent) else layer.own_parameters()


class Block:
    """``with`` block in which steps are watched, whoever makes them, eager or recorded.

    Parameters
    ----------
    watch
        Of the model and the optimizer.
    """

    def __init__(self, watch: StepWatch) -> None:
        self.watch = watch
        self._passes = ExitStack()
        self._noting = False

    def __enter__(self) -> StepWatch:
        optimizer = self.watch.optimizer
        self._before = _kernels.watch(), vars(optimizer).get("step")
        vars(optimizer)["step"] = Replacement(optimizer, partial(self._step, optimizer.step))
        self._look_ahead()
        _kernels.set_watch(self.watch)
        return self.watch

    def __exit__(self, *error: Any) -> None:
        watch, step = self._before
        _kernels.set_watch(watch)
        vars(self.watch.optimizer).pop("step", None)
        if step is not None:  # of a block around this one
            vars(self.watch.optimizer)["step"] = step
        self._passes.__exit__(*error)

    def _step(self, own: Callable[[], Any]) -> Any:
        """Make an eager step, watched if its passes were; and see whether the next one is due."""
        if is_recording():
            return own()
        if self._noting:
            self.watch.make_room()
            norm = self.watch.make_step(own)
        else:
            norm = own()
            self.watch.clock.count()
        self._look_ahead()
        return norm

    def _look_ahead(self) -> None:
        """Note the passes of the next step if it is due, and only then."""
        if self.watch.clock.due != self._noting:
            self._noting = self.watch.clock.due
            self._passes.close()
            if self._noting:
                self._passes.enter_context(self.watch.noting_passes(recording=False))
