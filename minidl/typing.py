"""Types that appear in signatures all over minidl."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
DType = Any  # whatever numpy.dtype() accepts
Seed = int | np.random.Generator | None
