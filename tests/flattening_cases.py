"""Networks that flatten images, for tests of the order of features in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from random_stacks import disturbed

from minidl import models, nn

Model = Callable[[], nn.Layer]


def chain(*layers: nn.Layer) -> nn.Layer:
    return nn.Sequential(*layers, rng=0)


def filters(channels: int = 1, out: int = 3) -> nn.Layer:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


def twice(layer: nn.Layer) -> nn.Layer:
    """One encoder of two images, side by side."""
    return nn.Parallel(layer, layer)


# Models with a Flatten() of images, and the shapes of their inputs.
MODELS: dict[str, tuple[Model, list[tuple[int, ...]]]] = {
    "lenet": (lambda: models.lenet5((16, 18, 2), rng=0), [(2, 16, 18, 2)]),
    "small": (lambda: models.small_cnn(rng=0), [(2, 8, 8, 1)]),
    "features": (
        lambda: chain(
            *(filters(), nn.Flatten(), nn.BatchNorm(18), nn.PReLU(18), nn.LayerNorm(18)),
            *(nn.RMSNorm(18), nn.Dropout(0.1), nn.Softmax(), nn.Standardize(18)),
            *(nn.Linear(18, 18), nn.BatchNorm(18), nn.Linear(18, 2)),
        ),
        [(2, 4, 6, 1)],
    ),
    "sequence": (
        lambda: chain(nn.Conv1d(2, 3, 3, padding="causal"), nn.Flatten(), nn.Linear(15, 2)),
        [(2, 5, 2)],
    ),
    "words": (
        lambda: chain(nn.LSTM(2, 3), nn.Conv1d(3, 4, 2), nn.Flatten(), nn.Linear(16, 2)),
        [(2, 5, 2)],
    ),
    "pixels": (
        lambda: chain(filters(), nn.Flatten(1, -2), nn.Flatten(), nn.Linear(18, 2)),
        [(2, 4, 6, 1)],
    ),
    "one pixel": (
        lambda: chain(filters(), nn.GlobalAvgPool(True), nn.Flatten(), nn.Linear(3, 2)),
        [(2, 4, 6, 1)],
    ),
    "residual": (
        lambda: chain(
            nn.BatchNorm(2),
            *(nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm(2))),),
            *(nn.Upsample(2), nn.Flatten(), nn.Residual(nn.ReLU()), nn.Linear(48, 3)),
        ),
        [(2, 2, 3, 2)],
    ),
    "heads": (
        lambda: chain(
            filters(),
            nn.Flatten(),
            nn.Parallel(a=nn.Linear(18, 2), b=chain(nn.Tanh(), nn.Linear(18, 1)), join=None),
        ),
        [(2, 4, 6, 1)],
    ),
    "siamese": (
        lambda: chain(twice(chain(filters(), nn.Flatten(), nn.Linear(18, 4))), nn.Linear(8, 1)),
        [(2, 4, 6, 1), (2, 4, 6, 1)],
    ),
    "image and table": (
        lambda: chain(
            nn.Parallel(chain(nn.Linear(3, 5), nn.Tanh()), chain(filters(), nn.Flatten())),
            *(nn.BatchNorm(23), nn.Linear(23, 2)),
        ),
        [(2, 3), (2, 4, 6, 1)],
    ),
    "image, table and steps": (
        lambda: chain(
            nn.Parallel(
                *(chain(filters(), nn.Flatten()), nn.Linear(3, 5)),
                nn.GRU(2, 3, bidirectional=True, return_sequences=False),
                chain(nn.Conv1d(2, 4, 2), nn.GlobalMaxPool()),
            ),
            nn.Linear(18 + 5 + 6 + 4, 2),
        ),
        [(2, 4, 6, 1), (2, 3), (2, 5, 2), (2, 5, 2)],
    ),
    "joined channels": (
        lambda: chain(
            nn.Parallel(filters(2, 3), chain(nn.MaxPool2d(2), nn.Dropout(0.1))),
            *(nn.Split((2, 3)), nn.Concat(), nn.Flatten(), nn.Linear(30, 2)),
        ),
        [(2, 4, 6, 2)],
    ),
    "chosen": (
        lambda: chain(
            nn.Parallel(chain(filters(), nn.Flatten()), chain(filters(), nn.Flatten()), join=None),
            *(nn.Select(1), nn.Linear(18, 2)),
        ),
        [(2, 4, 6, 1)],
    ),
    "added": (
        lambda: chain(
            nn.Parallel(chain(filters(), nn.Flatten()), chain(filters(), nn.Flatten()), join="add"),
            nn.Linear(18, 2),
        ),
        [(2, 4, 6, 1)],
    ),
    "channels first": (
        lambda: nn.ChannelsFirst(chain(filters(), nn.Flatten(), nn.Linear(18, 2))),
        [(2, 1, 4, 6)],
    ),
    "one layer first": (
        lambda: chain(nn.ChannelsFirst(filters()), nn.Flatten(), nn.Linear(18, 2)),
        [(2, 1, 4, 6)],
    ),
}


def build(name: str) -> tuple[nn.Layer, list[Any]]:
    """A model without any number of a new one, and inputs for it."""
    rng = np.random.default_rng(0)
    made, shapes = MODELS[name]
    model = disturbed(made(), rng).eval()
    for _, layer in model.layers():
        if isinstance(layer, nn.Standardize):
            layer.adapt(rng.normal(2, 3, size=(9, 18)))
    return model, [rng.normal(size=shape).astype(np.float32) for shape in shapes]


# --- networks of an unknown order ---


class Square(nn.Layer):
    """A layer of the user's."""

    def forward(self, x: Any) -> Any:
        return x * x


