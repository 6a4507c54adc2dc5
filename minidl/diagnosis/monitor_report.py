"""The records of a monitor as a table: every layer, at the first record and the last."""

from __future__ import annotations

import html
import math
from base64 import b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from minidl.typing import Array

if TYPE_CHECKING:
    from minidl.diagnosis.seen import Seen

# Column of the table: the quantity in it, and how its numbers are written.
COLUMNS = {
    "‖∂L/∂y‖": ("gradient", "norm"),
    "‖∂L/∂w‖": ("weight_gradient", "norm"),
    "‖Δw‖/‖w‖": ("update_ratio", "norm"),
    "mean of y": ("mean", "number"),
    "deviation": ("deviation", "number"),
    "saturated": ("saturation", "share"),
    "dead": ("dead", "share"),
}
# From where on a number is worth a sentence. A gradient that changes a hundredfold over the depth
# is what plain SGD with one rate for all layers feels; a layer of which half the units are dead
# might as well be half as wide; weights that change by a tenth in a step are others after ten, and
# by a millionth stay as they are over thousands of steps.
FAR, HALF, RESTLESS, IDLE = 100.0, 0.5, 0.1, 1e-6
WIDEST = 34  # characters of a layer's name


def report(seen: Seen) -> str:
    """Return the table, with what stands out below it."""
    rows = table(seen)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([summary(seen), "", *lines, "", *notable(seen)])


def as_html(seen: Seen, picture: bytes | None) -> str:
    """Return the table for a notebook, and below it a picture in PNG."""
    head, *rows = table(seen)
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    said = "<br>".join(map(html.escape, notable(seen)))
    text = (
        f"<p>{html.escape(summary(seen))}</p>"
        f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table><p>{said}</p>"
    )
    if picture is None:
        return text
    return text + f'<img alt="gradients" src="data:image/png;base64,{b64encode(picture).decode()}">'


def summary(seen: Seen) -> str:
    """Return a line about the steps that were watched."""
    steps, scalars = seen.steps, seen.scalars
    text = f"{len(steps)} records of steps {steps[0]} to {steps[-1]}"
    if len(steps) == 1:
        text = f"1 record, of step {steps[0]}"
    if np.isfinite(scalars["loss"]).all():
        text += f"; loss {change(scalars['loss'], 'norm')}"
    text += f"; gradient norm {change(scalars['norm'], 'norm')}"
    if (clipped := float((scalars["clip_factor"] < 1).mean())) > 0:
        text += ", clipped" if len(steps) == 1 else f", clipped in {share(clipped)} of them"
    return f"{text}; learning rate {change(scalars['learning_rate'], 'norm')}"


def table(seen: Seen) -> list[list[str]]:
    """Return the rows of the table, the head first, without columns that would be empty."""
    arrays = {name: seen[quantity] for name, (quantity, _) in COLUMNS.items()}
    arrays = {name: values for name, values in arrays.items() if np.isfinite(values).any()}
    rows = [["layer", *arrays]]
    for place, name in enumerate(seen.names):
        name = name if len(name) <= WIDEST else name[: WIDEST - 1] + "…"
        numbers = [change(v[:, place], COLUMNS[column][1]) for column, v in arrays.items()]
        rows.append([name, *numbers])
    return rows


def change(values: Array, kind: str) -> str:
    """Write a number at the first record, and at the last where it reads otherwise."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "" if np.isnan(values).all() else "not finite"
    write = {"norm": short, "number": plain, "share": share}[kind]
    first, last = write(float(known[0])), write(float(known[-1]))
    return first if first == last else f"{first} → {last}"


def short(value: float) -> str:
    """Write a number with two digits, or three where that needs no exponent."""
    return f"{value:.3g}" if value == 0 or 1e-2 <= abs(value) < 1e3 else f"{value:.1e}"


def plain(value: float) -> str:
    """Write a number with three decimals; a large one in short."""
    return f"{value:.3f}" if abs(value) < 1e4 else short(value)


def share(value: float) -> str:
    """Write a share in percent; a small one, and one of almost all, with a digit more."""
    percent = 100 * value
    return f"{percent:.1f} %" if 0 < percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"


# --- what stands out --------------------------------------------------------------------


def notable(seen: Seen) -> list[str]:
    """Say in a sentence each what stands out at the last record."""
    said = [*_over_depth(seen), *_over_time(seen), *_of_units(seen), *_of_updates(seen)]
    return said or [
        "Nothing stands out: the gradient reaches the first layer, and no layer is dead, saturated "
        "or out of step."
    ]


def _over_depth(seen: Seen) -> Iterator[str]:
    gradient = seen["gradient"][-1]
    known = np.flatnonzero(np.isfinite(gradient))
    if len(known) < len(gradient):
        yield f"No gradient is known of {_named(seen, ~np.isfinite(gradient))}."
    if len(known) == 0:
        return
    first, last = gradient[known[0]], gradient[known[-1]]
    if last == 0 and len(known) == 1:
        yield f"The gradient of layer {seen.names[known[0]]} is exactly zero: it learns nothing."
    elif last == 0:
        yield "The gradient of the last layer is exactly zero: nothing is learned."
    elif first == 0:
        yield "The gradient of the first layer is exactly zero: it learns nothing."
    elif not 1 / FAR < (ratio := first / last) < FAR:
        each = ratio ** (1 / (len(known) - 1))
        verb, how = ("shrinks", 1 / each) if ratio < 1 else ("grows", each)
        yield (
            f"From the last layer to the first the gradient {verb} to {short(ratio)} of its norm: "
            f"by a factor of {how:.3g} for each layer."
        )


def _over_time(seen: Seen) -> Iterator[str]:
    over_time = seen.over_time
    for path, growth in seen.growth.items():
        if path not in seen.layers:  # one of several cells
            continue
        name = path or seen.names[0]
        steps, each = over_time[path].shape[1], growth[-1]
        whole = each ** (steps - 1) if math.isfinite(each) else 1.0
        if not 1 / FAR < whole < FAR:
            yield (
                f"Back over {steps} steps of time the gradient of the state of layer {name} "
                f"changes to {short(whole)} of its norm: by a factor of {each:.3g} for each step."
            )


def _of_units(seen: Seen) -> Iterator[str]:
    for quantity, words in (
        ("dead", "of the units of {} were zero for every row"),
        ("saturation", "of the derivative of {} is lost on its flat ends"),
    ):
        values = seen[quantity][-1]
        if np.isfinite(values).any() and np.nanmax(values) > HALF:
            worst = int(np.nanargmax(values))
            yield f"{share(values[worst])} {words.format('layer ' + seen.names[worst])}."


def _of_updates(seen: Seen) -> Iterator[str]:
    """Where the gradient is zero, too, its sentence says so."""
    values = seen["update_ratio"][-1]
    stays = (values == 0) & (seen["weight_gradient"][-1] > 0)
    if stays.any():
        yield (
            f"A step leaves the weights of {_named(seen, stays)} as they are, though their "
            "gradient is not zero."
        )
    moved = np.where(values > 0, values, np.nan)
    if np.isnan(moved).all():
        return
    for place in sorted({int(np.nanargmax(moved)), int(np.nanargmin(moved))}):
        if not IDLE < moved[place] < RESTLESS:
            yield (
                f"A step changes the weights of layer {seen.names[place]} by "
                f"{short(moved[place])} of their norm; about 0.001 is usual."
            )


def _named(seen: Seen, chosen: Array) -> str:
    """Name the first of some layers, and say how many others there are."""
    first, *others = np.flatnonzero(chosen)
    more = f" and {len(others)} more" if others else ""
    return f"layer {seen.names[first]}{more}"
