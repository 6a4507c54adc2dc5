"""Fit estimators of minidl, scikit-learn and PyTorch on ten sets, fold by fold: scores, CPU time.

All have hidden layers of 64 and 64, batches of 32, Adam and scikit-learn's rule for when a training
ends; features, and targets of regressions, are standardised before. In every fold each library
fits once in float32 with the same seed, after the others, in turns; so differences of scores are
paired. CPU time is that of a whole ``fit``, of all threads. In float64 minidl and scikit-learn are
timed once more.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minidl
from minidl.profiling.kernel_report import machine

FOLDS = 5
HIDDEN, BATCH = (64, 64), 32
SETTINGS = {"hidden_layer_sizes": HIDDEN, "batch_size": BATCH}
RATE, ALPHA, EPOCHS, TOLERANCE, PATIENCE = 1e-3, 1e-4, 200, 1e-4, 10  # scikit-learn's defaults

Fit = Callable[[Any, Any, int], Any]  # features, targets, seed -> something that predicts


@dataclass
class Case:
    """A data set, standardised."""

    name: str
    X: Any
    y: Any
    classifies: bool

    def folds(self) -> Iterator[tuple[Any, Any]]:
        """Yield rows to train on, and rows to test on."""
        from sklearn.model_selection import KFold, StratifiedKFold

        kind = StratifiedKFold if self.classifies else KFold
        return kind(FOLDS, shuffle=True, random_state=0).split(self.X, self.y)


@dataclass
class Measured:
    """Scores and CPU seconds of a library on one set, a number for every fold."""

    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def cases() -> list[Case]:
    """Return the ten sets: bundled with scikit-learn, or made by it."""
    from sklearn import datasets
    from sklearn.preprocessing import scale

    rows = {"n_samples": 1000, "random_state": 0}
    made = {"n_features": 20, "n_informative": 8}
    labelled = {
        "iris": datasets.load_iris(return_X_y=True),
        "wine": datasets.load_wine(return_X_y=True),
        "breast cancer": datasets.load_breast_cancer(return_X_y=True),
        "digits": datasets.load_digits(return_X_y=True),
        "moons": datasets.make_moons(noise=0.3, **rows),
        "classification": datasets.make_classification(n_classes=4, **made, **rows),
    }
    numbers = {
        "diabetes": datasets.load_diabetes(return_X_y=True),
        "regression": datasets.make_regression(noise=20.0, **made, **rows),
        "Friedman 1": datasets.make_friedman1(noise=1.0, **rows),
        "Friedman 2": datasets.make_friedman2(noise=50.0, **rows),
    }
    found = [Case(name, scale(X), y, True) for name, (X, y) in labelled.items()]
    return found + [Case(name, scale(X), scale(y), False) for name, (X, y) in numbers.items()]


def ours(case: Case) -> Fit:
    """Return the fit of minidl."""
    from minidl.sklearn import MLPClassifier, MLPRegressor

    kind = MLPClassifier if case.classifies else MLPRegressor
    return lambda X, y, seed: kind(**SETTINGS, random_state=seed).fit(X, y)


def theirs(case: Case) -> Fit:
    """Return the fit of scikit-learn."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPClassifier if case.classifies else MLPRegressor
    return lambda X, y, seed: kind(**SETTINGS, random_state=seed).fit(X, y)


def torch_fit(case: Case) -> Fit:
    """Return the fit of PyTorch: a loop of its own, with its own initial weights."""
    import torch

    torch.set_num_threads(1)

    def fit(X: Any, y: Any, seed: int) -> Any:
        torch.manual_seed(seed)
        X, outputs = torch.from_numpy(X), len(np.unique(y)) if case.classifies else 1
        y = torch.from_numpy(y) if case.classifies else torch.from_numpy(y[:, None])
        widths = [X.shape[1], *HIDDEN]
        layers: list[Any] = []
        for width, hidden in zip(widths, HIDDEN, strict=False):
            layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], outputs))
        loss = torch.nn.CrossEntropyLoss() if case.classifies else torch.nn.MSELoss()
        decay = ALPHA / BATCH * (1 if case.classifies else 2)  # scikit-learn halves the square
        optimizer = torch.optim.Adam(model.parameters(), RATE, weight_decay=decay, fused=True)
        train_torch(model, loss, optimizer, X, y)
        return TorchModel(model, case.classifies)

    return fit


