"""The cure: what it prescribes, what comes of it, and what it leaves alone."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import Trainer, nn, optim
from minidl.diagnosis import cure as curing
from minidl.diagnosis.cure import Cures, cure
from minidl.diagnosis.diagnosis import Diagnosis
from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies import recipes
from minidl.diagnosis.remedies.actions import (
    Action,
    ClassWeights,
    Clip,
    Epochs,
    FixGradient,
    Reinitialise,
    ReplaceActivation,
    ReplaceHead,
    ScaleInputs,
    ScaleTargets,
    SetLearningRate,
    Shuffle,
    UseOptimizer,
)
from minidl.diagnosis.remedies.apply import apply
from minidl.diagnosis.remedies.listing import listing
from minidl.diagnosis.remedies.probing import Outcome, Prober, lasting, parted
from minidl.diagnosis.remedies.standing import WORST, Rows, standing
from minidl.diagnosis.task import Task
from minidl.diagnosis.verdict import KINDS, Verdict
from minidl.typing import Array


@dataclass
class Told:
    """A diagnosis as a cure needs it: a program, the trainer that has trained it, verdicts."""

    program: Program
    trainer: Trainer
    verdicts: list[Verdict]


def diagnosed(told: Program, *found: tuple[str, Action | None]) -> Told:
    trained = told.copy()
    trainer = trained.trainer()
    with np.errstate(all="ignore"), contextlib.suppress(FloatingPointError):
        trained.train(trainer, diagnose=False)
    return Told(told, trainer, [Verdict(kind, action=action) for kind, action in found])


def line(
    head: list[nn.Layer] | None = None,
    scale: float = 1.0,
    offset: float = 0.0,
    lr: float = 0.05,
    epochs: int = 40,
    loss: nn.Loss | None = None,
    rows: int = 64,
    **init: Any,
) -> Program:
    """A linear function of two columns, by a network of four tanh units and SGD."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2))
    y = offset + scale * (x @ [[1.0], [-2.0]]) / np.sqrt(5)
    layers = [nn.Linear(2, 4, **init), nn.Tanh(), nn.Linear(4, 1, **init), *(head or [])]
    model = nn.Sequential(*layers, rng=3)
    sgd = optim.SGD(model.parameters(), lr=lr)
    return Program(model, loss or nn.MSELoss(), sgd, x, y, epochs, 16, rng=1)


def sides(head: list[nn.Layer], loss: nn.Loss, outputs: int = 1, labels: bool = False) -> Program:
    """Which side of a line points of the plane lie on."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2))
    y: Array = (x.sum(axis=1) > 0).astype(int)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, outputs), *head, rng=3)
    if not labels:
        y = np.eye(2)[y] if outputs > 1 else y[:, None].astype(float)
    sgd = optim.SGD(model.parameters(), lr=0.01)
    return Program(model, loss, sgd, x, y, 20, 10, rng=1)


def relative_error(trainer: Trainer, told: Program) -> float:
    prediction = trainer.predict(told.X)
    return float(np.square(prediction - told.y).mean() / told.y.var())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that are as short as these small problems allow."""
    monkeypatch.setattr(curing, "LEAST_STEPS", 400)
    monkeypatch.setattr(curing, "MOST_STEPS", 800)
    monkeypatch.setattr(curing, "ROUNDS", ((40, 1 / 40, 20), (3, 1 / 10, 60)))


pytestmark = pytest.mark.usefixtures("quick")


