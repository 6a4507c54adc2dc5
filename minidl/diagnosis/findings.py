"""What an examination found, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.diagnosis.verdict import Verdict

OUTDONE = 0.15  # of the error of one answer for all rows
LARGE = 1000.0


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
        held = "" if self.held != self.held else f" ({figure(self.held)} on rows held out)"
        best = "" if self.held != self.held else f" ({figure(self.reached_held)} held out)"
        what = f"Its {unit}, as a share of those of one answer for all rows: {figure(self.error)}"
        return (
            f"{what}{held}. The best of {self.trials} trials on copies came to "
            f"{figure(self.reached)}{best}."
        )

    @property
    def outdone(self) -> bool:
        """Whether a trial knew the rows that it was trained on much better, but no others."""
        return self.error - self.reached > OUTDONE


def figure(error: float) -> str:
    """Return an error in two decimals, and one beyond all reason in powers of ten."""
    return f"{error:.2f}" if error < LARGE else f"{error:.1e}"
