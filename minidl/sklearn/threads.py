"""Threads of minidl, as threadpoolctl sees and limits them."""

from __future__ import annotations

import threadpoolctl

from minidl import _kernels, threads
from minidl._version import __version__


class ThreadController(threadpoolctl.LibController):
    """Lets ``threadpoolctl`` report and limit the threads of recorded steps.

    ``threadpool_limits(1)`` then holds minidl to one thread, as it does BLAS and OpenMP.
    """

    user_api = "minidl"
    internal_api = "minidl"
    filename_prefixes = (f"{_kernels.isa}_f32.",)  # of the library of kernels that is in use

    def get_num_threads(self) -> int:
        """Return how many threads recorded steps may use."""
        return threads.get_num_threads()

    def set_num_threads(self, num_threads: int) -> None:
        """Let recorded steps use so many threads."""
        threads.set_num_threads(max(1, min(int(num_threads), threads.MOST)))

    def get_version(self) -> str:
        """Return the version of minidl."""
        return __version__

    def set_additional_attributes(self) -> None:
        """Note the instruction set of the kernels."""
        self.architecture = _kernels.isa


def register() -> None:
    """Make minidl known to threadpoolctl."""
    threadpoolctl.register(ThreadController)