class Net(nn.Layer):
    """A network of the user's, with a flow of its own."""

    def __init__(self, *layers: nn.Layer) -> None:
        self.parts = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.parts:
            x = layer(x)
        return x


IMAGE = (2, 4, 6, 1)
# Models, what is said of them, and the shapes of their inputs; None for those without a module.
UNKNOWN: dict[str, tuple[Model, str, tuple[int, ...] | None]] = {
    "a layer of the user's before": (
        lambda: chain(filters(), Square(), nn.Flatten(), nn.Linear(18, 2)),
        "layer 2 Flatten.* layer 3 Linear.* how many channels it takes is not known",
        None,
    ),
    "a layer of the user's behind": (
        lambda: chain(filters(), nn.Flatten(), Square(), nn.Linear(18, 2)),
        "layer 1 Flatten.* layer 3 Linear.* because layer 2 Square.* may change it",
        None,
    ),
    "a layer of the user's around": (
        lambda: Net(filters(), nn.Flatten(), nn.Linear(18, 2)),
        r"Flatten.* how Net\(\) calls its layers",
        None,
    ),
    "a layer of the user's that joins": (
        lambda: chain(
            nn.Parallel(filters(), filters(), join=None),
            Net(nn.Concat(), nn.Flatten(), nn.Tanh()),
            nn.Linear(36, 2),
        ),
        "how layer 1 Net.* calls its layers",
        None,
    ),
    "pooling first": (
        lambda: chain(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2)),
        "how many channels it takes is not known",
        (2, 4, 6, 3),
    ),
    "inside of channels first": (
        lambda: nn.ChannelsFirst(chain(nn.Flatten(), nn.Linear(18, 2))),
        "how many channels it takes is not known",
        (2, 3, 2, 3),
    ),
    "columns": (
        lambda: chain(filters(), nn.Flatten(2), nn.GRU(9, 2)),
        "joins the channels to one of several axes",
        IMAGE,
    ),
    "the state of a cell": (
        lambda: chain(
            nn.Parallel(nn.Linear(3, 4), chain(filters(), nn.Flatten()), join=None),
            nn.GRUCell(4, 18),
        ),
        "layer 1 GRUCell.* they are the state that it begins with",
        None,
    ),
    "linear layers of pixels": (
        lambda: chain(filters(), nn.Linear(3, 2), nn.Flatten(), nn.Linear(12, 2)),
        "how many channels it takes is not known",
        IMAGE,
    ),
    "two widths": (
        lambda: chain(
            nn.Parallel(chain(filters(), nn.Flatten()), chain(filters(), nn.Flatten())),
            nn.Linear(36, 2),
        ),
        "several widths",
        IMAGE,
    ),
    "one Flatten of images and sequences": (
        lambda: twofold(nn.Flatten()),
        "called twice",
        IMAGE,
    ),
    "a Residual over features": (
        lambda: chain(filters(), nn.Flatten(), nn.Residual(nn.Linear(18, 18)), nn.Linear(18, 2)),
        "combined with features of another order",
        IMAGE,
    ),
    "stacked": (
        lambda: chain(
            *(filters(), nn.Flatten(), nn.Parallel(nn.ReLU(), nn.Tanh(), join="stack")),
            nn.GRU(18, 2),
        ),
        "they are stacked",
        IMAGE,
    ),
    "split": (
        lambda: chain(filters(), nn.Flatten(), nn.Split((9, 9)), nn.Select(0), nn.Linear(9, 2)),
        "they are split",
        IMAGE,
    ),
    "no pixels": (
        lambda: chain(filters(), nn.Flatten(), nn.Linear(17, 2)),
        "17 features are no pixels of 3 channels",
        None,
    ),
    "an input that a layer of the user's may take for an image": (
        lambda: nn.Parallel(
            Net(filters(), nn.GlobalAvgPool()), chain(nn.Flatten(), nn.Linear(24, 3))
        ),
        "other layers take its input for images",
        None,
    ),
    "an input that may be an image": (
        lambda: nn.Parallel(
            chain(filters(), nn.GlobalAvgPool()), chain(nn.Flatten(), nn.Linear(24, 3))
        ),
        "other layers take its input for images",
        IMAGE,
    ),
}


