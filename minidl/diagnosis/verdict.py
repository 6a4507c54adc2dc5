"""Verdicts: what is wrong with a training, where, by which numbers, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from minidl.diagnosis.remedies.actions import Action

# The kinds of verdicts, with what each says. Where several stand, causes come before symptoms.
KINDS: dict[str, str] = {
    "data_error": "the targets belong to other rows, or the like",
    "nothing_to_learn": "the targets do not depend on the inputs",
    "output_mismatch": "head, loss and targets do not belong together",
    "not_finite": "the loss itself makes a number that is none",
    "not_learning": "it does not learn, and the reason is none of the others",
    "unscaled_inputs": "columns of a scale or an offset that the training cannot stand",
    "unscaled_targets": "targets of a scale or an offset that the training cannot stand",
    "bad_initialization": "the first weights are too large, too small, or all alike",
    "not_shuffled": "the rows come in an order that hurts",
    "learning_rate_too_high": "a lower learning rate cures",
    "exploding_gradient": "over depth or over time the gradient grows",
    "vanishing_gradient": "over depth or over time the gradient dies out",
    "saturated_units": "sigmoids and tanh on their flat ends",
    "dead_units": "units that are zero for all rows",
    "learning_rate_too_low": "a higher learning rate cures",
    "stopped_early": "it was still improving when the epochs were over",
    "class_imbalance": "a rare class is never answered",
    "overfitting": "it gets better on these rows and worse on others",
}


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong with a training.

    Parameters
    ----------
    kind
        One of ``KINDS``.
    layer
        The path of the layer where it shows, such as ``"2.body.0"``; "" for the training as a
        whole.
    evidence
        The numbers it rests on, by name.
    because
        The verdict that causes this one, or None.
    remedy
        A sentence that says what to do, with a number in it.
    action
        The same as what ``Diagnosis.cure`` carries out; None where only a person can mend it.
    statement
        A sentence that says what is wrong.
    also
        Actions that belong to the remedy beside the first.

    Raises
    ------
    ValueError
        For a kind that is none.

    Examples
    --------
    >>> from minidl.diagnosis.verdict import Verdict
    >>> cause = Verdict("learning_rate_too_high", remedy="set the learning rate to 0.01")
    >>> verdict = Verdict("dead_units", "1", {"dead": 0.98}, because=cause, remedy="see above")
    >>> print(verdict.chain())
    learning_rate_too_high -> dead_units
    """

    kind: str
    layer: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    because: Verdict | None = None
    remedy: str = ""
    action: Action | None = None
    statement: str = ""
    also: tuple[Action, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def actions(self) -> tuple[Action, ...]:
        """All actions of the remedy."""
        return (*(() if self.action is None else (self.action,)), *self.also)

    def chain(self) -> str:
        """Return the kinds from the first cause to this verdict."""
        return f"{self.because.chain()} -> {self.kind}" if self.because else self.kind

    def __str__(self) -> str:
        where = f" (layer {self.layer})" if self.layer else ""
        return f"{self.kind}{where}: {self.statement or KINDS[self.kind]}"


def causes_first(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Yield verdicts in the order given, but each after the one that causes it."""
    said: list[Verdict] = []
    for verdict in verdicts:
        chain = [verdict]
        while chain[-1].because is not None:
            chain.append(chain[-1].because)
        for link in reversed(chain):
            if not any(link is other for other in said):
                said.append(link)
                yield link
