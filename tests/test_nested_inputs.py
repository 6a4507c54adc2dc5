"""Inputs within inputs: what a branch takes that is several branches itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same
from test_head_edges import Steps
from test_heads import KINDS, LENGTHS, SEQUENCES, SIZES, TABLE, fit, parameters

import minidl
from minidl import Trainer, nn, optim

F32 = np.float32


def nested(seed: int = 0) -> nn.Sequential:
    both = nn.Parallel(left=nn.Linear(4, 3), right=nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    return nn.Sequential(nn.Parallel(both=both, other=nn.Linear(2, 2)), nn.Linear(8, 1), rng=seed)


LEFT, RIGHT, OTHER = TABLE, TABLE[::-1].copy(), TABLE[:, :2].copy()
NESTED: Any = ((LEFT, RIGHT), OTHER)


def alone(model: nn.Layer, **options: Any) -> Trainer:
    return Trainer(
        model, nn.MSELoss(), optim.Adam(model.parameters(), 0.01), "mae", rng=0, **options
    )


@pytest.mark.parametrize("record", [True, False])
def test_inputs_within_inputs_train_as_a_recorded_step_does(backend: str, record: bool) -> None:
    named = {"other": OTHER, "both": {"right": RIGHT, "left": LEFT}}
    half = {"both": (LEFT.tolist(), RIGHT.astype(float)), "other": OTHER}
    subjects, order = [alone(nested(), record=record) for _ in range(3)], np.random.default_rng(0)
    histories = [
        dict(fit(subject, x, SIZES, epochs=2, validation=(x, SIZES)))
        for subject, x in zip(subjects, (NESTED, named, half), strict=True)
    ]
    assert histories[0] == histories[1] == histories[2]
    model, loss = nested(), nn.MSELoss()
    adam = optim.Adam(model.parameters(), 0.01)

    @minidl.record
    def step(a: Any, b: Any, c: Any, y: Any) -> Any:
        value = loss(model((a, b), c), y)
        adam.zero_grad()
        model.backward(loss.backward())
        adam.step()
        return value

    for epoch in range(2):
        mean = step.epoch((LEFT, RIGHT, OTHER), SIZES, 16, rng=order)
        assert histories[0]["loss"][epoch] == pytest.approx(mean, rel=1e-6)
    for subject in subjects:
        assert_same(parameters(subject), [p.data for p in model.parameters()], "parameters")
    with nn.evaluating():
        expected = model((LEFT, RIGHT), OTHER)
    for x in (NESTED, named):
        np.testing.assert_allclose(subjects[0].predict(x), expected, rtol=1e-5, atol=1e-6)
        found = subjects[0].evaluate(x, SIZES, batch_size=7)
        assert found["mae"] == pytest.approx(float(np.abs(expected - SIZES).mean()), rel=1e-5)


def test_inputs_within_inputs_may_be_sequences_of_unequal_length() -> None:
    """Lengths stand behind their sequences, at whatever depth."""
    ragged = [s[:n] for s, n in zip(SEQUENCES, LENGTHS, strict=True)]

    def built() -> Trainer:
        inner = nn.Parallel(nn.GRU(3, 5, return_sequences=False), nn.Linear(4, 2))
        towers = nn.Parallel(inner, nn.LSTM(3, 2, return_sequences=False), nn.Embedding(3, 2))
        return alone(nn.Sequential(towers, nn.Linear(11, 1), rng=0))

    padded = np.where(np.arange(5) < LENGTHS[:, None], 1, 0)[..., None] * SEQUENCES
    same: list[Any] = [
        ((SEQUENCES, LENGTHS, TABLE), (SEQUENCES, LENGTHS), KINDS),
        (((SEQUENCES, LENGTHS), TABLE), (SEQUENCES, LENGTHS), KINDS),
        ((ragged, TABLE), ragged, KINDS),
        {"0": {"0": (padded, LENGTHS), "1": TABLE}, "1": ragged, "2": KINDS},
    ]
    histories = [dict(fit(built(), x, SIZES, epochs=1, validation=0.2)) for x in same]
    assert all(history == histories[0] for history in histories)
    subject = built()
    with nn.evaluating():
        expected = subject.model(
            (padded.astype(F32), LENGTHS, TABLE), padded.astype(F32), LENGTHS, KINDS
        )
    for x in same:
        np.testing.assert_allclose(subject.predict(x), expected, rtol=1e-5, atol=1e-6)
    wrong = ((SEQUENCES, LENGTHS, TABLE), (SEQUENCES, LENGTHS + 1), KINDS)
    with pytest.raises(ValueError, match=r"X\[1\]\[1\]: length 6 in row \d+ is not in 1 to 5"):
        fit(built(), wrong, SIZES)


def test_inputs_within_inputs_are_accumulated_averaged_transformed_and_resumed(
    tmp_path: Path,
) -> None:
    def halves(batch: Any, rng: np.random.Generator) -> Any:
        (left, right), other = batch
        return (left * F32(0.5), right), other

    def built() -> Trainer:
        model = nn.Sequential(nested(), nn.BatchNorm(1))
        return alone(model, ema=optim.EMA(model, 0.9))

    subject, by_hand = built(), built()
    fit(subject, NESTED, SIZES, accumulate=2, transform=halves, epochs=2)
    fit(by_hand, ((LEFT * F32(0.5), RIGHT), OTHER), SIZES, accumulate=2, epochs=2, transform=same)
    assert_same(parameters(subject), parameters(by_hand), "parameters")
    whole, second = built(), built()
    steps = Steps(tmp_path / "training.safetensors", at=6)
    history = fit(whole, NESTED, SIZES, epochs=2, callbacks=[steps])
    second.load(tmp_path / "training.safetensors")
    assert dict(fit(second, NESTED, SIZES, epochs=2, callbacks=[Steps()])) == dict(history)
    assert_same(parameters(second), parameters(whole), "parameters")
    with pytest.raises(TypeError, match="transform must give a tuple of 2"):
        fit(built(), NESTED, SIZES, transform=lambda batch, rng: (batch[0][0], batch[1]))


def same(batch: Any, rng: np.random.Generator) -> Any:
    return batch


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (((LEFT, RIGHT, LEFT), OTHER), "expected one input for all branches, or one for each"),
        (((LEFT, RIGHT[:9]), OTHER), r"X\[0\]\[0\] has 60 rows, X\[0\]\[1\] has 9"),
        (((LEFT, RIGHT), OTHER[:9]), r"X\[0\]\[0\] has 60 rows, X\[1\] has 9"),
        ((LEFT, (OTHER, RIGHT)), r"X\[1\] is a tuple of 2, the model takes 1 at most there"),
        (((LEFT, RIGHT * np.nan), OTHER), r"X\[0\]\[1\]: row 0 holds nan"),
        (
            {"both": {"left": LEFT}, "other": OTHER},
            r"X\['both'\]: expected the inputs left, right.*'right' is",
        ),
        ({"both": ("a", "b"), "other": OTHER}, r"X\['both'\]\[0\] must be an array"),
        ({"other": OTHER}, "X: expected the inputs both, other, got other: 'both' is missing"),
    ],
)
def test_wrong_inputs_within_inputs_are_named(x: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        fit(alone(nested()), x, SIZES)


def test_steps_of_ones_own_take_arrays_and_batches_take_nests() -> None:
    @minidl.record
    def step(a: Any, b: Any) -> Any:
        return nn.MSELoss()(a, b)

    with pytest.raises(TypeError, match=r"X\[0\] must be a NumPy array, got tuple; the function"):
        step.epoch(NESTED, SIZES, 16)
    given: Any = {"both": (LEFT, RIGHT), "other": {"it": OTHER}}
    parts = list(minidl.batches(given, (SIZES, (KINDS,)), 16, shuffle=False))
    assert [list(x) for x, _ in parts] == [["both", "other"]] * 4
    joined = [np.concatenate([x["both"][i] for x, _ in parts]) for i in range(2)]
    joined += [np.concatenate([x["other"]["it"] for x, _ in parts])]
    joined += [np.concatenate([y[1][0] for _, y in parts])]
    assert_same(joined, [LEFT, RIGHT, OTHER, KINDS], "batches")


def test_diagnose_refuses_inputs_within_inputs() -> None:
    model = nested()
    adam = optim.Adam(model.parameters())
    with pytest.raises(ValueError, match=r"inputs that are arrays, and a branch .* several"):
        minidl.diagnose(model, nn.MSELoss(), adam, NESTED, SIZES, epochs=1)
    assert adam.steps == 0


# --- trees of branches, drawn at random -----------------------------------------------------------


class Leaf:
    """A branch that takes one input: as ``fit`` may be given it, and as the layer is called."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.given: Any
        self.called: tuple[Any, ...]
        kind = rng.integers(4)
        if kind == 0:
            self.layer: nn.Layer = nn.Linear(4, 2)
            self.given, self.called = TABLE, (TABLE,)
        elif kind == 1:
            self.layer = nn.Embedding(3, 2)
            self.given, self.called = KINDS, (KINDS,)
        else:
            self.layer = nn.GRU(3, 2, return_sequences=False)
            padded = np.where(np.arange(5) < LENGTHS[:, None], 1, 0)[..., None] * SEQUENCES
            ragged = [s[:n] for s, n in zip(SEQUENCES, LENGTHS, strict=True)]
            self.given = ragged if kind == 2 else (padded, LENGTHS)
            self.called = padded.astype(F32), LENGTHS


