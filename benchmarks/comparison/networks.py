"""Define networks that all libraries build alike: same weights, same batches, same loss.

The loss is cross entropy; a step is forward, backward, clipping by the global norm, and Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np

from minidl.typing import Array

# So small that a network does not memorise its random labels in thousands of steps on the same
# data. Its gradients would then be subnormal numbers, with which processors are slow; XLA alone
# rounds them to zero.
LEARNING_RATE = 1e-5
MAX_NORM = 1.0
CHECKED = 6  # how many losses must agree, from the first step on


class Batched:
    """Base of networks: the batches they are trained on.

    Subclasses have ``batch``, ``batches``, ``classes`` and ``input_shape``.
    """

    batch: int
    batches: int
    classes: int
    input_shape: tuple[int, ...]

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """All samples, and their labels, drawn at random so that they cannot soon be learned."""
        rng = np.random.default_rng(1)
        count = self.batch * self.batches
        x = rng.standard_normal((count, *self.input_shape), np.float32)
        return x, rng.integers(self.classes, size=count)

    def split(self, x: Any, y: Any) -> list[tuple[Any, Any]]:
        """Split samples and labels, arrays of any kind, into batches."""
        starts = range(0, self.batch * self.batches, self.batch)
        return [(x[i : i + self.batch], y[i : i + self.batch]) for i in starts]


@dataclass(frozen=True)
class Network(Batched):
    """A multilayer perceptron and the batches it is trained on.

    Parameters
    ----------
    widths
        Widths of the input, of the hidden layers, and of the output.
    activation
        ``"tanh"`` or ``"relu"``, after each layer but the last.
    batch
        Rows of a batch.
    batches
        How many batches there are.
    label
        The name, where there are too many widths to list.
    """

    widths: tuple[int, ...]
    activation: str
    batch: int
    batches: int = 400
    label: str = ""

    @property
    def name(self) -> str:
        """Widths, activation and batch."""
        shape = self.label or "-".join(map(str, self.widths))
        return f"{shape} {self.activation}, batch {self.batch}"

    @property
    def groups(self) -> list[str]:
        """No groups."""
        return []

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.widths[-1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return self.widths[:1]

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer."""
        return list(zip(self.widths, self.widths[1:], strict=False))

    @property
    def forward_flops(self) -> int:
        """Flops of the products of a forward pass."""
        return sum(2 * self.batch * inputs * outputs for inputs, outputs in self.layers)

    @property
    def step_flops(self) -> int:
        """Flops of the products of a step: three for each weight, without the input gradient."""
        inputs, outputs = self.layers[0]
        return 3 * self.forward_flops - 2 * self.batch * inputs * outputs

    def weights(self) -> list[tuple[Array, Array]]:
        """Draw weight (inputs, outputs) and bias of each layer, the same ones each time."""
        rng = np.random.default_rng(0)
        gain = 2.0 if self.activation == "relu" else 1.0
        return [
            (
                (rng.standard_normal((n, m)) * np.sqrt(gain / n)).astype(np.float32),
                (rng.standard_normal(m) * 0.1).astype(np.float32),
            )
            for n, m in self.layers
        ]


def over(step: Callable[[Any, Any], Any], batches: Sequence[Any]) -> Callable[[], Any]:
    """Make a call that takes the next batch each time, and the first one after the last."""
    following: Iterator[Any] = cycle(batches)

    def call() -> Any:
        x, y = next(following)
        return step(x, y)

    return call


def losses(call: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    """Make a check of the losses of the first steps."""
    return lambda: summary([float(call()) for _ in range(CHECKED)])


def first_loss(call: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    """Make a check of the first loss alone, for a library that clips differently."""
    return lambda: {"first loss": float(call())}


def summary(found: Sequence[float]) -> dict[str, float]:
    """Summarise the first losses, for comparison."""
    return {
        "first loss": found[0],
        f"loss after {CHECKED - 1} steps": found[-1],
        "mean loss": float(np.mean(found)),
    }