# --- what it comes to -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "kind", "action"),
    [
        (lambda: line(scale=3000.0, offset=2e4), "unscaled_targets", ScaleTargets()),
        (lambda: line(lr=1e-6), "learning_rate_too_low", SetLearningRate(0.01)),
        (lambda: line(lr=1e3), "learning_rate_too_high", SetLearningRate(0.1)),
        (lambda: line(init="zeros"), "bad_initialization", Reinitialise()),
        (lambda: line([nn.ReLU()], scale=-1), "output_mismatch", ReplaceHead("", None)),
        (lambda: line(epochs=1), "stopped_early", Epochs(40)),
    ],
)
def test_faulty_training_is_cured_in_the_units_of_the_targets(
    told: Any, kind: str, action: Action
) -> None:
    diagnosis = diagnosed(told(), (kind, action))
    assert relative_error(diagnosis.trainer, told()) > 0.3
    result = cure(diagnosis)
    assert result.helped
    assert result.trainings <= 2
    assert relative_error(result.trainer, told()) < 0.05
    assert result.before["r2"] < 0.7
    assert result.after["r2"] > 0.95
    assert result.after["loss"] == pytest.approx(
        np.square(result.trainer.predict(told().X) - told().y).mean(), rel=1e-3
    )


def test_raw_rows_are_what_the_cured_trainer_predicts_from() -> None:
    told = line()
    told.X[:] = 1000 * told.X + 5e4
    result = cure(diagnosed(told, ("unscaled_inputs", ScaleInputs())))
    assert relative_error(result.trainer, told) < 0.05


def test_wrong_verdict_does_not_keep_the_second_training_from_curing() -> None:
    told = line(scale=3000.0, offset=2e4, lr=1e-7)
    result = cure(diagnosed(told, ("not_learning", None)))
    assert result.helped
    assert relative_error(result.trainer, told) < 0.05


class Uphill(nn.MSELoss):
    """A loss of a user's own whose gradient has the wrong sign."""

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        value, gradient = super().forward(prediction, target, weight)
        return value, -np.asarray(gradient)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_gradient_of_wrong_sign_is_cured() -> None:
    told = line(loss=Uphill(), lr=0.01)
    result = cure(diagnosed(told, ("not_learning", FixGradient(-1.0))))
    assert relative_error(result.trainer, told) < 0.05


# --- what an output means ---------------------------------------------------------------------


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss()])
def test_softmax_over_one_unit_becomes_a_probability(loss: nn.Loss) -> None:
    told = sides([nn.Softmax()], loss)
    action = ReplaceHead("", "BCEWithLogitsLoss")  # would make it a score
    result = cure(diagnosed(told, ("output_mismatch", action)))
    p = result.trainer.predict(told.X)
    assert ((p >= 0) & (p <= 1)).all()
    assert ((p > 0.5) == told.y).mean() > 0.95
    assert result.before["accuracy"] < 0.6
    assert result.after["accuracy"] > 0.95


def test_rows_of_probabilities_stay_rows_of_probabilities() -> None:
    told = sides([nn.Sigmoid(), nn.Softmax()], nn.MSELoss(), outputs=2)
    result = cure(diagnosed(told, ("output_mismatch", ReplaceHead("", "CrossEntropyLoss"))))
    p = result.trainer.predict(told.X)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert (p.argmax(axis=1) == told.y.argmax(axis=1)).mean() > 0.95


def test_scores_stay_scores() -> None:
    told = sides([nn.Sigmoid()], nn.BCEWithLogitsLoss())
    result = cure(diagnosed(told, ("output_mismatch", ReplaceHead("", None))))
    z = result.trainer.predict(told.X)
    assert z.min() < 0 < z.max()
    assert ((z > 0) == told.y).mean() > 0.95
    labels = sides([nn.Sigmoid()], nn.CrossEntropyLoss(), outputs=2, labels=True)
    result = cure(diagnosed(labels, ("output_mismatch", ReplaceHead("", None))))
    assert (result.trainer.predict(labels.X).argmax(axis=1) == labels.y).mean() > 0.95


# --- kinds with ways of their own -------------------------------------------------------------


def test_rare_class_is_answered_though_fewer_rows_are_right() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 20 == 0).astype(int)
    x = rng.normal(size=(300, 2)) + y[:, None]
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2), rng=3)
    adam = optim.Adam(model.parameters(), lr=0.01)
    told = Program(model, nn.CrossEntropyLoss(), adam, x, y, 10, 16, rng=1)
    result = cure(diagnosed(told, ("class_imbalance", ClassWeights())))
    assert result.helped
    assert result.after["balanced_accuracy"] > result.before["balanced_accuracy"] + 0.1
    assert result.after["accuracy"] < result.before["accuracy"]