def train_torch(model: Any, loss: Any, optimizer: Any, X: Any, y: Any) -> None:
    """Make epochs until the loss no longer falls, as scikit-learn does."""
    import torch

    best, unimproved = np.inf, 0
    for _ in range(EPOCHS):
        total = torch.zeros(())
        for rows in torch.randperm(len(X)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            value = loss(model(X[rows]), y[rows])
            value.backward()
            optimizer.step()
            total += value.detach() * len(rows)
        mean = float(total) / len(X)
        unimproved = unimproved + 1 if mean > best - TOLERANCE else 0
        best = min(best, mean)
        if unimproved > PATIENCE:
            return


class TorchModel:
    """A trained model of PyTorch that predicts as an estimator does."""

    def __init__(self, model: Any, classifies: bool) -> None:
        self.model, self.classifies = model, classifies

    def predict(self, X: Any) -> Any:
        """Return labels, or numbers."""
        import torch

        with torch.no_grad():
            outputs = self.model(torch.from_numpy(X)).numpy()
        return outputs.argmax(axis=1) if self.classifies else outputs[:, 0]


def run(rows: str, quick: bool) -> None:
    """Measure all sets with ``rows`` in their name, and print a table."""
    minidl.set_num_threads(1)
    warnings.simplefilter("ignore")
    libraries = {"minidl": ours, "scikit-learn": theirs, "PyTorch": torch_fit}
    try:
        import torch  # noqa: F401
    except ImportError:
        del libraries["PyTorch"]
    print(f"{machine()['processor']}, one core; hidden layers {HIDDEN}, batches of {BATCH}\n")
    print(f"{'set':<15}{'score of':>9}", *(f"{name:>14}" for name in libraries), end="")
    print("   minidl - scikit-learn   CPU time / minidl's: float32 (float64), PyTorch")
    measured = []
    for case in cases():
        if rows in case.name:
            found = measure(case, {name: make(case) for name, make in libraries.items()}, quick)
            measured.append(found)
            print(line(case, found), flush=True)
    conclude(measured)


def measure(case: Case, fits: dict[str, Fit], quick: bool) -> dict[str, Measured]:
    """Fit and score every library in every fold; time float64, too."""
    found = {name: Measured() for name in (*fits, "minidl, float64", "scikit-learn, float64")}
    for number, (train, test) in enumerate(case.folds()):
        for dtype in (np.float32, np.float64):
            X = case.X.astype(dtype)
            y = case.y if case.classifies else case.y.astype(dtype)
            names = list(fits) if dtype is np.float32 else ["minidl", "scikit-learn"]
            for name in np.roll(names, number):
                fits[name](X[train[:64]], y[train[:64]], 0)  # what is loaded or compiled once
                start = time.process_time()
                model = fits[name](X[train], y[train], number)
                seconds = time.process_time() - start
                entry = found[name if dtype is np.float32 else f"{name}, float64"]
                entry.seconds.append(seconds)
                entry.scores.append(score(case, y[test], model.predict(X[test])))
        if quick:
            break
    return found


def score(case: Case, y: Any, predicted: Any) -> float:
    """Return accuracy, or R²."""
    if case.classifies:
        return float(np.mean(y == predicted))
    return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def line(case: Case, found: dict[str, Measured]) -> str:
    """Return a row of the table."""
    names = [name for name in found if "float64" not in name]
    difference, error = paired(found, "scikit-learn")
    words = [f"{case.name:<15}{'accuracy' if case.classifies else 'R²':>9}"]
    words += [f"{np.mean(found[name].scores):14.3f}" for name in names]
    words.append(f"{difference:+14.3f} ± {error:.3f}")
    words.append(f"{ratio(found, 'scikit-learn'):16.1f} ({ratio64(found):.1f})")
    words += [f"{ratio(found, 'PyTorch'):10.1f}"] if "PyTorch" in found else []
    return " ".join(words)


def paired(found: dict[str, Measured], peer: str) -> tuple[float, float]:
    """Return the mean of minidl's score - the peer's over the folds, and its standard error."""
    differences = np.subtract(found["minidl"].scores, found[peer].scores)
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else np.nan
    return float(differences.mean()), float(error)


def ratio(found: dict[str, Measured], peer: str) -> float:
    """Return how many times the CPU time of minidl a library takes, over all folds."""
    return float(np.sum(found[peer].seconds) / np.sum(found["minidl"].seconds))


def ratio64(found: dict[str, Measured]) -> float:
    """Return that of scikit-learn in float64."""
    ours, theirs = found["minidl, float64"], found["scikit-learn, float64"]
    return float(np.sum(theirs.seconds) / np.sum(ours.seconds))


def conclude(measured: list[dict[str, Measured]]) -> None:
    """Print means over all sets."""
    peers = [name for name in measured[0] if "float64" not in name and name != "minidl"]
    print()
    for peer in peers:
        differences = [paired(found, peer)[0] for found in measured]
        ratios = [ratio(found, peer) for found in measured]
        mean = np.exp(np.mean(np.log(ratios)))
        print(
            f"{peer}: minidl scores {np.mean(differences):+.4f} in the mean; "
            f"{mean:.1f} times the CPU time in the geometric mean, {min(ratios):.1f} at least"
        )
    mean = np.exp(np.mean(np.log([ratio64(found) for found in measured])))
    print(f"scikit-learn, float64: {mean:.1f} times")
