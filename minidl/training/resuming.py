"""Trainings on disk: all that ``fit`` needs to go on as if it had never ended.

A file has what ``minidl.save`` keeps of a model and its optimizer, so that ``minidl.load`` opens it
too. Beside that it has the averages of an ``EMA``, the states of stateful layers, and for all else
words and tensors: generators, schedules, the history, the place within the epoch, and what
callbacks have kept.
"""

from __future__ import annotations

import json
import warnings
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import numpy as np
from numpy.random import Generator

from minidl.files import AnyPath
from minidl.nn import Layer
from minidl.optim.schedules import schedule_from, schedule_words
from minidl.saving.architecture import NotDescribableError, described, generator_words
from minidl.saving.contents import (
    COLUMNS_OF_TRAINER,
    MODEL,
    STATE_OF_TRAINING,
    TRAINING,
    array_of,
    check_format,
    check_like,
    check_names,
    check_optimizer,
    check_state,
    places,
)
from minidl.saving.model_file import contents
from minidl.saving.packing import packed, unpacked
from minidl.saving.rebuilding import decode_generator
from minidl.saving.tensor_file import TensorFile, opened, write_tensor_file
from minidl.training.history import History, difference
from minidl.training.plan import Place
from minidl.typing import Array

VERSION = 1
KEPT = f"{TRAINING}kept/"  # begins the names of arrays that no object has a place for


