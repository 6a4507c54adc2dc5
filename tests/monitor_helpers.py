"""A training by hand that stores all arrays, and what NumPy makes of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl import GradientMonitor, Trainer, nn, optim
from minidl.diagnosis import tracks
from minidl.diagnosis.records import QUANTITIES
from minidl.nn.watching import replaced

BATCH = 16

LARGEST_SLOPE = {nn.Sigmoid: 0.25, nn.Tanh: 1.0, nn.HardSigmoid: 1 / 6, nn.Softsign: 1.0}


def network(rng: int = 0) -> nn.Sequential:
    """A network of leaves in a row, with a layer of every kind that is watched in its own way."""
    layers = [
        *(nn.Linear(6, 40), nn.BatchNorm(40), nn.ReLU(), nn.Linear(40, 7), nn.Sigmoid()),
        *(nn.Linear(7, 300), nn.Softsign(), nn.Dropout(0.3), nn.Linear(300, 5), nn.Tanh()),
        *(nn.Linear(5, 9), nn.HardSigmoid(), nn.PReLU(9), nn.Linear(9, 3)),
    ]
    model = nn.Sequential(*layers, rng=rng)
    model[0].bias.data[:10] = -9.0  # after the ReLU, these units are dead
    model[1].gamma.data[:10], model[1].beta.data[:10] = 0, -1
    model[8].weight.data *= 9  # tanh saturates
    return model


def data(rows: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and their labels."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 6)).astype(np.float32), rng.integers(3, size=rows)


def trainer_of(model: nn.Layer, record: bool = True, **options: Any) -> Trainer:
    """A trainer of this network."""
    optimizer = optim.Adam(model.parameters(), lr=0.01, max_norm=0.5)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0, record=record, **options)


def fit(trainer: Trainer, monitor: GradientMonitor | None, epochs: int = 1, **options: Any) -> Any:
    """Train on the data, six batches in order."""
    x, y = data()
    callbacks = [] if monitor is None else [monitor]
    options = {"batch_size": BATCH, "shuffle": False, "progress": False, **options}
    return trainer.fit(x, y, epochs=epochs, callbacks=callbacks, **options)


def step_of(model: nn.Layer, loss: nn.Loss, optimizer: optim.Optimizer) -> Any:
    """A function that makes a step."""

    def step(x: Any, y: Any) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    return step


def assert_same_training(one: nn.Layer, other: nn.Layer) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.data.tobytes() == b.data.tobytes(), a.name
    for path, array in one.state().items():
        assert array.tobytes() == other.state()[path].tobytes(), path


def assert_same_records(one: GradientMonitor, other: GradientMonitor) -> None:
    assert one.layers == other.layers
    np.testing.assert_array_equal(one.steps, other.steps)
    for name in one.quantities:
        np.testing.assert_array_equal(one[name], other[name], name)
    for name, values in one.scalars.items():
        np.testing.assert_array_equal(values, other.scalars[name], name)
    for name in ("over_time", "cell_gradient"):
        for path, norms in getattr(one, name).items():
            np.testing.assert_array_equal(norms, getattr(other, name)[path], path)


def check_figures(record: bool) -> None:
    """Compare all that a monitor has noted with what NumPy makes of stored arrays."""
    monitor = GradientMonitor(every=1)
    fit(trainer_of(network(), record), monitor)
    by_hand = trainer_of(network())
    expected = list(train(by_hand.model, by_hand.loss, by_hand.optimizer, *data(), BATCH))
    assert monitor.steps.tolist() == [1, 2, 3, 4, 5, 6]
    for name in monitor.quantities:
        right = np.array([step[name] for step in expected])
        atol = 3e-5 if name in ("saturation", "mean", "deviation") else 0
        np.testing.assert_allclose(monitor[name], right, rtol=3e-4, atol=atol, err_msg=name)
    for name in ("norm", "loss"):
        right = np.array([step[name] for step in expected])
        np.testing.assert_allclose(monitor.scalars[name], right, rtol=1e-4, err_msg=name)
    assert monitor.scalars["learning_rate"].tolist() == [0.01] * 6
    clipped = np.minimum(1, 0.5 / monitor.scalars["norm"])
    np.testing.assert_allclose(monitor.scalars["clip_factor"], clipped)
    assert monitor["dead"][0, 2] == 0.25
    assert monitor["saturation"][0, 8] > 0.3
    # Of two batches for each step, the mean.
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), rng=0)
    whole, halves = GradientMonitor(every=1), GradientMonitor(every=1)
    for seen, options in ((whole, {}), (halves, {"batch_size": BATCH // 2, "accumulate": 2})):
        model = copy.deepcopy(plain)
        fit(trainer_of(model, record), seen, **options)
    np.testing.assert_allclose(halves["gradient"], whole["gradient"], rtol=1e-3)
    np.testing.assert_allclose(halves.scalars["loss"], whole.scalars["loss"], rtol=1e-4)
    # Of steps that are the same, whoever clears the gradients.
    same, loss = GradientMonitor(every=1), nn.CrossEntropyLoss()
    optimizer = optim.SGD(plain.parameters(), lr=0.0)
    with same.watch(plain, optimizer, loss):
        for _ in range(3):
            plain.zero_grad()
            loss(plain(data()[0]), data()[1])
            plain.backward(loss.backward())
            optimizer.step()
    assert (same["gradient"] == same["gradient"][0]).all()
    assert len(same) == 3


def check_recurrent(record: bool) -> None:
    """Compare what is noted of recurrent layers with what the layers keep."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(24, 7, 4)).astype(np.float32), rng.integers(3, size=24)
    for kind in (nn.RNN, nn.LSTM, nn.GRU):
        model = nn.Sequential(kind(4, 6, return_sequences=False), nn.Linear(6, 3), rng=0)
        other, monitor = copy.deepcopy(model), GradientMonitor(every=1)
        trainer = trainer_of(model, record)
        trainer.fit(*(x, y), epochs=1, batch_size=24, progress=False, callbacks=[monitor])
        loss = nn.CrossEntropyLoss()
        loss(other(x), y)
        ((run,),) = other[0]._saved[0]
        gates = run.kept[0].astype(np.float64) if run.kept else run.outputs.astype(np.float64)
        other.backward(loss.backward())
        norms = other[0].state_gradient_norms()
        np.testing.assert_allclose(monitor.over_time["0"][0], norms, rtol=1e-5)
        slope = np.polyfit(np.arange(7)[::-1], np.log(norms), 1)[0]
        assert abs(monitor.growth["0"][0] - np.exp(slope)) < 1e-4
        parts = np.split(gates, run.cell.gates, axis=-1)
        names = run.cell.gate_names
        for name, part in zip(names, parts, strict=bool(names)):
            np.testing.assert_allclose(monitor.gates["0"][name][0], part.mean(), rtol=1e-4)
        slopes = [
            1 - part**2 if name in ("candidate", "h") else 4 * part * (1 - part)
            for name, part in zip(names or ("h",), parts, strict=True)
        ]
        lost = 1 - np.mean([slope.mean() for slope in slopes])
        np.testing.assert_allclose(monitor["saturation"][0, 0], lost, rtol=1e-4)


