"""Trainings of models with several inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same

import minidl
from minidl import Trainer, nn, optim
from minidl.training import Callback, EarlyStopping

F32 = np.float32
ROWS = 60
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(ROWS, 4)).astype(F32)
SEQUENCES = RNG.normal(size=(ROWS, 5, 3)).astype(F32)
LENGTHS = RNG.integers(1, 6, ROWS)
KINDS = (TABLE[:, 0] > 0).astype(int) + (TABLE[:, 1] > 0.5)
SIZES = (TABLE[:, :1] + SEQUENCES[:, 0, :1]).astype(F32)
X, Y = (TABLE, SEQUENCES, LENGTHS), (KINDS, SIZES)
NAMED_X: Any = {"sequences": (SEQUENCES, LENGTHS), "table": TABLE}
NAMED_Y: Any = {"size": SIZES, "kind": KINDS}


def trainer(
    losses: Any = None, weights: Any = None, metrics: Any = None, **options: Any
) -> Trainer:
    towers = nn.Parallel(
        table=nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.1)),
        sequences=nn.GRU(3, 5, return_sequences=False),
    )
    heads = nn.Parallel(kind=nn.Linear(11, 3), size=nn.Linear(11, 1), join=None)
    model = nn.Sequential(towers, nn.BatchNorm(11), heads, rng=0)
    losses = losses or {"kind": nn.CrossEntropyLoss(), "size": nn.MSELoss()}
    loss = nn.MultiLoss(losses, weights or {"size": 0.5})
    optimizer = optim.Adam(model.parameters(), 0.01)
    return Trainer(model, loss, optimizer, metrics, rng=0, **options)


def fit(subject: Trainer, x: Any = X, y: Any = Y, epochs: int = 3, **options: Any) -> Any:
    return subject.fit(x, y, epochs, batch_size=16, progress=False, **options)


def parameters(subject: Trainer) -> list[np.ndarray]:
    return [p.data for p in subject.model.parameters()]


def test_history_has_losses_and_metrics_of_every_head() -> None:
    subject = trainer(metrics={"kind": ["accuracy", "top_2"], "size": "mae"})
    history = fit(subject, validation=0.25)
    names = ["loss", "kind.loss", "size.loss", "kind.accuracy", "kind.top_2", "size.mae"]
    assert list(history) == [*names, *(f"val_{name}" for name in names)]
    for lead in ("", "val_"):
        total = np.array(history[f"{lead}kind.loss"]) + 0.5 * np.array(history[f"{lead}size.loss"])
        np.testing.assert_allclose(history[f"{lead}loss"], total, rtol=1e-12)
    default = fit(trainer(), epochs=1)
    assert list(default) == ["loss", "kind.loss", "size.loss", "kind.accuracy"]


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize(("x", "y"), [(NAMED_X, NAMED_Y), (X, NAMED_Y), (NAMED_X, Y)])
def test_dicts_and_tuples_train_alike(record: bool, x: Any, y: Any) -> None:
    ragged = {**NAMED_X, "sequences": [s[:n] for s, n in zip(SEQUENCES, LENGTHS, strict=True)]}
    subjects = [trainer(record=True), trainer(record=record)]
    subjects += [trainer()] if record else []
    histories = [fit(subjects[0], validation=(X, Y)), fit(subjects[1], x, y, validation=(x, y))]
    if record:
        padded = np.where(np.arange(5) < LENGTHS[:, None], 1, 0)[..., None] * SEQUENCES
        histories.append(fit(subjects[2], ragged, y, validation=((TABLE, padded, LENGTHS), Y)))
    for subject, history in zip(subjects[1:], histories[1:], strict=True):
        assert dict(history) == dict(histories[0])
        assert_same(parameters(subject), parameters(subjects[0]), "parameters")


def test_epoch_means_are_those_of_the_batches() -> None:
    """Losses of a history are what the steps gave, weighted by the rows and weights of each."""
    weight = np.linspace(0.5, 2, ROWS).astype(F32)
    subject = trainer()
    for layer in subject.model.layers():
        layer[1].eval()
    values: list[tuple[float, float]] = []
    weights: list[tuple[float, float]] = []
    other = trainer()
    other.model.eval()
    loss: Any = other.loss
    order = minidl.seeds.random_order("test", np.random.default_rng(0), ROWS)
    for begin in range(0, ROWS, 16):
        rows = order[begin : begin + 16]
        y, w = (KINDS[rows], SIZES[rows]), (np.ones(len(rows), F32), weight[rows])
        loss(other.model(*(a[rows] for a in X)), y, w)
        other.optimizer.zero_grad()
        other.model.backward(loss.backward())
        other.optimizer.step()
        values.append(tuple(map(float, loss.values.values())))  # type: ignore[arg-type]
        weights.append((len(rows), float(weight[rows].sum())))
    history = fit(subject, epochs=1, sample_weight={"kind": None, "size": weight}, diagnose=False)
    of_kind, of_size = np.average(values, axis=0, weights=weights)
    assert history["kind.loss"][0] == pytest.approx(of_kind, rel=1e-6)
    assert history["size.loss"][0] == pytest.approx(of_size, rel=1e-6)
    assert_same(parameters(subject), parameters(other), "parameters")


def test_evaluate_and_predict() -> None:
    subject = trainer(metrics={"kind": "accuracy", "size": "mae"})
    fit(subject, epochs=1)
    found = subject.evaluate(NAMED_X, NAMED_Y, batch_size=7)
    with nn.evaluating():
        kinds, sizes = subject.model(*X)
    for predicted in (subject.predict(X), subject.predict(NAMED_X, batch_size=9)):
        assert isinstance(predicted, tuple)
        for got, expected in zip(predicted, (kinds, sizes), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert found["kind.accuracy"] == np.mean(kinds.argmax(axis=1) == KINDS)
    assert found["size.mae"] == pytest.approx(float(np.abs(sizes - SIZES).mean()), rel=1e-5)
    assert found["size.loss"] == pytest.approx(float(np.square(sizes - SIZES).mean()), rel=1e-5)
    assert found["loss"] == pytest.approx(found["kind.loss"] + 0.5 * found["size.loss"])
    for _ in range(12):  # from the ninth call on it is recorded
        again = subject.predict(X)
    assert_same(list(again), list(subject.predict(X)), "predict")


def test_rows_of_weight_zero_are_left_out_where_they_count_nowhere() -> None:
    weight = (np.arange(ROWS) % 3 > 0).astype(F32)
    few = np.flatnonzero(weight)
    subject, other = trainer(metrics={"size": "mae"}), trainer(metrics={"size": "mae"})
    history = fit(subject, sample_weight=weight)
    expected = fit(other, tuple(a[few] for a in X), tuple(a[few] for a in Y))
    np.testing.assert_allclose(history["size.mae"], expected["size.mae"], rtol=1e-6)
    spoilt = SIZES.copy()
    missing = weight == 0
    spoilt[missing] = 1e30
    subject = trainer()
    history = fit(subject, y=(KINDS, spoilt), sample_weight=(None, weight))
    assert max(history["size.loss"]) < 100
    found = subject.evaluate(X, (KINDS, spoilt), sample_weight=(None, weight))
    assert found["kind.loss"] == pytest.approx(subject.evaluate(X, Y)["kind.loss"], rel=1e-6)


def test_class_weights_are_those_of_a_head() -> None:
    balanced = trainer(metrics={})
    fit(balanced, class_weight={"kind": "balanced"})
    weights = minidl.training.weights.class_weights("balanced", KINDS, 3)
    by_hand = trainer(metrics={})
    fit(by_hand, sample_weight={"kind": weights, "size": None})
    for a, b in zip(parameters(balanced), parameters(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="dict by the names of the heads"):
        fit(trainer(), class_weight="balanced")
    with pytest.raises(ValueError, match="class_weight needs a loss of labels"):
        fit(trainer(), class_weight={"size": "balanced"})


def test_accumulated_batches_are_one_large_batch() -> None:
    def built() -> Trainer:
        subject = trainer(metrics={})
        for _, layer in subject.model.layers():
            layer.eval()
        return subject

    weight = np.linspace(1, 2, ROWS).astype(F32)
    for options in ({}, {"sample_weight": weight}):
        large, small = built(), built()
        fit(large, epochs=2, diagnose=False, **options)
        small.fit(X, Y, 2, 4, progress=False, accumulate=4, diagnose=False, **options)
        for a, b in zip(parameters(small), parameters(large), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="accumulate > 1 needs rows that count alike"):
        trainer().fit(X, Y, 1, 4, progress=False, accumulate=4, sample_weight=(None, weight))


def test_a_training_is_resumed_within_an_epoch(tmp_path: Path) -> None:
    class Stop(Callback):
        steps = 0

        def on_batch_end(self, subject: Any, epoch: int, values: Any) -> None:
            self.steps += 1
            if self.steps == 6:
                subject.save(tmp_path / "training.safetensors")

    metrics = {"kind": "accuracy", "size": ["mae", "r2"]}
    whole, second = trainer(metrics=metrics), trainer(metrics=metrics)
    history = fit(whole, validation=0.2, callbacks=[Stop()])
    second.load(tmp_path / "training.safetensors")
    resumed = fit(second, validation=0.2, callbacks=[Stop()])
    assert dict(resumed) == dict(history)
    assert_same(parameters(second), parameters(whole), "parameters")


def test_callbacks_know_the_names_of_the_heads() -> None:
    seen: list[float] = []

    class Watch(Callback):
        def on_batch_end(self, subject: Any, epoch: int, values: Any) -> None:
            seen.append(values["loss"])

    history = fit(
        trainer(), validation=0.2, callbacks=[Watch(), EarlyStopping("val_size.loss", patience=9)]
    )
    assert len(seen) == 9
    assert np.mean(seen[:3]) == pytest.approx(history["loss"][0], rel=0.2)
    with pytest.raises(ValueError, match=r"val_weight\.loss"):
        fit(trainer(), callbacks=[EarlyStopping("val_weight.loss")])


def test_lbfgs_minimises_the_sum_of_all_heads() -> None:
    subject = trainer()
    subject.model[0].branches["table"].stack[2].p = 0.0
    subject.optimizer = optim.LBFGS(subject.model.parameters())
    history = subject.fit(X, Y, 4, progress=False)
    assert history["loss"][-1] < history["loss"][0] / 2


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        (X, KINDS, {}, "y: expected a tuple of 2, or a dict by the names of the heads"),
        (X, (KINDS,), {}, "y: expected 2, one for each head of the MultiLoss .*, got 1"),
        (X, {"kind": KINDS}, {}, "y: expected kind, size, .* got kind"),
        (X, (KINDS.astype(float) + 0.5, SIZES), {}, r"y\[0\]: labels must be integers"),
        (X, {"kind": KINDS + 1, "size": SIZES}, {}, r"y\['kind'\]: label 3 in row \d+ is outside"),
        (
            X,
            (KINDS, SIZES[:, 0]),
            {},
            r"y\[1\] of shape \(60,\) does not suit.*write y\[1\]\[:,",
        ),
        (X, (KINDS, SIZES[:50]), {}, r"X\[0\] has 60 rows, y\[1\] has 50"),
        (X, (KINDS, SIZES * np.nan), {}, r"y\[1\]: row 0 holds nan"),
        ({"table": TABLE}, Y, {}, "X: expected the inputs table, sequences, got table"),
        ((TABLE, SEQUENCES, LENGTHS + 1), Y, {}, r"X\[2\]: length 6 in row \d+ is not in 1 to 5"),
        ({"table": TABLE, "sequences": (SEQUENCES, LENGTHS * 0)}, Y, {}, r"X\['sequences'\]\[1\]"),
        ((TABLE, SEQUENCES * np.inf), Y, {}, r"X\[1\]: row 0 holds"),
        ((TABLE, SEQUENCES, LENGTHS, TABLE), Y, {}, "one for each of the 2, got 3"),
        (X, Y, {"sample_weight": {"knd": None}}, "sample_weight: expected kind, size"),
        (X, Y, {"sample_weight": (None, -SIZES[:, 0])}, "sample_weight"),
    ],
)
def test_bad_data_is_refused_before_any_step(x: Any, y: Any, options: Any, words: str) -> None:
    subject = trainer()
    before = [p.copy() for p in parameters(subject)]
    with pytest.raises((TypeError, ValueError), match=words):
        fit(subject, x, y, **options)
    assert subject.optimizer.steps == 0
    assert_same(parameters(subject), before, "parameters")


def test_rows_that_do_not_count_in_a_head_are_left_out_of_its_metrics() -> None:
    """Labels that are missing, by a weight of 0 or as ignored: of those before the first, too."""
    missing = np.arange(ROWS) % 3 == 0
    kinds = np.where(missing, -1, KINDS)
    losses = {"kind": nn.CrossEntropyLoss(ignore_index=-1), "size": nn.MSELoss()}
    ignoring = trainer(losses, metrics={"kind": "accuracy", "size": "mae"})
    weighted = trainer(metrics={"kind": "accuracy", "size": "mae"})
    weights = {"kind": 1.0 - missing, "size": None}
    first = fit(ignoring, y=(kinds, SIZES))
    second = fit(weighted, sample_weight=weights)
    np.testing.assert_allclose(first["kind.accuracy"], second["kind.accuracy"], rtol=1e-6)
    right = ignoring.predict(X)[0].argmax(axis=1) == KINDS
    found = ignoring.evaluate(X, (kinds, SIZES))
    assert found["kind.accuracy"] == pytest.approx(right[~missing].mean(), rel=1e-6)
    right = weighted.predict(X)[0].argmax(axis=1) == KINDS
    found = weighted.evaluate(X, Y, sample_weight=weights)
    assert found["kind.accuracy"] == pytest.approx(right[~missing].mean(), rel=1e-6)
    mae = np.abs(weighted.predict(X)[1] - SIZES).mean()
    assert found["size.mae"] == pytest.approx(mae, rel=1e-5)


def test_parts_that_do_not_fit_each_other() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Parallel(nn.Identity(), nn.Linear(3, 1), join=None))
    optimizer = optim.SGD(model.parameters())
    with pytest.raises(ValueError, match=r"a tuple of 2, and MSELoss.* one array; nn.Mu"):
        Trainer(model, nn.MSELoss(), optimizer).fit(TABLE, SIZES, 1)
    three = nn.MultiLoss([nn.MSELoss()] * 3)
    with pytest.raises(ValueError, match=r"a tuple of 2, and MultiLoss.* a tuple of 3"):
        Trainer(model, three, optimizer).fit(TABLE, (SIZES,) * 3, 1)
    with pytest.raises(TypeError, match=r"y is a dict, and MSELoss\(\) takes one.*nn.MultiLoss"):
        Trainer(model, nn.MSELoss(), optimizer).fit(TABLE, {"a": SIZES, "b": SIZES}, 1)
    with pytest.raises(ValueError, match=r"X: its rows .*several inputs, write a tuple, tuple\(X"):
        trainer().predict([TABLE, TABLE[:, :3]])
    chain, alone = nn.Sequential(nn.Linear(4, 1)), nn.MultiLoss([nn.MSELoss()])
    with pytest.raises(ValueError, match=r"returns one array, and MultiLoss.* a tuple of 1"):
        Trainer(chain, alone, optim.SGD(chain.parameters())).fit(TABLE, (SIZES,), 1)
    with pytest.raises(ValueError, match="expected a dict by the names of its heads"):
        trainer(metrics=["accuracy"])
    with pytest.raises(ValueError, match="unknown metric 'accurate'"):
        trainer(metrics={"kind": "accurate"})
    with pytest.raises(ValueError, match="diagnose judges"):
        minidl.diagnose(model, three, optimizer, TABLE, (SIZES,) * 3, epochs=1)


def test_a_step_that_is_not_finite_names_the_layer() -> None:
    subject = trainer()
    subject.optimizer.lr = 1e30
    with pytest.raises(FloatingPointError, match=r"training step \d+: .*(layer|loss)"):
        fit(subject, epochs=5)


def test_a_model_of_ones_own_takes_names_and_returns_tuples() -> None:
    class Own(nn.Layer):
        """y, z = a · W, b · V"""

        def __init__(self) -> None:
            self.first, self.second = nn.Linear(4, 3, rng=0), nn.Linear(15, 1, rng=1)
            self.flatten = nn.Flatten()
            self.assign_paths()

        def check_input(self, *arrays: Any) -> None:
            pass

        def forward(self, a: Any, b: Any) -> Any:
            return self.first(a), self.second(self.flatten(b))

        def backward(self, dy: Any, dz: Any) -> Any:
            return self.first.backward(dy), self.flatten.backward(self.second.backward(dz))

    histories = []
    for x in ((TABLE, SEQUENCES), {"b": SEQUENCES, "a": TABLE}):
        model = nn.Sequential(Own())
        loss = nn.MultiLoss([nn.CrossEntropyLoss(), nn.MSELoss()])
        subject = Trainer(model, loss, optim.Adam(model.parameters()), rng=0)
        histories.append(dict(fit(subject, x)))
    assert histories[0] == histories[1]
    assert list(histories[0]) == ["loss", "0.loss", "1.loss", "0.accuracy"]
