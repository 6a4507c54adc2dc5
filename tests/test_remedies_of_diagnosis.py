"""Remedies: what each changes about a program, and what it leaves as it is."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from minidl import nn, optim
from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies import actions, surgery
from minidl.diagnosis.remedies.actions import (
    Action,
    AddResiduals,
    BatchSize,
    ClassWeights,
    Clip,
    Dropout,
    Epochs,
    FixGradient,
    GateBias,
    InsertNormalization,
    Reinitialise,
    ReplaceActivation,
    ReplaceCell,
    ReplaceHead,
    ScaleInputs,
    ScaleTargets,
    SetLearningRate,
    Shuffle,
    UseOptimizer,
    WeightDecay,
)
from minidl.diagnosis.remedies.apply import ORDER, Unstandardize, apply, order_of
from minidl.diagnosis.remedies.losses import (
    CorrectedLoss,
    CrossEntropyOfProbabilities,
    ScaledLoss,
)
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.nn.hooks import evaluating
from minidl.typing import Array

KINDS = [kind for kind in Action.__subclasses__() if kind.__module__ == actions.__name__]
EXAMPLES: list[Action] = [
    ScaleInputs((0, 3)), ScaleTargets(), SetLearningRate(0.25), UseOptimizer("SGD", 0.125, 0.5),
    Reinitialise("he_normal", ("0",), draw=3), ReplaceActivation("ReLU", ("1",)),
    InsertNormalization("LayerNorm"), AddResiduals(), ReplaceHead("Sigmoid", "MSELoss"),
    FixGradient(-1.0), ReplaceCell("GRU"), GateBias(3.0), Clip(0.5), ClassWeights(),
    WeightDecay(0.75), Dropout(0.5), Epochs(70), BatchSize(16), Shuffle(),
]  # fmt: skip


class Branches(nn.Layer):
    """A layer of a user's own, with layers in a list and in a dict."""

    def __init__(self) -> None:
        self.parts = [nn.Linear(3, 4), nn.Sigmoid()]
        self.named = {"last": nn.Linear(4, 1)}
        self.assign_paths()

    def forward(self, x: Array) -> Array:
        """Compute one after the other."""
        for part in self.parts:
            x = part(x)
        return self.named["last"](x)

    def backward(self, dy: Array) -> Array:
        """Take it back."""
        dy = self.named["last"].backward(dy)
        for part in reversed(self.parts):
            dy = part.backward(dy)
        return dy


