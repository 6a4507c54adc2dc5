"""Where layers, losses and optimizers meet recording.

While ``minidl.record`` records a step, this thread has a recorder (``minidl/recording/trace.py``).
The recorder needs three things from everything that takes part in the step: arrays that live longer
than the step reach kernels through ``stand_in``; what a forward pass keeps for the backward pass is
stored in ``kept_by(owner)``; and an object registers before it changes arrays or modes of its own.
A finished recording needs a fourth: ``note_change`` when something that it relies on has changed.

Without a recorder, each function costs a look at one thread-local pointer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from minidl import _kernels
from minidl.typing import Array

active_recorder = _kernels.recorder  # the recorder of this thread, or None
note_change = _kernels.note_change

# A token of the forward pass that this thread is in: None outside of one, False inside
# ``evaluating()``, where nothing is kept for a backward pass.
forward_pass, in_forward_pass = _kernels.forward_pass, _kernels.in_forward_pass
# A context in which layers evaluate on this thread, whatever their modes; see hooks.pyx.
evaluating, is_evaluating = _kernels.evaluating, _kernels.is_evaluating


class InvalidatesRecordings:
    """Base of objects on whose public attributes recordings rely: setting one invalidates them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            note_change()
        object.__setattr__(self, name, value)


def is_recording() -> bool:
    """Return whether a step is being recorded, so that the values of arrays are not known yet."""
    return active_recorder() is not None


def stand_in(kind: str, name: str, array: Array) -> Array:
    """Return the array to give to kernels in place of one that lives longer than a step.

    Without a recorder that is the array itself, else the recorder's copy of it.
    """
    recorder = active_recorder()
    return array if recorder is None else recorder.adopt(kind, name, array)


def kept_by(owner: Any) -> dict[str, Any]:
    """Return the dict in which a layer or a loss keeps what its backward pass needs.

    That is its own ``__dict__``; during recording one of the recorder's, so that the layer itself
    does not change.
    """
    recorder = active_recorder()
    return vars(owner) if recorder is None else recorder.kept_by(owner)


def run_forward(owner: Any, inputs: tuple[Any, ...], options: dict[str, Any] | None = None) -> Any:
    """Call ``owner.forward(*inputs, **options)``, under the owner's name in a recording."""
    recorder = active_recorder()
    if recorder is None:
        return owner.forward(*inputs, **(options or {}))
    return recorder.forward(owner, inputs, options or {})


def named_within(part: str) -> AbstractContextManager[None]:
    """Have a recording name a part, such as a head, before the losses computed in the block."""
    recorder = active_recorder()
    return nullcontext() if recorder is None else recorder.named_within(part)


def register(owner: Any) -> None:
    """Tell the recorder that a layer's or an average's own arrays are about to change."""
    if (recorder := active_recorder()) is not None:
        recorder.watch(owner)


def register_mode(layer: Any) -> None:
    """Tell the recorder that a layer is about to be switched to training or evaluation."""
    if (recorder := active_recorder()) is not None:
        recorder.switch(layer)


def register_optimizer(optimizer: Any) -> None:
    """Tell the recorder that an optimizer's vectors or hyper-parameters are about to be used."""
    if (recorder := active_recorder()) is not None:
        recorder.optimize(optimizer)


def register_step(optimizer: Any) -> bool:
    """Tell the recorder that an optimizer makes a step; return whether there is a recorder."""
    if (recorder := active_recorder()) is None:
        return False
    recorder.step_of(optimizer)
    return True
