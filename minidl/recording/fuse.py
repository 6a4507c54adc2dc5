"""Merge two kernel calls into one, or split one, where results stay the same to the last bit.

Most rules replace a pair of calls by one: this saves the memory between them, one pass over it and
one barrier. The last rule, split-k, lets each thread sum the rows that it has computed itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from minidl._kernels import dispatch
from minidl._kernels.executor.calls import (
    GRADIENT,
    INPUT,
    TEMPORARY,
    Buffer,
    KernelCall,
    Operand,
)
from minidl._kernels.signature import ADD_TO_ZERO, KERNELS, READ, UPDATED, WRITTEN, Kernel

PRODUCT = next(kernel for kernel in KERNELS.values() if kernel.fuses and kernel.accumulates)
RELU_GRAD = KERNELS["relu_grad"]
MAX_POOL_GRAD = next(kernel for kernel in KERNELS.values() if "after_relu" in kernel.fields)
SUM_OF_PARTIALS = KERNELS["reduce_partials"]


def fuse(calls: list[KernelCall], returned: Iterable[Buffer]) -> list[KernelCall]:
    """Apply all rules; returns the new list. ``returned`` are buffers that the caller will read."""
    needed = {id(buffer) for buffer in returned}
    calls = _without_dead(calls, needed)
    fusing = [kernel for kernel in KERNELS.values() if kernel.fuses]
    calls = _into_product(calls, needed, fusing, 1, _activation)
    calls = _into_product(calls, needed, [PRODUCT], 2, _activation_gradient)
    calls = _after_relu(calls, needed)
    return _split_k(_sharing_b(_without_clearing(calls)))


def _without_dead(calls: list[KernelCall], needed: set[int]) -> list[KernelCall]:
    """Leave out calls whose results nobody reads, such as the gradient of the first input."""
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
    fusing: list[Kernel],
    arguments: int,
    merge: Callable[[KernelCall, KernelCall], None],
) -> list[KernelCall]:
    """Merge an activation, or its gradient, into the call whose output it alone reads.

    That is a call of one of the kernels ``fusing``, a matrix product or a convolution.
    ``arguments`` is 1 to merge activations, 2 to merge gradients, which take dy and y.
    """
    uses = Counter(id(operand.buffer) for call in calls for operand in call.operands)
    products: dict[int, int] = {}  # from the output of a product to its index
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
        if call.kernel in fusing and _is_plain(call):
            products[id(_output(call).buffer)] = len(kept)
        kept.append(call)
    return kept


def _whole(call: KernelCall, buffer: Buffer) -> bool:
    """Whether an elementwise kernel uses all of its arrays, which are as large as this one."""
    return all(
        operand.offset == 0 and operand.buffer.nbytes == buffer.nbytes for operand in call.operands
    )


def _written(between: list[KernelCall], call: KernelCall) -> bool:
    """Whether one of the calls between writes what this one reads."""
    read = {id(operand.buffer) for operand in call.operands if operand.reads}
    return any(
        operand.writes and id(operand.buffer) in read
        for other in between
        for operand in other.operands
    )


def _is_plain(product: KernelCall) -> bool:
    """Whether a product only writes its output, with no activation."""
    return not product.values["activation"] and _output(product).role == WRITTEN


def _output(product: KernelCall) -> Operand:
    return next(operand for operand in product.operands if operand.writes)


def _operand(product: KernelCall, name: str) -> Operand:
    operand = product.operand(name)
    assert operand is not None
    return operand


def _activation(product: KernelCall, activation: KernelCall) -> None:
    product.kernel.set(product.args, "activation", activation.kernel.activation)
    _output(product).buffer = activation.operands[1].buffer


def _activation_gradient(product: KernelCall, gradient: KernelCall) -> None:
    PRODUCT.set(product.args, "activation", gradient.kernel.activation)
    y, dx = gradient.operands[1], gradient.operands[2]
    product.operands.insert(-1, Operand("gate", READ, y.buffer, y.offset))
    _operand(product, "c").buffer = dx.buffer


# --- the gradients of a ReLU and of the maxima of its output: one pass over both ---


def _after_relu(calls: list[KernelCall], needed: set[int]) -> list[KernelCall]:
    """Merge the gradient of a ReLU into that of max pooling, which has read the same array."""
    uses = Counter(id(operand.buffer) for call in calls for operand in call.operands)
    pools: dict[int, int] = {}  # from the gradient that pooling gives to its index
    kept: list[KernelCall] = []
    for call in calls:
        if call.kernel is RELU_GRAD:
            dy, y, dx = call.operands
            index = pools.get(id(dy.buffer))
            if (
                index is not None
                and uses[id(dy.buffer)] == 2
                and id(dy.buffer) not in needed
                and _whole(call, dy.buffer)
                and (x := kept[index].operand("x")) is not None
                and (x.buffer, x.offset) == (y.buffer, y.offset)
                and not _written(kept[index + 1 :], call)
            ):
                MAX_POOL_GRAD.set(kept[index].args, "after_relu", True)
                _output(kept[index]).buffer = dx.buffer
                kept[index].fused.append(call.kernel.name)
                continue
        if call.kernel is MAX_POOL_GRAD:
            pools[id(_output(call).buffer)] = len(kept)
        kept.append(call)
    return kept


# --- two gradients of weights that share dy: it is read once ---


def _sharing_b(calls: list[KernelCall]) -> list[KernelCall]:
    """Merge x' · dy into the h' · dy before it, as in a recurrent layer.

    Both write gradients of parameters and read temporaries, none of which overlap. (Inputs are
    left alone: they may share memory with each other in some calls.)
    """
    kept: list[KernelCall] = []
    for call in calls:
        if not (kept and _merge(kept[-1], call)):
            kept.append(call)
    return kept


def _merge(call: KernelCall, other: KernelCall) -> bool:
    """Have a product compute another one as well, if they may share B; returns whether it does."""
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

    Only the blocked algorithm can compute a second product. So both must be so large that no
    instruction set would choose another algorithm for them (skinny.pxi). Both are gradients of
    weights with A transposed, so ``packs_a`` gives the same answer for both.
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


# --- a gradient need not be cleared before the first kernel that writes it ---


def _without_clearing(calls: list[KernelCall]) -> list[KernelCall]:
    """Do not clear gradients that are then written whole: store 0 + sum, not gradient + sum."""
    kept = []
    for index, call in enumerate(calls):
        if call.clears:
            kept += _still_to_clear(call, calls[index + 1 :])
        else:
            kept.append(call)
    return kept


def _still_to_clear(clear: KernelCall, later: list[KernelCall]) -> list[KernelCall]:
    """Return the calls that clear what must still be cleared, in place of ``clear``."""
    cleared = clear.operands[0].buffer
    if cleared.kind in (INPUT, TEMPORARY):
        return [clear]  # not a vector of gradients
    firsts: dict[int, tuple[KernelCall, Operand]] = {}  # the first use of each gradient
    begin = cleared.begin + clear.operands[0].offset
    end = begin + clear.kernel.get(clear.args, "n") * cleared.array.itemsize
    is_read = False  # by an optimizer: what was not written yet must be zero
    for call in later:
        for operand in call.operands:
            buffer = operand.buffer
            if buffer.kind == GRADIENT and begin <= buffer.begin and buffer.end <= end:
                firsts.setdefault(id(buffer), (call, operand))
            elif buffer.begin < end and begin < buffer.end and buffer.kind != TEMPORARY:
                is_read = True
        if is_read:
            break
    done = []
    for call, operand in firsts.values():
        if _write_whole(call, operand):
            operand.role = WRITTEN
            done.append(operand.buffer)
    return [
        _clearing(clear, start, stop)
        for start, stop in _gaps(begin, end, done)
        if stop - start >= GAP or not done
    ]


def _write_whole(call: KernelCall, operand: Operand) -> bool:
    """Have a kernel add to zero instead of an operand; returns False if it would leave a part."""
    kernel = call.kernel
    if operand.role != UPDATED or operand.name not in kernel.accumulates:
        return False
    declared = next(o for o in kernel.operands if o.name == operand.name)
    if declared.size(call.values) != operand.buffer.array.size:
        return False
    kernel.set(call.args, kernel.accumulates[operand.name], ADD_TO_ZERO)
    return True


# Less than a cache line lies between two gradients; it holds zeros that no kernel changes.
GAP = 64


def _gaps(begin: int, end: int, done: list[Buffer]) -> list[tuple[int, int]]:
    """Return the parts of begin … end outside these buffers."""
    gaps = []
    for buffer in sorted(done, key=lambda buffer: buffer.begin):
        gaps.append((begin, buffer.begin))
        begin = buffer.end
    return [*gaps, (begin, end)]


def _clearing(clear: KernelCall, start: int, stop: int) -> KernelCall:
    """Make a call that clears the addresses from ``start`` to ``stop``."""
    vector = clear.operands[0].buffer
    itemsize = vector.array.itemsize
    first = (start - vector.begin) // itemsize
    part = vector.array.reshape(-1)[first : first + (stop - start) // itemsize]
    operand = Operand("x", WRITTEN, Buffer(vector.kind, f"{vector.name} from {first}", part))
    args = bytearray(clear.args)
    clear.kernel.set(args, "n", part.size)
    return KernelCall(clear.kernel, clear.function, args, [operand], 0, clear.label, clear.phase)


# --- sums over many rows: each thread adds up those it has computed, then one adds the partials ---


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
