"""Two kernels in one, or one in two, where the result stays the same to the last bit.

Most rules look for a pair of calls and leave one: the memory between them, one pass over it and
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


def fuse(calls: list[KernelCall], returned: Iterable[Buffer]) -> list[KernelCall]:
    """The shorter list. ``returned`` are the buffers that a caller will look at."""
    needed = {id(buffer) for buffer in returned}
    calls = _without_dead(calls, needed)
    calls = _into_product(calls, needed, 1, _activation)
    calls = _into_product(calls, needed, 2, _activation_gradient)
    return _split_k(_sharing_b(_without_clearing(calls)))


def _without_dead(calls: list[KernelCall], needed: set[int]) -> list[KernelCall]:
    """Leave out what nobody reads, such as the gradient with respect to the first input."""
    read = set(needed)
    kept = []
    for call in reversed(calls):
        written = [operand.buffer for operand in call.operands if operand.writes]
        unread = all(r.kind == TEMPORARY and id(r) not in read for r in written)
        if unread and not call.kernel.is_checking:
            continue
        read |= {id(operand.buffer) for operand in call.operands if operand.reads}
        kept.append(call)
    return kept[::-1]


def _into_product(
    calls: list[KernelCall],
    needed: set[int],
    arguments: int,
    merge: Callable[[KernelCall, KernelCall], None],
) -> list[KernelCall]:
    """Merge an activation, or its gradient, into the matrix product whose output it alone reads.

    The former has one argument, the latter two.
    """
    uses = Counter(id(operand.buffer) for call in calls for operand in call.operands)
    products: dict[int, int] = {}  # output of a product: where the product is
    kept: list[KernelCall] = []
    for call in calls:
        between = call.operands[0].buffer if call.operands else None
        index = products.get(id(between))
        if (
            call.kernel.activation
            and len(call.kernel.parameters) == arguments
            and between is not None
            and index is not None
            and uses[id(between)] == 2
            and id(between) not in needed
            and _whole(call, between)
            and not _written(kept[index + 1 :], call)
        ):
            merge(kept[index], call)
            kept[index].fused.append(call.kernel.name)
            continue
        if call.kernel is PRODUCT and _is_plain(call):
            products[id(_operand(call, "c").buffer)] = len(kept)
        kept.append(call)
    return kept


def _whole(call: KernelCall, buffer: Buffer) -> bool:
    """Whether an elementwise kernel works on all of its arrays, as large as this one."""
    return all(
        operand.offset == 0 and operand.buffer.nbytes == buffer.nbytes for operand in call.operands
    )


def _written(between: list[KernelCall], call: KernelCall) -> bool:
    """Whether one of these calls writes what this one reads."""
    read = {id(operand.buffer) for operand in call.operands if operand.reads}
    return any(
        operand.writes and id(operand.buffer) in read
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
    _operand(product, "c").buffer = activation.operands[1].buffer


def _activation_gradient(product: KernelCall, gradient: KernelCall) -> None:
    PRODUCT.set(product.args, "activation", gradient.kernel.activation)
    y, dx = gradient.operands[1], gradient.operands[2]
    product.operands.insert(-1, Operand("gate", READ, y.buffer, y.offset))
    _operand(product, "c").buffer = dx.buffer


# --- two gradients of weights with the same dy read it once ---


def _sharing_b(calls: list[KernelCall]) -> list[KernelCall]:
    """Merge x' · dy into the h' · dy before it, as in a recurrent layer.

    Both write gradients of parameters and read what kernels have computed, which share no memory
    with one another. (Inputs may share memory with each other, from call to call.)
    """
    kept: list[KernelCall] = []
    for call in calls:
        if not (kept and _put_together(kept[-1], call)):
            kept.append(call)
    return kept


def _put_together(call: KernelCall, other: KernelCall) -> bool:
    if not call.kernel is other.kernel is PRODUCT:
        return False
    right, other_right = _operand(call, "b"), _operand(other, "b")
    left, output = _operand(other, "a"), _operand(other, "c")
    kinds = {True: GRADIENT, False: TEMPORARY}
    if (
        (right.buffer, right.offset) != (other_right.buffer, other_right.offset)
        or (call.label, call.phase) != (other.label, other.phase)
        or output.buffer is _operand(call, "c").buffer
        or any(o.buffer.kind != kinds[o.writes] for o in (*call.operands, *other.operands))
        or not _may_share_b(call, other)
    ):
        return False
    PRODUCT.set(call.args, "m2", other.values["m"])
    PRODUCT.set(call.args, "a2_col", other.values["a_col"])
    call.operands += [
        Operand("a2", READ, left.buffer, left.offset),
        Operand("c2", output.role, output.buffer, output.offset),
    ]
    call.scratch = dispatch.product_scratch(call.args, output.buffer.array)
    call.fused.append(other.kernel.name)
    return True


def _may_share_b(call: KernelCall, other: KernelCall) -> bool:
    """Whether two products with the same B may be one, without changing a bit of either.

    Both are gradients of weights, A transposed, and so large that on no instruction set they would
    be computed by another algorithm than that of blocks (skinny.pxi), which alone knows of a
    second product. And ``packs_a`` says the same of both, as both are transposed.
    """
    here, there = call.values, other.values
    alike = ("n", "k", "a_row", "b_row", "b_col", "c_row", "activation")
    return (
        all(here[name] == there[name] for name in alike)
        and here["m2"] == there["m2"] == here["activation"] == 0
        and here["n"] >= 64
        and here["k"] > 1
        and min(here["m"], there["m"], here["a_col"], there["a_col"]) > 1
        and here["a_row"] == here["b_col"] == 1
        and call.operand("bias") is other.operand("bias") is None
        and PRODUCT.get(call.args, "accumulate") == PRODUCT.get(other.args, "accumulate")
    )


# --- gradients: the first to write one need not find it cleared ---


def _without_clearing(calls: list[KernelCall]) -> list[KernelCall]:
    """Clear no gradient that is then written as a whole: 0 + sum instead of gradient + sum."""
    kept = []
    for index, call in enumerate(calls):
        if call.clears:
            kept += _still_to_clear(call, calls[index + 1 :])
        else:
            kept.append(call)
    return kept


def _still_to_clear(clear: KernelCall, later: list[KernelCall]) -> list[KernelCall]:
    cleared = clear.operands[0].buffer
    if cleared.kind in (INPUT, TEMPORARY):
        return [clear]  # not a vector of gradients
    parts: dict[int, Buffer] = {}
    firsts: dict[int, tuple[KernelCall, Operand]] = {}
    begin, end = cleared.begin + clear.operands[0].offset, 0
    end = begin + clear.kernel.get(clear.args, "n") * cleared.array.itemsize
    looked_at = False
    for call in later:
        for operand in call.operands:
            buffer = operand.buffer
            if buffer.kind == GRADIENT and begin <= buffer.begin and buffer.end <= end:
                parts.setdefault(id(buffer), buffer)
                firsts.setdefault(id(buffer), (call, operand))
            elif buffer.begin < end and begin < buffer.end and buffer.kind != TEMPORARY:
                looked_at = True  # by an optimizer: what was not written yet must be zero
        if looked_at:
            break
    done = []
    for key, (call, operand) in firsts.items():
        if _write_whole(call, operand, parts[key].array.size):
            operand.role = WRITTEN
            done.append(parts[key])
    return [
        _clearing(clear, start, stop)
        for start, stop in _gaps(begin, end, done)
        if stop - start >= GAP or not done
    ]


def _write_whole(call: KernelCall, operand: Operand, size: int) -> bool:
    """If a kernel adds to all ``size`` elements of an operand, have it add to zero instead."""
    kernel = call.kernel
    if operand.role != UPDATED or operand.name not in kernel.accumulates:
        return False
    declared = next(o for o in kernel.operands if o.name == operand.name)
    if declared.size(call.values) != size:
        return False
    kernel.set(call.args, kernel.accumulates[operand.name], ADD_TO_ZERO)
    return True


# Between two gradients lies less than a cache line of zeros, which nobody writes.
GAP = 64


def _gaps(begin: int, end: int, done: list[Buffer]) -> list[tuple[int, int]]:
    """What of begin … end the buffers leave over."""
    gaps = []
    for buffer in sorted(done, key=lambda buffer: buffer.begin):
        gaps.append((begin, buffer.begin))
        begin = buffer.end
    return [*gaps, (begin, end)]


def _clearing(clear: KernelCall, start: int, stop: int) -> KernelCall:
    vector = clear.operands[0].buffer
    itemsize = vector.array.itemsize
    first = (start - vector.begin) // itemsize
    part = vector.array.reshape(-1)[first : first + (stop - start) // itemsize]
    operand = Operand("x", WRITTEN, Buffer(vector.kind, f"{vector.name} from {first}", part))
    args = bytearray(clear.args)
    clear.kernel.set(args, "n", part.size)
    return KernelCall(clear.kernel, clear.function, args, [operand], 0, clear.label, clear.phase)


# --- sums over many rows: each thread those that it has computed, and then what is left ---


def _split_k(calls: list[KernelCall]) -> list[KernelCall]:
    """Split products and column sums along their rows, where that pays (split_k.pxi)."""
    kept = []
    for call in calls:
        kept.append(call)
        has_partials = any(operand.name == "partials" for operand in call.kernel.operands)
        sums = next(iter(call.kernel.accumulates), "") if has_partials else ""
        out = call.operand(sums)
        found = out and dispatch.split_k(call.kernel, call.args, out.buffer.array)
        if out and found:
            call.function, args, elements = found
            function = dispatch.function_of(SUM_OF_PARTIALS.name, out.buffer.array)
            partials = Buffer(TEMPORARY, "partials", np.empty(elements, out.buffer.dtype))
            partials.array = np.empty(0)
            call.operands.append(Operand("partials", WRITTEN, partials))
            operands = [
                Operand("out", UPDATED, out.buffer, out.offset),
                Operand("partials", UPDATED, partials),
            ]
            kept.append(
                KernelCall(SUM_OF_PARTIALS, function, args, operands, 0, call.label, call.phase)
            )
    return kept
