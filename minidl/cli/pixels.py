"""How pixels become inputs of a network, in training and in predictions from its file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import numpy as np

from minidl.typing import Array

LARGEST_SIDE = 1 << 20  # of an image that a file describes


@dataclass(frozen=True)
class Pixels:
    """Images as a network takes them.

    Attributes
    ----------
    image
        The shape of an image in its source, such as (28, 28).
    inputs
        The shape in which the network takes it: (784,), or (28, 28, 1).
    most
        The whole number that stands for a pixel of 1; None where pixels are taken as they are.
    """

    image: tuple[int, ...]
    inputs: tuple[int, ...]
    most: int | None

    @property
    def size(self) -> str:
        """The shape of an image in words: ``28 x 28``."""
        return " x ".join(map(str, self.image))

    def encode(self, images: Array) -> Array:
        """Return images (count, *image), or one image, as inputs, in which pixels are 0 to 1.

        Raises
        ------
        ValueError
            For images of another shape, and for pixels below 0 or above those of the training.
        """
        known = self.image, (*self.image, 1), self.inputs, (math.prod(self.image),)
        if images.shape == self.image:
            images = images[None]
        if images.shape[1:] not in known:
            expected = ", ".join(map(str, self.image))
            raise ValueError(
                f"the model takes images of {self.size} pixels, an array (count, {expected}); "
                f"got shape {images.shape}"
            )
        if self.most is not None:
            images = scaled(images, self.most)
        return images.reshape(len(images), *self.inputs)

    def as_text(self) -> str:
        """Return what a file keeps."""
        return json.dumps({"version": 1, **asdict(self)})

    @classmethod
    def from_text(cls, text: str) -> Pixels:
        """Return what ``as_text`` has written; raise for anything else."""
        kept = json.loads(text)
        image, inputs, most = (kept[name] for name in ("image", "inputs", "most"))
        for shape in (image, inputs):
            if type(shape) is not list or not all(_is_size(side) for side in shape):
                raise TypeError("no shape")
        if math.prod(image) != math.prod(inputs) or not (most is None or _is_size(most)):
            raise ValueError("no image")
        return cls(tuple(image), tuple(inputs), most)


def scaled(images: Array, most: int) -> Array:
    """Return pixels from 0 to 1; whole numbers are divided by ``most``.

    Raises
    ------
    ValueError
        For a pixel that is out of range.
    """
    limit = most if images.dtype.kind in "iu" else 1
    outside = (images < 0) | (images > limit)
    if outside.any():
        row = int(outside.reshape(len(images), -1).any(axis=1).argmax())
        raise ValueError(
            f"image {row + 1} has a pixel of {images[outside][0]:g}; pixels are whole numbers from "
            f"0 to {most}, or real ones from 0 to 1"
        )
    return images.astype(np.float32) / np.float32(limit)


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_SIDE
