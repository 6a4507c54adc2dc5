"""Diagnoses: each kind of fault is named first, nothing is said of what is well."""

from __future__ import annotations

import re
import warnings
from typing import Any

import diagnosis_cases as cases
import numpy as np
import pytest
from diagnosis_cases import FAULTY, HEALTHY, Faulty

import minidl
from minidl import nn, optim
from minidl.diagnosis.cure import cure
from minidl.diagnosis.diagnosis import Diagnosis
from minidl.diagnosis.program import Program
from minidl.diagnosis.verdict import KINDS, Verdict, causes_first


def diagnose(program: Program) -> Diagnosis:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "training runs eagerly", RuntimeWarning)
        return minidl.diagnose(
            *(program.model, program.loss, program.optimizer, program.X, program.y),
            epochs=program.epochs,
            batch_size=program.batch_size,
            shuffle=program.shuffle,
            rng=program.rng,
        )


def weights(model: nn.Layer) -> list[bytes]:
    return [parameter.data.tobytes() for parameter in model.parameters()]


# --- verdicts ---------------------------------------------------------------------------------


def test_there_is_a_case_for_each_kind() -> None:
    assert set().union(*(case.right for case in FAULTY)) == KINDS.keys()


@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case.name)
def test_a_fault_is_named_first(case: Faulty) -> None:
    diagnosis = diagnose(case.make(0))
    assert not diagnosis.healthy
    first = diagnosis.verdicts[0]
    assert first.kind in case.right, diagnosis.report()
    assert first.because is None
    assert first.statement
    assert first.evidence
    assert re.search(r"\d", first.remedy + first.statement)


@pytest.mark.parametrize("make", HEALTHY, ids=lambda make: make.__name__)
def test_nothing_is_said_of_what_is_well(make: Any) -> None:
    diagnosis = diagnose(make(0))
    assert diagnosis.healthy, diagnosis.report()
    assert diagnosis.report().startswith("Healthy")
    assert diagnosis.trainer.diagnosis == ""


def test_causes_come_before_their_effects() -> None:
    diagnosis = diagnose(cases.raw_columns(0))
    kinds = [verdict.kind for verdict in diagnosis.verdicts]
    assert kinds[:2] == ["unscaled_inputs", "saturated_units"]
    assert diagnosis.verdicts[1].because is diagnosis.verdicts[0]
    assert diagnosis.verdicts[1].chain() == "unscaled_inputs -> saturated_units"


def test_a_verdict_comes_after_its_cause_in_any_order() -> None:
    cause = Verdict("learning_rate_too_high")
    effect = Verdict("dead_units", because=cause)
    last = Verdict("vanishing_gradient", because=effect)
    assert [v.kind for v in causes_first([last, effect])] == [cause.kind, effect.kind, last.kind]
    with pytest.raises(ValueError, match="unknown kind 'tired'"):
        Verdict("tired")


def test_the_layer_of_a_verdict_is_its_path() -> None:
    (verdict, *_) = diagnose(cases.softmax_of_one(0)).verdicts
    assert verdict.layer == "3"
    assert "Softmax" in verdict.statement


def test_a_remedy_carries_the_number_that_was_tried() -> None:
    verdict = diagnose(cases.rate_too_low(0)).verdicts[0]
    rate = verdict.action.lr
    assert f"{rate:.2g}" in verdict.remedy
    assert rate > 1e-5


# --- what is left alone -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [cases.rate_too_high, cases.plain_descent, cases.dropped])
def test_the_model_is_trained_as_by_fit(make: Any) -> None:
    program, other = make(3), make(3)
    diagnosis = diagnose(program)
    trainer = other.train()
    assert weights(program.model) == weights(trainer.model)
    assert diagnosis.history["loss"] == trainer.history["loss"]
    assert diagnosis.trainer.model is program.model
    assert program.optimizer.steps == other.optimizer.steps
    assert program.optimizer.lr == other.optimizer.lr


def test_the_program_of_a_diagnosis_is_untrained() -> None:
    program = cases.rate_too_low(0)
    before = weights(program.model)
    diagnosis = diagnose(program)
    assert weights(diagnosis.program.model) == before != weights(program.model)
    assert diagnosis.program.optimizer.steps == 0


def test_the_same_program_gets_the_same_verdicts() -> None:
    first, second = (diagnose(cases.raw_targets(1)) for _ in range(2))
    assert [v.kind for v in first.verdicts] == [v.kind for v in second.verdicts]


