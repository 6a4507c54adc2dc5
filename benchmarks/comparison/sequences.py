"""Define recurrent networks that all libraries build alike: same weights, same batches, same loss.

They are a recurrent layer and a linear one on its last state; the loss is cross entropy. A step is
that of ``networks.py``: forward, backward, clipping by the global norm, and Adam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from comparison.networks import Batched
from minidl.typing import Array

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


@dataclass(frozen=True)
class Sequences(Batched):
    """A recurrent network and the batches it is trained on.

    Parameters
    ----------
    kind
        ``"RNN"`` (with tanh), ``"LSTM"`` or ``"GRU"``.
    inputs, hidden
        Features of a step, and width of the state.
    steps
        Length of all sequences.
    batch, batches
        Sequences of a batch, and how many batches there are.
    classes
        How many labels there are.
    """

    kind: str
    inputs: int
    hidden: int
    steps: int
    batch: int
    batches: int = 10
    classes: int = 10

    @property
    def name(self) -> str:
        """Kind, widths, steps and batch."""
        return f"{self.kind} {self.inputs}-{self.hidden}, {self.steps} steps, batch {self.batch}"

    @property
    def groups(self) -> list[str]:
        """The kind."""
        return [self.kind]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sequence."""
        return self.steps, self.inputs

    @property
    def step_flops(self) -> int:
        """Flops of the products of a step: three for each weight, without the input gradient."""
        rows, width = self.batch * self.steps, GATES[self.kind] * self.hidden
        last = self.batch * self.hidden * self.classes
        return 2 * (2 * rows * self.inputs * width + 3 * rows * self.hidden * width + 3 * last)

    def weights(self) -> dict[str, Array]:
        """Draw weights (inputs, outputs) and biases, the same ones each time.

        Gates lie side by side in PyTorch's order: i, f, g, o and r, z, n.
        """
        rng = np.random.default_rng(0)
        width = GATES[self.kind] * self.hidden

        def normal(*shape: int) -> Array:
            return (rng.standard_normal(shape) * np.sqrt(0.5 / self.hidden)).astype(np.float32)

        return {
            "input_weight": normal(self.inputs, width),
            "recurrent_weight": normal(self.hidden, width),
            "bias": normal(width),
            "recurrent_bias": normal(width) if self.kind == "GRU" else np.zeros(width, np.float32),
            "last_weight": normal(self.hidden, self.classes),
            "last_bias": normal(self.classes),
        }
