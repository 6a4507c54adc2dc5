"""Reports of a diagnosis: as text, and for a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator
from typing import Any

from minidl.diagnosis.findings import Findings
from minidl.diagnosis.program import Program
from minidl.diagnosis.verdict import Verdict
from minidl.diagnosis.words import counted
from minidl.training import History

WIDTH = 88


def as_text(findings: Findings, program: Program, history: History, stopped: str) -> str:
    """Return the report as text."""
    lines = [headline(findings), "", *wrapped(about(program, history, stopped))]
    lines += wrapped(findings.standing())
    for number, verdict in enumerate(findings.verdicts, 1):
        lines.append("")
        lines += wrapped(f"{number}. {heading(verdict)}")
        for name, text in details(verdict):
            lines += wrapped(f"{name}: {text}", "   ")
    return "\n".join(lines)


def as_html(findings: Findings, program: Program, history: History, stopped: str) -> str:
    """Return the report as HTML, without styles: a notebook has its own, light and dark."""
    escape = html.escape
    parts = [f"<p><b>{escape(headline(findings))}</b></p>"]
    parts.append(f"<p>{escape(about(program, history, stopped))} {escape(findings.standing())}</p>")
    parts.append("<ol>")
    for verdict in findings.verdicts:
        items = "".join(
            f"<br><i>{escape(name)}</i>: {escape(text)}" for name, text in details(verdict)
        )
        parts.append(f"<li><b>{escape(heading(verdict))}</b>{items}</li>")
    parts.append("</ol>")
    return "".join(parts)


def headline(findings: Findings) -> str:
    """Say in a line what was found."""
    if not findings.verdicts:
        asked = findings.held == findings.held and findings.outdone
        where = "on rows held out, " if asked else ""
        return f"Healthy: {where}this training does about as well as any that was tried."
    first, *others = findings.verdicts
    more = f", and {len(others)} more" if others else ""
    return f"Not healthy: {first.kind}{more}."


def about(program: Program, history: History, stopped: str) -> str:
    """Say what was trained."""
    losses = history.get("loss", [])
    course = (
        f"; loss {losses[0]:.4g} in the first epoch, {losses[-1]:.4g} in the last" if losses else ""
    )
    end = f" Stopped: {stopped}" if stopped else ""
    return (
        f"{program.loss!r}, {program.optimizer!r}, batches of {program.batch_size}, "
        f"{history.epochs} of {counted(program.epochs, 'epoch')}{course}.{end}"
    )


def heading(verdict: Verdict) -> str:
    """Name a verdict, its layer and its cause."""
    where = f", layer {verdict.layer}" if verdict.layer else ""
    why = f" (because of {verdict.because.kind})" if verdict.because else ""
    return f"{verdict.kind}{where}{why}"


def details(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Yield what a report says of a verdict, by name."""
    yield "what", verdict.statement
    if verdict.evidence:
        yield "numbers", ", ".join(f"{k} {shown(v)}" for k, v in verdict.evidence.items())
    if verdict.remedy:
        yield "remedy", verdict.remedy
    if verdict.actions:
        yield "code", "; ".join(line for action in verdict.actions for line in action.code())


def shown(value: Any) -> str:
    """Return a number in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Break a line."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