def twofold(flatten: nn.Flatten) -> nn.Layer:
    """A network that calls one Flatten with images and with rows."""
    return chain(filters(), flatten, nn.Linear(18, 4), nn.ReLU(), flatten, nn.Linear(4, 2))


# --- modules of PyTorch's own ---


def native(name: str) -> tuple[Any, nn.Layer, tuple[int, ...]]:
    """A module of PyTorch's own, the model with its names, and the shape of its images."""
    torch = pytest.importorskip("torch")
    t = torch.nn
    filters = nn.Conv2d(3, 4, 3), nn.BatchNorm(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    theirs = t.Conv2d(3, 4, 3), t.BatchNorm2d(4), t.ReLU(), t.MaxPool2d(2), t.Flatten()
    match name:
        case "lenet":
            layers = (t.Conv2d(2, 6, 5), t.ReLU(), t.MaxPool2d(2), t.Conv2d(6, 16, 5), t.ReLU())
            rest = (t.MaxPool2d(2), t.Flatten(), t.Linear(64, 120), t.ReLU(), t.Linear(120, 84))
            module = t.Sequential(*layers, *rest, t.ReLU(), t.Linear(84, 10))
            return module, models.lenet5((20, 20, 2)), (3, 2, 20, 20)
        case "features":
            module = t.Sequential(
                *(*theirs, t.BatchNorm1d(24), t.PReLU(24), t.LayerNorm(24), t.Linear(24, 5)),
                *(t.BatchNorm1d(5), t.Softmax(dim=1)),
            )
            head = nn.BatchNorm(24), nn.PReLU(24), nn.LayerNorm(24), nn.Linear(24, 5)
            return module, chain(*filters, *head, nn.BatchNorm(5), nn.Softmax()), (3, 3, 6, 8)
        case "steps":
            module = t.Sequential(
                *(t.Conv1d(2, 4, 3, padding=1), t.Hardswish(), t.AvgPool1d(2), t.Dropout1d(0.2)),
                *(t.Flatten(), t.Linear(16, 3, bias=False), t.LogSoftmax(dim=1)),
            )
            steps = nn.Conv1d(2, 4, 3, padding=1), nn.HardSwish(), nn.AvgPool1d(2)
            rows = nn.Flatten(), nn.Linear(16, 3, bias=False), nn.LogSoftmax()
            return module, chain(*steps, nn.Dropout(0.2, whole_channels=True), *rows), (3, 2, 8)
    from minidl.torch.branch_modules import Parallel  # needs PyTorch

    heads = Parallel({"digit": t.Linear(24, 5), "sum": t.Linear(24, 1)}, None)
    ours = nn.Parallel(digit=nn.Linear(24, 5), sum=nn.Linear(24, 1), join=None)
    return t.Sequential(t.Sequential(*theirs), heads), chain(chain(*filters), ours), (3, 3, 6, 8)
