"""What happens in a training, and what is wrong with it.

``monitor.py`` watches it: ``watch.py`` has the methods of layers and optimizer that note what they
see while a watched step runs, ``probes.py`` says what is noted of each kind of layer, ``tracks.py``
keeps it, and ``records.py`` makes norms and shares of it.
"""

from minidl.diagnosis.monitor import GradientMonitor

__all__ = ["GradientMonitor"]
