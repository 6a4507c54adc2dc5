"""Trainings that are well: they train as well as anybody gets them to, however that looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_blobs,
    make_circles,
    make_friedman1,
    make_moons,
    make_multilabel_classification,
)

from minidl import datasets, nn, optim
from minidl.diagnosis.program import Program
from minidl.typing import Array

from .case import Healthy, stack, standardised

# A folder with t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz and tinyshakespeare.txt; what
# is not there is left out.
DATA = Path(os.environ.get("MINIDL_DATA", "data"))


def classifier(
    widths: list[int], x: Array, y: Array, seed: int, epochs: int, lr: float = 0.01, **more: Any
) -> Program:
    """Cross entropy of labels, by Adam unless another optimizer is named."""
    return _program(widths, nn.CrossEntropyLoss(), x, y, seed, epochs, lr, **more)


def regression(
    widths: list[int], x: Array, y: Array, seed: int, epochs: int, lr: float = 0.01, **more: Any
) -> Program:
    """Squared error, by Adam unless another optimizer is named."""
    return _program(widths, nn.MSELoss(), x, y, seed, epochs, lr, **more)


def _program(
    widths: list[int],
    loss: nn.Loss,
    x: Array,
    y: Array,
    seed: int,
    epochs: int,
    lr: float,
    optimizer: Any = optim.Adam,
    batch: int = 32,
    between: Any = nn.ReLU,
    after: Any = None,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> Program:
    model = stack(widths, between, seed=seed, after=after)
    chosen = optimizer(model.parameters(), lr=lr, **(settings or {}))
    return Program(model, loss, chosen, x, y, epochs, batch, rng=seed, **more)


def digits(seed: int, **more: Any) -> Program:
    """Small pictures of digits, 64-64-10."""
    data = load_digits()
    options = {"epochs": 15, "lr": 0.003} | more
    return classifier([64, 64, 10], data.data / 16, data.target, seed, **options)


def digits_sgd(seed: int) -> Program:
    """Plain SGD at a rate of 0.1."""
    return digits(seed, optimizer=optim.SGD, lr=0.1, epochs=30)


def digits_small_rate(seed: int) -> Program:
    """A small rate, and epochs enough."""
    return digits(seed, lr=3e-4, epochs=60)


def digits_dropout(seed: int) -> Program:
    """Half of the hidden units dropped."""
    return digits(seed, after=lambda: nn.Dropout(0.5), epochs=40)


def digits_large_batch(seed: int) -> Program:
    """All rows but a few in two batches."""
    return digits(seed, batch=900, epochs=150, lr=0.01)


def digits_weight_decay(seed: int) -> Program:
    """AdamW with its penalty."""
    return digits(seed, optimizer=optim.AdamW, settings={"weight_decay": 0.01}, epochs=20)


def digits_clipped(seed: int) -> Program:
    """Momentum, and clipping at every step."""
    settings = {"momentum": 0.9, "max_norm": 1.0}
    return digits(seed, optimizer=optim.SGD, lr=0.05, settings=settings, epochs=20)


def digits_deep(seed: int, block: str = "residual") -> Program:
    """Twenty hidden layers with a way around every two, or six with BatchNorm."""
    data = load_digits()
    hidden: list[nn.Layer] = [nn.Linear(64, 64, init="he_normal"), nn.ReLU()]
    if block == "residual":
        hidden += [nn.pre_activation(64, norm=nn.LayerNorm) for _ in range(10)]
    else:
        for _ in range(5):
            hidden += [nn.Linear(64, 64), nn.BatchNorm(64), nn.ReLU()]
    model = nn.Sequential(*hidden, nn.Linear(64, 10), rng=seed)
    adam = optim.Adam(model.parameters(), lr=1e-3)
    x, y = data.data / 16, data.target
    return Program(model, nn.CrossEntropyLoss(), adam, x, y, 20, rng=seed)


def digits_one_hot(seed: int) -> Program:
    """Squared error against rows of zeros and ones, behind a softmax."""
    data = load_digits()
    model = stack([64, 64, 10], nn.ReLU, nn.Softmax, seed=seed)
    adam = optim.Adam(model.parameters(), lr=0.003)
    return Program(model, nn.MSELoss(), adam, data.data / 16, np.eye(10)[data.target], 25, rng=seed)


def mnist(seed: int) -> Program:
    """The ten thousand test pictures of MNIST, 784-64-10."""
    images, labels = (DATA / f"t10k-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1"))
    x = datasets.idx(images).reshape(-1, 784) / np.float32(255)
    return classifier([784, 64, 10], x, datasets.idx(labels), seed, epochs=8, lr=0.002, batch=64)


def iris(seed: int) -> Program:
    """Iris by tanh units."""
    x, y = load_iris(return_X_y=True)
    return classifier([4, 16, 3], standardised(x), y, seed, epochs=80, between=nn.Tanh)


def iris_raw(seed: int) -> Program:
    """Iris as it is: columns of some centimetres harm nothing."""
    x, y = load_iris(return_X_y=True)
    return classifier([4, 32, 3], x, y, seed, epochs=150)


def wine(seed: int) -> Program:
    """Wine by LeakyReLU, RMSprop and a validation part."""
    x, y = load_wine(return_X_y=True)
    options: dict[str, Any] = {"optimizer": optim.RMSprop, "validation": 0.2}
    return classifier(
        [13, 16, 3], standardised(x), y, seed, 30, 0.003, between=nn.LeakyReLU, **options
    )


def cancer(seed: int) -> Program:
    """One logit for two classes."""
    x, y = load_breast_cancer(return_X_y=True)
    loss = nn.BCEWithLogitsLoss()
    return _program([30, 16, 1], loss, standardised(x), y[:, None], seed, 30, 0.003)


def cancer_weighted(seed: int) -> Program:
    """Two classes of unequal size, weighted."""
    x, y = load_breast_cancer(return_X_y=True)
    return classifier([30, 16, 2], standardised(x), y, seed, 30, 0.003, class_weight="balanced")


def diabetes(seed: int) -> Program:
    """Half of the variance is noise; as many epochs as held-out rows bear."""
    data = load_diabetes(scaled=False)
    y = standardised(data.target[:, None])
    return regression([10, 64, 64, 1], standardised(data.data), y, seed, 40, 0.001)


def diabetes_linear(seed: int) -> Program:
    """Least squares by gradient descent: it reaches what least squares can."""
    data = load_diabetes(scaled=False)
    y = standardised(data.target[:, None])
    return regression([10, 1], standardised(data.data), y, seed, 100, 0.03)


def friedman(seed: int) -> Program:
    """A smooth function of five of ten columns."""
    x, y = make_friedman1(1000, noise=1.0, random_state=seed)
    return regression(
        [10, 64, 1], standardised(x), standardised(y[:, None]), seed, 60, 0.005, between=nn.Tanh
    )


def noisy_line(seed: int) -> Program:
    """A line in much noise, at its floor: R² is 0.1, and no more is to be had."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2000, 1))
    return regression([1, 16, 1], x, x + rng.normal(0, 3, x.shape), seed, 30)


