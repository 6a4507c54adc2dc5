"""What a training with several inputs and heads does at its edges: rows, names, files, nests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same
from test_heads import KINDS, LENGTHS, ROWS, SEQUENCES, SIZES, TABLE, X, Y, fit, parameters, trainer

import minidl
from minidl import Trainer, nn
from minidl.training import Callback, Checkpoint, EarlyStopping

F32 = np.float32
IGNORING = {"kind": nn.CrossEntropyLoss(ignore_index=-1), "size": nn.MSELoss()}


class Steps(Callback):
    """Is notified of every step, and saves the training after one of them."""

    def __init__(self, path: Path | None = None, at: int = 0) -> None:
        self.path, self.at, self.losses = path, at, list[float]()

    def on_batch_end(self, subject: Any, epoch: int, values: Any) -> None:
        self.losses.append(values["loss"])
        if len(self.losses) == self.at:
            subject.save(self.path)


# --- batches in which no row counts in a head -----------------------------------------------------


def few() -> dict[str, Any]:
    """Weights with which no row of the second and of the last batch counts in a head."""
    weight = np.zeros(ROWS)
    weight[[3, 5, 40]] = 1, 2, 3
    return {"kind": weight}


def weighted_means() -> list[Any]:
    """Losses that are means over rows with weights, each with a prediction and a target."""
    return [
        pytest.param(*example, id=f"{example[0]!r:.40}-{example[1].ndim}")
        for cls in nn.Loss.registry
        for example in cls.examples()
        if example[0].reduction == "mean" and cls.__module__.startswith("minidl.nn")
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("loss", "prediction", "target"), weighted_means())
def test_of_no_rows_every_loss_of_a_head_is_zero(
    backend: str, dtype: Any, loss: Any, prediction: Any, target: Any
) -> None:
    """Whatever the rows hold; the other head is as it is alone, and so are both with rows."""
    nothing = np.zeros(loss.weighted_shape(prediction), dtype)
    prediction = prediction.astype(dtype)
    target = target if loss.takes_labels else target.astype(dtype)
    heads = nn.MultiLoss([loss, nn.MSELoss()])

    @minidl.record
    def step(a: Any, b: Any, y: Any, w: Any) -> Any:
        value = heads((a, b), (y, b), (w, None))
        return value, heads.values, heads.backward()

    rows = np.ones((4, 2), dtype)
    for weight in (nothing, nothing + 1, nothing):
        value, values, gradients = step(prediction, rows, target, weight)
        expected = float(loss(prediction, target, weight)) if weight.any() else 0.0
        assert float(value) == float(values["0"]) == expected
        dprediction = loss.backward() if weight.any() else np.zeros_like(prediction)
        np.testing.assert_array_equal(gradients[0], dprediction)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"not all zero"):
        loss(prediction, target, nothing)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("ignoring", [True, False])
def test_a_batch_without_a_row_for_a_head_trains_the_others(
    backend: str, record: bool, ignoring: bool
) -> None:
    """Every step is that of the sum over all heads, in which this one is 0."""
    rows = np.flatnonzero(few()["kind"])
    if ignoring:
        labels = np.where(np.isin(np.arange(ROWS), rows), KINDS, -1)
        subject, y, options = trainer(IGNORING, record=record), (labels, SIZES), {}
    else:
        subject, y, options = trainer(record=record), Y, {"sample_weight": few()}
    other = trainer()
    for model in (subject.model, other.model):
        model.eval()
    history = fit(subject, y=y, epochs=1, shuffle=False, diagnose=False, **options)
    cross_entropy, mse, loss_of_kinds, loss_of_sizes = nn.CrossEntropyLoss(), nn.MSELoss(), [], []
    for begin in range(0, ROWS, 16):
        some = slice(begin, begin + 16)
        kinds, sizes = other.model(*(a[some] for a in X))
        loss_of_sizes.append(float(mse(sizes, SIZES[some])))
        dkinds = np.zeros_like(kinds)
        if len(own := rows[(rows >= begin) & (rows < begin + 16)]):
            weight = None if ignoring else few()["kind"][own].astype(F32)
            value = float(cross_entropy(kinds[own - begin], KINDS[own], weight))
            loss_of_kinds.append((value, len(own) if ignoring else few()["kind"][own].sum()))
            dkinds[own - begin] = cross_entropy.backward()
        other.optimizer.zero_grad()
        other.model.backward(dkinds, F32(0.5) * mse.backward())
        other.optimizer.step()
    for a, b in zip(parameters(subject), parameters(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    values, weights = zip(*loss_of_kinds, strict=True)
    of_kind = np.average(values, weights=weights)
    counts = [min(16, ROWS - begin) for begin in range(0, ROWS, 16)]
    of_size = np.average(loss_of_sizes, weights=counts)
    assert history["kind.loss"][0] == pytest.approx(of_kind, rel=1e-5)
    assert history["size.loss"][0] == pytest.approx(of_size, rel=1e-5)
    assert history["loss"][0] == pytest.approx(of_kind + 0.5 * of_size, rel=1e-5)


def test_a_batch_without_a_row_for_a_head_is_evaluated_and_resumed(tmp_path: Path) -> None:
    metrics = {"kind": ["accuracy", "f1_macro"], "size": "r2"}
    whole, second = trainer(metrics=metrics), trainer(metrics=metrics)
    options: Any = {"sample_weight": few(), "shuffle": False, "epochs": 2}
    steps = Steps(tmp_path / "training.safetensors", at=5)
    history = fit(whole, callbacks=[steps], **options)
    assert np.isfinite(steps.losses).all()
    second.load(tmp_path / "training.safetensors")
    assert dict(fit(second, callbacks=[Steps()], **options)) == dict(history)
    at_once = whole.evaluate(X, Y, sample_weight=few())
    in_parts = whole.evaluate(X, Y, batch_size=5, sample_weight=few())
    assert in_parts == pytest.approx(at_once, rel=1e-6)


def test_an_epoch_that_ends_before_a_head_had_a_row_has_no_value_for_it() -> None:
    class Stop(Callback):
        def on_batch_end(self, subject: Any, epoch: int, values: Any) -> None:
            subject.stop()

    weight = np.zeros(ROWS)
    weight[-1] = 1
    subject = trainer(metrics={"kind": "accuracy", "size": "mae"})
    history = fit(subject, sample_weight={"kind": weight}, callbacks=[Stop()], shuffle=False)
    assert np.isnan([history["kind.loss"], history["kind.accuracy"]]).all()
    assert history["loss"][0] == 0.5 * history["size.loss"][0]


@pytest.mark.parametrize("part", ["training", "validation", "share", "evaluation"])
def test_rows_none_of_which_counts_in_a_head_are_refused(part: str) -> None:
    labels = KINDS.copy()
    labels[1 if part == "share" else 0 :] = -1
    labels[:1] = 0 if part == "share" else -1
    wrong, subject = (X, (labels, SIZES)), trainer(IGNORING)
    calls: dict[str, Any] = {
        "training": lambda: fit(subject, *wrong),
        "validation": lambda: fit(subject, validation=wrong),
        "share": lambda: fit(subject, *wrong, validation=0.25),
        "evaluation": lambda: subject.evaluate(*wrong),
    }
    with pytest.raises(ValueError, match=r"y: in head kind, CrossEntropyLoss.*, no row counts"):
        calls[part]()
    assert subject.optimizer.steps == 0


def test_wrong_weights_and_labels_of_a_recorded_step_name_head_and_step() -> None:
    loss = nn.MultiLoss({"first": nn.CrossEntropyLoss(), "second": nn.CrossEntropyLoss()})

    @minidl.record
    def step(a: Any, b: Any, y: Any, z: Any, w: Any) -> Any:
        value = loss((a, b), (y, z), {"second": w})
        loss.backward()
        return value

    weight, labels = np.ones(ROWS, F32), KINDS.copy()
    arrays = (TABLE, TABLE, KINDS, labels)
    step.epoch(arrays, weight, 8, shuffle=False)
    labels[33] = 9
    words = r"^step 4 of the epoch .*head second: .*label 9 in row 33 of the data set"
    with pytest.raises(ValueError, match=words):
        step.epoch(arrays, weight, 8, shuffle=False)
    labels[33] = 0
    weight[17] = -1
    with pytest.raises(ValueError, match=r"^step 2 of the epoch .*head second: .*weights must be"):
        step.epoch(arrays, weight, 8, shuffle=False)


# --- weights of some heads ------------------------------------------------------------------------


def test_heads_that_are_not_named_count_with_weight_one() -> None:
    weight = np.linspace(0.5, 2, ROWS)
    named, whole = trainer(), trainer()
    options: Any = {"epochs": 2}
    first = fit(named, sample_weight={"size": weight}, validation=(X, Y, {}), **options)
    second = fit(whole, sample_weight=(None, weight), validation=(X, Y), **options)
    assert dict(first) == dict(second)
    assert_same(parameters(named), parameters(whole), "parameters")
    assert named.evaluate(X, Y, sample_weight={"kind": weight}) == named.evaluate(
        X, Y, sample_weight=(weight, np.ones(ROWS))
    )
    plain = trainer()
    assert dict(fit(trainer(), class_weight={"kind": None})) == dict(fit(plain))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"sample_weight": {"knd": np.ones(ROWS)}},
            "sample_weight: expected kind, size,.*'knd' is",
        ),
        ({"sample_weight": {"size": np.ones(9)}}, r"sample_weight\['size'\]: expected shape \(60,"),
        ({"sample_weight": {"size": -np.ones(ROWS)}}, r"sample_weight\['size'\]: row 0 holds -1"),
        ({"sample_weight": (None, np.zeros(ROWS))}, r"sample_weight\[1\]: all weights are zero"),
        ({"sample_weight": np.zeros(ROWS)}, "sample_weight of head kind: all weights are zero"),
        ({"sample_weight": np.ones((ROWS, 5))}, r"sample_weight of head kind: expected shape"),
        ({"sample_weight": [None, np.ones(ROWS)]}, "sample_weight: expected a tuple of 2, or a d"),
        ({"sample_weight": [np.ones(ROWS)] * 2}, "sample_weight: expected a tuple of 2, or a dict"),
        ({"sample_weight": {"kind": "balanced"}}, r"sample_weight\['kind'\]: expected real numb"),
        ({"validation": (X, Y, {"kd": np.ones(ROWS)})}, "validation sample_weight: .*'kd' is unkn"),
        ({"class_weight": {"kind": {7: 1}}}, "head kind: class_weight: label 7 is outside the 3"),
        ({"class_weight": {"size": "balanced"}}, "head size: class_weight needs a loss of labels"),
        ({"class_weight": {"knd": "balanced"}}, "class_weight: expected a dict by the names of"),
    ],
)
def test_wrong_weights_name_the_head(options: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        fit(trainer(), **options)


class Plain(nn.Loss):
    """A loss of one's own, which takes no weights."""

    def forward(self, prediction: Any, target: Any) -> Any:  # type: ignore[override]
        return minidl.kernels.mse(prediction, target)


