"""What was recorded, and where its time goes."""

from __future__ import annotations

from typing import Any


def listing(recorded: Any) -> str:
    """The program as a table."""
    return "\n".join(entry.title for entry in recorded.entries)


def take_profile(recorded: Any, inputs: tuple[Any, ...], rounds: int) -> Any:
    """Time every kernel."""
    raise NotImplementedError
