"""What the tests of the command line share."""

from __future__ import annotations

import gzip
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["train", "digits", "--epochs", "2", "--hidden", "16"]


def accuracy_in(text):
    return float(re.search(r"^test accuracy: (0\.\d{4})$", text, re.MULTILINE)[1])


def run(*arguments, environment=None, **options):
    """``python -m minidl`` in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "minidl", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "", **(environment or {})},
        stdin=subprocess.DEVNULL,
        timeout=120,
        **{"capture_output": True, **options},
    )


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
    return str(path)
