"""What a convolutional network sees: its first filters, and what they make of an image."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.analysis.arguments import as_vector, check_model
from minidl.analysis.tracing import TracedStep, trace
from minidl.nn import Conv2d, Layer
from minidl.pictures import Plottable, new_figure, shortened
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

MOST_CHANNELS = 16  # of a layer that are drawn side by side
MOST_LAYERS = 4  # whose maps are drawn one below the other
COLORS = 3  # channels of an image that is drawn in colour
WIDTH, ROW_HEIGHT = 16.0, 1.15  # inches
LONGEST_TITLE = 140  # characters


@dataclass(repr=False)
class FeatureMaps(Plottable):
    """The filters of the first convolution, and the maps of all activations.

    Attributes
    ----------
    image
        The image (height, width, channels).
    name, filters
        The first convolution, and its weight (height, width, in_channels / groups, out_channels).
    maps
        By layer, what it makes of the image (height, width, channels).
    """

    image: Array
    name: str
    filters: Array
    maps: dict[str, Array]

    @property
    def shown(self) -> dict[str, Array]:
        """The maps that are drawn: of all or some layers, from the first to the last."""
        names = list(self.maps)
        some = np.linspace(0, len(names) - 1, min(MOST_LAYERS, len(names))).round().astype(int)
        return {names[place]: self.maps[names[place]] for place in some}

    @property
    def height(self) -> float:
        """The height of the picture in inches."""
        return ROW_HEIGHT * (1 + len(self.shown))

    def __repr__(self) -> str:
        count = self.filters.shape[-1]
        filters = f"{count} filter{'s' * (count > 1)} of {self.name}"
        lines = [f"FeatureMaps of an image {self.image.shape}: {filters}"]
        lines += [
            f"{name}: {maps.shape}, up to {maps.max():.2g}" for name, maps in self.maps.items()
        ]
        return "\n".join(lines)

    def figure(self) -> Figure:
        """Draw the image, the filters, and the maps of each layer in a row."""
        figure = new_figure((WIDTH, self.height))
        self.draw(figure)
        return figure

    def draw(self, figure: Figure | SubFigure) -> None:
        """Draw them into a figure, or a part of one."""
        rows = figure.subfigures(1 + len(self.shown), 1, squeeze=False)[:, 0]
        first = rows[0].subplots(1, 1 + MOST_CHANNELS)
        _draw_image(first[0], self.image)
        self._draw_filters(rows[0], first[1:])
        for row, (name, maps) in zip(rows[1:], self.shown.items(), strict=True):
            axes = row.subplots(1, 1 + MOST_CHANNELS)
            most = float(np.abs(maps).max())
            scale = {"cmap": "viridis", "vmin": min(0.0, float(maps.min())), "vmax": most or 1.0}
            _draw_row(axes[1:], np.moveaxis(maps, -1, 0), **scale)
            axes[0].set_axis_off()
            height, width, channels = maps.shape
            _name_row(row, f"{name}: {height} x {width}, {_of(channels)}, up to {most:.2g}")

    def _draw_filters(self, row: Any, axes: Any) -> None:
        """Draw the filters: in colour if the image is, else their mean over the channels."""
        most = float(np.abs(self.filters).max()) or 1.0
        filters = np.moveaxis(self.filters, -1, 0)
        if filters.shape[-1] == COLORS:
            _draw_row(axes, 0.5 + filters / (2 * most))
            words = "grey is 0"
        else:
            _draw_row(axes, filters.mean(axis=-1), cmap="RdBu_r", vmin=-most, vmax=most)
            words = "blue below 0, red above"
        count = _of(len(filters))
        _name_row(row, f"image, and filters of {self.name}: {count}, {words}, |w| up to {most:.2g}")


def feature_maps(model: Layer, image: Any) -> FeatureMaps:
    """Compute what every activation of a convolutional network makes of an image.

    Parameters
    ----------
    model
        A network with a ``Conv2d``; it is left as it is, and evaluated in evaluation mode.
    image
        One image (height, width, channels).

    Returns
    -------
    FeatureMaps
        Numbers that draw themselves: ``feature_maps(model, image).plot("maps.png")``.

    Raises
    ------
    TypeError
        For what is no model, and for pixels that are no numbers.
    ValueError
        For a model without a ``Conv2d``, for what is not one image, and for NaN and infinity.

    Source: Zeiler and Fergus 2014.

    Examples
    --------
    >>> from minidl import analysis, datasets, models
    >>> image = datasets.digits().x_test[0].reshape(8, 8, 1)
    >>> found = analysis.feature_maps(models.small_cnn(rng=0), image)
    >>> found.filters.shape, [maps.shape for maps in found.maps.values()]
    ((3, 3, 1, 16), [(8, 8, 16), (8, 8, 32), (4, 4, 32)])
    >>> found
    FeatureMaps of an image (8, 8, 1): 16 filters of 0 Conv2d(1, 16, 3, padding=1, bias=False)
    2 ReLU(): (8, 8, 16), up to 2.6
    5 ReLU(): (8, 8, 32), up to 3.9
    9 ReLU(): (4, 4, 32), up to 4
    """
    check_model(model)
    pixels = as_vector("image", image)
    if pixels.ndim != 3 or not pixels.size:
        raise ValueError(
            f"feature_maps: expected one image (height, width, channels), got shape {pixels.shape}"
        )
    layers = dict(model.layers())
    first = next((path for path, layer in layers.items() if isinstance(layer, Conv2d)), None)
    if first is None:
        raise ValueError("feature_maps: the model has no Conv2d")
    filters = layers[first].parameters()[0].data.copy()
    probe = copy.deepcopy(model)
    probe.eval()
    steps = list(trace(probe, pixels[None]))
    maps = {
        f"{step.path} {step.name}": step.value[0]
        for before, step in pairwise(steps)
        if _is_activation(layers[step.path], before, step)
    }
    return FeatureMaps(pixels, f"{first} {layers[first]!r}".strip(), filters, maps)


def _is_activation(layer: Layer, before: TracedStep, step: TracedStep) -> bool:
    """Whether a step is that of a layer of images without parameters, which keeps their shape.

    Those inside of blocks are left out: what a block gives is seen after it.
    """
    plain = "." not in step.path and not layer.parameters()
    return plain and step.value.ndim == 4 and step.value.shape == before.value.shape


def _draw_image(axes: Any, image: Array) -> None:
    pixels = image if image.shape[-1] == COLORS else image.mean(axis=-1)
    axes.imshow(pixels, cmap="gray", interpolation="nearest")
    axes.set_axis_off()


def _draw_row(axes: Any, pictures: Array, **scale: Any) -> None:
    """Draw the first pictures, one into each of the axes, and leave the others empty."""
    for axis in axes:
        axis.set_axis_off()
    for axis, picture in zip(axes, pictures, strict=False):
        axis.imshow(picture, interpolation="nearest", **scale)


def _of(count: int) -> str:
    """Say how many channels there are, and how many of them are drawn."""
    shown = f"{MOST_CHANNELS} of " if count > MOST_CHANNELS else ""
    return f"{shown}{count} channel{'s' * (count > 1)}"


def _name_row(row: Any, title: str) -> None:
    row.suptitle(shortened(title, LONGEST_TITLE), fontsize=9, x=0.01, ha="left", parse_math=False)
