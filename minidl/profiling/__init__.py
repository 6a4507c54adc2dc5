"""Measure how close every kernel is to what this machine can do.

Read in this order: ``ceilings.py`` measures what the machine can do at most; ``cases.py`` lists the
kernels to measure and their sizes; ``measuring.py`` compares both, with ``teamwork.py`` for several
threads; ``kernel_report.py`` prints, saves and compares; ``kernel_plot.py`` draws the roofline.
``step_report.py``, ``step_profile.py`` and ``step_plot.py`` do the same for the kernels of a
recorded step.
"""

from minidl.profiling.cases import Case, cases
from minidl.profiling.ceilings import Ceilings, Probes
from minidl.profiling.measuring import Effort, Result, measure

__all__ = ["Case", "Ceilings", "Effort", "Probes", "Result", "cases", "measure"]