@pytest.mark.parametrize("validation", ["rows", 0.2, None])
def test_training_that_learns_by_heart_is_judged_on_other_rows(validation: Any) -> None:
    rng = np.random.default_rng(0)

    def noisy(rows: int) -> tuple[Array, Array]:
        x = rng.uniform(-1, 1, (rows, 3))
        return x, np.sin(3 * x[:, :1]) + rng.normal(0, 0.5, (rows, 1))

    x, y = noisy(60)
    model = nn.Sequential(
        nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), rng=3
    )
    adam = optim.Adam(model.parameters(), lr=0.01)
    given = noisy(300) if validation == "rows" else validation
    told = Program(model, nn.MSELoss(), adam, x, y, 150, 10, validation=given, rng=1)
    diagnosis = diagnosed(told, ("overfitting", None))
    result = cure(diagnosis)
    others = noisy(2000)
    before, after = (
        np.square(trainer.predict(others[0]) - others[1]).mean()
        for trainer in (diagnosis.trainer, result.trainer)
    )
    assert result.helped
    assert result.trainings == 1
    assert after < before - 0.05
    if validation is not None:
        assert result.after["val_loss"] < result.before["val_loss"]


@pytest.mark.parametrize("kinds", [[], ["nothing_to_learn"], ["data_error", "nothing_to_learn"]])
def test_nothing_is_changed_where_no_program_is_at_fault(kinds: list[str]) -> None:
    diagnosis = diagnosed(line(), *((kind, None) for kind in kinds))
    result = cure(diagnosis)
    assert not result.helped
    assert result.trainings == 0
    assert result.trainer is diagnosis.trainer
    assert result.before == result.after
    assert "Nothing was changed" in result.change


def test_training_that_is_as_good_as_it_gets_stays_what_it_was() -> None:
    rng = np.random.default_rng(0)
    told = line(lr=0.05, epochs=60)
    told.y[:] += rng.normal(0, 0.01, told.y.shape)
    diagnosis = diagnosed(told, ("not_learning", None))
    exact = nn.Sequential(nn.Linear(2, 1), rng=0)
    exact[0].weight.data, exact[0].bias.data = (
        np.array([[1.0], [-2.0]]) / np.sqrt(5),
        np.zeros(1),
    )
    diagnosis.trainer = Trainer(exact, nn.MSELoss(), optim.SGD(exact.parameters()))
    result = cure(diagnosis, trainings=1)
    assert not result.helped
    assert result.trainer is diagnosis.trainer


# --- what is kept -----------------------------------------------------------------------------


def test_program_and_its_trainer_are_left_as_they_were() -> None:
    diagnosis = diagnosed(line(scale=50.0, lr=1e-4), ("unscaled_targets", ScaleTargets()))
    told, trainer = diagnosis.program, diagnosis.trainer
    arrays = [*told.model.parameters(), *trainer.model.parameters()]
    before = [parameter.data.copy() for parameter in arrays]
    description = repr(told.model), repr(told.loss), repr(told.optimizer), trainer.history.epochs
    cure(diagnosis)
    assert all(map(np.array_equal, before, [parameter.data for parameter in arrays]))
    assert description == (
        repr(told.model), repr(told.loss), repr(told.optimizer), trainer.history.epochs
    )  # fmt: skip


def test_same_program_is_cured_by_the_same_bits() -> None:
    first, again = (
        cure(diagnosed(line(scale=50.0, lr=1e-4), ("unscaled_targets", ScaleTargets())))
        for _ in range(2)
    )
    assert first.change == again.change
    x = line().X
    assert np.array_equal(first.trainer.predict(x), again.trainer.predict(x))


