"""Suspicions: what may be wrong with a training, and the change that would show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minidl.diagnosis.remedies.actions import Action

Change = tuple[Action, ...]


@dataclass(frozen=True)
class Suspicion:
    """What may be wrong, by numbers that are unusual but may be harmless.

    Attributes
    ----------
    kind, layer, evidence, statement
        As of the ``Verdict`` that it becomes if one of its changes cures.
    changes
        Changes, each of which would do without the others, the mildest first.
    strength
        By how many powers of ten the number is off. From 1 on it is a reason by itself to look for
        what can be gained on the rows trained on, even if held-out rows do not gain.
    """

    kind: str
    changes: tuple[Change, ...]
    statement: str
    layer: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    strength: float = 0.0

    @property
    def over_time(self) -> bool:
        """Whether it is about the gradient over the steps of a sequence."""
        return "per_step" in self.evidence
