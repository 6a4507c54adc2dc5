"""What happens in a training, and what is wrong with it: the monitor, and the diagnosis.

``monitor.py`` watches: ``watch.py`` has the methods of layers and optimizer that note what they
see while a watched step runs, ``probes.py`` says what is noted of each kind of layer, ``tracks.py``
keeps it, and ``records.py`` makes norms and shares of it.

``diagnosing.py`` trains as told, watching, and returns a ``Diagnosis``. The rules in ``rules/``
make one suspect: ``static.py`` before the first step, ``first_batches.py`` and ``running.py`` then.
``trials.py`` repeats the training with one thing changed, and ``judge.py`` says what that shows.
``cure.py`` carries remedies out.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidl.diagnosis.diagnosing import diagnose
    from minidl.diagnosis.diagnosis import Diagnosis
    from minidl.diagnosis.monitor import GradientMonitor
    from minidl.diagnosis.verdict import Verdict

__all__ = ["Diagnosis", "GradientMonitor", "Verdict", "diagnose"]

# Loaded when first asked for: a Trainer needs the static rules, and none of the rest.
_HOMES = {
    "Diagnosis": "minidl.diagnosis.diagnosis",
    "GradientMonitor": "minidl.diagnosis.monitor",
    "Verdict": "minidl.diagnosis.verdict",
    "diagnose": "minidl.diagnosis.diagnosing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'minidl.diagnosis' has no attribute {name!r}")
