"""What happens in a training, and what is wrong with it.

``monitor.py`` watches it: ``watch.py`` has the methods of layers and optimizer that note what they
see while a watched step runs, ``probes.py`` says what is noted of each kind of layer, ``tracks.py``
keeps it, and ``records.py`` makes norms and shares of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidl.diagnosis.monitor import GradientMonitor

__all__ = ["GradientMonitor"]

# Loaded when first asked for.
_HOMES = {"GradientMonitor": "minidl.diagnosis.monitor"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'minidl.diagnosis' has no attribute {name!r}")
