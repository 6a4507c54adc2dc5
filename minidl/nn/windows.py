"""Where the windows of a convolution or of a pooling layer lie: sizes, padding, outputs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minidl.nn.checks import check_count

MOST = 2**31 - 1  # that the kernels take of any of these numbers

Pairs = tuple[tuple[int, int], ...]  # what is padded before and after, along each dimension


class Window:
    """Places a window at every ``stride``-th position along one or two dimensions.

    A window of k elements, d apart, reaches over r = d · (k - 1) + 1. Along a dimension of size n,
    padded by p before and q after, there are ⌊(n + p + q - r) / stride⌋ + 1 of them; rounded up,
    the last one reaches out of the padding, and is left out if it does not begin before the n
    elements end.

    Parameters
    ----------
    owner
        The name of the layer, for messages.
    dimensions
        1 for steps, 2 for height and width.
    kernel_size, stride, dilation
        An int for all dimensions, or one for each.
    padding
        An int for all dimensions, one for each, or a pair (before, after) for each;
        ``"valid"``: none; ``"same"``: ⌈n / stride⌉ windows, the odd element after;
        ``"causal"``, of one dimension only: r - 1 before, so that no output sees a later step.
    ceil_mode
        Whether the number of windows is rounded up.

    Raises
    ------
    TypeError
        For what is no whole number.
    ValueError
        For a kernel size, stride or dilation below 1, a negative padding, another number of them
        than dimensions, an unknown word.
    """

    owner: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs | str
    ceil_mode: bool

    def __init__(
        self,
        owner: str,
        dimensions: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.owner = owner
        self.kernel = one_for_each(owner, "kernel_size", kernel_size, dimensions)
        self.stride = one_for_each(owner, "stride", stride, dimensions)
        self.dilation = one_for_each(owner, "dilation", dilation, dimensions)
        self.padding = self._read_padding(padding, dimensions)
        self.ceil_mode = bool(ceil_mode)

    def _read_padding(self, padding: Any, dimensions: int) -> Pairs | str:
        words = ("valid", "same", "causal") if dimensions == 1 else ("valid", "same")
        if isinstance(padding, str):
            if padding not in words:
                known = ", ".join(f'"{word}"' for word in words)
                raise ValueError(
                    f"{self.owner}: padding must be whole numbers or one of {known}, "
                    f"got {padding!r}"
                )
            return padding
        listed = [is_listed(each) for each in padding] if is_listed(padding) else []
        if listed and (len(listed) != dimensions or any(listed) != all(listed)):
            pairs = "((before, after),)" if dimensions == 1 else "((top, bottom), (left, right))"
            raise ValueError(
                f"{self.owner}: padding must be a whole number, one for each dimension, or "
                f"{pairs}, got {padding!r}"
            )
        if not any(listed):
            amounts = one_for_each(self.owner, "padding", padding, dimensions, least=0)
            return tuple((amount, amount) for amount in amounts)
        first, *others = (one_for_each(self.owner, "padding", each, 2, least=0) for each in padding)
        return tuple((before, after) for before, after in (first, *others))

    @property
    def reach(self) -> tuple[int, ...]:
        """How many elements a window reaches over, along each dimension."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def padding_for(self, sizes: tuple[int, ...]) -> Pairs:
        """Return what is padded before and after an input of these sizes."""
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding == "valid":
            return tuple((0, 0) for _ in sizes)
        if self.padding == "causal":
            return ((self.reach[0] - 1, 0),)
        pairs = []
        for size, stride, reach in zip(sizes, self.stride, self.reach, strict=True):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)

    def sizes_after(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Count the windows along each dimension of an input of these sizes.

        Raises
        ------
        ValueError
            If not even one window fits.
        """
        padding, counts = self.padding_for(sizes), []
        for size, stride, reach, (before, after) in zip(
            sizes, self.stride, self.reach, padding, strict=True
        ):
            room = size + before + after
            more = stride - 1 if self.ceil_mode else 0
            if room + more < reach:
                padded = f", padded to {room}" if room > size else ""
                raise ValueError(
                    f"{self.owner}: a window reaches over {reach} elements, "
                    f"but the input has {size}{padded}"
                )
            count = (room - reach + more) // stride + 1
            begins_behind = self.ceil_mode and (count - 1) * stride >= size + before
            counts.append(count - begins_behind)
        return tuple(counts)

    def beyond(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return how far the last windows reach out of the padding, along each dimension."""
        counts, padding = self.sizes_after(sizes), self.padding_for(sizes)
        numbers = zip(sizes, padding, counts, self.stride, self.reach, strict=True)
        return tuple(
            max((count - 1) * stride + reach - (size + before + after), 0)
            for size, (before, after), count, stride, reach in numbers
        )

    def options(self, stride_by_default: Any = 1) -> str:
        """Write the options that are not the default ones, as the repr of a layer has them."""
        shown = ""
        if self.stride != one_for_each("", "stride", stride_by_default, len(self.kernel)):
            shown += f", stride={shortest(self.stride)}"
        if isinstance(self.padding, str):
            shown += f', padding="{self.padding}"'
        elif any(self.padding[0]) or any(map(any, self.padding)):
            symmetric = all(before == after for before, after in self.padding)
            given = tuple(before for before, _ in self.padding) if symmetric else self.padding
            shown += f", padding={shortest(given)}"
        if any(each != 1 for each in self.dilation):
            shown += f", dilation={shortest(self.dilation)}"
        return shown + ", ceil_mode=True" * self.ceil_mode


@lru_cache
def window_of(
    owner: str, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
) -> Window:
    """Return the ``Window`` of a layer's attributes, as its constructor has checked them."""
    return Window(owner, len(kernel), kernel, stride, padding, dilation, ceil_mode)


def is_listed(value: Any) -> bool:
    """Whether a value is several numbers: a tuple, a list or an array."""
    return isinstance(value, (tuple, list, np.ndarray))


def one_for_each(
    owner: str, name: str, value: Any, dimensions: int, least: int = 1
) -> tuple[int, ...]:
    """Return a whole number for each dimension, given one for all or one for each."""
    several = is_listed(value)
    if several and len(value) != dimensions:
        numbers = f" or {dimensions} numbers" if dimensions > 1 else ""
        raise ValueError(f"{owner}: {name} must be a whole number{numbers}, got {value!r}")
    given = tuple(check_count(owner, name, each, least) for each in (value if several else [value]))
    if max(given) > MOST:
        raise ValueError(f"{owner}: {name} must be <= {MOST}, got {value!r}")
    return given if several else given * dimensions


def shortest(values: tuple[Any, ...]) -> Any:
    """Return one number where all are equal, else all: what a user would write."""
    is_number = not isinstance(values[0], tuple)
    return values[0] if is_number and len(set(values)) == 1 else values