def outliers(seed: int) -> Program:
    """A curve with outliers, by Huber's loss."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (600, 1))
    y = np.sin(2 * x) + 0.1 * rng.standard_t(2, x.shape)
    return _program([1, 32, 32, 1], nn.HuberLoss(), x, y, seed, 80, 0.005, between=nn.SiLU)


def blobs(seed: int) -> Program:
    """Four heaps of points, AdaGrad."""
    x, y = make_blobs(400, centers=4, random_state=seed)
    return classifier([2, 16, 4], standardised(x), y, seed, 60, 0.1, optimizer=optim.AdaGrad)


def moons(seed: int, loss: str = "labels") -> Program:
    """Two moons."""
    x, y = make_moons(500, noise=0.1, random_state=seed)
    return classifier([2, 32, 32, 2], x, y, seed, 60, 0.005, between=nn.ELU)


def circles(seed: int) -> Program:
    """Two circles, one inside the other, with noise that overlaps."""
    x, y = make_circles(500, noise=0.15, factor=0.5, random_state=seed)
    loss = nn.BCEWithLogitsLoss()
    return _program([2, 32, 1], loss, x, y[:, None].astype(float), seed, 100, 0.01)


def xor(seed: int) -> Program:
    """XOR with sixteen hidden units, which never get stuck."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    y = x.sum(axis=1, keepdims=True) % 2
    loss = nn.BCEWithLogitsLoss()
    return _program([2, 16, 1], loss, x, y, seed, 300, 0.05, batch=4, between=nn.Tanh)


