"""What holds for losses of several heads: one function for each property of a module.

Each takes the names of a module, as it is or with a fault planted, and raises if the property does
not hold (test_planted_faults.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from checks import assert_close

from minidl import nn
from minidl.training.metrics import by_name

RNG = np.random.default_rng(0)
LOGITS, VALUES = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))
LABELS, TARGETS = np.array([0, 2, 1, 1]), RNG.normal(size=(4, 2))
ROWS = np.array([1.0, 0.5, 2.0, 1.0])
HEADS = {"kind": nn.CrossEntropyLoss(), "size": nn.MSELoss()}


@contextmanager
def allowed() -> Iterator[None]:
    """Fail where something is refused that must be taken."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise AssertionError(f"refused: {error}") from error


def sums(space: dict[str, Any]) -> None:
    """Value and gradients are the weighted ones of the heads; ``values`` are theirs alone."""
    loss = space["MultiLoss"](HEADS, weights={"size": 0.25})
    assert loss.by_head("order", {"size": 2, "kind": 1}) == (1, 2)
    for weight in (None, ROWS, (None, ROWS)):
        own = weight if isinstance(weight, tuple) else (weight, weight)
        cross_entropy, mse = nn.CrossEntropyLoss(), nn.MSELoss()
        expected = [
            float(cross_entropy(LOGITS, LABELS, own[0])),
            float(mse(VALUES, TARGETS, own[1])),
        ]
        value = loss((LOGITS, VALUES), {"size": TARGETS, "kind": LABELS}, weight)
        np.testing.assert_allclose(value, expected[0] + 0.25 * expected[1])
        np.testing.assert_allclose([float(v) for v in loss.values.values()], expected)
        gradients = [cross_entropy.backward(), 0.25 * mse.backward()]
        assert_close(list(loss.backward()), gradients, "gradients")


def row_weights(space: dict[str, Any]) -> None:
    """Each head has its own weights of rows, and there are none if no head has any."""
    heads = {**HEADS, "kind": nn.CrossEntropyLoss(class_weight=[1.0, 2.0, 3.0])}
    found = space["MultiLoss"](heads).row_weights((LABELS, TARGETS), (ROWS, 2 * ROWS))
    np.testing.assert_allclose(found[0], ROWS * np.array([1, 3, 2, 2]))
    np.testing.assert_allclose(found[1], 2 * ROWS)
    plain = space["MultiLoss"](HEADS)
    assert plain.row_weights((LABELS, TARGETS)) is None
    found = plain.row_weights((LABELS, TARGETS), (None, ROWS))
    assert found is not None
    assert found[0] is None


def means(space: dict[str, Any]) -> None:
    """Losses of an epoch are means over batches, each weighted as its head does it."""
    loss = nn.MultiLoss(HEADS, weights=[2, 0.5])
    metrics = by_name({"kind": "accuracy", "size": "mae"}, loss)
    tally = space["tally_of"](loss, metrics)
    tally.add([(1.0, 3.0), (2.0, 5.0)], 3, 4, (None, ROWS))
    tally.add_predictions((LOGITS, VALUES), (LABELS, TARGETS), None, None)
    other = space["tally_of"](loss, metrics)
    other.resume(tally.resume_state())
    kind, size = (3 * 1 + 2) / 4, (3.5 * 3 + 5) / 4.5
    expected = {
        "loss": 2 * kind + 0.5 * size,
        "kind.loss": kind,
        "size.loss": size,
        "kind.accuracy": np.mean(LOGITS.argmax(axis=1) == LABELS),
        "size.mae": np.abs(VALUES - TARGETS).mean(),
    }
    for found in (tally.read(), other.read(), tally.read_running()):
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()))


def without_rows(space: dict[str, Any]) -> None:
    """A head of which no row counts adds nothing, whatever it holds; alone its loss is refused."""
    losses = {"kind": nn.CrossEntropyLoss(ignore_index=-1), "size": nn.MSELoss()}
    loss, nothing = space["MultiLoss"](losses), np.zeros(4)
    logits, values = np.full((4, 3), np.nan), np.full((4, 2), np.inf)
    ignored = np.full(4, -1)
    for labels, weight in ((ignored, None), (LABELS, (nothing, None)), (ignored, (nothing, ROWS))):
        with allowed():
            value = loss((logits, VALUES), (labels, TARGETS), weight)
        of_size = None if weight is None else weight[1]
        assert float(loss.values["kind"]) == 0
        assert float(value) == float(nn.MSELoss()(VALUES, TARGETS, of_size))
        assert not loss.backward()[0].any()
    with np.errstate(all="ignore"):  # of the twin, which multiplies first
        value = loss((LOGITS, values), (LABELS, TARGETS), {"size": nothing})
    assert float(value) == float(nn.CrossEntropyLoss()(LOGITS, LABELS))
    assert not loss.backward()[1].any()
    for alone, *batch in ((losses["kind"], LOGITS, ignored), (losses["size"], VALUES, TARGETS)):
        with pytest.raises(ValueError, match=r"no row is left|not all zero"):
            alone(*batch, nothing)


