"""Diagnosis of trainings: what is wrong with one, why, and what cures it.

``minidl.diagnose`` trains as told and returns a ``Diagnosis``. The rules stand in ``rules/``:
``static.py`` before the first step, ``first_batches.py`` and ``running.py``. ``trials.py`` repeats the
training with one thing changed, and ``judge.py`` makes verdicts of what that shows.
"""

from importlib import import_module
from typing import Any

# Loaded when first asked for: a Trainer needs the static rules, and none of the rest.
_HOMES = {
    "Diagnosis": "minidl.diagnosis.diagnosis",
    "Verdict": "minidl.diagnosis.verdict",
    "diagnose": "minidl.diagnosis.diagnose",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'minidl.diagnosis' has no attribute {name!r}")
