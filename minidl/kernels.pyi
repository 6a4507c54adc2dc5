# The calls have the types of their NumPy twins, whichever build serves them.
from minidl._kernels.twins import *  # noqa: F403
