"""Slices of the loss: its values along one or two directions from the weights of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.analysis.arguments import as_vector
from minidl.analysis.objective import Objective
from minidl.nn import Layer, Loss
from minidl.nn.checks import POSITIVE, check_count, check_number
from minidl.pictures import BLUE, VERMILION, Plottable, light_grid, log_axis, new_figure
from minidl.seeds import as_generator
from minidl.typing import Array, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 16  # of a picture in two dimensions
LABELS = 5  # of them with a number


@dataclass(repr=False)
class LossSlice(Plottable):
    """The loss along one or two directions.

    Attributes
    ----------
    places
        The coordinates along each direction, from -radius to radius; 0 is the model itself.
    losses
        The loss at each place: (points,), or (points, points) with the first direction first.
    directions
        The vectors, one or two, each as long as the parameters.
    """

    places: Array
    losses: Array
    directions: list[Array]

    @property
    def centre(self) -> float:
        """The loss of the model itself."""
        return float(self.losses[(len(self.places) // 2,) * self.losses.ndim])

    def __repr__(self) -> str:
        shape = " by ".join(str(size) for size in self.losses.shape)
        return (
            f"LossSlice of {shape} points: the loss is {self.centre:.4g} at the model, "
            f"{np.nanmin(self.losses):.4g} to {np.nanmax(self.losses):.4g} around it"
        )

    def figure(self) -> Figure:
        """Draw the loss as a curve, or as contours on a logarithmic scale."""
        figure = new_figure((6.0, 4.4))
        self.draw(figure.subplots())
        return figure

    def draw(self, axes: Any, levels: Array | None = None) -> Any:
        """Draw into a panel; ``levels`` are those of the contours, to give panels the same ones."""
        axes.set_xlabel("distance along the first direction (1: that of the weights)")
        if self.losses.ndim == 1:
            place = log_axis(axes.yaxis, self.losses)
            axes.plot(self.places, list(map(place, self.losses)), "-", color=BLUE)
            axes.plot([0], [place(self.centre)], "o", color=VERMILION, label="the model")
            axes.set_ylabel("loss")
            light_grid(axes)
            axes.legend(frameon=False)
            return None
        from matplotlib.colors import LogNorm

        levels = contour_levels(self.losses) if levels is None else levels
        norm = LogNorm(levels[0], levels[-1])
        shown = np.clip(self.losses.T, levels[0], levels[-1])
        area = axes.contourf(self.places, self.places, shown, levels, norm=norm, cmap="viridis")
        lines = {"colors": "white", "linewidths": 0.4}
        axes.contour(self.places, self.places, shown, levels, **lines)
        axes.plot([0], [0], "o", color=VERMILION, markeredgecolor="white")
        axes.set(ylabel="distance along the second direction", aspect="equal")
        axes.locator_params(nbins=5)
        bar = axes.figure.colorbar(area, ax=axes, label="loss")
        ticks = levels[:: max(1, len(levels) // LABELS)]
        bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
        bar.ax.minorticks_off()
        return area


def contour_levels(losses: Array, count: int = LEVELS) -> Array:
    """Choose levels for contours of these losses, each the same multiple of the one below.

    Losses that are zero or not finite are ignored.
    """
    usable = losses[np.isfinite(losses) & (losses > 0)]
    low, high = (float(usable.min()), float(usable.max())) if usable.size else (0.1, 1.0)
    return np.geomspace(low, max(high, low * 1.001), count)


def loss_slice(
    model: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    *,
    directions: int | Sequence[Any] = 1,
    radius: float = 1.0,
    points: int = 41,
    rng: Seed = 0,
) -> LossSlice:
    """Compute the loss along one or two directions from the weights of a model.

    L(w + a · d₁ + b · d₂)  for a, b from -radius to radius

    Random directions are filter-normalised: of a weight matrix, the part of d that belongs to one
    unit is as long as the unit's weights, d_j ← d_j · ‖w_j‖ / ‖d_j‖, and d is zero for biases and
    the scales of norms. Otherwise a network whose weights are large would look flatter than the
    same function with small weights, as behind ``BatchNorm`` or between two ReLU layers.

    Parameters
    ----------
    model, loss, x, y
        As for ``hessian_vector_product``; layers keep their modes.
    directions
        1 or 2: so many random ones. Or one or two vectors of a number for every parameter, which
        are taken as they are: a gradient, an eigenvector, the way from one model to another.
    radius
        How far, > 0, in lengths of d.
    points
        How many along each direction, odd, so that the middle one is the model itself.
    rng
        Generator or seed of the random directions.

    Raises
    ------
    ValueError
        For settings out of range, for vectors of another length, for unequal numbers of rows, and
        if the loss of the model itself is not finite.

    Source: Li, Xu, Taylor, Studer and Goldstein 2018, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import analysis, nn
    >>> model = nn.Linear(1, 1, bias=False, init=nn.init.constant(2.0))
    >>> x, y = np.ones((1, 1)), np.zeros((1, 1))
    >>> found = analysis.loss_slice(model, nn.MSELoss(), x, y, directions=[[1.0]], points=3)
    >>> found.places, found.losses  # w² around w = 2
    (array([-1.,  0.,  1.]), array([1., 4., 9.]))
    """
    radius = check_number("loss_slice", "radius", radius, POSITIVE, math.inf)
    points = check_count("loss_slice", "points", points, 3)
    if points % 2 == 0:
        raise ValueError(f"loss_slice: points must be odd, got {points}")
    objective = Objective(model, loss, x, y)
    vectors = _vectors(objective, directions, as_generator(rng))
    # Whole multiples of a step, so that the middle one is exactly zero.
    places = np.arange(-(points // 2), points // 2 + 1) * (radius / (points // 2))
    losses = np.empty((points,) * len(vectors))
    for index in np.ndindex(losses.shape):
        w = objective.start.copy()
        for i, vector in zip(index, vectors, strict=True):
            w += places[i] * vector
        losses[index] = objective.value(w)
    found = LossSlice(places, losses, vectors)
    if not math.isfinite(found.centre):
        raise ValueError(f"loss_slice: the loss of the model is {found.centre}")
    return found


def _vectors(
    objective: Objective, directions: int | Sequence[Any], rng: np.random.Generator
) -> list[Array]:
    """Return the directions as vectors: drawn, or as given."""
    if not isinstance(directions, (list, tuple, np.ndarray)):
        count = check_count("loss_slice", "directions", directions)
        if count > 2:
            raise ValueError(f"loss_slice: directions must be 1 or 2, got {count}")
        return [_filter_normalised(objective, rng) for _ in range(count)]
    vectors = [as_vector("loss_slice: each of directions", vector) for vector in directions[:3]]
    shapes = [vector.shape for vector in vectors]
    if len(directions) not in (1, 2) or set(shapes) != {objective.start.shape}:
        raise ValueError(
            f"loss_slice: expected one or two vectors of {objective.start.size} numbers, "
            f"got shapes {shapes}{' and more' if len(directions) > 3 else ''}"
        )
    return vectors


def _filter_normalised(objective: Objective, rng: np.random.Generator) -> Array:
    """Draw a direction in which every unit's weights change by their own length."""
    parts = []
    for w in objective.split(objective.start):
        d = np.zeros(w.shape)
        if w.ndim > 1:  # (in_features, out_features): a column belongs to a unit
            d += rng.normal(size=w.shape)
            d *= np.linalg.norm(w, axis=0) / np.linalg.norm(d, axis=0)
        parts.append(d.ravel())
    return np.concatenate(parts)