def program(
    *layers: nn.Layer, loss: nn.Loss | None = None, columns: int = 3, rows: int = 40, **more: Any
) -> Program:
    """A program of these layers, with inputs of 3 columns and targets of 1, by SGD."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(*layers, rng=1)
    x = rng.normal(5, 2, (rows, columns))
    y = 100 + 10 * x[:, :1]
    sgd = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.125, max_norm=2.0)
    return Program(model, loss or nn.MSELoss(), sgd, x, y, 3, rng=2, **more)


def mlp(*between: nn.Layer, **more: Any) -> Program:
    return program(nn.Linear(3, 4), *(between or (nn.Tanh(),)), nn.Linear(4, 1), **more)


def names(model: nn.Layer) -> list[str]:
    return [type(layer).__name__ for _, layer in model.layers() if not list(layer.children())]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_remedy_has_words_code_and_a_place_in_the_order(kind: type[Action]) -> None:
    (example,) = (each for each in EXAMPLES if type(each) is kind)
    sentence = example.sentence()
    assert sentence[:1].islower()
    assert not sentence.endswith(".")
    assert example.code()
    assert all(line and "\n" not in line for line in example.code())
    assert kind in ORDER


def test_numbers_of_remedies_stand_in_their_sentences() -> None:
    for example, number in zip(
        EXAMPLES[2:4] + EXAMPLES[11:13] + EXAMPLES[14:18],
        ("0.25", "0.12", "21 steps", "0.5", "0.75", "0.5", "70", "16"),
        strict=True,
    ):
        assert number in example.sentence()


# --- finding and exchanging layers ------------------------------------------------------------


def test_layers_are_found_in_the_order_in_which_they_compute() -> None:
    order = surgery.calls(Branches(), [np.ones((2, 3), np.float32)])
    assert [type(call.layer).__name__ for call in order] == ["Linear", "Sigmoid", "Linear"]
    assert [call.width for call in order] == [4, 4, 1]


def test_recurrent_layer_counts_as_one() -> None:
    model = nn.Sequential(nn.LSTM(2, 3, 2, dropout=0.5), nn.Linear(3, 1), rng=0)
    order = surgery.calls(model, [np.ones((2, 5, 2), np.float32)])
    assert [type(call.layer).__name__ for call in order] == ["LSTM", "Linear"]


def test_head_is_the_last_activation_whatever_transparent_follows() -> None:
    for tail in ([], [nn.Dropout(0.5)], [nn.Identity()]):
        model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2), nn.Softmax(), *tail)
        order = surgery.calls(model, [np.ones((2, 3), np.float32)])
        assert surgery.head_of(order) is model[3]
        assert [call.layer for call in surgery.hidden_activations(order)] == [model[1]]
    plain = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    assert surgery.head_of(surgery.calls(plain, [np.ones((2, 3), np.float32)])) is None


def test_layers_are_exchanged_wherever_they_stand() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Residual(nn.Sequential(nn.Tanh())), Branches(), rng=0)
    body, own = model[1].body, model[2]
    surgery.substitute(model, body[0], nn.ReLU(), nn.Dropout(0.5))
    surgery.substitute(model, own.parts[1], nn.ELU())
    surgery.substitute(model, own.named["last"], nn.Linear(4, 2), nn.Softmax())
    assert names(model) == ["Linear", "ReLU", "Dropout", "Linear", "ELU", "Linear", "Softmax"]
    surgery.substitute(model, own.named["last"])
    assert names(model)[-1] == "Identity"
    surgery.substitute(model, model[0])
    assert len(model) == 2
    assert model(np.ones((2, 3), np.float32)).shape == (2, 4)


# --- layers -----------------------------------------------------------------------------------


def test_activations_are_replaced_but_not_the_head() -> None:
    changed = apply(mlp(nn.Sigmoid()), [ReplaceActivation("ReLU")])
    assert names(changed.model) == ["Linear", "ReLU", "Linear"]
    told = program(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid())
    assert names(apply(told, [ReplaceActivation("ELU")]).model)[1::2] == ["ELU", "Sigmoid"]


def test_only_the_layers_that_are_named_are_changed() -> None:
    told = program(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    before = told.model[0].weight.data.copy()
    changed = apply(told, [ReplaceActivation("ReLU", ("3",)), Reinitialise(layers=("2",))])
    assert names(changed.model) == ["Linear", "Tanh", "Linear", "ReLU", "Linear"]
    assert np.array_equal(changed.model[0].weight.data, before)
    assert changed.model[2].weight.initializer.name == "he_normal"


@pytest.mark.parametrize(
    ("batch_size", "rows", "expected"),
    [(10, 40, "BatchNorm"), (1, 40, "LayerNorm"), (13, 40, "LayerNorm"), (64, 1, "LayerNorm")],
)
def test_normalization_is_one_that_the_batches_allow(
    batch_size: int, rows: int, expected: str
) -> None:
    changed = apply(mlp(rows=rows, batch_size=batch_size), [InsertNormalization()])
    assert names(changed.model) == ["Linear", expected, "Tanh", "Linear"]
    if rows > 1:
        changed.train()


def test_square_layers_get_a_way_around_them() -> None:
    told = program(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(),
        nn.Linear(2, 1),
    )  # fmt: skip
    model = apply(told, [AddResiduals()]).model
    assert [type(layer).__name__ for layer in model.stack] == [
        "Linear", "ReLU", "Residual", "Linear", "ReLU", "Linear",
    ]  # fmt: skip
    x = np.ones((2, 4), np.float32)
    block = model[2]
    with evaluating():
        assert np.array_equal(block(x), block.body(x) + x)


def test_dropout_is_set_or_inserted_and_taken_away() -> None:
    assert names(apply(mlp(), [Dropout(0.25)]).model) == ["Linear", "Tanh", "Dropout", "Linear"]
    told = mlp(nn.Tanh(), nn.Dropout(0.75))
    assert apply(told, [Dropout(0.0)]).model[2].p == 0


def test_recurrent_layer_is_replaced_by_one_of_the_same_size() -> None:
    layer = nn.RNN(2, 3, 2, bidirectional=True, dropout=0.25, return_sequences=False)
    model = nn.Sequential(layer, nn.Linear(6, 1), rng=0)
    x = np.ones((5, 4, 2))
    told = Program(
        model, nn.MSELoss(), optim.Adam(model.parameters()), x, np.ones((5, 1)), 1, rng=0
    )
    changed = apply(told, [ReplaceCell("LSTM")])
    assert repr(changed.model[0]) == repr(layer).replace("RNN", "LSTM")
    changed.train()


def test_weights_are_drawn_as_the_activation_after_them_prefers() -> None:
    zeros = {"init": "zeros"}
    told = program(
        nn.Linear(3, 64, **zeros), nn.ReLU(), nn.Linear(64, 64, init=nn.init.normal(5.0, 9.0)),
        nn.Dropout(0.5), nn.Tanh(), nn.Linear(64, 1, bias_init=nn.init.constant(7.0)),
    )  # fmt: skip
    model = apply(told, [Reinitialise()]).model
    first, second, last = (model[index] for index in (0, 2, 5))
    assert [layer.weight.initializer.name for layer in (first, second, last)] == [
        "he_normal", "xavier_uniform", "xavier_uniform",
    ]  # fmt: skip
    assert abs(second.weight.data).max() <= np.sqrt(6 / 128)
    assert not any(layer.bias.data.any() for layer in (first, second, last))


def test_same_seed_draws_the_same_weights_and_another_draw_others() -> None:
    first, again, other = (
        apply(mlp(), [Reinitialise(draw=draw)]).model[0].weight.data for draw in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_frozen_layers_are_not_drawn_anew() -> None:
    told = mlp()
    told.model[0].freeze()
    before = [layer.weight.data.copy() for layer in (told.model[0], told.model[2])]
    model = apply(told, [Reinitialise(draw=1)]).model
    assert np.array_equal(model[0].weight.data, before[0])
    assert not np.array_equal(model[2].weight.data, before[1])


def test_recurrent_weights_are_drawn_as_by_default() -> None:
    model = nn.Sequential(nn.LSTM(2, 4, forget_bias=-3.0, recurrent_init="zeros"), rng=0)
    told = Program(
        model, nn.MSELoss(), optim.Adam(model.parameters()), np.ones((5, 3, 2)),
        np.ones((5, 3, 4)), 1, rng=0,
    )  # fmt: skip
    cell = apply(told, [Reinitialise()]).model[0].cells[0]
    gates = cell.recurrent_weight.data.reshape(4, 4, 4).transpose(1, 0, 2)
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, np.eye(4), atol=1e-5)
    assert cell.bias.data.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_gates_begin_with_the_bias_that_keeps_the_state(cls: Any) -> None:
    model = nn.Sequential(cls(1, 8, return_sequences=False), nn.Linear(8, 1), rng=0)
    adam = optim.Adam(model.parameters())
    x = np.random.default_rng(0).normal(size=(5, 60, 1))
    told = Program(model, nn.MSELoss(), adam, x, x[:, 0], 1, rng=0)
    norms = []
    for remedies in ([], [GateBias(np.log(59))]):
        changed = apply(told.copy(), [Reinitialise(), *remedies])
        prediction = changed.model(x.astype(np.float32))
        changed.model.backward(np.ones_like(prediction))
        reach = changed.model[0].state_gradient_norms()
        norms.append(reach[0] / reach[-1])
    assert norms[0] < 0.02
    assert norms[1] > 10 * norms[0]
    changed.train()


# --- scales -----------------------------------------------------------------------------------


def test_scaled_inputs_are_part_of_the_model() -> None:
    told = mlp()
    weights = [p.data.copy() for p in told.model.parameters()]
    changed = apply(told, [ScaleInputs()])
    scaled = (told.X - told.X.mean(axis=0)) / told.X.std(axis=0)
    with evaluating():
        raw = changed.model(told.X.astype(np.float32))
        expected = nn.Sequential(*changed.model[1].stack)(scaled.astype(np.float32))
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-5)
    assert all(map(np.array_equal, weights, [p.data for p in changed.model.parameters()]))


def test_padding_does_not_count_for_the_scale_of_sequences() -> None:
    rng = np.random.default_rng(0)
    X = [rng.normal(50, 3, (length, 2)) for length in (2, 9, 5, 7)]
    model = nn.Sequential(nn.RNN(2, 3, return_sequences=False), nn.Linear(3, 1), rng=0)
    adam = optim.Adam(model.parameters())
    told = Program(model, nn.MSELoss(), adam, X, np.ones((4, 1)), 1, rng=0)
    front = apply(told, [ScaleInputs()]).model[0]
    np.testing.assert_allclose(front.mean, np.concatenate(X).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(front.std, np.concatenate(X).std(axis=0), rtol=1e-5)


def test_numbers_that_float32_cannot_tell_apart_make_the_model_float64() -> None:
    told = mlp()
    told.X[:, 0] = 1.7e9 + np.arange(len(told.X)) / 100
    changed = apply(told, [ScaleInputs()])
    assert changed.model.dtype == np.float64
    assert changed.train().predict(told.X).dtype == np.float64


def test_targets_are_scaled_for_the_training_and_not_for_the_answers() -> None:
    told = mlp()
    mean, deviation = told.y.mean(axis=0), told.y.std(axis=0)
    by_hand = told.copy()
    scaled = (told.y - mean) / deviation
    expected = Program(by_hand.model, by_hand.loss, by_hand.optimizer, told.X, scaled, 3, rng=2)
    trainer = expected.train()
    cured = apply(told, [ScaleTargets()]).train()
    np.testing.assert_allclose(
        cured.predict(told.X), trainer.predict(told.X) * deviation + mean, rtol=1e-4
    )
    np.testing.assert_allclose(cured.history["loss"], trainer.history["loss"], rtol=1e-3)


def test_unstandardize_undoes_standardize() -> None:
    y = np.array([[1.0, 200.0], [5.0, 100.0], [6.0, 600.0]])
    standardize = nn.Standardize(2, np.float64).adapt(y)
    back = Unstandardize.to(y.mean(axis=0), y.std(axis=0), np.float64)
    np.testing.assert_allclose(back(standardize(y)), y, rtol=1e-12)


@pytest.mark.parametrize(
    ("told", "remedy"),
    [
        (lambda: mlp(loss=nn.BCEWithLogitsLoss()), ScaleTargets()),
        (lambda: program(nn.Standardize(3), nn.Linear(3, 1)), ScaleInputs()),
        (lambda: program(nn.Linear(3, 1)), ReplaceActivation("ReLU")),
        (lambda: program(nn.Linear(3, 1)), InsertNormalization()),
        (lambda: program(nn.Linear(3, 1)), ReplaceCell("LSTM")),
        (lambda: program(nn.Linear(3, 1)), Dropout(0.5)),
        (lambda: program(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), AddResiduals()),
        (lambda: mlp(nn.BatchNorm(4), nn.Tanh()), InsertNormalization()),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(told: Any, remedy: Action) -> None:
    with pytest.raises(NotApplicableError, match=r"\w+ \w+"):
        apply(told(), [remedy])


def test_integers_are_not_scaled() -> None:
    model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 1), rng=0)
    x = np.random.default_rng(0).integers(5, size=(10, 3))
    told = Program(model, nn.MSELoss(), optim.Adam(model.parameters()), x, np.ones((10, 1)), 1)
    with pytest.raises(NotApplicableError, match="not one table of numbers"):
        apply(told, [ScaleInputs()])


# --- heads and losses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"), [("", []), ("Sigmoid", ["Sigmoid"]), ("LogSoftmax", ["LogSoftmax"])]
)
def test_head_is_replaced_added_or_taken_away(head: str, expected: list[str]) -> None:
    for tail in ([], [nn.Softmax()]):
        told = program(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), *tail)
        assert names(apply(told, [ReplaceHead(head)]).model)[3:] == expected


def test_targets_take_the_form_of_the_new_loss() -> None:
    told = program(nn.Linear(3, 4), nn.Softmax())
    rows = np.eye(4)[np.arange(40) % 4]
    told = Program(
        told.model, nn.MSELoss(), told.optimizer, told.X, rows, 1, validation=(told.X, rows), rng=0
    )
    changed = apply(told.copy(), [ReplaceHead("", "CrossEntropyLoss")])
    assert changed.y.tolist() == changed.validation[1].tolist() == [*range(4)] * 10
    assert type(changed.loss) is nn.CrossEntropyLoss
    back = apply(changed, [ReplaceHead("Softmax", "CrossEntropyOfProbabilities")])
    assert np.array_equal(back.y, rows)
    assert back.loss.rows


def test_reduction_of_the_loss_is_kept() -> None:
    changed = apply(mlp(loss=nn.MSELoss("sum")), [ReplaceHead(None, "L1Loss")])
    assert repr(changed.loss) == "L1Loss(reduction='sum')"


def difference(loss: nn.Loss, p: Array, target: Array, weight: Array | None = None) -> Array:
    """Gradient of a loss by central differences."""
    found = np.zeros_like(p)
    for place in np.ndindex(p.shape):
        step = np.zeros_like(p)
        step[place] = 1e-6
        found[place] = float(loss(p + step, target, weight)) - float(loss(p - step, target, weight))
    return found / 2e-6


WEIGHTS = np.array([1.0, 0.0, 3.0])


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("rows", [True, False])
def test_gradient_of_the_cross_entropy_of_probabilities(rows: bool, weight: Array | None) -> None:
    p = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    target = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    loss = CrossEntropyOfProbabilities(rows)
    value = float(loss(p, target, weight))
    np.testing.assert_allclose(loss.backward(), difference(loss, p, target, weight), atol=1e-6)
    each = -np.log(p[target == 1])  # of two classes, which one sum or the mean of two logarithms is
    np.testing.assert_allclose(value, np.average(each, weights=weight), rtol=1e-12)


def test_cross_entropy_of_probabilities_is_that_of_logits() -> None:
    z, target = np.array([[-3.0], [0.5], [4.0]]), np.array([[0.0], [1.0], [1.0]])
    for weight in (None, WEIGHTS):
        expected = float(nn.BCEWithLogitsLoss()(z, target, weight))
        value = float(CrossEntropyOfProbabilities()(1 / (1 + np.exp(-z)), target, weight))
        np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_cross_entropy_of_probabilities_is_finite_at_zero_and_one() -> None:
    loss = CrossEntropyOfProbabilities()
    assert np.isfinite(loss(np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]])))
    assert np.isfinite(loss.backward()).all()


@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_gradient_of_the_scaled_loss(weight: Array | None) -> None:
    rng = np.random.default_rng(0)
    p, target = rng.normal(50, 10, (2, 3, 2))
    mean, deviation = np.array([50.0, 40.0]), np.array([10.0, 0.5])
    loss = ScaledLoss(nn.HuberLoss(), mean, deviation)
    value = float(loss(p, target, weight))
    np.testing.assert_allclose(loss.backward(), difference(loss, p, target, weight), atol=1e-6)
    scaled = ((each - mean) / deviation for each in (p, target))
    np.testing.assert_allclose(value, float(nn.HuberLoss()(*scaled, weight)), rtol=1e-12)


class Uphill(nn.MSELoss):
    """A loss of a user's own whose gradient has the wrong sign."""

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        value, gradient = super().forward(prediction, target, weight)
        return value, -np.asarray(gradient)


