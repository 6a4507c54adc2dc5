"""Record once, replay without Python.

A training step is nothing but kernel calls on arrays of known shape. ``record`` wraps a function
made of such calls: its first call writes them down, later calls run the list in C. Nothing is
compiled, and no second description of a layer exists.

``recorder.py`` writes down, with the guarded arrays of ``arrays.py``; ``fusion.py`` and
``planning.py`` turn the calls into a program; ``step.py`` finds the program that serves a call, and
``epoch.py`` runs one over a data set; ``report.py`` shows what was recorded, ``profile.py`` and
``plot.py`` where its time goes.
"""

from minidl.recording.arrays import RecordingError
from minidl.recording.step import Step, record

__all__ = ["RecordingError", "Step", "record"]