@pytest.mark.parametrize("record", [True, False])
def test_losses_that_take_no_weights_are_beside_those_that_do(backend: str, record: bool) -> None:
    """Also where padding gives every row of a head weights."""
    weight = np.linspace(0.5, 2, ROWS)
    losses = {"kind": nn.CrossEntropyLoss(), "size": Plain()}
    subject = trainer(losses, record=record, metrics={"kind": "accuracy", "size": "mae"})
    options: Any = {"sample_weight": {"kind": weight}, "class_weight": {"kind": "balanced"}}
    history = fit(subject, validation=(X, Y, {"kind": weight}), epochs=2, **options)
    expected = fit(
        trainer(metrics={"kind": "accuracy", "size": "mae"}, record=record),
        validation=(X, Y, {"kind": weight}),
        epochs=2,
        **options,
    )
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for wrong in (weight, {"size": weight}):
        with pytest.raises(TypeError, match=r"Plain\(\) takes no weights"):
            fit(subject, sample_weight=wrong)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ({"val_size": nn.MSELoss(), "size": nn.MSELoss()}, "a head cannot be called 'val_size'"),
        ({"": nn.MSELoss()}, "a head cannot be called ''"),
        ({1: nn.MSELoss()}, "the name of a head must be a word, got 1"),
        ({nn.MSELoss()}, r"expected a list or a dict of losses, got \{"),
        ("mse", "expected a list or a dict of losses, got 'mse'"),
    ],
)
def test_heads_need_names_and_an_order(losses: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        nn.MultiLoss(losses)


def test_a_loss_of_ones_own_may_return_float32() -> None:
    class Own(nn.Loss):
        def forward(self, prediction: Any, target: Any, weight: Any = None) -> Any:
            error = prediction - target
            return np.asarray(np.square(error).mean()), 2 * error / error.size

    subject = trainer({"kind": nn.CrossEntropyLoss(), "size": Own()}, record=False)
    expected = fit(trainer(record=False), epochs=2)
    for name, values in fit(subject, epochs=2).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, err_msg=name)