def test_gradient_of_wrong_sign_is_turned() -> None:
    p, target = np.array([[1.0], [3.0]]), np.array([[0.0], [5.0]])
    loss = apply(mlp(loss=Uphill()), [FixGradient(-1.0)]).loss
    assert isinstance(loss, CorrectedLoss)
    assert float(loss(p, target)) == float(nn.MSELoss()(p, target))
    np.testing.assert_allclose(loss.backward(), difference(loss, p, target), atol=1e-6)


# --- optimizers -------------------------------------------------------------------------------


OPTIMIZERS = [cls for cls in optim.Optimizer.registry if cls.__module__.startswith("minidl.")]


@pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda cls: cls.__name__)
def test_optimizer_of_a_changed_model_has_the_settings_of_the_old_one(cls: Any) -> None:
    for settings in cls.examples():
        told = mlp()
        old = cls(told.model.parameters(), **settings)
        told = Program(told.model, told.loss, old, told.X, told.y, 3, rng=2)
        before = copy.deepcopy(old.states)
        new = apply(told, [InsertNormalization("LayerNorm")]).optimizer
        assert type(new) is cls
        assert len(new.flat.parameters) == len(old.flat.parameters) + 2
        for name in before.dtype.names:
            if name not in ("step", "learning_rate"):
                np.testing.assert_array_equal(new.states[name], before[name], err_msg=name)
        assert new.lr == before["learning_rate"][0]


