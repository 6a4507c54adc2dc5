"""What a function returns: a nest of tuples, lists and dicts that holds arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def leaves_of(output: Any) -> Iterator[Any]:
    """What a nest of tuples, lists and dicts holds."""
    if isinstance(output, (tuple, list)):
        for item in output:
            yield from leaves_of(item)
    elif isinstance(output, dict):
        yield from leaves_of(list(output.values()))
    else:
        yield output


def mapped(output: Any, function: Callable[[Any], Any]) -> Any:
    """The same nest with function(leaf) in place of every leaf."""
    if hasattr(output, "_make"):  # a named tuple
        return output._make(mapped(item, function) for item in output)
    if isinstance(output, tuple):
        return tuple(mapped(item, function) for item in output)
    if isinstance(output, list):
        return [mapped(item, function) for item in output]
    if isinstance(output, dict):
        return {key: mapped(item, function) for key, item in output.items()}
    return function(output)
