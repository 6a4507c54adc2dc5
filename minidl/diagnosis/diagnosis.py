"""What a diagnosis found: verdicts, and the training that they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minidl.diagnosis.program import Program
from minidl.diagnosis.verdict import Verdict
from minidl.training import History, Trainer


@dataclass
class Diagnosis:
    """What a diagnosis found."""

    verdicts: tuple[Verdict, ...]
    program: Program
    trainer: Trainer
    monitor: Any

    @property
    def healthy(self) -> bool:
        """Whether there is no verdict."""
        return not self.verdicts

    @property
    def history(self) -> History:
        """The epochs of the training."""
        return self.trainer.history
