"""Two kernels in one, or one in two, where the result stays the same to the last bit.

Most rules look for a pair of entries and leave one: the memory between them, one pass over it and
one barrier are saved. The last rule is for threads, which else would read what others have written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from minidl._kernels import arguments, dispatch
from minidl.recording.calls import (
    CHECKING,
    GRADIENT,
    INPUT,
    REDUCTION,
    TEMPORARY,
    Buffer,
    KernelCall,
    Operand,
)

# Slots of the matrix product's arguments.
LEFT, RIGHT, BIAS, GATE, OUTPUT, SECOND_LEFT, SECOND_OUTPUT = range(7)
# Of kernels that can be split along k: the slots of the output and of the partial sums.
SPLIT_K = {"matmul": (OUTPUT, 7), "column_sum": (1, 2)}
ACTIVATIONS = ("relu", "sigmoid", "tanh")
GRADIENTS = ("relu_grad", "sigmoid_grad", "tanh_grad")


def fuse(entries: list[KernelCall], returned: Iterable[Buffer]) -> list[KernelCall]:
    """The shorter list. ``returned`` are the regions that a caller will look at."""
    needed = {id(region) for region in returned}
    entries = _without_dead(entries, needed)
    entries = _into_product(entries, needed, ACTIVATIONS, _activation)
    entries = _into_product(entries, needed, GRADIENTS, _activation_gradient)
    return _split_k(_sharing_b(_without_clearing(entries)))


def _without_dead(entries: list[KernelCall], needed: set[int]) -> list[KernelCall]:
    """Leave out what nobody reads, such as the gradient with respect to the first input."""
    read = set(needed)
    kept = []
    for entry in reversed(entries):
        written = [operand.region for operand in entry.operands if operand.writes]
        unread = all(r.kind == TEMPORARY and id(r) not in read for r in written)
        if unread and entry.kernel not in CHECKING:
            continue
        read |= {id(operand.region) for operand in entry.operands if operand.reads}
        kept.append(entry)
    return kept[::-1]


def _into_product(
    entries: list[KernelCall],
    needed: set[int],
    kernels: tuple[str, ...],
    merge: Callable[[KernelCall, KernelCall], None],
) -> list[KernelCall]:
    """Merge an elementwise kernel into the matrix product whose output it alone reads."""
    uses = Counter(id(operand.region) for entry in entries for operand in entry.operands)
    products: dict[int, int] = {}  # output of a product: where the product is
    kept: list[KernelCall] = []
    for entry in entries:
        between = entry.operands[0].region if entry.operands else None
        index = products.get(id(between))
        if (
            entry.kernel in kernels
            and between is not None
            and index is not None
            and uses[id(between)] == 2
            and id(between) not in needed
            and _whole(entry, between)
            and not _written(kept[index + 1 :], entry)
        ):
            merge(kept[index], entry)
            kept[index].fused.append(entry.kernel)
            continue
        if entry.kernel == "matmul" and arguments.is_plain(entry.args):
            products[id(_operand(entry, OUTPUT).region)] = len(kept)
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


def _operand(product: KernelCall, slot: int) -> Operand:
    operand = product.operand(slot)
    assert operand is not None
    return operand


def _activation(product: KernelCall, activation: KernelCall) -> None:
    arguments.set_activation(product.args, activation.kernel)
    _operand(product, OUTPUT).region = activation.operands[1].region


def _activation_gradient(product: KernelCall, gradient: KernelCall) -> None:
    arguments.set_activation(product.args, gradient.kernel)
    y, dx = gradient.operands[1], gradient.operands[2]
    product.operands.insert(-1, Operand(GATE, "r", y.region, y.offset))
    _operand(product, OUTPUT).region = dx.region


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
    if not entry.kernel == other.kernel == "matmul":
        return False
    right, other_right = _operand(entry, RIGHT), _operand(other, RIGHT)
    left, output = _operand(other, LEFT), _operand(other, OUTPUT)
    kinds = {True: GRADIENT, False: TEMPORARY}
    if (
        (right.region, right.offset) != (other_right.region, other_right.offset)
        or (entry.label, entry.phase) != (other.label, other.phase)
        or output.region is _operand(entry, OUTPUT).region
        or any(o.region.kind != kinds[o.writes] for o in (*entry.operands, *other.operands))
        or not arguments.put_together(entry.args, other.args)
    ):
        return False
    entry.operands += [
        Operand(SECOND_LEFT, "r", left.region, left.offset),
        Operand(SECOND_OUTPUT, output.role, output.region, output.offset),
    ]
    entry.scratch = dispatch.product_scratch(entry.args, output.region.array)
    entry.fused.append(other.kernel)
    return True


# --- gradients: the first to write one need not find it cleared ---


def _without_clearing(entries: list[KernelCall]) -> list[KernelCall]:
    """Clear no gradient that is then written as a whole: 0 + sum instead of gradient + sum."""
    kept = []
    for index, entry in enumerate(entries):
        if entry.kernel == "clear":
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
    end = begin + arguments.cleared_bytes(clear.args, cleared.array.itemsize)
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
        if operand.role == "u" and arguments.write_whole(
            entry.kernel, entry.args, operand.slot, parts[key].array.size
        ):
            operand.role = "w"
            done.append(parts[key])
    return [
        _clearing(clear, start, stop)
        for start, stop in _gaps(begin, end, done)
        if stop - start >= GAP or not done
    ]


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
    operand = Operand(0, "w", Buffer(vector.kind, f"{vector.name} from {first}", part))
    args = arguments.with_count(clear.args, part.size)
    return KernelCall("clear", clear.function, args, [operand], 0, clear.label, clear.phase)


# --- sums over many rows: each thread those that it has computed, and then what is left ---


def _split_k(entries: list[KernelCall]) -> list[KernelCall]:
    """Cut products and column sums along their rows, where that pays (split_k.pxi)."""
    kept = []
    for entry in entries:
        kept.append(entry)
        out = entry.operand(SPLIT_K.get(entry.kernel, (-1, -1))[0])
        found = out and dispatch.split_k(entry.kernel, entry.args, out.region.array)
        if out and found:
            entry.function, reduction, args, elements = found
            partials = Buffer(TEMPORARY, "partials", np.empty(elements, out.region.dtype))
            partials.array = np.empty(0)
            entry.operands.append(Operand(SPLIT_K[entry.kernel][1], "w", partials))
            operands = [Operand(0, "u", out.region, out.offset), Operand(1, "u", partials)]
            call = KernelCall(REDUCTION, reduction, args, operands, 0, entry.label, entry.phase)
            kept.append(call)
    return kept
