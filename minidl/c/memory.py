"""Which array lies where: arrays that are not needed at the same time share memory."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.c.program import Program, Value


@dataclass
class Block:
    """A piece of memory: its size, and the first and the last statement that use it."""

    size: int
    first: int
    last: int
    begin: int = 0

    def meets(self, other: Block) -> bool:
        """Return whether both are in use at some time."""
        return self.first <= other.last and other.first <= self.last


def placed(program: Program, output: Value) -> tuple[dict[int, str], int]:
    """Return the place of every array, as an expression in C, and the size of the memory.

    Input, output and state have places of their own, which the caller gives. All others lie in one
    memory. The largest is placed first, each where it does not meet another that is in use at the
    same time: of layers one after the other, every second one has the same place.
    """
    fixed = {program.input.number: "x"}
    begin = 0
    for value in program.state:
        fixed[value.number] = _at("state", begin)
        begin += value.size
    blocks = _blocks(program, output, fixed)
    fixed |= {number: "y" for number in blocks if blocks[number] is blocks[output.number]}
    free = {id(block): block for number, block in blocks.items() if number not in fixed}
    done: list[Block] = []
    for block in sorted(free.values(), key=lambda block: -block.size):
        block.begin = _lowest(block, done)
        done.append(block)
    places = {number: _at("memory", block.begin) for number, block in blocks.items()}
    return places | fixed, max((block.begin + block.size for block in done), default=0)


def _blocks(program: Program, output: Value, fixed: dict[int, str]) -> dict[int, Block]:
    """Return the block of every array that has no place yet; some arrays share one."""
    blocks: dict[int, Block] = {}
    last = last_uses(program)
    for index, statement in enumerate(program.statements):
        if statement.shares is not None:
            x, y = (statement.values[name] for name in statement.shares)
            over = last[x.number] == index and x.number not in (*fixed, output.number)
            if over and x.size == y.size:
                blocks[y.number] = blocks[x.number]
        for value in statement.values.values():
            if value.number not in fixed:
                block = blocks.setdefault(value.number, Block(value.size, index, index))
                block.last = index
    blocks[output.number].last = len(program.statements)
    return blocks


def last_uses(program: Program) -> dict[int, int]:
    """Return the last statement that uses an array, by the number of the array."""
    return {
        value.number: index
        for index, statement in enumerate(program.statements)
        for value in statement.values.values()
    }


def _lowest(block: Block, done: list[Block]) -> int:
    """Return the lowest place where a block meets none of those placed before it."""
    begin = 0
    for other in sorted(done, key=lambda other: other.begin):
        if block.meets(other) and begin + block.size > other.begin:
            begin = max(begin, other.begin + other.size)
    return begin


def _at(memory: str, begin: int) -> str:
    return f"{memory} + {begin}" if begin else memory