def one_hot_words(seed: int) -> Program:
    """A table of zeros and ones: four categories of eight values each."""
    rng = np.random.default_rng(seed)
    values = rng.integers(8, size=(800, 4))
    x = np.eye(8)[values].reshape(800, 32)
    effects = rng.normal(size=(4, 8))
    y = effects[np.arange(4), values].sum(axis=1, keepdims=True)
    return regression([32, 32, 1], x, y + rng.normal(0, 0.2, y.shape), seed, 50)


def multi_label(seed: int) -> Program:
    """Five labels, each of which may hold."""
    x, y = make_multilabel_classification(600, 20, n_classes=5, random_state=seed)
    loss = nn.BCEWithLogitsLoss()
    return _program([20, 64, 5], loss, standardised(x), y.astype(float), seed, 40, 0.003)


def rare_class(seed: int) -> Program:
    """A class of five in a hundred that is easy to tell."""
    rng = np.random.default_rng(seed)
    y = (np.arange(1000) % 20 == 0).astype(int)
    x = rng.normal(size=(1000, 4)) + 4 * y[:, None]
    return classifier([4, 16, 2], x, y, seed, 40)


def embedded(seed: int) -> Program:
    """Words as vectors: which of two kinds of words is more frequent."""
    rng = np.random.default_rng(seed)
    x = rng.integers(30, size=(1000, 9))
    y = ((x < 15).sum(axis=1) > 4).astype(int)
    model = nn.Sequential(
        nn.Embedding(30, 8), nn.Flatten(), nn.Linear(72, 32), nn.ReLU(), nn.Linear(32, 2), rng=seed
    )
    adam = optim.Adam(model.parameters(), lr=0.005)
    return Program(model, nn.CrossEntropyLoss(), adam, x, y, 30, rng=seed)


def adding(seed: int, cell: str = "LSTM") -> Program:
    """The adding problem over ten steps."""
    x, y = datasets.adding(1000, 10, rng=seed)
    layer = getattr(nn, cell)(2, 32, return_sequences=False)
    model = nn.Sequential(layer, nn.Linear(32, 1), rng=seed)
    adam = optim.Adam(model.parameters(), lr=0.01, max_norm=1.0)
    return Program(model, nn.MSELoss(), adam, x, y, 40, rng=seed)


def waves(seed: int) -> Program:
    """Which frequency a noisy sine has, by a plain recurrent layer."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=600)
    time = np.arange(20) + rng.uniform(0, 20, (600, 1))
    x = np.sin(time * (0.3 + 0.4 * y[:, None])) + rng.normal(0, 0.1, (600, 20))
    model = nn.Sequential(nn.RNN(1, 32, return_sequences=False), nn.Linear(32, 3), rng=seed)
    adam = optim.Adam(model.parameters(), lr=0.003)
    return Program(model, nn.CrossEntropyLoss(), adam, x[:, :, None], y, 30, rng=seed)


def characters(seed: int) -> Program:
    """The next character of a text, at each of 32 places, by a small GRU."""
    text = (DATA / "tinyshakespeare.txt").read_text(encoding="utf-8")[: 33 * 600]
    alphabet, codes = np.unique(list(text), return_inverse=True)
    rows = codes.reshape(600, 33)
    size = len(alphabet)
    model = nn.Sequential(nn.Embedding(size, 16), nn.GRU(16, 64), nn.Linear(64, size), rng=seed)
    adam = optim.Adam(model.parameters(), lr=0.005)
    return Program(model, nn.CrossEntropyLoss(), adam, rows[:, :-1], rows[:, 1:], 25, rng=seed)


def programs() -> Iterator[Healthy]:
    """Yield all whose data are there."""
    needs_file = {mnist: "t10k-images-idx3-ubyte.gz", characters: "tinyshakespeare.txt"}
    for make in (
        digits, digits_sgd, digits_small_rate, digits_dropout, digits_large_batch,
        digits_weight_decay, digits_clipped, digits_one_hot, iris, iris_raw, wine, cancer,
        cancer_weighted, diabetes, diabetes_linear, friedman, noisy_line, outliers, blobs, moons,
        circles, xor, one_hot_words, multi_label, rare_class, embedded, waves, mnist, characters,
    ):  # fmt: skip
        if (DATA / needs_file.get(make, "")).exists() or make not in needs_file:
            yield Healthy(make.__name__.replace("_", " "), make)
    yield Healthy("digits, residual", digits_deep)
    yield Healthy("digits, BatchNorm", digits_deep, {"block": "norm"})
    yield Healthy("adding, LSTM", adding)
    yield Healthy("adding, GRU", adding, {"cell": "GRU"})
