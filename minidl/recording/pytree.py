"""Nested tuples, lists and dicts of arrays: what a function may return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def tree_leaves(output: Any) -> Iterator[Any]:
    """Yield the leaves: whatever is no tuple, list or dict."""
    if isinstance(output, (tuple, list)):
        for item in output:
            yield from tree_leaves(item)
    elif isinstance(output, dict):
        yield from tree_leaves(list(output.values()))
    else:
        yield output


def tree_map(output: Any, function: Callable[[Any], Any]) -> Any:
    """Rebuild the tree with ``function(leaf)`` in place of every leaf."""
    if hasattr(output, "_make"):  # a named tuple
        return output._make(tree_map(item, function) for item in output)
    if isinstance(output, tuple):
        return tuple(tree_map(item, function) for item in output)
    if isinstance(output, list):
        return [tree_map(item, function) for item in output]
    if isinstance(output, dict):
        return {key: tree_map(item, function) for key, item in output.items()}
    return function(output)
