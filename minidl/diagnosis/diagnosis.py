"""What a diagnosis found: verdicts, and the training that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl.diagnosis.cure import Cure, cure
from minidl.diagnosis.findings import Findings
from minidl.diagnosis.monitor import GradientMonitor
from minidl.diagnosis.pictures import draw_diagnosis
from minidl.diagnosis.program import Program
from minidl.diagnosis.report import as_html, as_text
from minidl.diagnosis.verdict import Verdict
from minidl.pictures import Plottable
from minidl.training import History, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Diagnosis(Plottable):
    """What is wrong with a training, why, and what to do; ``minidl.diagnose`` makes it.

    Attributes
    ----------
    findings
        The verdicts with the errors they rest on.
    program
        The training as told, with model and optimizer as they were before it.
    trainer
        What has trained: ``trainer.model`` is the model that was given.
    monitor
        What was watched.
    stopped
        What the trainer said when it stopped; "" if the training came to its end.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import diagnose, nn, optim
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = x @ [[1.0], [-2.0], [0.5]] - 3
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid(), rng=0)
    >>> adam = optim.Adam(model.parameters(), lr=0.01)
    >>> diagnosis = diagnose(model, nn.MSELoss(), adam, x, y, epochs=20)
    >>> diagnosis.healthy, diagnosis.verdicts[0].kind, diagnosis.verdicts[0].layer
    (False, 'output_mismatch', '3')
    """

    def __init__(
        self,
        findings: Findings,
        program: Program,
        trainer: Trainer,
        monitor: GradientMonitor,
        stopped: str = "",
    ) -> None:
        self.findings, self.program, self.trainer = findings, program, trainer
        self.monitor, self.stopped = monitor, stopped

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts, the most important first, causes before their effects."""
        return list(self.findings.verdicts)

    @property
    def healthy(self) -> bool:
        """Whether there is no verdict."""
        return not self.findings.verdicts

    @property
    def history(self) -> History:
        """The epochs of the training."""
        return self.trainer.history

    def cure(self, trainings: int = 2) -> Cure:
        """Carry the remedies out on copies, with at most so many trainings, and return the best.

        Parameters
        ----------
        trainings
            The first applies the remedies of all verdicts together; the second revises them.

        Raises
        ------
        ValueError
            For less than one training.
        """
        return cure(self, trainings)

    def report(self) -> str:
        """Return what was found, as text: each verdict with its numbers, cause and remedy."""
        return as_text(self.findings, self.program, self.history, self.stopped)

    def figure(self) -> Figure:
        """Draw the course of the training and the gradient over depth, under the verdicts."""
        return draw_diagnosis(self.findings, self.history, self.monitor)

    def __repr__(self) -> str:
        kinds = ", ".join(verdict.kind for verdict in self.verdicts) or "healthy"
        return f"Diagnosis({kinds})"

    def __str__(self) -> str:
        return self.report()

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        return as_html(self.findings, self.program, self.history, self.stopped)