def check_passes(record: bool) -> None:
    """Compare dead units with those of whole passes, of which one row activates a unit."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1), rng=0)
    model[0].weight.data[...], model[0].bias.data[...] = 1.0, (-0.5, -90.0)
    x = np.zeros((1024, 1), np.float32)
    x[600] = 1.0
    optimizer = optim.SGD(model.parameters(), lr=1e-9)
    trainer = Trainer(model, nn.MSELoss(), optimizer, record=record)
    monitor = GradientMonitor(every=1)
    options: Any = {"batch_size": 128, "shuffle": False, "progress": False}
    trainer.fit(x, x, epochs=2, callbacks=[monitor], **options)
    assert monitor["dead"][:, 1].tolist() == [1.0] * 4 + [0.5] * 12
    x[600] = 0.0
    trainer.fit(x, x, epochs=3, callbacks=[monitor], **options)
    assert monitor["dead"][-24:, 1].tolist() == [0.5] * 8 + [1.0] * 16


def check_spacing(record: bool) -> None:
    """Compare the steps of the records with those of a longer and longer spacing."""
    most = tracks.MOST_RECORDS
    tracks.MOST_RECORDS = 20
    try:
        monitor = GradientMonitor(every=3)
        fit(trainer_of(network(), record), monitor, epochs=60)
        assert 10 <= len(monitor) <= 20
        assert set(np.diff(monitor.steps)) == {24}
        assert monitor.steps[0] == 1
        assert len(monitor["gradient"]) == len(monitor.epochs) == len(monitor)
    finally:
        tracks.MOST_RECORDS = most


MONITOR_CHECKS = {
    "figures": check_figures,
    "recurrent": check_recurrent,
    "passes": check_passes,
    "spacing": check_spacing,
}


def train(
    model: nn.Sequential, loss: nn.Loss, optimizer: optim.Optimizer, x: Any, y: Any, batch: int
) -> Iterator[dict[str, np.ndarray]]:
    """Make a step for each batch; yields the quantities of each, one number for every layer.

    Of the layers, those that only pass on (``Dropout``) are run and left out.
    """
    layers = list(model.stack)
    alive: dict[int, Any] = {}
    for begin in range(0, len(x), batch):
        # Passes inside one call of a layer would be one pass, so each is a pass of its own.
        outputs, gradients, slopes = [], [], []
        h = x[begin : begin + batch]
        for layer in layers:
            h = layer(h)
            outputs.append(h.astype(np.float64))
            slopes.append(slope_of(layer, h, outputs))
        value = loss(h, y[begin : begin + batch])
        optimizer.zero_grad()
        dy = loss.backward()
        for layer in reversed(layers):
            gradients.insert(0, dy.astype(np.float64))
            dy = layer.backward(dy)
        grads = [[p.grad.astype(np.float64) for p in layer.parameters()] for layer in layers]
        before = [[p.data.astype(np.float64) for p in layer.parameters()] for layer in layers]
        norm = optimizer.step()
        after = [[p.data.astype(np.float64) for p in layer.parameters()] for layer in layers]
        rows = []
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Dropout):
                continue
            out = outputs[place]
            active = alive.setdefault(place, np.zeros(out.shape[-1], bool))
            active |= (out != 0).any(axis=0)
            trained = bool(layer.parameters())
            changes = [a - b for a, b in zip(after[place], before[place], strict=True)]
            is_activation = not trained or isinstance(layer, nn.PReLU)
            rows.append(
                {
                    "gradient": norm_of([gradients[place]]),
                    "weight_gradient": norm_of(grads[place]) if trained else np.nan,
                    "weight": norm_of(after[place]) if trained else np.nan,
                    "update": norm_of(changes) if trained else np.nan,
                    "mean": out.mean(),
                    "deviation": out.std(),
                    "zeros": (out == 0).mean(),
                    "saturation": 1 - slopes[place],
                    "dead": 1 - active.mean() if is_activation else np.nan,
                }
            )
        found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        found["gradient_ratio"] = found["gradient"] / found["gradient"][-1]
        found["update_ratio"] = found["update"] / found["weight"]
        assert found.keys() == QUANTITIES.keys()
        yield found | {"norm": np.array(norm), "loss": np.array(float(value))}


def figures_of_step(
    model: nn.Layer, layers: list[nn.Layer], loss: nn.Loss, x: Any, *target: Any
) -> dict[str, np.ndarray]:
    """What NumPy makes of the arrays that pass through some layers in one step."""
    outputs, gradients = {}, {}

    def storing(layer: nn.Layer, kept: dict[int, Any], is_gradient: bool) -> Any:
        def replace(own: Any) -> Any:
            def call(*inputs: Any) -> Any:
                result = own(*inputs)
                several = inputs if is_gradient else (result,)
                if isinstance(result, tuple) and not is_gradient:
                    several = result[:1]  # of several outputs the first is described
                kept[id(layer)] = np.concatenate([x.astype(np.float64) for x in several], axis=-1)
                return result

            return call

        return replace

    forward = [(layer, "forward", storing(layer, outputs, False)) for layer in layers]
    backward = [(layer, "backward", storing(layer, gradients, True)) for layer in layers]
    with replaced([*forward, *backward]):
        loss(model(x), *target)
        model.zero_grad()
        model.backward(loss.backward())
    own = [[p.grad.astype(np.float64) for p in layer.own_parameters()] for layer in layers]
    stored = [outputs[id(layer)] for layer in layers]
    return {
        "gradient": np.array([norm_of([gradients[id(layer)]]) for layer in layers]),
        "weight_gradient": np.array([norm_of(grads) if grads else np.nan for grads in own]),
        "mean": np.array([y.mean() for y in stored]),
        "deviation": np.array([y.std() for y in stored]),
        "zeros": np.array([(y == 0).mean() for y in stored]),
    }


def slope_of(layer: nn.Layer, y: np.ndarray, outputs: list[np.ndarray]) -> float:
    """The mean derivative of an activation / the largest, by its formula; NaN for others."""
    y = y.astype(np.float64)
    x = outputs[-2] if len(outputs) > 1 else y
    slope: Any = {
        nn.Sigmoid: lambda: y * (1 - y),
        nn.Tanh: lambda: 1 - y * y,
        nn.Softsign: lambda: (1 - abs(y)) ** 2,
        nn.HardSigmoid: lambda: ((x > -3) & (x < 3)) / 6,
    }.get(type(layer), lambda: np.nan)()
    return float(np.mean(slope)) / LARGEST_SLOPE.get(type(layer), np.nan)


def norm_of(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum((a * a).sum() for a in arrays)))
