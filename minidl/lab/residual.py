"""Residual blocks: J = I + ∂F/∂x, and the gradient through two hundred of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, nn
from minidl.lab import choices
from minidl.lab.drawing import finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import check_weights, size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 0.05  # the standard deviation of the small weights
ROWS = 32
BLOCKS, FEW = 10, 6  # layers and width of the network whose Jacobian is written out


@dataclass(repr=False)
class Residual(Findings):
    """Jacobians of residual blocks, and gradients in deep networks.

    Attributes
    ----------
    block_error
        The largest element of J - (I + ∂F/∂x) of one block.
    product_error, sum_error
        The largest relative difference between the Jacobian of ten blocks and the product of
        theirs; and the sum I + Σ ∂F_i/∂x.
    flat, cancelled
        dy/dx of y = x + F(x) for F = 0, and for F(x) = -x.
    gradients
        By network: ‖dL/dx‖ of every layer's input, the last layer first, over ‖dL/dy‖.
    """

    block_error: float
    product_error: float
    sum_error: float
    flat: float
    cancelled: float
    gradients: dict[str, Array]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 8."""
        no_floor = "the 1 is no floor: here ∂F/∂x is -1"
        return [
            Quoted("y = x + F(x), F = 0: dy/dx", "1", self.flat),
            Quoted("y = x + F(x), F = -x: dy/dx", "1", self.cancelled, no_floor),
            Quoted("J - (I + ∂F/∂x), largest element", "0", self.block_error),
            Quoted("J of ten blocks, from the product", "0", self.product_error),
            Quoted("J of ten blocks, from the sum", "0", self.sum_error, "both forms are right"),
        ]

    def lines(self) -> Iterator[str]:
        yield "y = x + F(x): the Jacobian of a block is I + ∂F/∂x"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        depth = len(next(iter(self.gradients.values())))
        marks = sorted({min(10, depth), min(50, depth), depth})
        head = "gradient below so many layers", *map(str, marks), "factor per layer"
        rows = []
        for name, norms in self.gradients.items():
            shown = [f"{norms[mark - 1]:.3g}" for mark in marks]
            rows.append((name, *shown, f"{norms[-1] ** (1 / depth):.3f}"))
        yield from table([head, *rows])

    def figure(self) -> Figure:
        """Draw the gradient against the number of layers that it has passed."""
        figure, (axes,) = panels(1, (7.2, 4.6))
        curves = {
            name: (np.arange(len(norms) + 1), [1.0, *norms])
            for name, norms in self.gradients.items()
        }
        log_curves(axes, curves)
        y = "norm of the gradient, over that at the output"
        finish(axes, "With and without a way around", "layers passed", y, whole=True)
        return figure


def compute(activation: str = "tanh", depth: int = 200, width: int = 64, seed: int = 0) -> Residual:
    """Write out the Jacobian of residual blocks, and measure gradients in deep stacks.

    x_{l+1} = x_l + F_l(x_l):  ∂x_L/∂x_0 = Π (I + ∂F_l/∂x_l) = I + Σ ∂F_l/∂x_0

    In the stacks F(x) = W φ(x), the activation first, so that F has no mean. If F alone would keep
    the size of the gradient, x + F doubles its square: √2 per layer.

    Parameters
    ----------
    activation
        Its name, in ``choices.ACTIVATIONS``.
    depth, width
        Layers, ≥ 2, and units of each.
    seed
        Of the weights and the inputs.

    Source: He et al. 2016; Zhang, Dauphin and Ma 2019 (branches scaled by the depth).
    """
    depth = size("residual", "depth", depth, 2, most=1_000)
    width = size("residual", "width", width)
    check_weights("residual", "depth", depth, width)
    he = np.sqrt(2 / width)

    def body(std: float, name: str = activation) -> nn.Sequential:
        linear = nn.Linear(width, width, bias=False, init=nn.init.normal(std=std))
        return nn.Sequential(choices.activation(name), linear)

    blocks: dict[str, Callable[[], nn.Layer]] = {
        f"plain: {activation}, weights N(0, {SMALL}²)": lambda: body(SMALL),
        "the same, with a way around": lambda: nn.Residual(body(SMALL)),
        "relu, He weights, with a way around": lambda: nn.Residual(body(he, "relu")),
        "the same, He weights / √depth": lambda: nn.Residual(body(he / np.sqrt(depth), "relu")),
    }
    x, dy = np.random.default_rng(seed).normal(size=(2, ROWS, width))
    gradients = {}
    for name, make in blocks.items():
        model = nn.Sequential(*(make() for _ in range(depth)), rng=seed).astype(np.float64)
        gradients[name] = _norms(analysis.trace(model, x, dy=dy), depth)
    return Residual(*_jacobians(activation, seed), gradients)


def _norms(pass_: analysis.Trace, depth: int) -> Array:
    """Return the gradient norms of every layer's input, the last layer first, over the output's."""
    paths = ["", *(str(layer) for layer in range(depth - 1))]
    last = {True: str(depth - 1), False: f"{depth - 1}.1"}  # a Sequential only hands on
    is_block = any(step.path == last[True] for step in pass_)
    inputs = [path if is_block or not path else f"{path}.1" for path in paths]
    norms = np.array([pass_[path].gradient_norm for path in reversed(inputs)])
    return norms / pass_[last[is_block]].gradient_norm


def _jacobians(activation: str, seed: int) -> tuple[float, float, float, float, float]:
    """Write out the Jacobian of ten blocks, as a product and as a sum."""
    blocks = [
        nn.Residual(nn.Sequential(nn.Linear(FEW, FEW), choices.activation(activation)))
        for _ in range(BLOCKS)
    ]
    model = nn.Sequential(*blocks, rng=seed).astype(np.float64)
    x = np.random.default_rng(seed).normal(size=(1, FEW))
    whole, block_error = analysis.jacobian(model, x), 0.0
    product, total = np.eye(FEW), np.eye(FEW)
    for block in blocks:
        slope = analysis.jacobian(block.body, x)  # ∂F_l/∂x_l
        own = analysis.jacobian(block, x)
        block_error = max(block_error, float(np.abs(own - (np.eye(FEW) + slope)).max()))
        total += slope @ product  # ∂F_l/∂x_0
        product = own @ product
        x = block(x)
    errors = [float(np.abs(form - whole).max() / np.abs(whole).max()) for form in (product, total)]
    one = np.ones((1, 1))
    flat, cancelled = (
        nn.Residual(nn.Linear(1, 1, bias=False, init=nn.init.constant(w))) for w in (0.0, -1.0)
    )
    slopes = [analysis.jacobian(block, one).item() for block in (flat, cancelled)]
    return block_error, errors[0], errors[1], slopes[0], slopes[1]
