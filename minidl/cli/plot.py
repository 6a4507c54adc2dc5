"""A picture of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl._kernels.reference import Array
from minidl.cli.options import check_writable
from minidl.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN, TEST = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito: apart for every eye
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
    kinds = _new_figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"cannot draw {path}: the name must end in one of .{', .'.join(kinds)}")
    check_writable(path, "draw")


def draw(path: Path, history: History, gradients: dict[str, list[float]], title: str) -> None:
    """Draw loss, accuracy and the gradient norm of every layer, epoch by epoch."""
    figure = _new_figure()
    loss, accuracy, gradient = figure.subplots(1, 3)
    _curves(loss, history, "loss")
    loss.set(title="Loss", ylabel="mean cross entropy", yscale="log")
    _curves(accuracy, history, "accuracy")
    accuracy.set(title="Accuracy", ylabel="share of images classified correctly")
    _layers(gradient, gradients)
    gradient.set(
        title="Gradient norm by layer", ylabel="norm of the gradient over all training images"
    )
    for axes in (loss, accuracy, gradient):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_yscale() == "log":
            _plain_ticks(axes)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def draw_sequences(
    path: Path, history: History, measured: str, words: str, norms: dict[str, Array], title: str
) -> None:
    """Draw what was measured, epoch by epoch, and ‖∂L/∂h_t‖ before and after training."""
    figure = _new_figure()
    left, right = figure.subplots(1, 2)
    _curves(left, history, measured)
    left.set(title=words.capitalize(), ylabel=words, xlabel="epoch")
    left.xaxis.get_major_locator().set_params(integer=True)
    for (name, values), color in zip(norms.items(), (TRAIN, TEST), strict=True):
        right.plot(range(1, len(values) + 1), values, color=color, label=name)
    if all(values.min() > 0 for values in norms.values()):
        right.set_yscale("log")
    right.set(
        title="How far back the loss is felt",
        xlabel="step t",
        ylabel="norm of the gradient of the state after step t",
    )
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _new_figure() -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install 'minidl[plot]'") from None
    # No pyplot: a figure of one's own needs no display and leaves global settings alone.
    figure = Figure(figsize=SIZE)
    figure.set_layout_engine("constrained", w_pad=0.15)
    return figure


def _curves(axes: Any, history: History, name: str) -> None:
    epochs = range(1, history.epochs + 1)
    style = {"markersize": 4, "linewidth": 1.6}
    axes.plot(epochs, history[name], "o-", color=TRAIN, label="training", **style)
    axes.plot(epochs, history[f"val_{name}"], "s--", color=TEST, label="test", **style)
    axes.legend(frameon=False)


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