SGD, OTHER = optim.SGD, cases.net(0, 3, 8, 1)
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": None}, TypeError, "model must be a layer"),
    ({"loss": "mse"}, TypeError, "loss must be a loss such as .* got 'mse'"),
    ({"optimizer": "adam"}, TypeError, "optimizer must be an optimizer"),
    ({"optimizer": SGD(OTHER.parameters(), lr=0.1)}, ValueError, "parameters that are not the mod"),
    ({"X": None}, ValueError, "X must be an array or a list of rows, got None"),
    ({"y": "labels"}, ValueError, "y must be an array or a list of rows, got 'labels'"),
    ({"X": np.zeros((0, 3)), "y": np.zeros((0, 1))}, ValueError, "X is empty"),
    ({"y": np.zeros((79, 1))}, ValueError, "X has 80 rows, y has 79"),
    ({"X": np.zeros((80, 2))}, ValueError, r"expected input of shape \(batch, ..., 3\)"),
    ({"epochs": 0}, ValueError, "epochs must be >= 1, got 0"),
    ({"epochs": 1.5}, TypeError, "epochs must be a whole number, got 1.5"),
    ({"batch_size": "32"}, TypeError, "batch_size must be a whole number, got '32'"),
    ({"validation": "0.2"}, ValueError, "validation must be a pair"),
    ({"validation": 1.0}, ValueError, r"validation must be a share of the rows in \(0, 1\)"),
    (
        {"validation": (np.zeros((5, 3)), np.zeros((4, 1)))},
        ValueError,
        "5 rows, validation y has",
    ),
    ({"rng": "zero"}, TypeError, "rng must be a numpy.random.Generator, an int or None, got 'ze"),
    ({"rng": -1}, ValueError, "rng must be >= 0, got -1"),
    ({"class_weight": "balanced"}, ValueError, "class_weight needs a loss of labels"),
]


@pytest.mark.parametrize(("wrong", "error", "words"), WRONG)
def test_wrong_arguments_are_refused_before_any_training(
    wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    x, y = rows(80)
    model = cases.net(0, 3, 8, 1)
    given = {"model": model, "loss": nn.MSELoss(), "optimizer": SGD(model.parameters(), lr=0.1)}
    given |= {"X": x, "y": y, "epochs": 2} | wrong
    before = weights(model)
    with pytest.raises(error, match=words):
        minidl.diagnose(**given)
    assert weights(model) == before


def test_a_list_to_validate_on_is_taken_by_the_cure_too() -> None:
    program = cases.rate_too_low(0)
    held = [program.X[:50], program.y[:50]]
    parts = program.model, program.loss, program.optimizer, program.X, program.y
    found = minidl.diagnose(*parts, epochs=program.epochs, validation=held)
    assert "val_loss" in found.cure(1).after


def test_what_is_no_diagnosis_is_not_cured() -> None:
    with pytest.raises(TypeError, match="diagnosis must be what"):
        cure("x")  # type: ignore[arg-type]


def rows(count: int, seed: int = 0) -> tuple[Any, Any]:
    x = np.random.default_rng(seed).normal(size=(count, 3))
    return x, 2 * x[:, :1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_few_rows_are_no_error(count: int) -> None:
    program = cases.fit_numbers(0, cases.net(0, 3, 8, 1), rows(count), 3, 0.01)
    assert diagnose(program).history.epochs == 3


class Two(nn.Layer):
    """A layer of two inputs."""

    def __init__(self) -> None:
        self.a, self.b, self.c = nn.Linear(3, 4, rng=0), nn.Linear(3, 4, rng=1), nn.Linear(4, 1)

    def forward(self, x: Any, z: Any) -> Any:  # type: ignore[override]
        self.save(None)
        return self.c(self.a(x) + self.b(z))

    def backward(self, dy: Any) -> None:  # type: ignore[override]
        self.saved(dy)
        dy = self.c.backward(dy)
        self.a.backward(dy)
        self.b.backward(dy)


UNUSUAL = {
    "two inputs": (Two(), nn.MSELoss(), lambda x, y: ((x, x[::-1].copy()), y), {}),
    "lists": (cases.net(0, 3, 8, 1), nn.MSELoss(), lambda x, y: (x.tolist(), y.tolist()), {}),
    "no layer but one": (nn.Linear(3, 1, rng=0), nn.MSELoss(), lambda x, y: (x, y), {}),
    "a share to validate on": (
        cases.net(0, 3, 8, 1), nn.MSELoss(), lambda x, y: (x, y), {"validation": 0.25},
    ),
    "sequences of unequal length": (
        nn.Sequential(nn.GRU(1, 6, return_sequences=False), nn.Linear(6, 1), rng=0), nn.MSELoss(),
        lambda x, y: ([np.ones((2 + row % 5, 1)) * row for row in range(len(x))], y), {},
    ),
    "targets of each step": (
        nn.Sequential(nn.RNN(1, 6), nn.Linear(6, 2), rng=0), nn.CrossEntropyLoss(ignore_index=-1),
        lambda x, y: (x[:, :, None], (x > 0).astype(int) - (x > 1)), {},
    ),
    "words": (
        nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2), rng=0),
        nn.CrossEntropyLoss(), lambda x, y: (np.abs(x).astype(int), (x[:, 0] > 0).astype(int)),
        {"class_weight": "balanced"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_whatever_fit_takes_is_diagnosed(name: str) -> None:
    model, loss, make, options = UNUSUAL[name]
    optimizer = optim.SGD(model.parameters(), lr=lambda step: 0.1 / (1 + step))
    data = make(*rows(80))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "training runs eagerly", RuntimeWarning)
        found = minidl.diagnose(model, loss, optimizer, *data, epochs=3, **options)
    assert found.history.epochs == 3
    assert {verdict.kind for verdict in found.verdicts} <= KINDS.keys()


def test_a_rate_of_zero_is_too_low() -> None:
    program = cases.fit_numbers(0, cases.net(0, 3, 8, 1), rows(80), 40, 0.0)
    assert diagnose(program).verdicts[0].kind == "learning_rate_too_low"


@pytest.mark.parametrize("seed", range(3))
def test_a_training_that_stands_still_has_too_low_a_rate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(64, 10, 3))
    y = (x[:, :, 0].sum(axis=1) > 0).astype(int)
    model = nn.Sequential(nn.LSTM(3, 16, return_sequences=False), nn.Linear(16, 2), rng=seed)
    adam = optim.Adam(model.parameters(), lr=1e-6)
    found = minidl.diagnose(model, nn.CrossEntropyLoss(), adam, x, y, epochs=3, rng=seed)
    assert found.verdicts[0].kind == "learning_rate_too_low", found.report()


@pytest.mark.parametrize("scale", [1e30, 1e8, 1e-20])
def test_a_scale_that_is_absurd_comes_before_what_it_explains(scale: float) -> None:
    x, _ = rows(300)
    hidden = [layer for _ in range(5) for layer in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), *hidden, nn.Linear(16, 2), rng=0)
    sgd = optim.SGD(model.parameters(), lr=0.01)
    labels = (x[:, 0] > x[:, 1]).astype(int)
    found = minidl.diagnose(model, nn.CrossEntropyLoss(), sgd, scale * x, labels, epochs=20)
    first, *others = found.verdicts
    assert first.kind == "unscaled_inputs", found.report()
    assert all(verdict.because is first for verdict in others), found.report()
    assert "e+5" not in found.report()


