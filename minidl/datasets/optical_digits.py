"""The UCI optical digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from minidl.datasets.idx_file import idx
from minidl.typing import Array

TRAIN = 1437  # of 1797: the shipped files hold the training images first
LARGEST_PIXEL = 16


@dataclass(frozen=True)
class Dataset:
    """Data to train on and data to test with; unpacks into the four arrays.

    Attributes
    ----------
    x_train, x_test
        Features (samples, features), float32.
    y_train, y_test
        Labels (samples), int64 in [0, classes).
    name
        What the data are, for headings.
    image_shape
        Shape in which a row of features is a picture; () if it is none.
    pixel_max
        What the source has for a pixel of 1, such as 255; None where pixels are not scaled.
    """

    x_train: Array = field(repr=False)
    y_train: Array = field(repr=False)
    x_test: Array = field(repr=False)
    y_test: Array = field(repr=False)
    name: str = ""
    image_shape: tuple[int, ...] = ()
    pixel_max: int | None = None

    @property
    def features(self) -> int:
        """Width of the features."""
        return int(self.x_train.shape[-1])

    @property
    def classes(self) -> int:
        """Number of classes: one more than the largest label."""
        return 1 + int(max(self.y_train.max(), self.y_test.max()))

    def __iter__(self) -> Iterator[Array]:
        return iter((self.x_train, self.y_train, self.x_test, self.y_test))


def digits() -> Dataset:
    """Handwritten digits: 1797 images of 8 × 8 pixels, 10 classes.

    The split is fixed, with the same share of every digit on both sides: 1437 images to
    train on and 360 to test with. Pixels, 0 … 16 in the source, are scaled to [0, 1].

    Source: E. Alpaydin and C. Kaynak 1998, UCI Machine Learning Repository, CC BY 4.0; the
    note ``digits.LICENSE.txt`` beside the data says it all.

    Returns
    -------
    Dataset
        With float32 features and int64 labels; fresh arrays at every call.

    Shapes
    ------
    x_train (1437, 64), y_train (1437), x_test (360, 64), y_test (360).

    Examples
    --------
    >>> from minidl import datasets
    >>> x_train, y_train, x_test, y_test = datasets.digits()
    >>> x_train.shape, x_train.dtype, y_test[:5]
    ((1437, 64), dtype('float32'), array([7, 6, 3, 7, 7]))
    """
    images = _shipped("digits-images-idx3-ubyte.gz")
    x = images.reshape(len(images), -1).astype(np.float32) / np.float32(LARGEST_PIXEL)
    y = _shipped("digits-labels-idx1-ubyte.gz").astype(np.int64)
    parts = x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]
    return Dataset(*parts, "UCI optical digits", images.shape[1:], LARGEST_PIXEL)


def _shipped(name: str) -> Array:
    from importlib.resources import as_file, files  # slow to load

    with as_file(files("minidl.datasets") / "data" / name) as path:
        return idx(path)