def complaints(space: dict[str, Any]) -> None:
    """Errors name the head whose batch they are about, and the names there are."""
    loss = space["MultiLoss"]({"size": nn.MSELoss(), "kind": nn.CrossEntropyLoss()})
    predictions, targets = (VALUES, LOGITS), (TARGETS, LABELS)
    with allowed():
        whole = float(loss(predictions, targets, {}))
    assert (
        whole == float(loss(predictions, targets)) == float(loss(predictions, targets, (None,) * 2))
    )
    wrong: list[tuple[Any, Any, Any, str]] = [
        (predictions, (TARGETS, LABELS + 2), None, "^head kind: label 4 in row 1 is outside the 3"),
        (
            predictions,
            (TARGETS[:, :1], LABELS),
            None,
            r"^head size: MSELoss\(\): .* differ in shape",
        ),
        (predictions, (TARGETS, LABELS * 1.0), None, "^head kind: .* labels must be integers"),
        (predictions, targets, (-ROWS, None), "^head size: weights must be finite"),
        (predictions, targets, {"kind": ROWS[:2]}, "^head kind: .* expected weights of shape"),
        (predictions, targets, {"kid": ROWS}, "weight: expected size, kind, .* 'kid' is unknown"),
        ({"size": VALUES}, targets, None, "prediction: expected .* 'kind' is missing"),
        (predictions, {}, None, "target: expected .*: 'size' is missing, 'kind' is missing"),
    ]
    for *given, words in wrong:
        with pytest.raises(ValueError, match=words):
            loss(*given)


def means_without_rows(space: dict[str, Any]) -> None:
    """While no row of a head has counted, its values are NaN, and its loss adds nothing."""
    loss = nn.MultiLoss(HEADS, weights=[2, 0.5])
    metrics = by_name({"kind": ["accuracy", "f1_macro"], "size": "r2"}, loss)
    tally, nothing = space["tally_of"](loss, metrics), np.zeros(2)
    batch = (LOGITS[:2], VALUES[:2]), (LABELS[:2], TARGETS[:2])
    tally.add([(1.5, 0.0)], 2, 2, (None, nothing))
    tally.add_predictions(*batch, None, (None, nothing))
    for found in (tally.read(), tally.read_running()):
        assert found["loss"] == 2 * 1.5
        assert np.isnan([found["size.loss"], found["size.r2"]]).all()
        assert np.isfinite([found["kind.loss"], found["kind.accuracy"]]).all()
    tally.add([(0.0, 3.0)], 2, 2, (nothing, None))
    tally.add_predictions(*batch, None, (nothing, None))
    found = tally.read()
    assert (found["kind.loss"], found["size.loss"], found["loss"]) == (1.5, 3, 2 * 1.5 + 0.5 * 3)
    assert found["kind.accuracy"] == np.mean(LOGITS[:2].argmax(axis=1) == LABELS[:2])


def ways_in(space: dict[str, Any]) -> None:
    """Every input has the layer that takes it; lengths have their sequences."""
    words, gru = nn.Embedding(5, 2), nn.GRU(2, 3)
    towers = nn.Sequential(nn.Sequential(nn.Parallel(table=nn.Linear(2, 3), a=gru, ids=words)))
    lengths = np.array([1, 2, 2, 1])
    sequences, ids = RNG.normal(size=(4, 2, 2)), np.array([4, 0, 1, 2])
    found = space["entrances"](towers, [VALUES, sequences, lengths, ids])
    first = towers[0][0].branches
    assert [e.layer for e in found] == [first["table"], first["a"], None, first["ids"]]
    assert [e.lengths_of for e in found] == [None, None, 1, None]
    assert space["input_names"](towers) == ["table", "a", "ids"]
    chain = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 3))
    assert [e.lengths_of for e in space["entrances"](chain, [sequences, lengths])] == [None, 0]
    assert space["most_inputs"](chain) == 2
    assert space["most_inputs"](towers) is None


HEAD_CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    check.__name__: check
    for check in (
        *(sums, row_weights, without_rows, complaints),
        *(means, means_without_rows, ways_in),
    )
}
