"""Compare the default initialisation with PyTorch's: which generalises better on small tables?

    python benchmarks/defaults.py            # nine data sets, sixteen splits
    python benchmarks/defaults.py --quick    # four splits, one and three hidden layers

Two networks are trained in minidl on the same split, in the same order of rows. They differ only in
how their weights and biases are drawn: by the default of ``Linear``, or from U(±1/√fan_in), the
default of PyTorch. They have one to four hidden layers of 64 ReLU or tanh. Adam at 1e-3 and batches
of 32 train them until the validation loss has not improved for 15 epochs, at most 200 epochs; the
parameters of the best epoch are tested.

60 % of the rows are for training, 15 % for validation, 25 % for testing. Inputs, and the targets
of a regression, are standardised by the training rows. The score is R² of a regression, accuracy of
a classification; the loss is the mean squared error or the cross-entropy. Both are averaged over
depths and activations; differences are ours - PyTorch's, as mean ± standard error over splits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from minidl import Trainer, datasets, nn, optim
from minidl.training import EarlyStopping

# A folder that may hold the 10,000 test images.
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data"
WIDTH = 64
DEPTHS = (1, 2, 3, 4)
ACTIVATIONS: tuple[type[nn.Layer], ...] = (nn.ReLU, nn.Tanh)
SPLITS = 16
QUICK_DEPTHS, QUICK_SPLITS = (1, 3), 4
EPOCHS, PATIENCE, BATCH = 200, 15, 32
INITS: dict[str, dict[str, Any]] = {
    "PyTorch": {"init": "fan_in_uniform", "bias_init": "fan_in_uniform"},
    "minidl": {},
}


@dataclass
class Table:
    """Rows and their targets: classes, or one number that is standardised."""

    x: Any
    y: Any

    @property
    def classes(self) -> int:
        """How many there are; 0 for a regression."""
        return int(self.y.max()) + 1 if self.y.dtype.kind in "iu" else 0

    def split(self, seed: int) -> list[tuple[Any, Any]]:
        """(X, y) for training, validation and testing, standardised by the training rows."""
        rows = len(self.x)
        order = np.random.default_rng(seed).permutation(rows)
        test, validation, train = np.split(order, [rows // 4, rows // 4 + rows * 3 // 20])
        x = _standardised(self.x, train)
        y = self.y if self.classes else _standardised(self.y, train)[:, None]
        return [(x[part], y[part]) for part in (train, validation, test)]


def _standardised(values: Any, train: Any) -> Any:
    """Scale to mean 0 and variance 1 in the training rows; a constant column becomes 0."""
    mean, std = values[train].mean(axis=0), values[train].std(axis=0)
    return ((values - mean) / np.where(std > 1e-12, std, np.inf)).astype(np.float32)


def tables() -> dict[str, Callable[[], Table]]:
    """Return functions that load the data sets, by name."""
    try:
        from sklearn import datasets as sets
    except ImportError:
        sys.exit(
            "benchmarks/defaults.py takes its data from scikit-learn: pip install scikit-learn"
        )
    loaders = {
        "digits": lambda: sets.load_digits(return_X_y=True),
        "iris": lambda: sets.load_iris(return_X_y=True),
        "wine": lambda: sets.load_wine(return_X_y=True),
        "breast_cancer": lambda: sets.load_breast_cancer(return_X_y=True),
        "diabetes": lambda: sets.load_diabetes(return_X_y=True),
        "friedman1": lambda: sets.make_friedman1(600, noise=1.0, random_state=0),
        "classification": lambda: sets.make_classification(
            1000, n_features=20, n_informative=10, random_state=0
        ),
        "moons": lambda: sets.make_moons(500, noise=0.25, random_state=0),
    }
    # The dtype says whether targets are classes: those of load_diabetes are whole floats.
    found = {name: lambda load=load: Table(*load()) for name, load in loaders.items()}
    images, labels = (MNIST / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    if images.exists() and labels.exists():
        found["mnist-10k"] = lambda: _images(images, labels)
    return found


def _images(images: Path, labels: Path) -> Table:
    x = datasets.idx(images)
    return Table(x.reshape(len(x), -1).astype(np.float64), datasets.idx(labels).astype(np.int64))


def network(
    inputs: int,
    outputs: int,
    depth: int,
    activation: type[nn.Layer],
    inits: dict[str, Any],
    seed: int,
) -> nn.Sequential:
    """Build a network of so many hidden layers, and a last one without an activation."""
    layers: list[nn.Layer] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, WIDTH, **inits), activation()]
        inputs = WIDTH
    return nn.Sequential(*layers, nn.Linear(inputs, outputs, **inits), rng=seed)


def trained(model: nn.Layer, parts: list[tuple[Any, Any]], classes: int, seed: int) -> list[float]:
    """Train until the validation loss stops improving; returns score and loss of the test rows."""
    (x, y), validation, test = parts
    score, loss = ("accuracy", nn.CrossEntropyLoss()) if classes else ("r2", nn.MSELoss())
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    trainer = Trainer(model, loss, optimizer, metrics=[score], rng=seed)
    stopping = EarlyStopping("val_loss", patience=PATIENCE)
    trainer.fit(x, y, EPOCHS, BATCH, validation=validation, progress=False, callbacks=[stopping])
    found = trainer.evaluate(*test)
    return [found[score], found["loss"]]


def measured(table: Table, splits: int, depths: Iterable[int]) -> Any:
    """Measure score and loss: an array (inits, splits, depths, activations, 2)."""
    results = []
    for inits in INITS.values():
        for seed in range(splits):
            parts = table.split(seed)
            for depth, activation in product(depths, ACTIVATIONS):
                shape = (table.x.shape[1], table.classes or 1)
                model = network(*shape, depth, activation, inits, seed)
                results.append(trained(model, parts, table.classes, seed))
    return np.reshape(results, (len(INITS), splits, -1, len(ACTIVATIONS), 2))


def mean_and_error(differences: Any) -> tuple[float, float]:
    """Return the mean of independent numbers, and its standard error."""
    return differences.mean(), differences.std(ddof=1) / np.sqrt(len(differences))


def differences(values: Any) -> list[tuple[float, float]]:
    """Return ours - PyTorch's of score and loss: mean and standard error over the splits."""
    theirs, ours = values.mean(axis=(2, 3))  # (splits, 2) each
    return [mean_and_error(ours[:, i] - theirs[:, i]) for i in (0, 1)]


