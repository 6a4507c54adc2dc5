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
from minidl.nn.hooks import is_evaluating, is_recording, kept_by, note_change, stand_in
from minidl.nn.recurrent.sequence import Recurrent
from minidl.nn.watching import replaced, watches_around
from minidl.optim import Optimizer
from minidl.training.callbacks import Callback
from minidl.typing import Array

# What stands where in the track of a step: its number, the norm before clipping, the clip factor
# and the learning rate; the backward passes whose mean it is; how many losses they began with, and
# the sum of these.
STATE, NUMBER, NORM, CLIP_FACTOR, LEARNING_RATE, PASSES, LOSS_COUNT, LOSSES, STEP_SIZE = (
    slice(4),
    *range(8),
)

VALUE = "_watched_value"  # what a loss keeps from its forward pass to its backward pass

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

    Attributes
    ----------
    monitor
        Whose block is entered, in which all steps are watched; None outside of it.
    outer
        The watch of the block around that, if there is one.
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
        self.monitor: Callback | None = None
        self.outer: Any = None
        self._one = np.ones((1, 1))
        self._probes = [
            RecurrentProbe(x, path) if isinstance(x, Recurrent) else LayerProbe(x, path)
            for path, x in layers
        ]
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
        probes: list[LayerProbe | ParameterProbe] = [*self._probes, *self._parameters]
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

    # --- while steps run ---

    @contextmanager
    def noting(self, recording: bool) -> Iterator[None]:
        """Note the steps made inside the block that are due: the one that is recorded, or eager.

        If it raises, the notes of the step under way are dropped.
        """
        changes: list[tuple[Any, str, Callable[..., Any]]] = [
            (self.optimizer, "step", self._step),
            (self.model, "backward", self._backward),
            *((probe.layer, "backward", probe.backward) for probe in self._probes),
        ]
        if self.loss is not None:
            changes += [
                (self.loss, "forward", self._loss_forward),
                (self.loss, "backward", self._loss_backward),
            ]
        if not recording:
            changes.append((self.optimizer, "zero_grad", self._zero_grad))
        hooked = [
            (owner, method, partial(self._hook, recording, method, note))
            for owner, method, note in changes
        ]
        try:
            with replaced(hooked):
                yield
        except BaseException:
            self.clear()
            raise
        finally:
            if self.loss is not None:
                vars(self.loss).pop(VALUE, None)

    def _hook(
        self, recording: bool, method: str, note: Callable[..., Any], own: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return the function in place of an object's own method, which notes what that does."""

        def run(*inputs: Any, **options: Any) -> Any:
            if is_recording() != recording:
                return own(*inputs, **options)
            if recording or self.clock.due:
                return note(own, *inputs, **options)
            result = own(*inputs, **options)
            if method == "step":
                self.clock.count()
            return result

        return run

    @property
    def _sums(self) -> Array:
        return self.notes.sums("", "step")

    def _loss_forward(self, own: Any, *inputs: Any, **options: Any) -> Any:
        """Run the loss's own forward pass, and keep its value for the backward pass."""
        value, gradient = own(*inputs, **options)
        if not is_evaluating():
            kept_by(self.loss)[VALUE] = value
        return value, gradient

    def _loss_backward(self, own: Any) -> Any:
        """Run the loss's own backward pass, and note the value that goes with its gradient.

        That is the loss of the step. Values that nothing follows from are none: of validation.
        """
        gradient = own()
        if (value := kept_by(self.loss).get(VALUE)) is not None:
            number = value if is_recording() else np.asarray(value, np.float64)
            kernels.note_rows(number.reshape(1, -1), self._sums[LOSSES : LOSSES + 1])
            self._count(LOSS_COUNT)
        return gradient

    def _count(self, place: int) -> None:
        """Add 1 to a number of the step."""
        kernels.note_rows(stand_in("state", "one", self._one), self._sums[place : place + 1])

    def _backward(self, own: Any, *inputs: Any, **options: Any) -> Any:
        """Run the backward pass of the whole model, and count it if passes are averaged."""
        result = own(*inputs, **options)
        if getattr(self.loss, "reduction", "mean") == "mean":
            self._count(PASSES)
        self.notes.collect()
        return result

    def _zero_grad(self, own: Callable[[], Any]) -> Any:
        """Clear the gradients, and drop what was noted of the passes that they came from."""
        self.clear()
        return own()

    def _step(self, own: Callable[[], Any]) -> Any:
        """Make the optimizer's step, and a record of it."""
        if not is_recording():
            self.make_room()
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
    monitor
        Has made it.
    watch
        Of the model and the optimizer.
    """

    def __init__(self, monitor: Callback, watch: StepWatch) -> None:
        self.monitor, self.watch = monitor, watch
        self._noting = ExitStack()

    def __enter__(self) -> StepWatch:
        if self.watch.monitor is not None:
            raise RuntimeError(
                "GradientMonitor: a block of this monitor is entered already, and one is enough"
            )
        self._noting.enter_context(self.watch.noting(recording=False))
        self.watch.monitor, self.watch.outer = self.monitor, _kernels.watch()
        note_change()  # a recorded step that this watch knows may be one of the outer block's, too
        _kernels.set_watch(self.watch)
        return self.watch

    def __exit__(self, *error: Any) -> None:
        watch = self.watch
        if _kernels.watch() is watch:
            _kernels.set_watch(watch.outer)
        else:  # a block inside this one goes on
            for inner in watches_around():
                if inner.outer is watch:
                    inner.outer = watch.outer
        watch.monitor = watch.outer = None
        self._noting.__exit__(*error)