@pytest.mark.parametrize("trainings", [1, 2])
def test_no_more_trainings_are_made_than_allowed(
    trainings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    train = Cures._trained

    def counted(self: Cures, change: Any, steps: int) -> Outcome:
        made.append(steps)
        return train(self, change, steps)

    monkeypatch.setattr(Cures, "_trained", counted)
    monkeypatch.setattr(curing, "GOOD", 0.0)
    told = line(scale=50.0, lr=1e-4, epochs=20, rows=200)
    result = cure(diagnosed(told, ("unscaled_targets", ScaleTargets())), trainings)
    assert len(made) == result.trainings <= trainings
    if trainings == 1:
        with pytest.raises(ValueError, match="trainings"):
            cure(diagnosed(told), 0)


def test_training_keeps_its_length_where_that_is_enough() -> None:
    long = line(scale=50.0, epochs=150)  # of 4 steps
    result = cure(diagnosed(long, ("unscaled_targets", ScaleTargets())), 1)
    assert "train for 600 steps" in result.change
    assert result.trainer.history.epochs <= 150
    short = line(scale=50.0, epochs=5)
    result = cure(diagnosed(short, ("unscaled_targets", ScaleTargets())), 1)
    assert "train for 400 steps" in result.change


# --- what is said -----------------------------------------------------------------------------


def test_change_is_a_sentence_and_code_that_runs() -> None:
    told = line(scale=3000.0, offset=2e4)
    told.X[:] = 100 * told.X + 500
    found = ("unscaled_targets", ScaleTargets()), ("unscaled_inputs", ScaleInputs((0, 1)))
    result = cure(diagnosed(told, *found))
    sentence, _, code = result.change.partition("\n\n")
    assert re.match(
        r"Bring every column of X to mean 0 .*; learn targets of mean 0 .*\.$", sentence
    )
    scope: dict[str, Any] = {
        "nn": nn, "optim": optim, "Trainer": minidl.Trainer, "X": told.X, "y": told.y
    }  # fmt: skip
    exec(code.replace("batch_size", "progress=False, batch_size"), scope)
    assert np.square(scope["prediction"] - told.y).mean() < 0.05 * told.y.var()
    assert str(result).startswith(result.change)


def test_what_a_model_has_no_place_for_is_said() -> None:
    told = line(scale=50.0)
    told = Program(
        nn.Sequential(nn.Linear(2, 1), rng=0), told.loss, told.optimizer, told.X, told.y, 40, rng=1
    )
    sgd = optim.SGD(told.model.parameters(), lr=1e-4)
    told = Program(told.model, told.loss, sgd, told.X, told.y, 40, 16, rng=1)
    found = ("vanishing_gradient", ReplaceActivation("ReLU")), ("unscaled_targets", ScaleTargets())
    result = cure(diagnosed(told, *found))
    assert result.helped
    assert (
        "replace the hidden activations by ReLU (this model has no place for it)" in result.change
    )


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(3, 4), nn.LeakyReLU(0.1), nn.Dropout(0.25), nn.Linear(4, 2, init="zeros")],
        [nn.Linear(3, 3), nn.Residual(nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3), nn.ELU())),
         nn.Linear(3, 2, bias=False)],
        [nn.Sequential(nn.Linear(3, 4, init=nn.init.normal(0.0, 2.0)), nn.GELU("tanh")),
         nn.BatchNorm(4), nn.Linear(4, 2)],
    ],
)  # fmt: skip
def test_listing_builds_the_same_layers(layers: list[nn.Layer]) -> None:
    model = nn.Sequential(*layers, rng=0)
    adam = optim.Adam(model.parameters(), lr=0.25, weight_decay=0.5, max_norm=1.0)
    x = np.random.default_rng(0).normal(size=(30, 3))
    told = Program(model, nn.HuberLoss(0.5), adam, x, x[:, :2], 2, 10, shuffle=False, rng=0)
    scope: dict[str, Any] = {"nn": nn, "optim": optim, "Trainer": minidl.Trainer}
    scope |= {"X": x, "y": x[:, :2]}
    lines = [text.replace("epochs=", "progress=False, epochs=") for text in listing(told, [])]
    exec("\n".join(lines), scope)
    made, own = (
        [repr(layer) for _, layer in one.layers() if not list(layer.children())]
        for one in (scope["model"], model)
    )
    assert made == own
    assert repr(scope["optimizer"]) == repr(adam)
    assert repr(scope["loss"]) == repr(told.loss)
    inits = [[p.initializer.name for p in one.parameters()] for one in (scope["model"], model)]
    assert inits[0] == inits[1]


