"""For each kind of verdict a program that is built to have it."""

from __future__ import annotations

from dataclasses import replace

from . import mutants, own, questions
from .case import Case

BUILT = {
    "vanishing_gradient": "nine sigmoids",
    "exploding_gradient": "recurrence that grows",
    "dead_units": "born dead",
    "saturated_units": "tanh on its ends",
    "unscaled_inputs": "raw columns",
    "unscaled_targets": "targets of thousands",
    "bad_initialization": "weights of zero",
    "learning_rate_too_high": "SGD 100",
    "learning_rate_too_low": "SGD 1e-4",
    "output_mismatch": "ReLU head",
    "not_finite": "digits, log of logits",
    "not_learning": "cross entropy uphill",
    "nothing_to_learn": "drawn labels",
    "overfitting": "a hundred noisy rows",
    "stopped_early": "one epoch",
    "not_shuffled": "rows by class",
    "class_imbalance": "three in a hundred",
    "data_error": "half of the labels",
}
# Kinds that a diagnosis need only name.
NAMED_ONLY = ("not_learning", "nothing_to_learn", "data_error")


def cases() -> list[Case]:
    """Return them, each called after its kind."""
    known = {case.name: case for case in questions.CASES + mutants.CASES + own.CASES}
    return [
        replace(
            known[name],
            name=kind,
            right=frozenset([kind]),
            cure=None if kind in NAMED_ONLY else known[name].cure,
        )
        for kind, name in BUILT.items()
    ]
