"""Warnings of minidl."""

from __future__ import annotations


class TrainingWarning(UserWarning):
    """Warns of a model and a loss that can be trained, but probably not as intended."""
