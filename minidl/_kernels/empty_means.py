"""Whether a mean over rows none of which counts, because all have the weight 0, is allowed."""

from __future__ import annotations

from contextvars import ContextVar

# Such a mean is 0, and its gradient too, where this is set, and else a WeightError: a loss that
# stands alone has nothing to learn from such a batch, one of several leaves it to the others.
MEAN_MAY_BE_EMPTY = ContextVar("MEAN_MAY_BE_EMPTY", default=False)