def cells(name: str, shape: str, values: Any) -> list[str]:
    """Format the line of a data set."""
    theirs, ours = values.mean(axis=(1, 2, 3))  # (score, loss) each
    line = [name, shape]
    for i, difference in enumerate(differences(values)):
        line += [f"{theirs[i]:.4f}", f"{ours[i]:.4f}", _signed(*difference)]
    return line


def overall(results: Iterable[Any]) -> list[str]:
    """Format the line of the mean over the data sets."""
    found = np.array([differences(values) for values in results])  # (sets, 2, mean and error)
    means = found[..., 0].mean(axis=0)
    errors = np.sqrt(np.square(found[..., 1]).sum(axis=0)) / len(found)
    score, loss = (_signed(*both) for both in zip(means, errors, strict=True))
    return ["mean", "", "", "", score, "", "", loss]


def _signed(mean: float, error: float) -> str:
    return f"{mean:+.4f} ± {error:.4f}"


COLUMNS = (
    "data set", "rows × columns", "score: PyTorch's", "minidl's", "difference",
    "loss: PyTorch's", "minidl's", "difference",
)  # fmt: skip


def show(line: Iterable[str], head: bool = False) -> None:
    """Print a line of a table in Markdown."""
    texts = list(line)
    print(f"| {' | '.join(texts)} |", flush=True)
    if head:
        print("|---" * len(texts) + "|", flush=True)


def by_depth(results: dict[str, Any], depths: Iterable[int]) -> Iterator[list[str]]:
    """Yield the mean difference of scores over sets and splits, for every kind of network."""
    each = [np.mean(values[1] - values[0], axis=0)[..., 0] for values in results.values()]
    for depth, line in zip(depths, np.mean(each, axis=0), strict=True):
        yield [str(depth), *(f"{value:+.4f}" for value in line)]


def main() -> None:
    """Measure and print."""
    found = tables()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer splits and depths")
    parser.add_argument("--sets", nargs="+", choices=list(found), default=list(found))
    options = parser.parse_args()
    splits, depths = (QUICK_SPLITS, QUICK_DEPTHS) if options.quick else (SPLITS, DEPTHS)
    print(f"{splits} splits; {', '.join(map(str, depths))} hidden layers\n")
    show(COLUMNS, head=True)
    results = {}
    for name in options.sets:
        table = found[name]()
        results[name] = measured(table, splits, depths)
        show(cells(name, f"{len(table.x)} × {table.x.shape[1]}", results[name]))
    show(overall(results.values()))
    print()
    show(["hidden layers", *(activation.__name__ for activation in ACTIVATIONS)], head=True)
    for line in by_depth(results, depths):
        show(line)


if __name__ == "__main__":
    main()