def test_groups_and_schedules_are_kept() -> None:
    told = mlp()
    first, last = told.model[0], told.model[2]
    schedule = optim.schedules.exponential(0.5, 0.9)
    groups = [
        {"params": first.parameters(), "lr": 0.125},
        {"params": last.parameters(), "lr": schedule, "momentum": 0.25},
    ]
    old = optim.SGD(groups, momentum=0.5)
    told = Program(told.model, told.loss, old, told.X, told.y, 3, rng=2)
    new = apply(told, [InsertNormalization("LayerNorm"), Reinitialise()]).optimizer
    assert [len(group.parameters) for group in new.groups] == [4, 2]
    assert [group["lr"] for group in new.groups] == [0.125, 0.5]
    assert [group["momentum"] for group in new.groups] == [0.5, 0.25]
    assert new.groups[1].schedule is schedule
    rates = apply(told, [SetLearningRate(0.25)]).optimizer.groups
    assert rates[0]["lr"] == 0.25
    assert rates[1].schedule(1) == pytest.approx(2 * 0.45)


def test_another_optimizer_keeps_clipping_and_penalty() -> None:
    told = mlp()
    new = apply(told, [UseOptimizer("Adam", 0.5), Clip(3.0)]).optimizer
    assert repr(new).startswith("Adam(lr=0.5")
    assert (new.weight_decay, new.max_norm) == (0.125, 3.0)
    momentum = apply(mlp(), [UseOptimizer("SGD", 0.5, 0.25), WeightDecay(0.0)]).optimizer
    assert (momentum.lr, momentum.momentum, momentum.weight_decay) == (0.5, 0.25, 0.0)


