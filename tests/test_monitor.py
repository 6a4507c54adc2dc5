"""GradientMonitor: what it notes is right, and training is the same to the last bit with it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_helpers import (
    BATCH,
    MONITOR_CHECKS,
    assert_same_records,
    assert_same_training,
    data,
    fit,
    network,
    step_of,
    trainer_of,
)

import minidl
from minidl import GradientMonitor, Trainer, kernels, nn, optim
from minidl.diagnosis import tracks
from minidl.training import Callback, EarlyStopping

# --- the figures ------------------------------------------------------------------------


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("check", MONITOR_CHECKS)
def test_figures_are_those_that_numpy_computes_from_stored_arrays(
    backend: str, check: str, record: bool
) -> None:
    MONITOR_CHECKS[check](record)


def test_gradients_that_vanish_are_told_from_zero(backend: str) -> None:
    layers = [layer for _ in range(14) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    model = nn.Sequential(*layers, nn.Linear(8, 2), rng=0)
    for layer in model.stack[::2]:
        layer.weight.data *= 0.02
    loss, monitor = nn.MSELoss(), GradientMonitor(every=1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    with monitor.watch(model, optimizer, loss):
        step_of(model, loss, optimizer)(x, x[:, :2])
    gradient = monitor["gradient"][0]
    assert 0 < gradient[0] < 1e-25  # its square is no float32
    falls = gradient[:-2:2] / gradient[2::2]
    assert (falls > 1e-4).all()
    assert (falls < 0.1).all()


def test_deviation_is_right_beside_a_large_mean(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(700, 9)).astype(np.float32) + np.float32(1e4)
    parts = kernels.moment_parts(x)
    count, total, squares, zeros = parts.sum(axis=0)
    assert count == x.size
    assert zeros == 0
    variance = squares / count - (total / count) ** 2
    assert variance == pytest.approx(x.astype(np.float64).var(), rel=0.01)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e25])
def test_moments_and_distances_of_any_size(backend: str, size: float) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(2, 5000)) * size).astype(np.float32)
    x[::7] = 0
    wide, other = x.astype(np.float64), y.astype(np.float64)
    count, total, squares, zeros = kernels.moment_parts(x).sum(axis=0)
    assert (count, zeros) == (5000, (wide == 0).sum())
    assert total == pytest.approx(wide.sum(), rel=1e-4, abs=1e-4 * size)
    assert squares == pytest.approx((wide**2).sum(), rel=1e-4, abs=0)
    square, distance = kernels.norm_parts(x, y).sum(axis=0)
    assert square == pytest.approx((wide**2).sum(), rel=1e-4, abs=0)
    assert distance == pytest.approx(((wide - other) ** 2).sum(), rel=1e-4, abs=0)


# --- recurrent layers -------------------------------------------------------------------


def sequences(rows: int = 24, time: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(rows, time, 4)).astype(np.float32), rng.integers(3, size=rows)


def watch_one_step(model: nn.Layer, *inputs: Any, dtype: Any = np.float32) -> GradientMonitor:
    monitor, loss = GradientMonitor(every=1), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    with monitor.watch(model, optimizer, loss):
        loss(model(*inputs[:-1]), inputs[-1])
        model.backward(loss.backward())
        optimizer.step()
    return monitor


def test_cell_gradient_and_gates_of_lstm_are_those_of_its_formula(backend: str) -> None:
    """dL/dc_t by central differences of a loss that NumPy computes, in float64."""
    rng = np.random.default_rng(0)
    layer = nn.LSTM(4, 3, return_sequences=False, rng=0, dtype=np.float64)
    model = nn.Sequential(layer, nn.Linear(3, 2, rng=1, dtype=np.float64))
    x, y = rng.normal(size=(2, 4, 4)), np.array([0, 1])
    monitor = watch_one_step(model, x, y)
    cell = layer.cells[0]

    def run(step: int = -1, change: Any = 0.0) -> tuple[float, np.ndarray]:
        h, c, gates = np.zeros((2, 3)), np.zeros((2, 3)), []
        for t in range(4):
            z = x[:, t] @ cell.input_weight.data + h @ cell.recurrent_weight.data + cell.bias.data
            i, f, g, o = np.split(z, 4, axis=1)
            i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
            g = np.tanh(g)
            c = f * c + i * g + (change if t == step else 0.0)
            h = o * np.tanh(c)
            gates.append([i, f, g, o])
        logits = h @ model[1].weight.data + model[1].bias.data
        shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-shifted[[0, 1], y].mean()), np.array(gates)

    for t in range(4):
        square = 0.0
        for place in np.ndindex(2, 3):
            change = np.zeros((2, 3))
            change[place] = 1e-5
            square += ((run(t, change)[0] - run(t, -change)[0]) / 2e-5) ** 2
        assert monitor.cell_gradient["0"][0, t] == pytest.approx(np.sqrt(square), rel=1e-5)
    means = run()[1].mean(axis=(0, 2, 3))
    names = ("input", "forget", "candidate", "output")
    for name, mean in zip(names, means, strict=True):
        assert monitor.gates["0"][name][0] == pytest.approx(mean)


@pytest.mark.parametrize("layer_type", [nn.RNN, nn.LSTM, nn.GRU])
def test_padding_counts_for_nothing(backend: str, layer_type: Any) -> None:
    model = nn.Sequential(layer_type(4, 5, bidirectional=True, rng=0), nn.Linear(10, 3, rng=1))
    x, _ = sequences(rows=6, time=8)
    lengths, y = np.array([5] * 6), np.zeros((6, 8, 3), np.float32)
    long, short = GradientMonitor(every=1), GradientMonitor(every=1)
    for monitor, steps, given in ((long, 8, (lengths,)), (short, 5, ())):
        trainer = Trainer(model, nn.MSELoss("sum"), optim.SGD(model.parameters(), lr=0.0))
        inputs = (x[:, :steps], *given) if given else x[:, :steps]
        target = np.where(np.arange(steps)[:, None] < 5, y[:, :steps], 0)
        trainer.fit(inputs, target, epochs=1, batch_size=6, progress=False, callbacks=[monitor])
    for name in ("mean", "deviation", "zeros", "saturation", "gradient", "weight_gradient"):
        np.testing.assert_allclose(
            long[name][:, 0], short[name][:, 0], rtol=1e-4, atol=1e-6, err_msg=name
        )
    for path, norms in short.over_time.items():
        np.testing.assert_allclose(long.over_time[path][:, :5], norms, rtol=1e-4)
    for gate, mean in short.gates.get("0", {}).items():
        np.testing.assert_allclose(long.gates["0"][gate], mean, rtol=1e-4, atol=1e-6)


def test_sequences_of_other_lengths_are_recorded_beside_each_other(backend: str) -> None:
    model = nn.Sequential(nn.GRU(4, 5, return_sequences=False, rng=0), nn.Linear(5, 3, rng=1))
    loss, monitor = nn.CrossEntropyLoss(), GradientMonitor(every=1)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    step = minidl.record(step_of(model, loss, optimizer))
    x, y = sequences(rows=8, time=9)
    with monitor.watch(model, optimizer, loss):
        for time in (4, 9, 4, 9):
            step(x[:, :time], y)
    norms = monitor.over_time["0"]
    assert norms.shape == (4, 9)
    np.testing.assert_array_equal((norms > 0).sum(axis=1), [4, 9, 4, 9])


# --- the same training ------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("every", [1, 4])
def test_training_is_the_same_with_and_without_a_monitor(
    backend: str, every: int, accumulate: int
) -> None:
    options = {"epochs": 3, "accumulate": accumulate, "shuffle": True}
    models, monitors = [network() for _ in range(3)], [GradientMonitor(every=every) for _ in "ab"]
    fit(trainer_of(models[0]), monitors[0], **options)
    fit(trainer_of(models[1], record=False), monitors[1], **options)
    fit(trainer_of(models[2]), None, **options)
    assert_same_training(models[0], models[1])
    assert_same_training(models[0], models[2])
    assert_same_records(*monitors)
    steps = 3 * 6 // accumulate
    assert monitors[0].steps.tolist() == list(range(1, steps + 1, every))
    assert set(monitors[0].epochs) == {1, 2, 3} or every > steps // 3


@pytest.mark.parametrize("layer_type", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_training_is_the_same(backend: str, layer_type: Any) -> None:
    x, y = sequences()
    models, monitors = [], [GradientMonitor(every=2) for _ in range(2)]
    for record, callbacks in ((True, monitors[:1]), (False, monitors[1:]), (True, [])):
        recurrent = layer_type(4, 5, num_layers=2, dropout=0.2, return_sequences=False)
        model = nn.Sequential(recurrent, nn.Linear(5, 3), rng=0)
        trainer = trainer_of(model, record)
        trainer.fit(x, y, epochs=2, batch_size=5, progress=False, callbacks=callbacks)
        models.append(model)
    assert_same_training(models[0], models[1])
    assert_same_training(models[0], models[2])
    assert_same_records(*monitors)


def test_schedules_averages_and_per_step_callbacks_go_on_as_ever(backend: str) -> None:
    class Steps(Callback):
        def on_batch_end(self, trainer: Any, epoch: int, values: Any) -> None:
            seen.append(values["loss"])

    results = []
    for monitors in ([], [GradientMonitor(every=2)]):
        seen: list[float] = []
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=optim.schedules.cosine(0.01, 12))
        ema = optim.EMA(model, decay=0.9)
        trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0, ema=ema)
        x, y = data()
        trainer.fit(
            *(x, y), epochs=2, batch_size=BATCH, progress=False, callbacks=[Steps(), *monitors]
        )
        with ema.average():
            results.append((seen, [p.data.tobytes() for p in model.parameters()]))
    assert results[0] == results[1]
    rates = monitors[0].scalars["learning_rate"]
    assert rates.tolist() == [
        optim.schedules.cosine(0.01, 12)(step) for step in (0, 2, 4, 6, 8, 10)
    ]


# --- by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eager", "recorded", "epoch", "block per step"])
def test_steps_of_ones_own_are_watched(backend: str, how: str) -> None:
    model, loss, monitor = network(), nn.CrossEntropyLoss(), GradientMonitor(every=2)
    optimizer = optim.Adam(model.parameters(), lr=0.01, max_norm=0.5)
    step = step_of(model, loss, optimizer)
    step = step if how in ("eager", "epoch") else minidl.record(step)
    x, y = data()
    batches = [slice(begin, begin + BATCH) for begin in range(0, len(x), BATCH)]
    if how == "block per step":
        for rows in batches:
            with monitor.watch(model, optimizer, loss):
                step(x[rows], y[rows])
    else:
        with monitor.watch(model, optimizer, loss):
            if how == "epoch":
                minidl.record(step).epoch(x, y, batch_size=BATCH, shuffle=False)
            else:
                for rows in batches:
                    step(x[rows], y[rows])
    by_trainer, other = GradientMonitor(every=2), network()
    fit(trainer_of(other), by_trainer)
    assert_same_training(model, other)
    assert_same_records(monitor, by_trainer)
    assert monitor.steps.tolist() == [1, 3, 5]


def test_only_steps_inside_the_block_are_watched(backend: str) -> None:
    model, loss, monitor = network(), nn.CrossEntropyLoss(), GradientMonitor(every=1)
    optimizer = optim.Adam(model.parameters())
    eager = step_of(model, loss, optimizer)
    x, y = data(BATCH)
    for step in (eager, minidl.record(eager)):
        for _ in range(2):
            step(x, y)
            with monitor.watch(model, optimizer):
                step(x, y)
                model(x)  # no step
                with nn.evaluating():
                    minidl.record(lambda x: model(x))(x)
            step(x, y)
    assert monitor.steps.tolist() == [1, 2, 3, 4]
    assert np.isnan(monitor.scalars["loss"]).all()
    assert not any("backward" in vars(layer) for _, layer in model.layers())
    assert "step" not in vars(optimizer)


def test_a_loss_with_the_reduction_sum_is_not_averaged_over_batches(backend: str) -> None:
    found = []
    for batch, accumulate in ((32, 1), (BATCH, 2)):
        model, monitor = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), rng=0), GradientMonitor(every=1)
        optimizer = optim.SGD(model.parameters(), lr=0.0)
        x, _ = data(64)
        for loss in (nn.MSELoss("sum"), nn.MSELoss()):
            trainer = Trainer(model, loss, optimizer)
            trainer.fit(
                x, np.tanh(x[:, :3]), epochs=1, batch_size=batch, accumulate=accumulate,
                shuffle=False, progress=False, callbacks=[monitor],
            )  # fmt: skip
        found.append(np.c_[monitor["weight_gradient"][:, :1], monitor["gradient"]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


# --- what is watched --------------------------------------------------------------------


def test_layers_are_those_that_compute(backend: str) -> None:
    body = nn.Sequential(nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 4))
    model = nn.Sequential(
        *(nn.Embedding(9, 4), nn.GRU(4, 4, dropout=0.1, num_layers=2), nn.Residual(body)),
        *(nn.Dropout(0.1), nn.Linear(4, 2)),
        rng=0,
    )
    monitor = GradientMonitor()
    optimizer = optim.SGD(model.parameters())
    monitor.watch(model, optimizer)
    assert monitor.layers == ("0", "1", "2.body.0", "2.body.1", "2.body.2", "4")
    for layers in (["2", "4"], [model[2], model[4]]):
        monitor = GradientMonitor(layers=layers)
        monitor.watch(model, optimizer)
        assert monitor.layers == ("2.body.0", "2.body.1", "2.body.2", "4")
    with pytest.raises(ValueError, match=r"the model has no layer '7'; it has 0, 1, 2\.body\.0"):
        GradientMonitor(layers=["7"]).watch(model, optimizer)
    with pytest.raises(TypeError, match="layers must be a list of paths"):
        GradientMonitor(layers="7")


def test_frozen_and_shared_layers_and_those_of_ones_own(backend: str) -> None:
    class Twice(nn.Layer):
        """y = f(f(x)) · w, with one f, and a weight of its own."""

        def __init__(self) -> None:
            self.inner = nn.Linear(6, 6, rng=0)
            self.weight = nn.Parameter((1, 6), nn.init.constant(2.0), 0)

        def forward(self, x: Any) -> Any:
            y = self.inner(self.inner(x))
            self.save(y)
            return y * self.weight.data  # NumPy: such a layer trains eagerly

        def backward(self, dy: Any) -> Any:
            y = self.saved(dy)
            self.weight.grad[...] += (dy * y).sum(axis=0)
            return self.inner.backward(self.inner.backward(dy * self.weight.data))

    model = nn.Sequential(nn.Linear(6, 6, rng=1).freeze(), Twice(), nn.Linear(6, 3, rng=2))
    monitor = GradientMonitor(every=2)
    fit(trainer_of(model, record=False), monitor, epochs=2)
    assert monitor.layers == ("0", "1", "1.inner", "2")
    assert np.isnan(monitor["update"][:, 0]).all()
    assert np.isfinite(monitor["weight"]).all()
    assert np.isnan(monitor["weight_gradient"][:, 0]).all()
    assert (monitor["update"][:, 1:] > 0).all()
    assert (monitor["gradient"] > 0).all()
    plain = nn.Sequential(nn.Linear(6, 6, rng=1).freeze(), Twice(), nn.Linear(6, 3, rng=2))
    fit(trainer_of(plain, record=False), None, epochs=2)
    assert_same_training(model, plain)


def test_a_layer_that_cannot_be_recorded_is_watched_as_training_runs_eagerly() -> None:
    class Half(nn.Layer):
        """y = x / 2."""

        def forward(self, x: Any) -> Any:
            self.save()
            return x / 2

        def backward(self, dy: Any) -> Any:
            self.saved(dy)
            return dy / 2

    if minidl._kernels.isa == "reference":
        pytest.skip("the NumPy twin records nothing")
    monitor = GradientMonitor(every=2)
    with pytest.warns(RuntimeWarning, match="training runs eagerly"):
        fit(trainer_of(nn.Sequential(nn.Linear(6, 3), Half(), rng=0)), monitor)
    assert monitor.steps.tolist() == [1, 3, 5]
    np.testing.assert_allclose(monitor["gradient_ratio"], [[0.5, 1]] * 3)


def test_an_activation_of_ones_own_tells_its_largest_slope(backend: str) -> None:
    class Hat(nn.Tanh):
        """y = tanh(x), as another class."""

        largest_slope = 2.0

    monitor, tanh = GradientMonitor(every=1), GradientMonitor(every=1)
    for kind, own in ((Hat, monitor), (nn.Tanh, tanh)):
        fit(trainer_of(nn.Sequential(nn.Linear(6, 8), kind(), nn.Linear(8, 3), rng=0)), own)
    np.testing.assert_allclose(1 - monitor["saturation"], (1 - tanh["saturation"]) / 2, rtol=1e-4)


# --- memory -----------------------------------------------------------------------------


def test_a_monitor_that_is_cleared_begins_anew(backend: str) -> None:
    monitor = GradientMonitor(every=3)
    fit(trainer_of(network()), monitor)
    monitor.clear()
    assert len(monitor) == 0
    fit(trainer_of(network()), monitor)
    assert monitor.steps.tolist() == [1, 4]


def test_journals_that_are_full_are_read(backend: str) -> None:
    model, loss, monitor = network(), nn.CrossEntropyLoss(), GradientMonitor(every=1)
    optimizer = optim.Adam(model.parameters())
    step = minidl.record(step_of(model, loss, optimizer))
    x, y = data(4)
    with monitor.watch(model, optimizer, loss):
        for _ in range(2 * tracks.JOURNAL + 3):
            step(x, y)
    assert monitor.steps.tolist() == list(range(1, 2 * tracks.JOURNAL + 4))
    assert (np.diff(monitor.scalars["loss"]) != 0).all()


# --- what goes wrong --------------------------------------------------------------------


@pytest.mark.parametrize("record", [True, False])
def test_a_step_that_fails_leaves_no_trace(backend: str, record: bool) -> None:
    x, y = data()
    model, monitor = network(), GradientMonitor(every=1)
    trainer = trainer_of(model, record)

    class Spoil(Callback):
        def on_batch_begin(self, trainer: Any, epoch: int, values: Any) -> None:
            if values["batch"] == 3:
                model[3].bias.data[0] = np.nan

    options: Any = {"epochs": 1, "batch_size": BATCH, "progress": False}
    with pytest.raises(FloatingPointError, match="layer 3 Linear"):
        trainer.fit(x, y, callbacks=[Spoil(), monitor], **options)
    assert monitor.steps.tolist() == [1, 2, 3]
    for owner in (trainer.loss, trainer.optimizer, *(layer for _, layer in model.layers())):
        assert not {"backward", "step", "forward"} & vars(owner).keys()
    model[3].bias.data[0] = 0
    trainer.fit(x, y, callbacks=[monitor], **options)
    assert monitor.steps.tolist() == list(range(1, 10))
    assert np.isfinite(monitor["gradient"]).all()


def test_an_error_inside_the_block_ends_it(backend: str) -> None:
    model, monitor = network(), GradientMonitor()
    optimizer = optim.SGD(model.parameters())
    with pytest.raises(KeyboardInterrupt), monitor.watch(model, optimizer):
        raise KeyboardInterrupt
    assert "step" not in vars(optimizer)
    assert "backward" not in vars(model[0])
    assert minidl._kernels.watch() is None


def test_a_watched_model_cannot_be_copied(backend: str) -> None:
    model, monitor = network(), GradientMonitor()
    optimizer = optim.SGD(model.parameters())
    with monitor.watch(model, optimizer):
        for make in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="can be neither copied nor pickled"):
                make(model)
    assert_same_training(copy.deepcopy(model), model)


def test_one_fit_has_one_monitor() -> None:
    x, y = data()
    with pytest.raises(ValueError, match="2 callbacks watch the steps, and one is enough"):
        trainer_of(network()).fit(x, y, epochs=1, callbacks=[GradientMonitor(), GradientMonitor()])
    with pytest.raises(ValueError, match="every must be"):
        GradientMonitor(every=0)
    monitor = GradientMonitor()
    with pytest.raises(RuntimeError, match="no step was watched yet"):
        monitor["gradient"]
    fit(trainer_of(network()), monitor)
    with pytest.raises(KeyError, match="there is no quantity 'norms'; there are gradient, "):
        monitor["norms"]


# --- beside the trainer -----------------------------------------------------------------


def test_history_has_norm_clip_factor_and_rate(backend: str) -> None:
    monitor = GradientMonitor(every=4)
    history = fit(trainer_of(network()), monitor, epochs=4, validation=0.25)
    plain = fit(trainer_of(network()), None, epochs=4, validation=0.25)
    names = ["gradient_norm", "clip_factor", "learning_rate"]
    assert [*history] == [*plain, *names]
    assert [history[name] for name in plain] == [plain[name] for name in plain]
    for epoch in range(4):
        records = monitor.epochs == epoch + 1
        assert records.any()
        norm = monitor.scalars["norm"][records].mean()
        assert history["gradient_norm"][epoch] == pytest.approx(norm)
    assert history["learning_rate"] == [0.01] * 4
    assert min(history["clip_factor"]) < 1
    seldom = fit(trainer_of(network()), GradientMonitor(every=1000), epochs=2)
    assert np.isfinite(seldom["gradient_norm"]).all()
    stop = EarlyStopping("gradient_norm", patience=1, mode="max")
    x, y = data()
    trainer_of(network()).fit(x, y, epochs=2, progress=False, callbacks=[stop, monitor])


def test_a_monitor_goes_on_with_its_model_and_begins_anew_with_another(backend: str) -> None:
    monitor, model = GradientMonitor(every=4), network()
    trainer = trainer_of(model)
    fit(trainer, monitor)
    fit(trainer, monitor)
    fit(trainer_of(model), monitor)  # another optimizer
    assert monitor.steps.tolist() == [1, 5, 9, 13, 17]
    assert monitor.epochs.tolist() == [1, 1, 2, 3, 3]
    fit(trainer_of(network()), monitor)
    assert monitor.steps.tolist() == [1, 5]


def test_a_callback_may_use_the_model_meanwhile(backend: str) -> None:
    class Uses(Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, values: Any) -> None:
            copies.append(copy.deepcopy(trainer.model))
            x, y = data(8)
            trainer.predict(x)
            loss = nn.CrossEntropyLoss()
            loss(trainer.model(x), y)
            trainer.model.backward(loss.backward())

    copies: list[Any] = []
    x, y = data()
    monitors = [GradientMonitor(every=1) for _ in range(2)]
    for monitor, others in zip(monitors, ([], [Uses()]), strict=True):
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), rng=0)
        trainer_of(model).fit(
            *(x, y), epochs=2, batch_size=BATCH, progress=False, callbacks=[*others, monitor]
        )
    assert_same_records(*monitors)
    assert len(copies) == 2


# --- for readers and for other programs -------------------------------------------------


@pytest.fixture(scope="module")
def vanishing() -> GradientMonitor:
    layers = [layer for _ in range(9) for layer in (nn.Linear(6, 6), nn.Sigmoid())]
    monitor = GradientMonitor(every=2)
    fit(trainer_of(nn.Sequential(*layers, nn.Linear(6, 3), rng=0)), monitor, epochs=3)
    return monitor


def test_report_shows_layers_and_says_what_stands_out(vanishing: GradientMonitor) -> None:
    lines = vanishing.report().splitlines()
    assert lines[0].startswith("9 records of steps 1 to 17; loss ")
    assert lines[2].split()[0] == "layer"
    assert "saturated" in lines[2]
    assert lines[3].startswith("0 Linear(6, 6)")
    assert lines[20].startswith("17 Sigmoid()")
    assert "From the last layer to the first the gradient shrinks to" in lines[-1]
    healthy = GradientMonitor()
    fit(trainer_of(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3), rng=0)), healthy)
    assert "Nothing stands out" in healthy.report()
    assert GradientMonitor().report() == "GradientMonitor(0 layers, 0 records)"


def test_report_of_dead_saturated_and_growing(backend: str) -> None:
    monitor = GradientMonitor(every=1)
    model = network()
    model[0].bias.data[...], model[1].beta.data[...] = -99, -99
    fit(trainer_of(model), monitor)
    assert "100 % of the units of layer 2 ReLU() were zero for every row." in monitor.report()
    x, y = sequences(time=40)
    rnn = nn.RNN(4, 5, return_sequences=False, nonlinearity="relu")
    model = nn.Sequential(rnn, nn.Linear(5, 3), rng=0)
    rnn.cells[0].recurrent_weight.data *= 1.5
    trainer_of(model).fit(x, y, epochs=1, progress=False, callbacks=[monitor])
    assert "Back over 40 steps of time the gradient of the state of layer 0" in monitor.report()


def test_html_is_a_table(vanishing: GradientMonitor) -> None:
    page = vanishing._repr_html_()
    assert page.count("<tr>") == 20
    assert "<td>17 Sigmoid()</td>" in page
    assert "GradientMonitor(0 layers, 0 records)" in GradientMonitor()._repr_html_()


def test_json_lines(vanishing: GradientMonitor, tmp_path: Path) -> None:
    vanishing.to_json_lines(tmp_path / "a.jsonl")
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == vanishing.steps.tolist()
    assert records[1]["layers"]["0"]["gradient"] == vanishing["gradient"][1, 0]
    assert "update" not in records[1]["layers"]["1"]
    vanishing.to_json_lines(tmp_path / "b.jsonl", totals_only=True)
    first = json.loads((tmp_path / "b.jsonl").read_text().splitlines()[0])
    assert [*first] == ["step", "epoch", "loss", "norm", "clip_factor", "learning_rate"]


def test_json_lines_of_sequences(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LSTM(4, 5, return_sequences=False), nn.Linear(5, 3), rng=0)
    monitor = watch_one_step(model, *sequences())
    monitor.to_json_lines(tmp_path / "a.jsonl")
    record = json.loads((tmp_path / "a.jsonl").read_text())
    assert len(record["over_time"]["0"]) == 7
    assert record["gates"]["0"]["forget"] == monitor.gates["0"]["forget"][0]
    assert record["loss"] is not None


class Writer:
    def __init__(self) -> None:
        self.written: dict[str, list[tuple[float, int]]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.written.setdefault(tag, []).append((value, step))

    def flush(self) -> None:
        self.flushed = True


def test_tensorboard(vanishing: GradientMonitor) -> None:
    writer, totals = Writer(), Writer()
    vanishing.to_tensorboard(writer=writer)
    values = [(v, s) for v, s in zip(vanishing["gradient"][:, 3], vanishing.steps, strict=True)]
    assert writer.written["gradient/3"] == values
    assert writer.flushed
    assert "step/norm" in writer.written
    assert "update/3" not in writer.written
    vanishing.to_tensorboard(writer=totals, totals_only=True)
    assert all(tag.startswith("step/") for tag in totals.written)
    with pytest.raises(TypeError, match="to_tensorboard: give either log_dir or writer"):
        vanishing.to_tensorboard()


def test_pictures(vanishing: GradientMonitor, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = vanishing.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    heat, depth = figure.axes[:2]
    drawn = heat.collections[0].get_array()
    np.testing.assert_allclose(drawn.reshape(19, 9), np.log10(vanishing["gradient"].T))
    labels = [line.get_label() for line in depth.get_lines()]
    assert labels == ["before training", "epoch 1", "epoch 2", "epoch 3"]
    np.testing.assert_allclose(depth.get_lines()[0].get_ydata(), vanishing["gradient"][0])
    some = vanishing.plot(epochs=[2]).axes[1].get_lines()
    assert [line.get_label() for line in some] == ["epoch 2"]
    with pytest.raises(ValueError, match="no step of epoch 9 was watched; epochs with records"):
        vanishing.plot(epochs=[0, 9])
    with pytest.raises(ValueError, match="there is nothing to draw"):
        GradientMonitor().plot()


def test_picture_of_sequences_and_of_zero_gradients(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = nn.Sequential(nn.LSTM(4, 5, return_sequences=False), nn.Linear(5, 3), rng=0)
    model[1].weight.data[...] = 0
    monitor = watch_one_step(model, *sequences())
    assert monitor["gradient"][0, 0] == 0
    figure = monitor.plot(tmp_path / "a.svg")
    titles = [axes.get_title() for axes in figure.axes]
    assert "gradient over time, layer 0" in titles
    assert "hatched" in figure.axes[0].get_xlabel()


def test_figures_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1024, 100)).astype(np.float32), rng.integers(10, size=1024)
    threads, monitors, models = minidl.get_num_threads(), [], []
    try:
        for count in (1, 2):
            minidl.set_num_threads(count)
            layers = [nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 300), nn.Tanh()]
            models.append(nn.Sequential(*layers, nn.Linear(300, 10), rng=0))
            monitors.append(GradientMonitor(every=2))
            options: Any = {"epochs": 2, "batch_size": 128, "progress": False}
            trainer_of(models[-1]).fit(x, y, callbacks=[monitors[-1]], **options)
    finally:
        minidl.set_num_threads(threads)
    assert_same_training(*models)
    assert_same_records(*monitors)
