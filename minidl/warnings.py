"""Warnings of minidl."""

from __future__ import annotations


class TrainingWarning(UserWarning):
    """A model and a loss that can be trained, but hardly as they are meant."""
