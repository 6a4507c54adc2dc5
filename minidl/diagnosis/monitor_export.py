"""The records of a monitor for other programs: JSON lines, and scalars for TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.diagnosis.records import QUANTITIES, SCALARS
from minidl.files import as_path, replacing

if TYPE_CHECKING:
    from minidl.diagnosis.seen import Seen


def write_json_lines(seen: Seen, path: str | os.PathLike[str], totals_only: bool) -> None:
    """Write a JSON object for each record, one a line; the file appears when it is complete."""
    with replacing(as_path(path)) as file:
        for record in objects(seen, totals_only):
            file.write((json.dumps(record, allow_nan=False) + "\n").encode())


def objects(seen: Seen, totals_only: bool) -> Iterator[dict[str, Any]]:
    """Yield what is known of each record; None for what is no finite number."""
    if not len(seen):
        return
    steps, epochs, scalars = seen.steps, seen.epochs, seen.scalars
    arrays = {} if totals_only else {name: seen[name] for name in QUANTITIES}
    over_time = {} if totals_only else seen.over_time
    gates = {} if totals_only else seen.gates
    for index in range(len(steps)):
        found: dict[str, Any] = {"step": int(steps[index]), "epoch": int(epochs[index])}
        found |= {name: number(values[index]) for name, values in scalars.items()}
        if not totals_only:
            found["layers"] = {
                path: {
                    name: number(values[index, place])
                    for name, values in arrays.items()
                    if np.isfinite(values[:, place]).any()
                }
                for place, path in enumerate(seen.layers)
            }
        if over_time:
            found["over_time"] = {k: [number(x) for x in v[index]] for k, v in over_time.items()}
        if gates:
            found["gates"] = {
                path: {name: number(means[index]) for name, means in named.items()}
                for path, named in gates.items()
            }
        yield found


def number(value: float) -> float | None:
    """Return a float that JSON can hold, or None."""
    return float(value) if math.isfinite(value) else None


def write_scalars(seen: Seen, writer: Any, totals_only: bool) -> None:
    """Hand all records to a writer of TensorBoard's event files: charts by quantity."""
    for record in objects(seen, totals_only):
        step = record["step"]
        for name in SCALARS:
            if record[name] is not None:
                writer.add_scalar(f"step/{name}", record[name], step)
        for path, values in record.get("layers", {}).items():
            for name, value in values.items():
                if value is not None:
                    writer.add_scalar(f"{name}/{path or 'model'}", value, step)
        for path, means in record.get("gates", {}).items():
            for name, value in means.items():
                if value is not None:
                    writer.add_scalar(f"gate {name}/{path}", value, step)
    writer.flush()