def test_steps_of_several_batches_need_heads_of_one_kind() -> None:
    mixed = {"kind": nn.CrossEntropyLoss(), "size": nn.MSELoss("sum")}
    with pytest.raises(
        ValueError, match=r"accumulate > 1 averages .*'size': 'sum'.*; give them one"
    ):
        fit(trainer(mixed), accumulate=2)
    with pytest.raises(ValueError, match=r"heads kind and size weight them differently; use accum"):
        fit(trainer(), accumulate=2, sample_weight=few())
    fit(trainer(mixed), epochs=1)
    fit(trainer({**mixed, "kind": nn.CrossEntropyLoss("sum")}), epochs=1, accumulate=2)


# --- names: of data, metrics and values -----------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ({"table": (SEQUENCES, LENGTHS), "sequences": TABLE}, Y, r"X\['table'\] is a tuple of 2"),
        (
            {"table": SEQUENCES, "sequences": TABLE},
            Y,
            r"X\['table'\] of .*0\.table\.0 Linear\(4, 6",
        ),
        ((SEQUENCES, LENGTHS, TABLE), Y, "got 3; lengths stand behind their sequences"),
        ({"table": TABLE, "seq": SEQUENCES}, Y, "'sequences' is missing, 'seq' is unknown"),
        ({"table": TABLE[:9], "sequences": SEQUENCES}, Y, r"X\['table'\] has 9 rows, X\['seq"),
        ({}, Y, "X: expected the inputs table, sequences, got none: 'table' is missing"),
        ([TABLE, SEQUENCES], Y, r"X is a list of 2 arrays .* several inputs .* write tuple\(X\)"),
        (X, {"kind": SIZES, "size": KINDS}, r"y\['kind'\]: labels must be integers"),
        (X, {"kind": KINDS, "size": SIZES[:9]}, r"X\[0\] has 60 rows, y\['size'\] has 9"),
        (X, {"kind": KINDS, "siz": SIZES}, "y: expected .*: 'size' is missing, 'siz' is unknown"),
        (X, {}, "y: expected kind, size, .* got none: 'kind' is missing"),
        (X, {"kind": KINDS.astype(str), "size": SIZES}, r"y\['kind'\] = np.unique\(y\['kind'\]"),
    ],
)
def test_swapped_and_misnamed_data_are_named(x: Any, y: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        fit(trainer(), x, y)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"size": "accuracy"}, "head size: accuracy needs .*; for numbers there are mae, mse and"),
        ({"kind": "r2"}, "head kind: r2 needs prediction and target of one shape"),
        ({"kind": "top_5"}, "head kind: top_5: there are only 3 classes"),
        ({"kind": ["accuracy", "f1"]}, "head kind: f1 is for 2 classes"),
        ({"size": "acc"}, "head size: unknown metric 'acc'; known: accuracy"),
        ({"size": ["mae", "mae"]}, "head size: two entries"),
        ({"size": lambda p, t: p}, r"head size: metric <lambda> must return one number, got shape"),
        (["mae"], "metrics of a MultiLoss: expected a dict by the names of its heads"),
    ],
)
def test_metrics_that_do_not_suit_name_the_head(metrics: Any, words: str) -> None:
    for call in (fit, lambda subject: subject.evaluate(X, Y)):
        with pytest.raises((TypeError, ValueError), match=words):
            call(trainer(metrics=metrics))