def test_how_to_train_is_changed() -> None:
    told = mlp(shuffle=False)
    changed = apply(told, [Epochs(7), BatchSize(5), Shuffle()])
    assert (changed.epochs, changed.batch_size, changed.shuffle) == (7, 5, True)
    assert changed.train().history.epochs == 7


def test_classes_weigh_the_same_whatever_the_loss() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    told = program(nn.Linear(3, 2))
    of_labels = Program(told.model, nn.CrossEntropyLoss(), told.optimizer, told.X, labels, 1, rng=0)
    assert apply(of_labels, [ClassWeights()]).class_weight == "balanced"
    told = program(nn.Linear(3, 1), nn.Sigmoid())
    of_bits = Program(
        told.model, nn.MSELoss(), told.optimizer, told.X, labels[:, None].astype(float), 1, rng=0
    )
    changed = apply(of_bits, [ClassWeights()])
    assert changed.sample_weight[:30].sum() == pytest.approx(changed.sample_weight[30:].sum())
    changed.train()


def test_all_remedies_together_leave_a_program_that_trains() -> None:
    told = program(
        nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Tanh()
    )
    remedies = [
        Shuffle(), Epochs(2), ScaleTargets(), ScaleInputs(), ReplaceHead(""), Reinitialise(),
        InsertNormalization(), ReplaceActivation("ReLU"), UseOptimizer("Adam", 0.01), Clip(1.0),
        Dropout(0.25), AddResiduals(),
    ]  # fmt: skip
    changed = apply(told.copy(), remedies)
    trainer = changed.train()
    assert trainer.predict(told.X).shape == told.y.shape
    assert [type(call.layer).__name__ for call in order_of(told)][-1] == "Tanh"  # the copy changed
