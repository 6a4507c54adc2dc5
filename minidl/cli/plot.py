"""A picture of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minidl._kernels.reference import Array
from minidl.cli.options import check_writable
from minidl.training.curves import TRAINING, VALIDATION, curves, new_figure, tidy
from minidl.training.history import History

SIZE = 16.0, 4.4  # inches; the legend of the layers stands beside the last panel
DARKEST, LIGHTEST = 0.0, 0.85  # part of the viridis scale that shows on white


def check(path: Path) -> None:
    """Raise before the training, not after it, if the picture could not be written.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        For a type of file that matplotlib does not write.
    OSError
        If the folder is missing or the file cannot be written.
    """
    kinds = new_figure(SIZE).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"cannot draw {path}: the name must end in one of .{', .'.join(kinds)}")
    check_writable(path, "draw")


def draw(path: Path, history: History, gradients: dict[str, list[float]], title: str) -> None:
    """Draw loss, accuracy and the gradient norm of every layer, epoch by epoch."""
    figure = new_figure(SIZE)
    loss, accuracy, gradient = figure.subplots(1, 3)
    curves(loss, history, "loss", "test")
    loss.set(title="Loss", ylabel="mean cross entropy", yscale="log")
    curves(accuracy, history, "accuracy", "test")
    accuracy.set(title="Accuracy", ylabel="share of images classified correctly")
    _layers(gradient, gradients)
    gradient.set(
        title="Gradient norm by layer", ylabel="norm of the gradient over all training images"
    )
    for axes in (loss, accuracy, gradient):
        tidy(axes)
        if axes.get_yscale() == "log":
            _plain_ticks(axes)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def draw_sequences(
    path: Path, history: History, measured: str, words: str, norms: dict[str, Array], title: str
) -> None:
    """Draw what was measured, epoch by epoch, and ‖∂L/∂h_t‖ before and after training."""
    figure = new_figure(SIZE)
    left, right = figure.subplots(1, 2)
    curves(left, history, measured, "test")
    left.set(title=words.capitalize(), ylabel=words)
    tidy(left)
    for (name, values), color in zip(norms.items(), (TRAINING, VALIDATION), strict=True):
        right.plot(range(1, len(values) + 1), values, color=color, label=name)
    if all(values.min() > 0 for values in norms.values()):
        right.set_yscale("log")
    right.set(
        title="How far back the loss is felt",
        ylabel="norm of the gradient of the state after step t",
    )
    right.legend(frameon=False)
    tidy(right)
    right.set(xlabel="step t")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _layers(axes: Any, gradients: dict[str, list[float]]) -> None:
    from matplotlib import colormaps

    # Layers have an order, so their colours have one: dark near the input, light near the loss.
    step = (LIGHTEST - DARKEST) / max(1, len(gradients) - 1)
    for index, (name, norms) in enumerate(gradients.items()):
        color = colormaps["viridis"](DARKEST + index * step)
        epochs = range(1, len(norms) + 1)
        marker = "osD^vP*X"[index % 8]
        axes.plot(epochs, norms, marker=marker, markersize=4, color=color, label=name)
    axes.set_yscale("log" if all(min(norms) > 0 for norms in gradients.values()) else "linear")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1), title="layer")


def _plain_ticks(axes: Any) -> None:
    """Label 0.02, 0.05, 0.1 ... instead of powers of ten with factors."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
