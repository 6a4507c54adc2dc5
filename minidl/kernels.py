"""The kernels of minidl, by name: ``kernels.relu(x)``, ``kernels.matmul(a, b)``.

Each takes and returns NumPy arrays, float32 or float64. The best compiled build that this CPU
has serves the calls, or the NumPy twins in ``minidl/_kernels/twins``, which define what each kernel
computes; ``MINIDL_ISA`` chooses another one. ``docs/kernels.md`` explains them.

Examples
--------
>>> import numpy as np
>>> from minidl import kernels
>>> kernels.relu(np.array([-1.0, 0.0, 2.0]))
array([0., 0., 2.])
"""

from minidl import _kernels

_kernels.serve(globals())
