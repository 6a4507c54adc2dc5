"""Trainings that fail, and trainings that are well: what ``benchmarks/diagnosis.py`` runs."""

import os

# Set before NumPy is loaded, so that several processes do not fight for the cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MINIDL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
