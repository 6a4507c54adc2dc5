"""GradientMonitor as it is used: nested blocks, copies, shared layers, wrong arguments, reports."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_helpers import (
    assert_same_records,
    assert_same_training,
    data,
    fit,
    step_of,
    trainer_of,
)

import minidl
from minidl import GradientMonitor, nn, optim
from minidl.diagnosis import tracks
from minidl.nn.watching import replaced
from minidl.recording import RecordingError

Parts = tuple[nn.Sequential, nn.CrossEntropyLoss, optim.SGD]
X, Y = data(32)


def parts(activation: Callable[[], nn.Layer] = nn.ReLU, lr: Any = 0.1) -> Parts:
    model = nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 3), rng=0)
    return model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr)


def train(made: Parts, steps: int = 3, record: bool = False) -> list[float]:
    """Make steps; returns their losses."""
    model, loss, optimizer = made
    step = step_of(model, loss, optimizer)
    step = minidl.record(step) if record else step
    return [float(step(X, Y)) for _ in range(steps)]


def watched(made: Parts, steps: int = 3, every: int = 1) -> GradientMonitor:
    model, loss, optimizer = made
    monitor = GradientMonitor(every=every)
    with monitor.watch(model, optimizer, loss):
        train(made, steps)
    return monitor


def assert_untouched(made: Parts) -> None:
    model, loss, optimizer = made
    for owner in (loss, optimizer, *(layer for _, layer in model.layers())):
        assert not {"backward", "step", "forward", "zero_grad"} & vars(owner).keys()
    assert minidl._kernels.watch() is None


# --- a step that fails ------------------------------------------------------------------


@pytest.mark.parametrize("bad", [2, 3])
@pytest.mark.parametrize("every", [1, 2])
def test_a_recorded_step_that_fails_names_the_layer(backend: str, every: int, bad: int) -> None:
    model, loss, optimizer = parts()
    step, monitor = minidl.record(step_of(model, loss, optimizer)), GradientMonitor(every=every)
    found = "is not finite" if minidl._kernels.isa == "reference" else "of layer 0 Linear"
    with monitor.watch(model, optimizer, loss):
        for number in range(5):
            if number == bad:
                with pytest.raises(FloatingPointError, match=found):
                    step(X * np.float32(np.nan), Y)
                with pytest.raises(ValueError, match="label 7 in row 0"):
                    step(X, np.full_like(Y, 7))
            step(X, Y)
    assert monitor.steps.tolist() == list(range(1, 6, every))
    assert_same_records(monitor, watched(parts(), 5, every))


# --- layers that stand at several places ------------------------------------------------


@pytest.mark.parametrize("kind", [nn.ReLU, nn.Softsign, nn.Tanh])
def test_an_activation_may_stand_at_places_of_different_widths(backend: str, kind: Any) -> None:
    def of(first: nn.Layer, second: nn.Layer) -> nn.Sequential:
        layers = [nn.Linear(6, 8), first, nn.Linear(8, 5), second, nn.Linear(5, 3)]
        model = nn.Sequential(*layers, rng=0)
        model[0].bias.data[:3] = model[2].bias.data[:1] = -99
        return model

    shared, eager = kind(), kind()
    monitors = [GradientMonitor(every=1) for _ in range(3)]
    models = [of(shared, shared), of(eager, eager), of(kind(), kind())]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # that it trains eagerly
        for model, monitor, record in zip(models, monitors, (True, False, True), strict=True):
            fit(trainer_of(model, record), monitor, epochs=2)
    assert_same_training(models[0], models[1])
    assert_same_records(monitors[0], monitors[1])
    dead = monitors[2]["dead"][:, [1, 3]] @ [8, 5] / 13
    np.testing.assert_allclose(monitors[0]["dead"][:, 1], dead)
    assert (dead >= 4 / 13 if kind is nn.ReLU else dead == 0).all()


def test_units_are_told_apart_by_dtype(backend: str) -> None:
    model, monitor = parts()[0], GradientMonitor(every=1)
    model[0].bias.data[:4] = -99
    fit(trainer_of(model), monitor)
    model.astype(np.float64)
    trainer = trainer_of(model)
    fit(trainer, monitor)
    assert monitor["dead"][:, 1].tolist() == [0.5] * 12


def test_a_layer_of_ever_other_widths_has_no_units(backend: str) -> None:
    class Wide(nn.Layer):
        """y = mean of relu(x, x, x ...)."""

        def __init__(self) -> None:
            self.inner = nn.ReLU()
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            self.save()
            return self.inner(np.tile(x, self.calls))[:, : x.shape[1]]

        def backward(self, dy: Any) -> Any:
            self.saved(dy)
            wide = np.zeros((len(dy), dy.shape[1] * self.calls), dy.dtype)
            wide[:, : dy.shape[1]] = dy
            return self.inner.backward(wide)[:, : dy.shape[1]]

    model, monitor = nn.Sequential(nn.Linear(6, 3, rng=0), Wide()), GradientMonitor(every=1)
    loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1)
    with monitor.watch(model, optimizer, loss):
        train((model, loss, optimizer), 40)
    notes: Any = monitor._watch
    assert len(notes.notes._tracks) <= 1 + tracks.MOST_WIDTHS
    assert np.isfinite(monitor["gradient"]).all()


# --- memory -----------------------------------------------------------------------------


def test_sequences_of_many_lengths_take_no_more_than_the_longest(backend: str) -> None:
    model = nn.Sequential(nn.LSTM(4, 3), nn.Softsign(), nn.Linear(3, 2), rng=0)
    loss, optimizer = nn.MSELoss(), optim.SGD(model.parameters(), lr=0.0)
    x = np.random.default_rng(0).normal(size=(2, 70, 4)).astype(np.float32)
    monitor = GradientMonitor(every=1)

    def step(length: int) -> None:
        loss(model(x[:, :length]), x[:, :length, :2])
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()

    def numbers() -> int:
        notes = known._watch.notes
        ones = sum(array.size for array in notes._ones.values())
        return ones + sum(records.size for t in notes._tracks for records in t._pieces)

    lengths = [*range(1, 71), 70]
    with monitor.watch(model, optimizer, loss):
        for length in lengths:
            step(length)
    known: Any = monitor
    assert monitor.over_time["0"].shape == (71, 70)
    total = numbers()
    alone = known = GradientMonitor(every=1)
    with alone.watch(model, optimizer, loss):
        for _ in lengths:
            step(70)
    assert total < 4 * numbers()
    np.testing.assert_array_equal(monitor.over_time["0"][[-2, -1]], alone.over_time["0"][:2])
    assert ((monitor.over_time["0"] > 0).sum(axis=1) == lengths).all()


# --- the loss of a step -----------------------------------------------------------------


@pytest.mark.parametrize("record", [False, True])
def test_the_loss_is_the_one_whose_backward_pass_was_made(backend: str, record: bool) -> None:
    model, loss, optimizer = made = parts()
    step, monitor = step_of(*made), GradientMonitor(every=1)
    step = minidl.record(step) if record else step
    values = []
    with monitor.watch(model, optimizer, loss):
        for _ in range(4):
            loss(model(X[:5]), Y[:5])  # validation, before and after
            values.append(float(step(X, Y)))
            loss(model(X[:5]), Y[:5])
            with nn.evaluating():
                loss(model(X), Y)
    np.testing.assert_allclose(monitor.scalars["loss"], values, rtol=1e-7)
    assert_untouched(made)
    assert vars(loss).keys() - {"_gradient"} == vars(nn.CrossEntropyLoss()).keys()


def test_values_between_forward_and_backward_do_not_count(backend: str) -> None:
    model, loss, optimizer = parts()
    monitor = GradientMonitor(every=1)
    with monitor.watch(model, optimizer, loss):
        value = loss(model(X), Y)
        with nn.evaluating():
            loss(model(X[:3]), Y[:3])
        model.backward(loss.backward())
        optimizer.step()
    assert monitor.scalars["loss"] == [value]


def test_passes_whose_gradient_was_cleared_do_not_count(backend: str) -> None:
    made, plain = parts(), watched(parts())
    model, loss, optimizer = made
    monitor = GradientMonitor(every=1)
    with monitor.watch(model, optimizer, loss):
        for _ in range(3):
            loss(model(X[:7]), Y[:7])  # looked at, and thrown away
            model.backward(loss.backward())
            train(made, 1)
    for name in ("gradient", "weight_gradient", "update", "mean"):
        np.testing.assert_array_equal(monitor[name], plain[name], name)
    np.testing.assert_array_equal(monitor.scalars["loss"], plain.scalars["loss"])


def test_losses_of_rows_are_added_up_and_another_loss_is_not_known(backend: str) -> None:
    totals = []
    for reduction in ("none", "sum"):
        model, monitor = nn.Sequential(nn.Linear(6, 3), rng=0), GradientMonitor(every=1)
        loss, optimizer = nn.MSELoss(reduction), optim.SGD(model.parameters(), lr=0.0)
        with monitor.watch(model, optimizer, loss):
            loss(model(X), X[:, :3])
            model.backward(loss.backward())
            optimizer.step()
        totals.append((monitor.scalars["loss"][0], monitor["gradient"][0, 0]))
    np.testing.assert_allclose(*totals, rtol=1e-6)
    model, loss, optimizer = parts()
    with monitor.watch(model, optimizer, nn.CrossEntropyLoss()):
        train((model, loss, optimizer), 2)
    assert np.isnan(monitor.scalars["loss"]).all()


# --- blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("record", [True, False])
def test_fit_inside_a_block_is_watched(backend: str, record: bool, accumulate: int) -> None:
    histories, monitors, models = [], [], []
    for in_block in (True, False):
        trainer, monitor = trainer_of(parts()[0], record), GradientMonitor(every=2)
        options: Any = {"epochs": 2, "accumulate": accumulate, "validation": 0.25}
        if in_block:
            with monitor.watch(trainer.model, trainer.optimizer, trainer.loss):
                histories.append(fit(trainer, None, **options))
        else:
            histories.append(fit(trainer, monitor, **options))
        monitors.append(monitor)
        models.append(trainer.model)
    assert dict(histories[0]) == dict(histories[1])
    assert len(monitors[0])
    assert monitors[0].epochs.tolist() == monitors[1].epochs.tolist()
    assert_same_records(*monitors)
    assert_same_training(*models)


def test_fit_inside_a_block_has_one_monitor(backend: str) -> None:
    trainer, monitor = trainer_of(parts()[0]), GradientMonitor(every=1)
    other = trainer_of(parts()[0])
    with monitor.watch(trainer.model, trainer.optimizer, trainer.loss):
        fit(trainer, monitor)  # the same
        assert len(monitor) == 6
        with pytest.raises(ValueError, match="2 callbacks watch the steps"):
            fit(trainer, GradientMonitor())
        fit(other, None)  # which nobody watches
        with pytest.raises(RuntimeError, match="inside its block it watches the steps of one"):
            fit(other, monitor)
    assert len(monitor) == 6


def test_a_block_is_entered_once_at_a_time(backend: str) -> None:
    model, loss, optimizer = made = parts()
    monitor = GradientMonitor(every=1)
    block = monitor.watch(model, optimizer, loss)
    with block:
        for again in (block, monitor.watch(model, optimizer, loss)):
            with pytest.raises(RuntimeError, match="a block of this monitor is entered already"):
                again.__enter__()
        train(made, 1)
    assert_untouched(made)
    for _ in range(2):
        with block:
            train(made, 1)
    assert_untouched(made)
    assert_same_records(monitor, watched(parts(), 3))


@pytest.mark.parametrize("first_out", ["inner", "outer"])
def test_blocks_may_be_nested_and_left_in_any_order(backend: str, first_out: str) -> None:
    model, loss, optimizer = made = parts()
    monitors = [GradientMonitor(every=every) for every in (2, 1, 3)]
    blocks = [monitor.watch(model, optimizer, loss) for monitor in monitors]
    for block in blocks:
        block.__enter__()
    train(made, 7)
    for block in blocks[:: 1 if first_out == "outer" else -1]:
        block.__exit__(None, None, None)
        train(made, 1)
    assert_untouched(made)
    lengths = (7, 8, 9) if first_out == "outer" else (9, 8, 7)
    for monitor, steps in zip(monitors, lengths, strict=True):
        assert_same_records(monitor, watched(parts(), steps, monitor.every))


def test_replaced_methods_are_put_back_in_any_order() -> None:
    def adding(text: str) -> Any:
        return lambda own: lambda: own() + text

    layer = nn.Tanh()
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
        contexts = [replaced([(layer, "short_name", adding(text))]) for text in "abc"]
        for context in contexts:
            context.__enter__()
        left = "abc"
        for number in order:
            assert layer.short_name() == "Tanh()" + left
            contexts[number].__exit__(None, None, None)
            left = left.replace("abc"[number], "")
        assert layer.short_name() == "Tanh()"
        assert "short_name" not in vars(layer)


def test_two_models_that_take_turns_are_watched_with_one_loss(backend: str) -> None:
    one, other = parts(), parts(nn.Tanh)
    loss = one[1]
    made = one, (other[0], loss, other[2])
    monitors = [GradientMonitor(every=2), GradientMonitor(every=1)]
    with (
        monitors[0].watch(one[0], one[2], loss),
        monitors[1].watch(other[0], other[2], loss),
    ):
        for _ in range(3):
            for parts_of_one in made:
                train(parts_of_one, 1)
    for some in made:
        assert_untouched(some)
    assert_same_records(monitors[0], watched(parts(), 3, 2))
    for name in ("gradient", "update", "mean"):
        expected = watched(parts(nn.Tanh), 3, 1)[name]
        np.testing.assert_array_equal(monitors[1][name], expected, name)


def test_recorded_steps_are_not_left_out_by_an_outer_block() -> None:
    if minidl._kernels.isa == "reference":
        pytest.skip("the NumPy twin records nothing")
    model, loss, optimizer = made = parts()
    outer, inner = GradientMonitor(every=1), GradientMonitor(every=1)
    step = minidl.record(step_of(*made))
    with inner.watch(model, optimizer, loss):
        step(X, Y)
    with outer.watch(model, optimizer), inner.watch(model, optimizer, loss):
        with pytest.raises(RecordingError, match="only the innermost block knows"):
            step(X, Y)
        with pytest.raises(RecordingError, match="only the innermost block knows"):
            step.epoch(X, Y, batch_size=8)
    with outer.watch(model, optimizer):
        step(X, Y)
    assert (len(outer), len(inner)) == (1, 1)


@pytest.mark.parametrize("every", [2, 3])
def test_eager_and_recorded_steps_may_take_turns(backend: str, every: int) -> None:
    model, loss, optimizer = made = parts()
    eager, monitor = step_of(*made), GradientMonitor(every=every)
    steps = eager, minidl.record(eager)
    with monitor.watch(model, optimizer, loss):
        for number in range(9):
            steps[number % 2](X, Y)
    assert monitor.steps.tolist() == list(range(1, 10, every))
    assert_same_records(monitor, watched(parts(), 9, every))


# --- copies -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
@pytest.mark.parametrize("record", [True, False])
def test_a_copy_of_a_monitor_and_its_model_goes_on(backend: str, make: Any, record: bool) -> None:
    trainer, monitor = trainer_of(parts()[0], record), GradientMonitor(every=2)
    fit(trainer, monitor)
    other_trainer, other = make((trainer, monitor))
    for one, own in ((trainer, monitor), (other_trainer, other)):
        fit(one, own)
        with own.watch(one.model, one.optimizer, one.loss):
            train((one.model, one.loss, one.optimizer), 3, record)
    assert len(other) == 8
    assert_same_records(monitor, other)
    other.clear()
    assert len(monitor) == 8


# --- wrong arguments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "error"),
    [
        *((value, ValueError) for value in (0, -1, 2**63, 10**30)),
        *((value, TypeError) for value in (1.5, True, "x", None, np.nan)),
    ],
)
def test_spacings_that_are_none(every: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^GradientMonitor: every must be (a|>=|<=) ?"):
        GradientMonitor(every=every)
    assert GradientMonitor(every=np.int64(3)).every == 3


def test_a_spacing_beyond_all_steps_watches_the_first(backend: str) -> None:
    for record in (True, False):
        monitor = GradientMonitor(every=2**62)
        fit(trainer_of(parts()[0], record), monitor, epochs=2)
        assert monitor.steps.tolist() == [1]


@pytest.mark.parametrize("layers", [5, "0", b"0", nn.ReLU(), [5], [None], [nn.ReLU]])
def test_layers_that_are_none(layers: Any) -> None:
    with pytest.raises(TypeError, match=r"^GradientMonitor: layers must be "):
        GradientMonitor(layers=layers)


def test_a_selection_that_watches_nothing() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5), nn.Flatten(), rng=0)
    optimizer = optim.SGD(model.parameters())
    for layers in ([], ["1"], [model[1], "2"]):
        with pytest.raises(ValueError, match=r"leaves nothing to watch; choose from 0$"):
            GradientMonitor(layers=layers).watch(model, optimizer)
    with pytest.raises(ValueError, match=r"has no layer ReLU\(\); it has 0$"):
        GradientMonitor(layers=[nn.ReLU()]).watch(model, optimizer)


def test_parts_that_are_none() -> None:
    model, loss, optimizer = parts()
    other = parts()[2]
    wrong: list[tuple[Any, ...]] = [
        (3, 4), (model, None), (model, "sgd"), (nn.Sequential, optimizer),
        (model, optimizer, "mse"), (model, optimizer, nn.MSELoss), (model, loss, optimizer),
        (model, optim.SGD),
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(TypeError, match=r"^GradientMonitor\.watch\(.*\): \w+ must be an? "):
            GradientMonitor().watch(*given)
    with pytest.raises(ValueError, match="trains none of the model's parameters"):
        GradientMonitor().watch(model, other, loss)


@pytest.fixture(scope="module")
def monitor() -> GradientMonitor:
    found = GradientMonitor(every=2)
    fit(trainer_of(parts()[0]), found, epochs=2)
    return found


def test_epochs_that_are_none(monitor: GradientMonitor) -> None:
    pytest.importorskip("matplotlib")
    for epochs in (1, "a", ["a"], [1.5], [True]):
        with pytest.raises(TypeError, match=r"^plot: .* must be a "):
            monitor.plot(epochs=epochs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^plot: epochs is empty"):
        monitor.plot(epochs=[])
    with pytest.raises(ValueError, match=r"^plot: an epoch must be >= 0, got -1"):
        monitor.plot(epochs=[-1])
    assert len(monitor.plot(epochs=np.array([0, 2])).axes[1].get_lines()) == 2


def test_files_that_cannot_be_written(monitor: GradientMonitor, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for write in (monitor.plot, monitor.to_json_lines):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            write(tmp_path / "none" / "a.png")
        for wrong in (5, b"a.png", ["a"]):
            with pytest.raises(TypeError, match="must be a string or a path, got"):
                write(wrong)  # type: ignore[operator]
        with pytest.raises(ValueError, match="name of a file is empty"):
            write("")
        with pytest.raises(IsADirectoryError):
            write(Path())
    assert not list(tmp_path.iterdir())


def test_writers_that_are_none(monitor: GradientMonitor) -> None:
    with pytest.raises(TypeError, match="writer must have the method add_scalar, got 3"):
        monitor.to_tensorboard(writer=3)
    with pytest.raises(TypeError, match="log_dir must be the path of a folder, got 5"):
        monitor.to_tensorboard(5)  # type: ignore[arg-type]


# --- as a mapping, and empty ------------------------------------------------------------


def test_a_monitor_is_a_mapping_of_quantities(monitor: GradientMonitor) -> None:
    assert list(monitor) == list(monitor.quantities)
    assert "gradient" in monitor
    for name in ("norms", 0, None, []):
        assert name not in monitor
        with pytest.raises(KeyError, match="there is no quantity"):
            monitor[name]  # type: ignore[index]
    found = dict(monitor)
    np.testing.assert_array_equal(found["gradient"], monitor["gradient"])
    assert len(monitor) == 6  # records
    assert GradientMonitor()


def test_a_monitor_without_a_record(tmp_path: Path) -> None:
    cleared = watched(parts())
    cleared.clear()

    class Writer:
        def add_scalar(self, *given: Any) -> None:
            raise AssertionError(given)

        def flush(self) -> None:
            pass

    for empty in (GradientMonitor(), cleared):
        empty.to_json_lines(tmp_path / "a.jsonl")
        assert (tmp_path / "a.jsonl").read_bytes() == b""
        empty.to_tensorboard(writer=Writer())
        assert empty.report() == repr(empty)
        assert "0 records" in empty._repr_html_()
        with pytest.raises(ValueError, match="there is nothing to draw"):
            empty.plot()
    assert cleared["gradient"].shape == (0, 3)


# --- reports ----------------------------------------------------------------------------


def sentences(monitor: GradientMonitor) -> list[str]:
    first, _, rest = monitor.report().partition("\n")
    return [first, *rest.rpartition("\n\n")[2].splitlines()]


def test_sentences_about_one_step_and_one_layer(backend: str) -> None:
    model = nn.Linear(6, 3, rng=0)
    first, *others = sentences(watched((model, *parts()[1:2], optim.SGD(model.parameters())), 1))
    assert first.startswith("1 record, of step 1; loss ")
    assert others[0].startswith("Nothing stands out")
    assert repr(watched(parts(), 1)) == "GradientMonitor(3 layers, 1 record)"
    model.weight.data[...] = 0
    zero, monitor = nn.MSELoss(), GradientMonitor(every=1)
    optimizer = optim.SGD(model.parameters())
    model.bias.data[...] = 0
    with monitor.watch(model, optimizer):
        zero(model(X), np.zeros((len(X), 3), np.float32))
        model.backward(zero.backward())
        optimizer.step()
    said = sentences(monitor)
    assert said[1] == "The gradient of layer Linear(6, 3) is exactly zero: it learns nothing."


def test_sentences_about_weights_that_stay_and_layers_that_are_not_reached(backend: str) -> None:
    class Half(nn.Layer):
        """y = f(x); g is not used."""

        def __init__(self) -> None:
            self.g, self.f = nn.Linear(6, 3, rng=0), nn.Linear(6, 3, rng=1)

        def forward(self, x: Any) -> Any:
            return self.f(x)

        def backward(self, dy: Any) -> Any:
            return self.f.backward(dy)

    model = Half()
    made: Any = model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.0)
    said = sentences(watched(made))[1:]
    assert said[0] == "No gradient is known of layer g Linear(6, 3)."
    assert said[1].startswith("A step leaves the weights of layer f Linear(6, 3) as they are, ")
    assert len(said) == 2
    assert "of layer 0 Linear(6, 8) and 1 more as they are" in watched(parts(lr=0.0)).report()


def test_sentences_about_a_recurrent_layer_alone(backend: str) -> None:
    layer = nn.RNN(6, 3, return_sequences=False, rng=0)
    layer.cells[0].recurrent_weight.data *= 1e-3
    x = np.random.default_rng(0).normal(size=(8, 12, 6)).astype(np.float32)
    monitor, loss = GradientMonitor(every=1), nn.CrossEntropyLoss()
    optimizer = optim.SGD(layer.parameters())
    with monitor.watch(layer, optimizer, loss):
        loss(layer(x), Y[:8])
        layer.backward(loss.backward())
        optimizer.step()
    said = [text for text in sentences(monitor) if text.startswith("Back over 12 steps")]
    assert f"the state of layer {layer.short_name()} changes to" in said[0]


def test_numbers_of_any_size_fit_into_the_table(backend: str) -> None:
    model, loss, optimizer = parts(lr=0.0)
    monitor = GradientMonitor(every=1)
    model[0].weight.data *= 1e12
    with monitor.watch(model, optimizer, loss):
        train((model, loss, optimizer), 1)
    assert not re.search(r"\d{6}", monitor.report())


def test_reports_say_one_epoch() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2), rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    y = (x[:, 0] > 0).astype(int)
    found = minidl.diagnose(model, nn.CrossEntropyLoss(), optimizer, x, y, epochs=1)
    assert found.verdicts
    assert "1 epoch" in found.report()
    assert "1 epochs" not in found.report()
    assert "nan" not in found.report()
