"""What a GradientMonitor costs: recorded training with it and without it.

    python benchmarks/monitor.py                  # all networks, on 1 thread and on all cores
    python benchmarks/monitor.py --rows relu --threads 1

The networks and the way of measuring are those of ``peers.py steps`` and ``recurrent``: in one
process, whole epochs of a recorded step in alternating rounds. What is reported is the median, over
the rounds, of the time with a monitor / the time without. The limits are 1.05 for the default,
which watches every twentieth step, and 1.5 for every step where a batch has 32 rows or more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

from comparison.libraries import ours
from comparison.measuring import Contender, measure
from comparison.networks import LEARNING_RATE, MAX_NORM
from comparison.suites import SUITES

import minidl
from minidl import GradientMonitor, nn, optim
from minidl.cli.doctor import usable_cores
from minidl.cli.options import count
from minidl.profiling.measuring import Effort

EVERY = (0, 20, 1)  # steps from one that is watched to the next; 0: no monitor
LIMITS = {20: 1.05, 1: 1.5}
EPOCHS = 4
LEAST_BATCH = 32  # rows from which on the limit of every step holds


def contenders(network: Any, threads: int) -> Iterator[Contender]:
    """Training without a monitor, and with each."""
    for every in EVERY:
        call = epoch_of(network, every)
        prepare = lambda: minidl.set_num_threads(threads)  # noqa: E731
        yield Contender(str(every), call, "", EPOCHS * network.batches, None, prepare)


def epoch_of(network: Any, every: int) -> Callable[[], Any]:
    """A call that trains for some epochs, as a training does: in one block."""
    is_recurrent = hasattr(network, "kind")
    model = ours._recurrent(network) if is_recurrent else ours._model(network)
    loss = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE, max_norm=MAX_NORM)
    (x, y), batch = network.data, network.batch

    @minidl.record
    def step(x: Any, y: Any) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    def train(before_each: Callable[[], Any]) -> Any:
        for _ in range(EPOCHS):
            before_each()
            loss_of_epoch = step.epoch(x, y, batch_size=batch, shuffle=False)
        return loss_of_epoch

    if not every:
        return lambda: train(lambda: None)
    monitor = GradientMonitor(every=every)

    def watched() -> Any:
        with monitor.watch(model, optimizer, loss):
            # Else it would watch fewer and fewer steps, as soon as there are 1024 records.
            return train(monitor.clear)

    return watched


def verdict(network: Any, every: int, ratio: float) -> str:
    """Whether a ratio is within its limit."""
    if every == 1 and network.batch < LEAST_BATCH:
        return ""
    return "" if ratio <= LIMITS[every] else f" > {LIMITS[every]}"


def main() -> int:
    """Measure, and print a row for each network; returns 1 if one is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--rows", default="", metavar="TEXT", help="only networks with this text in their name")
    add("--threads", nargs="+", type=count, metavar="N", help="numbers of threads [1, all cores]")
    add("--rounds", type=count, default=9, metavar="N", help="[9]")
    add("--seconds", type=float, default=0.05, metavar="S", help="of a burst, at least [0.05]")
    arguments = parser.parse_args()
    networks = [n for suite in ("steps", "recurrent") for n in SUITES[suite].tasks("float32")]
    chosen = [network for network in networks if arguments.rows in network.name]
    if not chosen:
        names = "; ".join(network.name for network in networks)
        parser.error(f"no network has {arguments.rows!r} in its name; they are: {names}")
    beyond = False
    print(f"{'network, batch':<36}threads  µs a step  every 20  every 1")
    for network in chosen:
        for threads in arguments.threads or sorted({1, usable_cores()}):
            seconds = measure(
                list(contenders(network, threads)), Effort(arguments.rounds, arguments.seconds)
            )
            ratios = [ratio(seconds[place], seconds[0]) for place in (1, 2)]
            said = [verdict(network, e, r) for e, r in zip(EVERY[1:], ratios, strict=True)]
            beyond |= any(said)
            print(
                f"{network.name:<36}{threads:>7}{1e6 * min(seconds[0]):>11.1f}"
                + "".join(f"{r:>9.3f}{s}" for r, s in zip(ratios, said, strict=True)),
                flush=True,
            )
    return int(beyond)


def ratio(theirs: list[float], base: list[float]) -> float:
    """The median of the ratios of the rounds."""
    found = sorted(a / b for a, b in zip(theirs, base, strict=True))
    return found[len(found) // 2]


if __name__ == "__main__":
    sys.exit(main())
