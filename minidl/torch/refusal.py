"""What is said of a module that has no counterpart."""

from __future__ import annotations

from typing import Any, NoReturn


def refuse(module: Any, path: str, why: str) -> NoReturn:
    """Raise TypeError for a module, named by its path."""
    place = f"module {path} " if path else "module "
    raise TypeError(f"from_torch: {place}{type(module).__name__} {why}")
