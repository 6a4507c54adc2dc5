"""Checks of modules of the diagnosis, given by their names: planted faults are seen by them."""

from __future__ import annotations

import re
from typing import Any

import test_diagnosis_rules as rules

from minidl import nn
from minidl.training.data import Data

Space = dict[str, Any]


def check_static(space: Space) -> None:
    """What is certain is told from what may be meant."""
    cases = [(*case, []) for case in rules.MEANT]
    cases += [(model, loss, y, [kind]) for model, loss, y, kind in rules.CERTAIN]
    constant, drawn = nn.init.constant(0.3), "he_normal"
    for parts, kinds in [
        ((constant, constant), ["bad_initialization"]),
        ((constant, drawn), []),
        ((drawn, "zeros"), []),
        ((constant, constant, nn.Dropout(0.5)), []),
    ]:
        cases.append((rules.alike(*parts), nn.CrossEntropyLoss(), rules.LABELS, kinds))
    for model, loss, y, kinds in cases:
        setting = space["Setting"](model, loss, (rules.X,), y, model(rules.X[:1]))
        assert [verdict.kind for verdict in space["certainties"](setting)] == kinds


def check_closing(space: Space) -> None:
    """An end is remarked on where it should be."""
    for history, other, words in rules.ENDINGS:
        ending = space["Ending"](history, **rules.FINE | other)
        said = next((text for rule in space["RULES"] for text in rule(ending)), "")
        assert re.match(words, said) if words else not said


def check_task(space: Space) -> None:
    """Answers, and how far they are from targets."""
    rules.answers_are_on_a_side(space)
    rules.errors_are_relative(space)


def check_gradients(space: Space) -> None:
    """Wrong gradients are told from right ones."""
    batch = Data((rules.X,), rules.NUMBERS)
    for loss, wrong in ((rules.cases.Uphill(), True), (rules.Right(), False)):
        found = space["wrong_gradient"](loss, rules.net(outputs=1), batch)
        assert (found is not None) == wrong
    for slope in (2.0, 0.0):
        layers = nn.Linear(4, 6), rules.Doubled(slope), nn.Linear(6, 3)
        batch = Data((rules.X,), rules.LABELS)
        found = space["wrong_layer"](nn.Sequential(*layers, rng=0), nn.CrossEntropyLoss(), batch)
        assert (found is None) == (slope == 2)


def check_reach(space: Space) -> None:
    """Changes are merged as they should be."""
    rules.last_change_stands(space)


def check_causes(space: Space) -> None:
    """Changes are credited as they should be."""
    rules.parts_are_credited(space)


DIAGNOSIS_CHECKS = {
    "static": check_static,
    "closing": check_closing,
    "task": check_task,
    "gradients": check_gradients,
    "reach": check_reach,
    "causes": check_causes,
}