class MeanFirst(nn.Loss):
    """The square of the mean of the errors."""

    def forward(self, prediction: Any, target: Any, weight: Any = None) -> Any:
        mean = float((prediction - target).mean())
        return np.asarray(mean * mean), np.full_like(prediction, 2 * mean / prediction.size)


@pytest.mark.filterwarnings("ignore:training runs eagerly")
def test_a_loss_that_confuses_rows_is_named_and_cured() -> None:
    program = cases.fit_numbers(0, cases.net(0, 3, 8, 1), rows(200), 30, 0.01)
    loss = MeanFirst()
    parts = program.model, loss, program.optimizer, program.X, program.y
    found = minidl.diagnose(*parts, epochs=30)
    assert found.verdicts[0].kind == "not_learning"
    assert "which target belongs to which row" in found.verdicts[0].statement
    assert found.cure().after["r2"] > 0.9


def test_a_hidden_softmax_is_an_activation_that_can_be_replaced() -> None:
    x, y = cases.heaps(0, rows=300)
    layers = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Softmax())]
    model = nn.Sequential(nn.Linear(2, 32), nn.Softmax(), *layers, nn.Linear(32, 4), rng=0)
    sgd = optim.SGD(model.parameters(), lr=0.05)
    found = minidl.diagnose(model, nn.CrossEntropyLoss(), sgd, x, y, epochs=15)
    assert found.verdicts[0].kind == "vanishing_gradient", found.report()
    assert not [layer for _, layer in found.cure().trainer.model.layers()
                if isinstance(layer, nn.Softmax)]  # fmt: skip


def test_weights_that_are_no_numbers_are_a_bad_beginning() -> None:
    model = cases.net(0, 3, 8, 1, init=nn.init.constant(float("nan")))
    program = cases.fit_numbers(0, model, rows(80), 3, 0.01)
    assert diagnose(program).verdicts[0].kind == "bad_initialization"


def test_a_model_that_cannot_be_copied_is_refused_before_training() -> None:
    program = cases.plain_descent(0)
    program.model.file = open("/dev/null")  # type: ignore[attr-defined]  # noqa: SIM115
    with pytest.raises(TypeError, match="trials need copies"):
        diagnose(program)
    program.model.file.close()  # type: ignore[attr-defined]
    assert program.optimizer.steps == 0


def test_no_warning_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", minidl.TrainingWarning)
        assert diagnose(cases.short_head(0)).verdicts[0].kind == "output_mismatch"