# --- how well a program answers ---------------------------------------------------------------


class Answers:
    """A trainer that answers what it is told to."""

    def __init__(self, prediction: Any, loss: nn.Loss) -> None:
        self.prediction, self.loss = np.asarray(prediction), loss

    def predict(self, X: Any) -> Array:
        """Answer."""
        return self.prediction


def stands(prediction: Any, y: Any, loss: nn.Loss, balanced: bool = False) -> float:
    rows = Rows.of(np.zeros((len(y), 1)), np.asarray(y), loss, balanced)
    return standing(Answers(prediction, loss), rows)  # type: ignore[arg-type]


def test_standing_of_numbers_is_the_error_relative_to_the_variance() -> None:
    y = np.array([[1.0], [2.0], [6.0]])
    assert stands(y, y, nn.MSELoss()) == 0
    assert stands(np.full((3, 1), 3.0), y, nn.MSELoss()) == pytest.approx(1)
    assert stands([[np.nan]] * 3, y, nn.MSELoss()) == WORST


def test_standing_of_classes_counts_wrong_answers_and_a_little_how_sure_they_are() -> None:
    y = np.array([0, 1, 0, 1])
    sure, right, wrong = (
        stands(np.eye(2)[labels] * size, y, nn.CrossEntropyLoss())
        for labels, size in ((y, 20), (y, 2), (1 - y, 2))
    )
    assert 0 <= sure < right < 0.05
    assert wrong > 2
    half = np.full((4, 1), 0.5)
    assert stands(half, y[:, None].astype(float), nn.MSELoss()) == pytest.approx(1.05)
    zero = np.zeros((4, 1))
    assert stands(zero, y[:, None].astype(float), nn.BCEWithLogitsLoss()) == pytest.approx(1.05)


def test_standing_of_classes_that_count_the_same() -> None:
    y = np.array([0] * 9 + [1])
    always = np.eye(2)[np.zeros(10, int)] * 5
    assert stands(always, y, nn.CrossEntropyLoss()) < 1.2
    assert stands(always, y, nn.CrossEntropyLoss(), balanced=True) > 1


# --- probes and recipes -----------------------------------------------------------------------


def test_best_of_the_probes_is_the_rate_that_learns() -> None:
    told = line()
    prober = Prober(told, Rows.of(told.X, told.y, told.loss))
    changes = [(SetLearningRate(rate),) for rate in (1e-6, 1e4, 0.2)]
    best = prober.best(changes, [(3, 40), (2, 80)])
    assert best.change == changes[2]
    assert best.error < 0.5


def test_of_changes_that_do_as_well_the_first_is_taken() -> None:
    told = line(lr=0.0)
    prober = Prober(told, Rows.of(told.X, told.y, told.loss))
    changes = [(Clip(norm),) for norm in (3.0, 1.0, 2.0)]
    assert prober.best(changes, [(3, 8), (3, 8)]).change == changes[0]


def test_rate_falls_to_zero_over_the_training() -> None:
    told = lasting(line(lr=0.5), 100)
    assert told.epochs == 25
    schedule = told.optimizer.schedule
    assert schedule is not None
    assert (schedule(0), schedule(50)) == pytest.approx((0.5, 0.25))
    assert schedule(100) == pytest.approx(0, abs=1e-12)


