"""The T-th power of a recurrent matrix: spectral radius, largest singular value, and tanh."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import nn
from minidl.lab.drawing import GREY, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import check_power, size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.nn.checks import POSITIVE, check_number
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RADII = (0.5, 0.9, 1.2, 1.6)  # of the matrices in the second panel
SKEW = 16.0  # how far the skewed matrix is from a normal one
NOISE, SEQUENCES = 0.1, 64  # the size of the inputs that a tanh network gets, and their number


@dataclass
class Powers:
    """A recurrent matrix.

    Attributes
    ----------
    radius, largest
        ρ, the modulus of its largest eigenvalue; s, its largest singular value.
    norms
        ‖dL/dh_{T-k}‖ / ‖dL/dh_T‖ for k = 0, 1, …, over all directions of the latter: the Frobenius
        norm of W^k over that of I, measured in an ``RNN`` at rest, where tanh is the identity.
    """

    radius: float
    largest: float
    norms: Array


@dataclass(repr=False)
class RnnRadius(Findings):
    """Gradients through time.

    Attributes
    ----------
    at_rest
        By kind of matrix, all of one spectral radius.
    driven
        By spectral radius: the same norms for Gaussian matrices in a tanh network with inputs.
    """

    at_rest: dict[str, Powers]
    driven: dict[float, Array]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 9."""
        return [
            Quoted("λ = 0.9: 0.9^100", "0.000027", 0.9**100),
            Quoted("λ = 1.1: 1.1^100", "13800", round(1.1**100, -2)),
            Quoted("largest tanh'", "1", 1.0),
            Quoted("largest sigmoid', so that W may be 4 times larger", "0.25", 0.25),
        ]

    def lines(self) -> Iterator[str]:
        yield "dL/dh_{T-k} = (W^k)ᵀ dL/dh_T in a linear recurrent network"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        steps = len(next(iter(self.at_rest.values())).norms) - 1
        head = "matrix", "spectral radius", "largest singular value", "largest norm, at k"
        rows = []
        for name, powers in self.at_rest.items():
            top = int(powers.norms.argmax())
            numbers = f"{powers.radius:.3f}", f"{powers.largest:.3f}"
            growth = f"{powers.norms[top]:.3g}, k = {top}"
            rows.append((name, *numbers, growth, f"{powers.norms[-1]:.2g}"))
        yield from table([(*head, f"norm at k = {steps}"), *rows])
        yield ""
        yield "No step multiplies the gradient by more than the largest singular value; in the long"
        yield "run, each multiplies it by the spectral radius. Both are one for a normal matrix."
        yield ""
        yield f"tanh, with inputs N(0, {NOISE:g}²), matrices N(0, radius²/n): norm at k = {steps}"
        for radius, norms in self.driven.items():
            per_step = norms[-1] ** (1 / steps)
            yield f"  radius {radius:3g}: {norms[-1]:.2g}, a factor of {per_step:.3f} per step"

    def figure(self) -> Figure:
        """Draw the gradient against the steps back in time."""
        figure, (left, right) = panels(2)
        curves, theory = {}, {}
        for name, powers in self.at_rest.items():
            steps = np.arange(len(powers.norms))
            label = f"{name}: ρ = {powers.radius:.2f}, s = {powers.largest:.2f}"
            curves[label] = steps, powers.norms
            theory = {"ρ^k": (steps, powers.radius**steps)}
        log_curves(left, curves, theory=theory)
        x, y = "k, steps back in time", "norm of dL/dh_{T-k}, over that of dL/dh_T"
        finish(left, "One spectral radius ρ; theory: ρ^k", x, y, whole=True)
        driven = {f"tanh, radius {r:g}": (range(len(y)), y) for r, y in self.driven.items()}
        place = log_curves(right, driven)
        right.axhline(place(1.0), color=GREY, linewidth=1)
        finish(right, f"Driven by inputs N(0, {NOISE:g}²)", x, y, whole=True)
        return figure


def compute(radius: float = 0.9, steps: int = 100, hidden: int = 32, seed: int = 0) -> RnnRadius:
    """Measure how the gradient changes from step to step back in time.

    ρ(W)^k ≤ ‖W^k‖ ≤ s(W)^k,  and ‖W^k‖^(1/k) → ρ(W)

    Parameters
    ----------
    radius
        The spectral radius of the matrices in the first panel, > 0.
    steps, hidden
        Of the sequences, and the width of the state, ≥ 2.
    seed
        Of matrices and inputs.

    Source: Gelfand 1941 (the limit); Pascanu, Mikolov and Bengio 2013.
    """
    radius = check_number("rnn-radius", "radius", radius, POSITIVE, math.inf)
    steps = size("rnn-radius", "steps", steps)
    check_power("rnn-radius", "radius", radius, "steps", steps)
    hidden = size("rnn-radius", "hidden", hidden, 2)
    rng = np.random.default_rng(seed)
    gaussian = rng.normal(size=(hidden, hidden)) / math.sqrt(hidden)
    orthogonal, _ = np.linalg.qr(gaussian)
    # The eigenvalues of a triangular matrix are its diagonal, whatever stands above it.
    skewed = np.diag(np.linspace(-1, 1, hidden)) + SKEW / math.sqrt(hidden) * np.triu(gaussian, 1)
    matrices = {"orthogonal": orthogonal, "Gaussian": gaussian, "triangular": skewed}
    at_rest = {}
    for name, matrix in matrices.items():
        scaled = matrix * (radius / spectral_radius(matrix))
        largest = float(np.linalg.norm(scaled, 2))
        at_rest[name] = Powers(spectral_radius(scaled), largest, _norms(scaled, steps))
    inputs = NOISE * rng.normal(size=(SEQUENCES, steps + 1, hidden))
    return RnnRadius(at_rest, {r: _norms(r * gaussian, steps, inputs) for r in RADII})


def spectral_radius(matrix: Array) -> float:
    """Compute the modulus of the largest eigenvalue: ρ(W) = max |λ|.

    Examples
    --------
    >>> spectral_radius(np.array([[0.5, 100.0], [0.0, 0.5]]))
    0.5
    """
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def _norms(matrix: Array, steps: int, inputs: Array | None = None) -> Array:
    """Measure ‖dL/dh_{T-k}‖ for k = 0, 1, … in an RNN, over ‖dL/dh_T‖.

    Without inputs the state stays zero, and there is a sequence for each direction of dL/dh_T.
    """
    hidden = len(matrix)
    layer = nn.RNN(hidden, hidden, return_sequences=False, dtype=np.float64, rng=0)
    cell = layer.cells[0]
    cell.input_weight.data = np.eye(hidden)
    cell.recurrent_weight.data = matrix
    if inputs is None:
        inputs, dy = np.zeros((hidden, steps + 1, hidden)), np.eye(hidden)
    else:
        dy = np.random.default_rng(0).normal(size=(len(inputs), hidden))
    layer(inputs)
    layer.backward(dy)
    norms = layer.state_gradient_norms()[::-1]
    return np.asarray(norms / norms[0])