def test_a_validation_set_is_what_is_held_out() -> None:
    program = cases.learned_by_heart(0)
    x, y = cases.learned_by_heart(1).X, cases.learned_by_heart(1).y
    diagnosis = minidl.diagnose(
        *(program.model, program.loss, program.optimizer, program.X, program.y),
        epochs=program.epochs,
        validation=(x, y),
    )
    assert diagnosis.verdicts[0].kind == "overfitting"
    assert len(diagnosis.history["val_loss"]) == program.epochs


def test_data_without_dependence_but_a_certain_fault_get_both_verdicts() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.uniform(size=(300, 1))
    model = cases.net(0, 4, 16, 1, head=nn.Softmax)
    program = cases.fit_numbers(0, model, (x, y), 10, 0.01)
    kinds = [verdict.kind for verdict in diagnose(program).verdicts]
    assert kinds == ["output_mismatch", "nothing_to_learn"]


# --- reports ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return diagnose(cases.raw_columns(0))


def test_the_report_says_what_why_and_what_to_do(diagnosis: Diagnosis) -> None:
    report = diagnosis.report()
    assert str(diagnosis) == report
    assert report.startswith("Not healthy: unscaled_inputs")
    for words in ("column 0", "mean 0 and deviation 1", "because of unscaled_inputs", "held out"):
        assert words in report.replace("\n  ", "")
    assert max(map(len, report.splitlines())) <= 100
    assert repr(diagnosis) == "Diagnosis(unscaled_inputs, saturated_units)"


def test_a_notebook_gets_markup_that_is_escaped(diagnosis: Diagnosis) -> None:
    markup = diagnosis._repr_html_()
    assert markup.count("<li>") == len(diagnosis.verdicts)
    assert not re.search(r"<(?!/?(p|b|i|br|ol|li)>)", markup)


@pytest.mark.parametrize("make", [cases.raw_columns, cases.log_of_scores, cases.short_memory])
def test_the_picture_shows_loss_and_gradient(make: Any, tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    found = diagnose(make(0))
    figure = found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 10_000
    assert found.verdicts[0].kind in figure.get_suptitle()
    labels = {cases.short_memory: "step of the sequence", cases.raw_columns: "layer"}
    if make in labels:
        assert figure.axes[1].get_xlabel() == labels[make]
    else:
        assert figure.axes[1].get_title() == "no step was completed"
    with pytest.raises(ValueError, match="nonsense"):
        found.plot(tmp_path / "found.nonsense")


def test_the_command_line_prints_the_report(capsys: Any) -> None:
    from minidl.cli import main

    arguments = ["diagnose", "digits", "--hidden", "32", "--epochs", "3", "--lr", "5"]
    arguments += ["--max-norm", "none"]
    assert main(arguments) == 0
    assert "Not healthy: learning_rate_too_high" in capsys.readouterr().out
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("learning_rate_too_high")


def test_train_prints_the_report_where_there_is_a_verdict(capsys: Any) -> None:
    from minidl.cli import main

    sizes = ["train", "digits", "--hidden", "32", "--epochs", "3"]
    assert main(sizes) == 0
    assert "healthy" not in capsys.readouterr().out.lower()
    ill = [*sizes, "--optimizer", "sgd", "--max-norm", "none", "--lr"]
    assert main([*ill, "1e-7"]) == 0
    printed = capsys.readouterr().out
    assert "stopped_early: after 3 epochs" in printed
    assert "Not healthy: learning_rate_too_low" in printed
    assert main([*ill, "1e-7", "--quiet"]) == 0
    assert "learning_rate" not in capsys.readouterr().out
    assert main([*ill, "1e30"]) == 1
    printed = capsys.readouterr()
    assert "Not healthy: learning_rate_too_high" in printed.out
    assert printed.err.startswith("minidl: training failed: ")


def test_a_recurrent_network_is_diagnosed_on_the_command_line(capsys: Any) -> None:
    from minidl.cli import main

    numbers = {"steps": 8, "samples": 200, "epochs": 30, "hidden": 16, "lr": 0.02}
    arguments = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    assert main(["diagnose", "adding", *arguments, "--quiet"]) == 0
    assert capsys.readouterr().out.strip() in ("healthy", *KINDS)


def test_diagnosis_is_public_and_loaded_when_asked_for() -> None:
    import subprocess
    import sys

    program = (
        "import sys, minidl; assert 'minidl.diagnosis.judge' not in sys.modules;"
        "minidl.diagnose, minidl.GradientMonitor; assert 'minidl.diagnosis.judge' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_function_is_not_hidden_by_a_module_of_its_name() -> None:
    import subprocess
    import sys

    program = (
        "import minidl.cli.diagnose, minidl.diagnosis, minidl.cli;"
        "assert callable(minidl.diagnose) and callable(minidl.diagnosis.diagnose);"
        "assert minidl.diagnose is minidl.diagnosis.diagnose"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