@dataclass
class Resumption:
    """Where a training was: what ``fit`` needs beside model, optimizer and averages.

    Attributes
    ----------
    history
        The epochs that were complete.
    place
        Within the next one, or None.
    stop
        Why the training was about to end, or None.
    callbacks
        What callbacks have kept, by the names of their classes.
    rows, step
        How many rows there were to train on; batch size and batches of a step.
    generators
        Generators, and copies of them in the states that they had then.
    names
        Of the values of an epoch: losses, metrics, and what callbacks add.
    """

    history: History = field(default_factory=History)
    place: Place | None = None
    stop: str | None = None
    callbacks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    rows: int = 0
    step: tuple[int, int] = (0, 0)
    generators: list[tuple[Generator, Generator]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def restore_generators(self) -> None:
        """Set generators to the states that they had: trying out a layer may draw from its own."""
        for mine, then in self.generators:
            mine.bit_generator.state = then.bit_generator.state

    def check_names(self, names: list[str]) -> None:
        """Raise ValueError, with what differs, unless epochs have the values that they had."""
        before = self.names or list(self.history)
        found = difference(before, names) if before else ""
        if not found and self.place is not None and before and before != names:
            found = f"the values {', '.join(names)} in this order, which was {', '.join(before)}"
        if found:
            raise ValueError(
                f"fit: unlike the training that was loaded, this one has {found}; give the Trainer "
                "the same loss and metrics, and fit the same validation and callbacks"
            )

    def check(self, rows: int, step: tuple[int, int], transforms: bool) -> None:
        """Raise ValueError if these rows and steps cannot go on within an epoch."""
        if self.place is not None and transforms is (self.place.seed is None):
            raise ValueError(
                "fit: the training that was loaded is within an epoch "
                f"{'without' if transforms else 'with'} a transform; give the same as before"
            )
        if self.place is not None and (rows, step) != (self.rows, self.step):
            (size, accumulate), (before, accumulated) = step, self.step
            raise ValueError(
                f"fit: the training that was loaded is within an epoch of {self.rows:,} rows, "
                f"batch_size={before}, accumulate={accumulated}; got {rows:,} rows, "
                f"batch_size={size}, accumulate={accumulate}"
            )


def save_training(trainer: Any, path: AnyPath) -> None:
    """Write a ``Trainer`` with all that its training needs to go on."""
    if trainer.ema is not None and trainer.ema.entered:
        raise RuntimeError(
            "Trainer.save inside ema.average(), where the weights are the averages: save outside"
        )
    tensors, own = contents(trainer.model, trainer.optimizer)
    tensors |= _beside(trainer)
    resumption = _resumption_of(trainer)
    place = resumption.place
    text, arrays = packed(
        {
            "version": VERSION,
            # Arrays: as text, those of a hundred thousand epochs would not fit into a header.
            "history": {name: np.array(v) for name, v in resumption.history.items()},
            "seconds": np.array(resumption.history.seconds),
            "place": None if place is None else (place.order, place.done, place.tally, place.seed),
            "stop": resumption.stop,
            "callbacks": resumption.callbacks,
            "names": resumption.names,
            "rows": resumption.rows,
            "step": resumption.step,
            "rng": generator_words(trainer.rng),
            "generators": [generator_words(g) for g in _generators(trainer.model)],
            "schedules": [schedule_words(s) for s in trainer.optimizer.schedules],
        },
        KEPT,
    )
    own[STATE_OF_TRAINING] = text
    if any(trainer.columns):
        own[COLUMNS_OF_TRAINER], _ = packed(trainer.columns, KEPT)
    write_tensor_file(path, tensors | arrays, {}, own)


def load_training(trainer: Any, path: AnyPath) -> Resumption:
    """Fill the parts of a ``Trainer`` with what a file holds; return where its training was.

    All is checked first and copied then: if anything is wrong, nothing has changed.
    """
    model, optimizer = trainer.model, trainer.optimizer
    if trainer.ema is not None:
        trainer.ema.follow_state(model)
    with opened(path) as file:
        check_format(file)
        text = file.words.get(STATE_OF_TRAINING)
        if text is None:
            raise file.error(
                "holds a model, and no training: minidl.load(path, into=model) reads it, and "
                "Trainer.save writes what a training needs to go on"
            )
        kept = places(model, optimizer)
        check_names(file, kept, optimizer)
        beside = _beside(trainer)
        _check_beside(file, beside)
        for name, place in {**kept, **beside}.items():
            check_like(file, name, place)
        file.check_layout()
        names = {**kept, **beside, **{n: None for n in file.tensors if n.startswith(KEPT)}}
        found = file.read(names)
        try:
            check_state(model, found)
            check_optimizer(optimizer, found)
            state = unpacked(text, found)
            resumption, schedules = _decoded(trainer, state), _schedules(trainer, state)
            columns = unpacked(file.words.get(COLUMNS_OF_TRAINER, '{"tuple": []}'), {})
            columns = [None if part is None else tuple(map(str, part)) for part in columns]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise file.error(f"its training cannot go on here: {error}") from None
        _warn_of_numbers(model, file)
    resumption.restore_generators()
    trainer.columns = tuple(columns)
    for group, schedule in zip(optimizer.groups, schedules, strict=True):
        if schedule != group.schedule:
            group.set("lr", group["lr"] if schedule is None else schedule)
    arrays = [*(array_of(place) for place in kept.values()), *beside.values()]
    values = [found[name] for name in (*kept, *beside)]
    # One call that runs in C from end to end: no signal handler comes between two arrays.
    deque(map(np.ndarray.__setitem__, arrays, repeat(...), values), maxlen=0)
    return resumption


def losses_of(path: AnyPath) -> list[float]:
    """Return the losses of the epochs that the training of a file has completed.

    Raises
    ------
    ModelFileError
        If the file is damaged, or holds no training.
    OSError
        If it cannot be read.
    """
    with opened(path) as file:
        file.check_layout()
        found = file.read({name: None for name in file.tensors if name.startswith(KEPT)})
        try:
            history = unpacked(file.words[STATE_OF_TRAINING], found)["history"]
            return list(map(float, history.get("loss", [])))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise file.error(f"its training cannot be read: {error}") from None


def _warn_of_numbers(model: Layer, file: TensorFile) -> None:
    """Warn if a plain number of a layer of the user's is another one in the file."""
    try:
        there = json.loads(file.words.get(MODEL, "{}"))["layers"]
        here = json.loads(described(model)[0])["layers"]
        pairs = [
            (f"{ours['class'].rpartition('.')[2]}.{name}", _number(held), _number(was))
            for ours, theirs in zip(here, there, strict=True)
            for name, held in ours["holds"].items()
            if "module" in ours and (was := theirs["holds"].get(name)) != held
        ]
    except (AttributeError, KeyError, NotDescribableError, RecursionError, TypeError, ValueError):
        return  # a model that holds what no file can
    for name, number, was in pairs:
        if number is not None and was is not None and number != was:
            warnings.warn(
                f"Trainer.load: {name} was {was} when the training was saved, and is {number}: it "
                "stays as it is here; an array that state_names names would be read",
                RuntimeWarning,
                stacklevel=4,
            )
            return


def _number(words: Any) -> float | None:
    """Return the number that words of an architecture stand for; None if that is no number."""
    if isinstance(words, dict):
        words = words.get("scalar", words)
    if isinstance(words, dict) and "float" in words:  # infinity or NaN
        words = float(words["float"])
    return words if type(words) in (int, float) else None


def _decoded(trainer: Any, state: dict[str, Any]) -> Resumption:
    """Return where a training was."""
    if state["version"] != VERSION:
        raise ValueError(f"it is of version {state['version']}, and this minidl reads {VERSION}")
    history = History()
    columns = {name: list(map(float, column)) for name, column in state["history"].items()}
    for epoch, seconds in enumerate(state["seconds"]):
        history.append({name: column[epoch] for name, column in columns.items()}, seconds)
    place = state["place"] and Place(*state["place"])
    if place is not None:
        order = np.sort(place.order)
        whole = type(place.done) is int and 0 <= place.done <= len(order) == state["rows"]
        if not whole or order[0] < 0 or order[-1] >= state["rows"]:
            raise ValueError("the order of its rows is damaged")
        if place.seed is not None and (type(place.seed) is not int or place.seed < 0):
            raise ValueError("the seed of its transform is damaged")
        place = replace(place, order=place.order.astype(np.intp))
    callbacks = [(str(name), dict(kept)) for name, kept in state["callbacks"]]
    step = (int(state["step"][0]), int(state["step"][1]))
    generators = _saved_generators(trainer, state)
    rows = int(state["rows"])
    names = list(map(str, state.get("names", history)))  # an older file has none
    return Resumption(history, place, state["stop"], callbacks, rows, step, generators, names)


def _saved_generators(trainer: Any, state: dict[str, Any]) -> list[tuple[Generator, Generator]]:
    """Return the generators of trainer and layers, each with one in the state that was saved."""
    own = [trainer.rng, *_generators(trainer.model)]
    words = [state["rng"], *state["generators"]]
    if len(own) != len(words):
        raise ValueError(f"its layers have {len(words) - 1} generators, and here {len(own) - 1}")
    decoded = [decode_generator(word) for word in words]
    for mine, other in zip(own, decoded, strict=True):
        if type(mine.bit_generator) is not type(other.bit_generator):
            there, here = (type(g.bit_generator).__name__ for g in (other, mine))
            raise ValueError(f"one of its generators is a {there}, and here a {here}")
    return list(zip(own, decoded, strict=True))


def _schedules(trainer: Any, state: dict[str, Any]) -> list[Any]:
    """Return the schedules of the groups as they were saved."""
    present = trainer.optimizer.schedules
    if len(state["schedules"]) != len(present):
        raise ValueError("its optimizer has another number of groups")
    return list(map(schedule_from, state["schedules"], present))


def _resumption_of(trainer: Any) -> Resumption:
    """Return where the training of a trainer is: within ``fit``, or after it."""
    plan = trainer.plan
    if plan is None:
        return trainer.resumption or Resumption(trainer.history)
    epoch = plan.course.epoch
    return Resumption(
        trainer.history,
        None if epoch is None else epoch.place(),
        plan.stop.why,
        plan.callbacks.resume_states(),
        len(plan.data),
        (plan.batch_size, plan.accumulate),
        names=plan.callbacks.names,
    )


def _beside(trainer: Any) -> dict[str, Array]:
    """Return arrays of a training that no model file has, by name: carried states, averages."""
    model: Layer = trainer.model
    kept = model.saved_state()
    found = {
        f"{TRAINING}state/{name}": array
        for name, array in model.state().items()
        if name not in kept
    }
    if trainer.ema is not None:
        averages = [*trainer.ema.averages, *trainer.ema.state_averages]
        found |= {f"{TRAINING}ema/{number}": array for number, array in enumerate(averages)}
    return found


def _check_beside(file: TensorFile, beside: dict[str, Array]) -> None:
    """Raise ModelFileError unless the file has the averages and carried states that are here."""
    there = {n for n in file.tensors if n.startswith(TRAINING) and not n.startswith(KEPT)}
    if there != beside.keys():
        names = there ^ beside.keys()
        what = "averages of an EMA" if any("/ema/" in n for n in names) else "states of layers"
        raise file.error(
            f"holds {len(there)} {what if there else 'averages or states'}, and the trainer has "
            f"{len(beside)}: it must be built as the one that was saved"
        )


def _generators(model: Layer) -> list[Generator]:
    """Return the generators that layers hold, each once."""
    found: dict[int, Generator] = {}

    def look(value: Any) -> None:
        if isinstance(value, Generator):
            found[id(value)] = value
        elif isinstance(value, (list, tuple)):
            deque(map(look, value), maxlen=0)
        elif isinstance(value, dict):
            look(tuple(value.values()))

    for _, layer in model.layers():
        look(tuple(vars(layer).values()))
    return list(found.values())