def test_weighted_metrics_are_called_so() -> None:
    with pytest.raises(ValueError, match=r"^weighted_metrics of a MultiLoss"):
        trainer(weighted_metrics=["mae"])


@pytest.mark.parametrize("record", [True, False])
def test_a_loss_that_is_not_finite_names_the_head(record: bool) -> None:
    subject = trainer({"kind": nn.CrossEntropyLoss(), "size": nn.MSELoss()}, record=record)
    far = np.full_like(SIZES, 1e30)
    with pytest.raises(FloatingPointError, match=r"the loss of head size, MSELoss\(\), is not"):
        fit(subject, y=(KINDS, far))


def test_callbacks_watch_the_values_of_heads(tmp_path: Path) -> None:
    metrics = {"kind": "accuracy", "size": "mae"}
    for name in ("size.loss", "val_size.mae", "val_kind.accuracy"):
        folder = tmp_path / name
        stopping = EarlyStopping(name, patience=9)
        subject = trainer(metrics=metrics)
        history = fit(subject, validation=0.25, callbacks=[stopping, Checkpoint(folder, best=name)])
        best = max if name.endswith("accuracy") else min
        assert stopping.best == best(history[name])
        again = trainer(metrics=metrics)
        again.load(folder / "best.safetensors")
        assert again.history[name][-1] == stopping.best
    for make in (EarlyStopping, lambda name: Checkpoint(tmp_path / "new", best=name)):
        with pytest.raises(
            ValueError, match=r"no value 'val_sise.loss', only loss, .*val_size.los"
        ):
            fit(trainer(), validation=0.25, callbacks=[make("val_sise.loss")])
        with pytest.raises(
            ValueError, match=r"no value 'kind.f1', only loss, kind.loss, size.loss"
        ):
            fit(trainer(), callbacks=[make("kind.f1")])
        with pytest.raises(ValueError, match=r"size.loss.*; give fit a validation set"):
            fit(trainer(), callbacks=[make("val_size.loss")])
        for wrong in ("val_size loss", "val_size_loss", "val_size/loss"):
            with pytest.raises(ValueError, match=r'a value of a head is called "val_size.loss"'):
                make(wrong)
    with pytest.raises(KeyError, match=r"size_loss: the history has loss, kind.loss, size.loss"):
        history["size_loss"]
    assert history.get("size_loss") is None


