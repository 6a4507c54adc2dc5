"""``summary``: shapes that a model takes, and those that it cannot, with the place in the model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from minidl import models, nn

ROWS = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
LENET = models.lenet5(rng=0)
BODY = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(9))
BLOCK = nn.Sequential(nn.Residual(BODY, nn.MaxPool2d(9)))
HALVED = nn.Sequential(nn.Residual(nn.Conv2d(1, 1, 3, stride=2, padding=1)))
SUM = nn.Sequential(nn.Parallel(nn.Linear(2, 3), nn.Linear(4, 3), join="add"))
NESTED = nn.Sequential(nn.Parallel(nn.Parallel(nn.Linear(2, 3), nn.Linear(4, 3)), nn.Linear(5, 1)))


class Image(nn.Layer):
    """Makes an image of a row."""

    def forward(self, x: Any) -> Any:
        self.save(x)
        return x.reshape(len(x), 8, 8, 1)


class Known(Image):
    """Says so."""

    def output_shape(self, input_shape: Any) -> Any:
        return None if input_shape is None else (input_shape[0], 8, 8, 1)


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        (8, TypeError, "the shape of a row of each input, a tuple such as (64,) or (28, 28, 1)"),
        ("x", TypeError, "such as (64,) or (28, 28, 1), got 'x'"),
        (None, TypeError, "got None"),
        ((None, 8), ValueError, "the shape of a row, without the batch, holds whole numbers >= 1"),
        ((-8,), ValueError, 'names of sizes that are not known, such as ("steps", 8); got (-8,)'),
        ((0,), ValueError, "got (0,)"),
        ((8.0,), ValueError, "got (8.0,)"),
        ((True,), ValueError, "got (True,)"),
        (((8,), 3), ValueError, "got ((8,), 3)"),
        ((), ValueError, "layer 0 Linear(8, 4) takes 8 features, and its input would be (batch)"),
        (("steps", 5), ValueError, "and its input would be (batch, steps, 5)"),
    ],
)
def test_what_is_no_shape_is_told_in_a_sentence(shape: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=r"^summary: ") as caught:
        ROWS.summary(shape)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("model", "shapes", "words"),
    [
        (LENET, [(28, 28, 3)], "layer 0 Conv2d(1, 6, 5) takes 1 features"),
        (
            LENET,
            [(28, 28)],
            "layer 0 Conv2d(1, 6, 5) takes images (batch, height, width",
        ),
        (LENET, [(5, 5, 1)], "layer 2 MaxPool2d(2): a window reaches over 2 elements, but the"),
        (LENET, [(10, 10, 1)], "layer 3 Conv2d(6, 16, 5): input of shape ('batch', 3, 3, 6)"),
        (LENET, [(32, 32, 1)], "layer 7 Linear(256, 120) takes 256 features"),
        (BLOCK, [(8, 8, 1)], "layer 0.body.1 MaxPool2d(9): a window reaches over 9 elements"),
        (HALVED, [(8, 8, 1)], "the body gives (batch, 4, 4, 1), the shortcut (batch, 8, 8, 1)"),
        (SUM, [(2,), (5,)], "layer 0.1 Linear(4, 3) takes 4 features"),
        (SUM, [(2,), (7, 4)], "gives (batch, 3), branch 1 Linear(4, 3) gives (batch, 7, 3); join="),
        (SUM, [(2,), (4,), (4,)], "one for each of the 2, got 3"),
        (NESTED, [((2,), (5,)), (5,)], "layer 0.0.1 Linear(4, 3) takes 4 features"),
        (ROWS, [(8,), (8,)], "layer 0 Linear(8, 4) takes one input, and would get (batch, 8) and"),
        (
            nn.Sequential(nn.LSTM(2, 3)),
            [(7, 2), (2,)],
            "LSTM(2, 3): the state consists of 2 arrays",
        ),
        (
            nn.Sequential(nn.GRU(2, 3)),
            [(7, 2), (2,)],
            "GRU(2, 3): expected a state of shape (batch",
        ),
        (nn.Sequential(nn.GRU(2, 3)), [(7, 4), (3,)], "GRU(2, 3) takes 2 features, and its input"),
        (nn.Sequential(nn.GRU(2, 3)), [(2,), (3,)], "GRU(2, 3) takes sequences (batch, steps"),
        (nn.Sequential(nn.MaxPool1d(2)), [(7, 4), ()], "MaxPool1d(2) takes one input, and would"),
        (nn.Sequential(nn.GlobalAvgPool()), [(7, 4), (4,)], "GlobalAvgPool() takes one input, and"),
        (
            nn.ChannelsFirst(models.lenet5()[:1]),
            [(28, 28, 1)],
            "layer inner.0 Conv2d(1, 6, 5) takes 1",
        ),
    ],
)
def test_the_place_of_a_misfit_is_named(model: Any, shapes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"^summary: layer ") as caught:
        model.summary(*shapes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (LENET, [(28, 28, 1)]),
        (SUM, [(2,), (4,)]),
        (NESTED, [((2,), (4,)), (5,)]),
        (nn.Sequential(nn.GRU(2, 3), nn.Select(1)), [(7, 2), (3,)]),
        (nn.Sequential(nn.LSTM(2, 3), nn.Select(2)), [(7, 2), (3,), (3,)]),
        (nn.Sequential(nn.Residual(nn.Conv2d(1, 1, 3, padding=1))), [(4, 5, 1)]),
    ],
)
def test_what_a_summary_takes_the_model_takes(model: Any, shapes: Any) -> None:
    def rows(shape: Any) -> Any:
        if isinstance(shape[0], tuple):
            return tuple(map(rows, shape))
        return np.ones((2, *shape), np.float32)

    output = model(*map(rows, shapes))
    expected = f"(batch, {', '.join(map(str, output.shape[1:]))})"
    assert expected in model.summary(*shapes)
    if len(shapes) > 1:
        assert model.summary(*shapes) == model.summary(tuple(shapes))


def test_sizes_may_be_names_and_numbers_of_numpy() -> None:
    assert "(batch, steps, 4)" in ROWS.summary(("steps", 8))
    assert ROWS.summary((np.int64(8),)) == ROWS.summary([8]) == ROWS.summary((8,))
    join = nn.Sequential(nn.Parallel(nn.Linear(2, 3), nn.Linear(2, 4)))
    assert "(batch, steps, 7)" in join.summary(("steps", 2))
    assert "(batch, steps, 3)" in SUM.summary(("steps", 2), (7, 4))  # a name may stand for 7


def test_a_layer_of_ones_own_between_rows_and_images_can_be_shown() -> None:
    """Unless it says otherwise, it is taken to keep the shape."""
    model = nn.Sequential(nn.Linear(2, 64), Image(), nn.Conv2d(1, 3, 3), nn.Linear(3, 2))
    assert "2 Conv2d(1, 3, 3) " in repr(model)
    with pytest.raises(
        ValueError, match=re.escape("layer 2 Conv2d(1, 3, 3) takes images")
    ) as caught:
        model.summary((2,))
    assert "layer 1 Image() keeps the shape, unless it defines output_shape" in str(caught.value)
    model = nn.Sequential(nn.Linear(2, 64), Known(), nn.Conv2d(1, 3, 3), nn.Linear(3, 2))
    assert "(batch, 6, 6, 3)" in model.summary((2,))