def test_rows_are_parted_without_loss() -> None:
    told = line(rows=50)
    rest, held = parted(told)
    assert (len(rest.X), len(held.X)) == (40, 10)
    together = np.concatenate([rest.X, held.X])
    assert np.array_equal(np.sort(together, axis=0), np.sort(told.X, axis=0))
    np.testing.assert_allclose(held.y[:, 0], held.X @ np.array([1.0, -2.0]) / np.sqrt(5))


def test_what_cannot_be_trained_is_the_worst_of_the_probes() -> None:
    class Bare(nn.Loss):
        """A loss of a user's own that takes no weights."""

        def forward(self, prediction: Array, target: Array) -> tuple[Array, Array]:  # type: ignore[override]
            difference = prediction - target
            return np.square(difference, dtype=np.float64).mean(), 2 * difference / difference.size

    told = sides([nn.Sigmoid()], Bare())
    prober = Prober(told, Rows.of(told.X, told.y, told.loss))
    assert prober.train((ClassWeights(),), 20).error == WORST
    assert prober.train((SetLearningRate(0.1),), 20).error < WORST


def test_rows_that_are_left_make_batches_of_more_than_one_row() -> None:
    told = line(rows=76)  # of which 61 would be left, three batches of 16 and one of 13
    assert len(parted(told)[0].X) == 61
    told = line(rows=81)
    assert len(parted(told)[0].X) == 64  # not 65


def test_first_action_of_a_kind_is_prescribed_with_those_of_causes() -> None:
    cause = Verdict("unscaled_inputs", action=ScaleInputs((3,)))
    verdicts = [
        Verdict("dead_units", because=cause, action=ReplaceActivation("LeakyReLU")),
        Verdict("saturated_units", action=ReplaceActivation("ReLU")),
        Verdict("nothing_to_learn"),
    ]
    assert recipes.prescribed(verdicts) == [ReplaceActivation("LeakyReLU"), ScaleInputs((3,))]


def test_later_rule_for_the_rate_replaces_the_earlier_one() -> None:
    first = (Shuffle(), SetLearningRate(1.0))
    second = (UseOptimizer("Adam", 0.1), Shuffle())
    assert recipes.merged(first, second) == (Shuffle(), UseOptimizer("Adam", 0.1))
    assert recipes.merged(second, first) == (Shuffle(), SetLearningRate(1.0))


@pytest.mark.parametrize(
    ("head", "loss", "outputs", "kind", "expected"),
    [
        ([nn.Sigmoid()], nn.CrossEntropyLoss(), 2, "labels", ReplaceHead("", None)),
        ([], nn.CrossEntropyLoss(), 2, "labels", None),
        ([nn.Softmax()], nn.NLLLoss(), 2, "labels", ReplaceHead("LogSoftmax", None)),
        ([nn.LogSoftmax()], nn.NLLLoss(), 2, "labels", None),
        ([nn.Softmax()], nn.BCEWithLogitsLoss(), 1, "bits", ReplaceHead("", None)),
        ([nn.ReLU()], nn.MSELoss(), 1, "numbers", ReplaceHead("", None)),
        ([nn.Tanh()], nn.MSELoss(), 1, "numbers", None),
        ([], nn.MSELoss(), 1, "numbers", None),
    ],
)
def test_head_that_belongs_to_the_targets(
    head: list[nn.Layer], loss: nn.Loss, outputs: int, kind: str, expected: ReplaceHead | None
) -> None:
    told = sides(head, loss, outputs, labels=kind == "labels")
    assert recipes.fitting_head(told, Task(kind, 2)) == expected


def test_scales_are_changed_only_where_they_are_far_from_one() -> None:
    numbers = Task("numbers")
    assert list(recipes.scaling(line(), numbers)) == []
    far = line(scale=50.0)
    far.X[:, 1] *= 100
    assert list(recipes.scaling(far, numbers)) == [ScaleInputs(), ScaleTargets()]
    sparse = line()
    sparse.X[:] = np.eye(2)[np.arange(len(sparse.X)) % 2]
    sparse.X[::2] = 0
    assert list(recipes.scaling(sparse, numbers, always=True)) == [ScaleTargets()]


