"""What an examination found, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.diagnosis.verdict import Verdict


@dataclass(frozen=True)
class Findings:
    """What an examination found.

    Attributes
    ----------
    verdicts
        Causes before their effects.
    error, held
        Of the training as told: of rows trained on, and of those held out in the trials (NaN
        without any). 0 is perfect, 1 as good as one answer for all rows.
    reached, reached_held
        The same of the best trial.
    trials
        How many trials were made.
    counts
        Whether answers are right or wrong: errors are then shares of wrong ones.
    """

    verdicts: tuple[Verdict, ...]
    error: float = float("nan")
    held: float = float("nan")
    reached: float = float("nan")
    reached_held: float = float("nan")
    trials: int = 0
    counts: bool = False

    def closing_sentence(self) -> str:
        """Say the first verdict in a sentence; "" if there is none."""
        if not self.verdicts:
            return ""
        first = self.verdicts[0]
        return f"{first}. Remedy: {first.remedy}"

    def standing(self) -> str:
        """Say in a sentence how well the training does, and how well it could do."""
        if not self.trials:
            return "No trial was needed."
        unit = "wrong answers" if self.counts else "squared error"
        held = "" if self.held != self.held else f" ({self.held:.2f} on rows held out)"
        best = "" if self.held != self.held else f" ({self.reached_held:.2f} held out)"
        return (
            f"Its {unit}, as a share of those of one answer for all rows: {self.error:.2f}{held}. "
            f"The best of {self.trials} trials on copies came to {self.reached:.2f}{best}."
        )
