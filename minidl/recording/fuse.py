"""Two kernels in one, or one in two, where the result stays the same to the last bit.

Most rules look for a pair of entries and leave one: the memory between them, one pass over it and
one barrier are saved. The last rule is for threads, which else would read what others have written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from minidl._kernels import dispatch
from minidl._kernels.signature import ADD_TO_ZERO, KERNELS, READ, UPDATED, WRITTEN
from minidl.recording.calls import (
    GRADIENT,
    INPUT,
    TEMPORARY,
    Buffer,
    KernelCall,
    Operand,
)

PRODUCT = next(kernel for kernel in KERNELS.values() if kernel.fuses)
SUM_OF_PARTIALS = KERNELS["reduce_partials"]


def fuse(entries: list[KernelCall], returned: Iterable[Buffer]) -> list[KernelCall]:
    """The shorter list. ``returned`` are the regions that a caller will look at."""
    needed = {id(region) for region in returned}
    entries = _without_dead(entries, needed)
    entries = _into_product(entries, needed, 1, _activation)
    entries = _into_product(entries, needed, 2, _activation_gradient)
    return _split_k(_sharing_b(_without_clearing(entries)))


def _without_dead(entries: list[KernelCall], needed: set[int]) -> list[KernelCall]:
    """Leave out what nobody reads, such as the gradient with respect to the first input."""
    read = set(needed)
    kept = []
    for entry in reversed(entries):
        written = [operand.region for operand in entry.operands if operand.writes]
        unread = all(r.kind == TEMPORARY and id(r) not in read for r in written)
        if unread and not entry.kernel.is_checking:
            continue
        read |= {id(operand.region) for operand in entry.operands if operand.reads}
        kept.append(entry)
    return kept[::-1]


def _into_product(
    entries: list[KernelCall],
    needed: set[int],
    arguments: int,
    merge: Callable[[KernelCall, KernelCall], None],
) -> list[KernelCall]:
    """Merge an activation, or its gradient, into the matrix product whose output it alone reads.

    The former has one argument, the latter two.
    """
    uses = Counter(id(operand.region) for entry in entries for operand in entry.operands)
    products: dict[int, int] = {}  # output of a product: where the product is
    kept: list[KernelCall] = []
    for entry in entries:
        between = entry.operands[0].region if entry.operands else None
        index = products.get(id(between))
        if (
            entry.kernel.activation
            and len(entry.kernel.parameters) == arguments
            and between is not None
            and index is not None
            and uses[id(between)] == 2
            and id(between) not in needed
            and _whole(entry, between)
            and not _written(kept[index + 1 :], entry)
        ):
            merge(kept[index], entry)
            kept[index].fused.append(entry.kernel.name)
            continue
        if entry.kernel is PRODUCT and _is_plain(entry):
            products[id(_operand(entry, "c").region)] = len(kept)
        kept.append(entry)
    return kept


def _whole(entry: KernelCall, region: Buffer) -> bool:
    """Whether an elementwise kernel works on all of its arrays, as large as this one."""
    return all(
        operand.offset == 0 and operand.region.nbytes == region.nbytes for operand in entry.operands
    )


def _written(between: list[KernelCall], entry: KernelCall) -> bool:
    """Whether one of these entries writes what this one reads."""
    read = {id(operand.region) for operand in entry.operands if operand.reads}
    return any(
        operand.writes and id(operand.region) in read
        for other in between
        for operand in other.operands
    )


def _is_plain(product: KernelCall) -> bool:
    """Whether a product only writes its output, with no activation."""
    return not product.values["activation"] and _operand(product, "c").role == WRITTEN


def _operand(product: KernelCall, name: str) -> Operand:
    operand = product.operand(name)
    assert operand is not None
    return operand


def _activation(product: KernelCall, activation: KernelCall) -> None:
    PRODUCT.set(product.args, "activation", activation.kernel.activation)
    _operand(product, "c").region = activation.operands[1].region


def _activation_gradient(product: KernelCall, gradient: KernelCall) -> None:
    PRODUCT.set(product.args, "activation", gradient.kernel.activation)
    y, dx = gradient.operands[1], gradient.operands[2]
    product.operands.insert(-1, Operand("gate", READ, y.region, y.offset))
    _operand(product, "c").region = dx.region


# --- two gradients of weights with the same dy read it once ---


def _sharing_b(entries: list[KernelCall]) -> list[KernelCall]:
    """Merge x' · dy into the h' · dy before it, as in a recurrent layer.

    Both write gradients of parameters and read what kernels have computed, which share no memory
    with one another. (Inputs may share memory with each other, from call to call.)
    """
    kept: list[KernelCall] = []
    for entry in entries:
        if not (kept and _put_together(kept[-1], entry)):
            kept.append(entry)
    return kept


def _put_together(entry: KernelCall, other: KernelCall) -> bool:
    if not entry.kernel is other.kernel is PRODUCT:
        return False
    right, other_right = _operand(entry, "b"), _operand(other, "b")
    left, output = _operand(other, "a"), _operand(other, "c")
    kinds = {True: GRADIENT, False: TEMPORARY}
    if (
        (right.region, right.offset) != (other_right.region, other_right.offset)
        or (entry.label, entry.phase) != (other.label, other.phase)
        or output.region is _operand(entry, "c").region
        or any(o.region.kind != kinds[o.writes] for o in (*entry.operands, *other.operands))
        or not _may_share_b(entry, other)
    ):
        return False
    PRODUCT.set(entry.args, "m2", other.values["m"])
    PRODUCT.set(entry.args, "a2_col", other.values["a_col"])
    entry.operands += [
        Operand("a2", READ, left.region, left.offset),
        Operand("c2", output.role, output.region, output.offset),
    ]
    entry.scratch = dispatch.product_scratch(entry.args, output.region.array)
    entry.fused.append(other.kernel.name)
    return True


def _may_share_b(entry: KernelCall, other: KernelCall) -> bool:
    """Whether two products with the same B may be one, without changing a bit of either.

    Both are gradients of weights, A transposed, and so large that on no instruction set they would
    be computed by another algorithm than that of blocks (skinny.pxi), which alone knows of a
    second product. And ``packs_a`` says the same of both, as both are transposed.
    """
    here, there = entry.values, other.values
    alike = ("n", "k", "a_row", "b_row", "b_col", "c_row", "activation")
    return (
        all(here[name] == there[name] for name in alike)
        and here["m2"] == there["m2"] == here["activation"] == 0
        and here["n"] >= 64
        and here["k"] > 1
        and min(here["m"], there["m"], here["a_col"], there["a_col"]) > 1
        and here["a_row"] == here["b_col"] == 1
        and entry.operand("bias") is other.operand("bias") is None
        and PRODUCT.get(entry.args, "accumulate") == PRODUCT.get(other.args, "accumulate")
    )


# --- gradients: the first to write one need not find it cleared ---


def _without_clearing(entries: list[KernelCall]) -> list[KernelCall]:
    """Clear no gradient that is then written as a whole: 0 + sum instead of gradient + sum."""
    kept = []
    for index, entry in enumerate(entries):
        if entry.clears:
            kept += _still_to_clear(entry, entries[index + 1 :])
        else:
            kept.append(entry)
    return kept


def _still_to_clear(clear: KernelCall, later: list[KernelCall]) -> list[KernelCall]:
    cleared = clear.operands[0].region
    if cleared.kind in (INPUT, TEMPORARY):
        return [clear]  # not a vector of gradients
    parts: dict[int, Buffer] = {}
    firsts: dict[int, tuple[KernelCall, Operand]] = {}
    begin, end = cleared.begin + clear.operands[0].offset, 0
    end = begin + clear.kernel.get(clear.args, "n") * cleared.array.itemsize
    looked_at = False
    for entry in later:
        for operand in entry.operands:
            region = operand.region
            if region.kind == GRADIENT and begin <= region.begin and region.end <= end:
                parts.setdefault(id(region), region)
                firsts.setdefault(id(region), (entry, operand))
            elif region.begin < end and begin < region.end and region.kind != TEMPORARY:
                looked_at = True  # by an optimizer: what was not written yet must be zero
        if looked_at:
            break
    done = []
    for key, (entry, operand) in firsts.items():
        if _write_whole(entry, operand, parts[key].array.size):
            operand.role = WRITTEN
            done.append(parts[key])
    return [
        _clearing(clear, start, stop)
        for start, stop in _gaps(begin, end, done)
        if stop - start >= GAP or not done
    ]


def _write_whole(entry: KernelCall, operand: Operand, size: int) -> bool:
    """If a kernel adds to all ``size`` elements of an operand, have it add to zero instead."""
    kernel = entry.kernel
    if operand.role != UPDATED or operand.name not in kernel.accumulates:
        return False
    declared = next(o for o in kernel.operands if o.name == operand.name)
    if declared.size(entry.values) != size:
        return False
    kernel.set(entry.args, kernel.accumulates[operand.name], ADD_TO_ZERO)
    return True


# Between two gradients lies less than a cache line of zeros, which nobody writes.
GAP = 64


def _gaps(begin: int, end: int, done: list[Buffer]) -> list[tuple[int, int]]:
    """What of begin … end the regions leave over."""
    gaps = []
    for region in sorted(done, key=lambda region: region.begin):
        gaps.append((begin, region.begin))
        begin = region.end
    return [*gaps, (begin, end)]


def _clearing(clear: KernelCall, start: int, stop: int) -> KernelCall:
    vector = clear.operands[0].region
    itemsize = vector.array.itemsize
    first = (start - vector.begin) // itemsize
    part = vector.array.reshape(-1)[first : first + (stop - start) // itemsize]
    operand = Operand("x", WRITTEN, Buffer(vector.kind, f"{vector.name} from {first}", part))
    args = bytearray(clear.args)
    clear.kernel.set(args, "n", part.size)
    return KernelCall(clear.kernel, clear.function, args, [operand], 0, clear.label, clear.phase)


# --- sums over many rows: each thread those that it has computed, and then what is left ---


def _split_k(entries: list[KernelCall]) -> list[KernelCall]:
    """Split products and column sums along their rows, where that pays (split_k.pxi)."""
    kept = []
    for entry in entries:
        kept.append(entry)
        has_partials = any(operand.name == "partials" for operand in entry.kernel.operands)
        sums = next(iter(entry.kernel.accumulates), "") if has_partials else ""
        out = entry.operand(sums)
        found = out and dispatch.split_k(entry.kernel, entry.args, out.region.array)
        if out and found:
            entry.function, args, elements = found
            function = dispatch.function_of(SUM_OF_PARTIALS.name, out.region.array)
            partials = Buffer(TEMPORARY, "partials", np.empty(elements, out.region.dtype))
            partials.array = np.empty(0)
            entry.operands.append(Operand("partials", WRITTEN, partials))
            operands = [
                Operand("out", UPDATED, out.region, out.offset),
                Operand("partials", UPDATED, partials),
            ]
            kept.append(
                KernelCall(SUM_OF_PARTIALS, function, args, operands, 0, entry.label, entry.phase)
            )
    return kept