def test_targets_are_scaled_for_the_head_that_a_change_gives() -> None:
    told = line([nn.Softmax()], scale=50.0)
    numbers = Task("numbers")
    assert list(recipes.scaling(told, numbers)) == []
    assert list(recipes.scaling(told, numbers, [ReplaceHead("")])) == [ScaleTargets()]


def test_remedies_of_a_diagnosis_can_be_applied_by_hand() -> None:
    told = line(scale=50.0)
    changed = apply(told.copy(), [ScaleTargets(), SetLearningRate(0.2)])
    assert relative_error(changed.train(), told) < 0.3


# --- docs/cure.md -----------------------------------------------------------------------------

DOC = Path(__file__).parents[1] / "docs" / "cure.md"
TEXT = DOC.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore::minidl.TrainingWarning")
def test_programs_of_the_document_print_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, str(DOC), "exec"), names)
    first, printed, last = blocks("text")
    assert capsys.readouterr().out == first + last
    shown = str(names["cure"]).splitlines()
    for text in printed.splitlines()[5:10]:  # the layers
        assert text in shown


def test_document_names_every_kind_that_can_be_cured_and_links_to_what_there_is() -> None:
    table = {kind for kind in KINDS if f"`{kind}`" in TEXT}
    assert table == set(KINDS)
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (DOC.parent / target).resolve().exists(), target


# --- steps that do not count ------------------------------------------------------------------


def of_each_step(ragged: bool, ignored: bool, **more: Any) -> Diagnosis:
    """Diagnose a program that is asked for the sign of each step, at a far too low rate."""
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(5 + row % 3 * ragged, 3)) for row in range(120)]
    y = [(x[:, 0] > 0).astype(int) for x in X]
    for labels in y:
        labels[:ignored] = -1
    data = (X, y) if ragged else (np.stack(X), np.stack(y))
    model = nn.Sequential(nn.LSTM(3, 8), nn.Linear(8, 2), rng=0)
    loss = nn.CrossEntropyLoss(ignore_index=-1) if ignored else nn.CrossEntropyLoss()
    sgd = optim.SGD(model.parameters(), lr=1e-5)
    return minidl.diagnose(model, loss, sgd, *data, epochs=4, **more)


@pytest.mark.parametrize(("ragged", "ignored"), [(True, False), (False, True), (True, True)])
def test_steps_that_do_not_count_are_not_judged(ragged: bool, ignored: bool) -> None:
    found = of_each_step(ragged, ignored, shuffle=not ragged)
    assert not found.healthy
    cured = found.cure(trainings=1)
    assert cured.helped
    assert cured.after["accuracy"] > 0.95


def test_padding_and_ignored_labels_are_no_questions() -> None:
    rows = Rows.of(None, [[1, -1, 0], [1]], nn.CrossEntropyLoss(ignore_index=-1))
    assert rows.task == Task("labels", 2)
    assert rows.targets.tolist() == [[1, -1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(rows.asked, [True, False, True, True, False, False])


@pytest.mark.parametrize(("kind", "judged_on"), [("class_imbalance", 1), ("dead_units", 2)])
def test_a_rare_class_is_judged_by_rows_held_out_alone(kind: str, judged_on: int) -> None:
    rng = np.random.default_rng(0)
    y = (rng.uniform(size=400) < 0.05).astype(int)
    model = nn.Sequential(nn.Linear(3, 2), rng=0)
    sgd = optim.SGD(model.parameters(), lr=0.1)
    X = rng.normal(size=(400, 3)) + y[:, None]
    program = Program(model, nn.CrossEntropyLoss(), sgd, X, y, epochs=1)
    prober = Cures(diagnosed(program, (kind, ClassWeights())))._prober()
    assert len(prober.rows) == judged_on
    held = prober.rows[-1].X
    assert len(held) == 80
    assert not (prober.program.X[:, None] == held).all(axis=2).any()
