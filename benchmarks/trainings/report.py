"""Tables of what ``benchmarks/diagnosis.py`` has measured, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .measure import Result

# How many of the faulty programs of their own collections published tools diagnose.
PUBLISHED = """\
| tool | programs | the cause is named | source |
| --- | ---: | ---: | --- |
| DEFault | 52 | 33 (63 %) | Jahan et al. 2025 |
| DeepFD | 52 | 27 (52 %) | Cao et al. 2022 |
| UMLAUT | 52 | 14 (27 %) | Schoop et al. 2021, run by Cao et al. |
| AutoTrainer | 52 | 10 (19 %) | Zhang et al. 2021, run by Cao et al. |
| DeepLocalize | 52 | 7 (13 %) | Wardat et al. 2021, run by Cao et al. |
| DeepDiagnosis | 53 | 34 (64 %) | Wardat et al. 2022; 28 with the right place to mend |

| tool | real faults | cured | trainings | source |
| --- | ---: | ---: | ---: | --- |
| HEBO, BOHB | 9 | 8 | 20 | Humbatova et al. 2025 |
| random search | 9 | 7 | 20 | Humbatova et al. 2025 |
| AutoTrainer | 9 | 3 | 20 | Humbatova et al. 2025 |

| tool | healthy trainings | false alarms | source |
| --- | ---: | ---: | --- |
| DeepDiagnosis | 188 | 68 (36 %) | Wardat et al. 2022, result files |
| DeepLocalize | 186 | 133 (72 %) | the same |
| UMLAUT | 113 | 109 (96 %) | the same |
"""


def table(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each case, over its seeds."""
    yield "| program | first verdict | right | before | after | best | gap closed | plain s | s |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name in dict.fromkeys(result.name for result in results):
        yield _row(name, [result for result in results if result.name == name])


def _row(name: str, results: Sequence[Result]) -> str:
    first = ", ".join(dict.fromkeys(r.kinds[0] if r.kinds else "none" for r in results))
    right = f"{sum(r.right for r in results)}/{len(results)}"
    closed = [r.closed for r in results if r.closed is not None]
    cells = [name, first, right, _figures(r.before for r in results)]
    cells += [_figures(r.after for r in results), _figures(r.best for r in results)]
    cells.append(" ".join(f"{100 * part:.0f} %" for part in closed))
    cells += [f"{np.median([r.plain for r in results]):.2f}"]
    late = "" if all(r.in_time for r in results) else " late"
    cells += [f"{np.median([r.diagnosis for r in results]):.2f}{late}"]
    return f"| {' | '.join(cells)} |"


def _figures(values: Iterator[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values if not np.isnan(value))


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Yield the shares of right first verdicts, of cures and of diagnoses in time."""
    count = len(results)
    yield _share("first verdict right", sum(r.right for r in results), count)
    cured = [r.cured for r in results if r.cured is not None]
    if cured:
        yield _share("cured", sum(cured), len(cured))
    yield _share("within three plain trainings + 1 s", sum(r.in_time for r in results), count)


def _share(what: str, count: int, total: int) -> str:
    return f"{what}: {count} of {total} ({100 * count / max(total, 1):.0f} %)"


def alarms(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each kind of healthy training, with what was said of it."""
    yield "| training | silent | loss | plain s | s | what was said |"
    yield "| --- | ---: | ---: | ---: | ---: | --- |"
    for name in dict.fromkeys(result.name for result in results):
        own = [result for result in results if result.name == name]
        said = "; ".join(dict.fromkeys(kind for result in own for kind in result.kinds))
        plain, took = (
            np.median([getattr(r, what) for r in own]) for what in ("plain", "diagnosis")
        )
        yield (
            f"| {name} | {sum(r.right for r in own)}/{len(own)} | {_figures(r.before for r in own)}"
            f" | {plain:.2f} | {took:.2f} | {said} |"
        )