class Tree(Leaf):
    """Branches side by side, some of which are trees; inputs in a tuple or a dict."""

    def __init__(self, rng: np.random.Generator, depth: int) -> None:
        count = int(rng.integers(2, 4))
        parts = [
            Tree(rng, depth - 1) if depth and rng.random() < 0.5 else Leaf(rng)
            for _ in range(count)
        ]
        names = [f"branch_{number}" for number in range(count)]
        self.layer = nn.Parallel(**{n: p.layer for n, p in zip(names, parts, strict=True)})
        if rng.random() < 0.3:
            self.layer = nn.Sequential(self.layer, nn.Tanh())
        given = [part.given for part in parts]
        as_dict = dict(zip(names, given, strict=True))
        self.given = tuple(given) if rng.random() < 0.5 else as_dict
        inner: list[Any] = []
        for part in parts:
            inner += [part.called] if isinstance(part, Tree) else part.called
        self.called = tuple(inner)


@pytest.mark.parametrize("seed", range(25))
def test_every_tree_of_branches_is_called_as_it_is_built(seed: int) -> None:
    """``fit``, ``predict`` and ``evaluate`` call it as ``model(*inputs)`` does by hand."""
    rng = np.random.default_rng(seed)
    tree = Tree(rng, 2)
    model = nn.Sequential(tree.layer, nn.Linear(width_of(tree.layer), 1), rng=0)
    subject = alone(model, record=False)
    before = subject.predict(tree.given)
    with nn.evaluating():
        expected = model(*tree.called)
    np.testing.assert_allclose(before, expected, rtol=1e-5, atol=1e-6)
    loss = float(np.square(expected - SIZES).mean())
    assert subject.evaluate(tree.given, SIZES, 17)["loss"] == pytest.approx(loss, rel=1e-5)
    history = subject.fit(tree.given, SIZES, 1, len(SIZES), progress=False, diagnose=bool(seed % 2))
    assert history["loss"][0] == pytest.approx(loss, rel=1e-5)
    assert all(p.grad.any() for p in model.parameters())


def width_of(layer: nn.Layer) -> int:
    """How many features a tree gives: two for each leaf."""
    inner = [part for _, part in layer.layers()]
    return 2 * sum(isinstance(part, nn.Linear | nn.Embedding | nn.GRU) for part in inner)
