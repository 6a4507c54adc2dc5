"""Time training steps of every width, to find widths at which a step is suddenly slow.

    python benchmarks/width_sweep.py --plot widths.png --peer torch
    python benchmarks/width_sweep.py --widths 32:64:1 --threads 1

A network 10-w-w-10 with relu is trained by Adam, with the gradient clipped to norm 1, for every
width w. minidl runs ``step.epoch`` with its default choice of threads, on one thread, and on two
whether or not that pays. Several passes measure all widths one after the other, and the fastest
epoch of each counts, so that neighbours stay comparable whatever else the machine does. Printed are
the worst ratio of two neighbours, and how far the default choice is from the better of one and two
threads.

PyTorch, if asked for, runs the same step eagerly, with its fused Adam, on one and on two threads,
of which the faster counts; or on as many as --threads says.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import minidl
from minidl import nn, optim
from minidl.pictures import log_axis, new_figure, save
from minidl.profiling.kernel_report import machine
from minidl.recording import plan as planning

INPUTS = CLASSES = 10
STEPS, PEER_STEPS = 50, 10  # steps of an epoch
USUAL_THREADS = minidl.get_num_threads()
SETTINGS = {"default": None, "1 thread": 1, "2 threads": 2}
PEER_STRIDE = 8  # the peer is measured at every eighth width
COLORS = {"default": "#0072B2", "1 thread": "#56B4E9", "2 threads": "#009E73", "PyTorch": "#D55E00"}

Epoch = tuple[Callable[[], object], Callable[[], object], int]  # prepare, run; its steps
Times = dict[str, dict[int, float]]  # microseconds of a step by setting and width


def minidl_epoch(width: int, X: Any, Y: Any, batch: int, threads: int | None) -> Epoch:
    """Make an epoch of minidl on so many threads; None for its default choice."""
    layers = [nn.Linear(INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, CLASSES), rng=0)
    loss = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-4, max_norm=1.0)

    @minidl.record
    def step(x: Any, y: Any) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    def prepare() -> None:
        minidl.set_num_threads(threads or USUAL_THREADS)

    def run() -> Any:
        return step.epoch(X, Y, batch_size=batch, shuffle=False)

    prepare()
    with shared_eagerly(threads is not None):
        run()
    if threads is not None:
        step._latest.program.always_team = True
    return prepare, run, STEPS


@contextmanager
def shared_eagerly(eagerly: bool) -> Iterator[None]:
    """Have programs share kernels between threads even where that does not pay for barriers."""
    usual = planning.BARRIER
    planning.BARRIER = 0.0 if eagerly else usual
    try:
        yield
    finally:
        planning.BARRIER = usual


def torch_epoch(width: int, X: Any, Y: Any, batch: int, threads: int | None) -> Epoch:
    """Make an epoch of PyTorch on so many threads."""
    import torch
    from torch import nn as tnn

    torch.manual_seed(0)
    model = tnn.Sequential(
        *(tnn.Linear(INPUTS, width), tnn.ReLU(), tnn.Linear(width, width), tnn.ReLU()),
        tnn.Linear(width, CLASSES),
    )
    loss = tnn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    data, labels = torch.from_numpy(X).split(batch), torch.from_numpy(Y).split(batch)

    def run() -> None:
        for x, y in zip(data[:PEER_STEPS], labels, strict=False):
            value = loss(model(x), y)
            optimizer.zero_grad()
            value.backward()
            tnn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return partial(torch.set_num_threads, threads or 1), run, PEER_STEPS


def measure(epochs: dict[tuple[str, int], Epoch], passes: int) -> Times:
    """Measure the fastest epoch of each, in microseconds of a step."""
    fastest = dict.fromkeys(epochs, float("inf"))
    for number in range(passes):
        for key, (prepare, run, steps) in epochs.items():
            prepare()
            run()  # to fill the caches again
            start = perf_counter()
            run()
            fastest[key] = min(fastest[key], (perf_counter() - start) / steps * 1e6)
        show_progress(f"pass {number + 1} of {passes}")
    times: Times = {}
    for (setting, width), time in fastest.items():
        times.setdefault(setting, {})[width] = time
    return times


def show_progress(text: str) -> None:
    """Print progress on a terminal, but not into a file."""
    if sys.stderr.isatty():
        print(f"\r{text:<30}", end="", file=sys.stderr, flush=True)


# --- results -------------------------------------------------------------------------


def neighbours(times: dict[int, float]) -> dict[int, float]:
    """Compute time(next width) / time(width)."""
    widths = sorted(times)
    return {a: times[b] / times[a] for a, b in itertools.pairwise(widths)}


def report(times: Times) -> None:
    """Print the times of some widths, and the worst ratios."""
    settings = list(times)
    widths = sorted(next(iter(times.values())))
    print(f"\n{'width':>5}" + "".join(f"{name:>12}" for name in settings) + "   us of a step")
    for width in widths[:: max(1, len(widths) // 16)]:
        cells = [times[name].get(width) for name in settings]
        print(f"{width:>5}" + "".join(f"{c:>12.1f}" if c else f"{'':>12}" for c in cells))
    print()
    for name in settings:
        ratios = neighbours(times[name])
        if name in SETTINGS and ratios:
            worst = max(ratios, key=ratios.__getitem__)
            after = min(width for width in times[name] if width > worst)
            print(f"{name}: worst step up {ratios[worst]:.2f}x, from {worst} to {after}")
    if set(SETTINGS) <= times.keys():
        loss = {w: times["default"][w] / better_of_both(times, w) for w in widths}
        worst = max(loss, key=loss.__getitem__)
        print(
            f"default / better of 1 and 2 threads: {np.median(list(loss.values())):.2f}x in the "
            f"median, {loss[worst]:.2f}x at worst (width {worst})"
        )
    if "PyTorch" in times:
        ours = times[settings[0]]
        speedups = [time / ours[width] for width, time in times["PyTorch"].items()]
        print(f"PyTorch takes {min(speedups):.1f} to {max(speedups):.1f} times as long")


def better_of_both(times: Times, width: int) -> float:
    """Return the better time of one and two threads."""
    return min(times["1 thread"][width], times["2 threads"][width])


def draw(path: Path, times: Times, batch: int) -> None:
    """Draw times over widths, and below them the ratios of neighbours."""
    figure = new_figure((9.5, 7))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    order = sorted(times, key=lambda name: name == "default")  # on top of the others
    for name in order:
        widths = sorted(times[name])
        style = {"color": COLORS[name], "linewidth": 2 if name == "default" else 1.2}
        label = "PyTorch, eager" if name == "PyTorch" else f"minidl, {name}"
        upper.plot(widths, [times[name][w] for w in widths], label=label, **style)
    first = next(iter(times))
    ratios = neighbours(times[first])
    lower.plot(list(ratios), list(ratios.values()), color=COLORS[first], linewidth=1)
    lower.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    log_axis(upper.yaxis, [time for measured in times.values() for time in measured.values()])
    upper.set(ylabel="microseconds of a step")
    lower.set(xlabel="width", ylabel="time(next) / time")
    lower.set_ylim(min(0.7, *ratios.values()), max(1.5, *ratios.values()))
    lower.set_title(f"each width beside the next: minidl, {first}", fontsize=10, loc="left")
    upper.legend(frameon=False, loc="best")
    for axes in (upper, lower):
        axes.grid(color="0.93")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Training step of {INPUTS}-w-w-{CLASSES}, batch {batch}; {machine()['processor']}"
    )
    save(figure, path)


def width_range(text: str) -> range:
    """Parse a range such as 8:256:1, both ends included."""
    first, last, stride = map(int, text.split(":"))
    if not 1 <= first <= last or stride < 1:
        raise ValueError
    return range(first, last + 1, stride)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--widths", type=width_range, default="8:256:1", help="first:last:stride [8:256:1]")
    add("--batch", type=int, default=128, help="[128]")
    add("--threads", choices=("all", "default", "1", "2"), default="all", help="[all]")
    add("--passes", type=int, default=7, help="over all widths [7]")
    add("--peer", choices=("torch",), help="measure PyTorch beside it, every 8th width")
    add("--plot", type=Path, metavar="FILE", help="draw the times")
    add("--quick", action="store_true", help="few widths, two passes")
    given = parser.parse_args()
    widths = range(8, 65, 8) if given.quick else given.widths
    rng = np.random.default_rng(0)
    X = rng.standard_normal((STEPS * given.batch, INPUTS), dtype=np.float32)
    Y = rng.integers(CLASSES, size=len(X))
    data = X, Y, given.batch
    settings = {n: t for n, t in SETTINGS.items() if given.threads in ("all", n.split()[0])}
    epochs = {
        (name, width): minidl_epoch(width, *data, threads)
        for width in widths
        for name, threads in settings.items()
    }
    counts = (int(given.threads),) if given.threads in ("1", "2") else (1, 2)
    if given.peer:
        for width in widths[:: max(1, PEER_STRIDE // widths.step)]:
            for count in counts:
                epochs[f"PyTorch {count}", width] = torch_epoch(width, *data, count)
    times = measure(epochs, 2 if given.quick else given.passes)
    if given.peer:
        peers = [times.pop(f"PyTorch {count}") for count in counts]
        times["PyTorch"] = {width: min(peer[width] for peer in peers) for width in peers[0]}
    report(times)
    if given.plot:
        draw(given.plot, times, given.batch)
        print(f"drawn in {given.plot}")


if __name__ == "__main__":
    main()