# --- trainings of other heads ---------------------------------------------------------------------


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({}, {"metrics": {"kind": "accuracy", "size": "mae"}}, "this one has size.mae; give"),
        ({"metrics": {"kind": "accuracy", "size": "mae"}}, {}, "this one has no size.mae; give"),
        ({"metrics": {"size": "mse"}}, {"metrics": {"size": "mae"}}, "no size.mse, but size.mae"),
        (
            {},
            {"losses": [nn.CrossEntropyLoss(), nn.MSELoss()]},
            "no kind.loss, .*, but 0.loss, 1.l",
        ),
    ],
)
def test_a_training_of_other_values_is_not_resumed(
    tmp_path: Path, within: bool, before: Any, now: Any, words: str
) -> None:
    """Before any step, and with what differs, also if no epoch is complete."""
    path = tmp_path / "training.safetensors"
    first, second = built(**before), built(**now)
    fit(first, epochs=1, callbacks=[Steps(path, at=2)])
    if not within:
        first.save(path)
    second.load(path)
    loaded = [p.copy() for p in parameters(second)]
    with pytest.raises(ValueError, match=rf"^fit: unlike the training that was loaded, .*{words}"):
        fit(second, epochs=2, callbacks=[Steps()])
    assert_same(parameters(second), loaded, "parameters")


def built(losses: Any = None, metrics: Any = None) -> Trainer:
    weights = [1, 0.5] if isinstance(losses, list) else None
    return trainer(losses, weights, metrics)


def test_metrics_of_another_order_are_not_resumed_within_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    first = trainer(metrics={"size": ["mae", "mse"]})
    fit(first, epochs=1, callbacks=[Steps(path, at=2)])
    second = trainer(metrics={"size": ["mse", "mae"]})
    second.load(path)
    with pytest.raises(
        ValueError, match=r"size.mse, size.mae in this order, which was .*mae, size"
    ):
        fit(second, epochs=1, callbacks=[Steps()])
    first.save(path)
    second = trainer(metrics={"size": ["mse", "mae"]})
    second.load(path)
    assert list(fit(second, epochs=2)) == list(first.history)


def test_a_validation_that_is_left_out_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    first, second = trainer(), trainer()
    fit(first, epochs=1, validation=0.25)
    first.save(path)
    second.load(path)
    with pytest.raises(ValueError, match=r"has no val_loss, val_kind.loss,.*the same validation"):
        fit(second, epochs=2)
