"""The text of the two files: tables, functions, and the statements with all places filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import Template

from minidl import __version__
from minidl.c.functions import literal, needed
from minidl.c.program import Program, Table, Value


@dataclass(frozen=True)
class Network:
    """A program whose arrays have places: all that the two files are made of."""

    name: str
    program: Program
    output: Value
    places: Mapping[int, str]
    memory: int  # floats

    @property
    def flash(self) -> int:
        """Bytes of all constants."""
        return sum(table.numbers.nbytes for table in self.program.tables.values())

    @property
    def state(self) -> int:
        """Floats that the caller keeps from step to step."""
        return sum(value.size for value in self.program.state)

    @property
    def declaration(self) -> str:
        """The function's type, name and arguments."""
        capital, program = self.name.upper(), self.program
        result = "int" if program.takes_indices else "void"
        what = "step" if program.steps else "predict"
        number = "int32_t" if program.takes_indices else "float"
        arguments = [f"const {number} x[{capital}_INPUT]", f"float y[{capital}_OUTPUT]"]
        arguments += [f"float state[{capital}_STATE]"] * program.steps
        arguments += [f"float memory[{capital}_MEMORY]"]
        begin = f"{result} {self.name}_{what}("
        return begin + f",\n{' ' * len(begin)}".join(arguments) + ")"

    @property
    def start(self) -> str:
        """The declaration of the function that sets the state to zero."""
        return f"void {self.name}_start(float state[{self.name.upper()}_STATE])"


def header_text(network: Network) -> str:
    """Return the header: sizes, and the declarations."""
    name, program = network.name.upper(), network.program
    sizes = {
        "INPUT": (program.input.size, "numbers of x"),
        "OUTPUT": (network.output.size, "numbers of y"),
        **({"STATE": (network.state, "numbers of the state")} if program.steps else {}),
        "MEMORY": (max(network.memory, 1), "numbers of the memory that a call needs"),
    }
    lines = [
        f"/* {network.name}: a network in float32, written by minidl {__version__}.",
        "",
        f"   {network.flash:,} bytes of constants, {4 * network.memory:,} of memory, "
        f"{4 * network.state:,} of state, {program.multiply_adds:,} multiply-adds a call.",
        *_usage(network),
        "*/",
        f"#ifndef {name}_H",
        f"#define {name}_H",
        "",
        *(["#include <stdint.h>", ""] if program.takes_indices else []),
        *(f"#define {name}_{key} {size} /* {what} */" for key, (size, what) in sizes.items()),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        *([f"{network.start};"] if program.steps else []),
        f"{network.declaration};",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _usage(network: Network) -> list[str]:
    """Return what the header says of the arguments."""
    lines = ["", "   The arrays must not overlap. Nothing in memory is kept from call to call."]
    if network.program.steps:
        lines.append(f"   Call {network.name}_start before the first step of every sequence.")
    if network.program.takes_indices:
        lines.append("   Returns 0, or -1 if a number of x is no row of the embedding.")
    return lines


def source_text(network: Network) -> str:
    """Return the source: constants, the functions that are needed, and the network."""
    body = list(_statements(network))
    start = [f"clear({network.state}, state);"] if network.program.steps else []
    lines = [
        f"/* Written by minidl {__version__}; {network.name}.h says how to call it. */",
        f'#include "{network.name}.h"',
        "",
        "#include <math.h>",
        "#include <stddef.h>",
        "",
    ]
    for table in network.program.tables.values():
        lines += [*_table(table), ""]
    for source in needed(body + start):
        lines += [source, ""]
    if start:
        lines += [network.start, "{", *_indented(start), "}", ""]
    return "\n".join([*lines, network.declaration, "{", *_indented(body), "}"]) + "\n"


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _table(table: Table) -> Iterator[str]:
    """Yield the lines of a constant array, eight numbers in each."""
    yield f"/* {table.comment} */"
    yield f"static const float {table.name}[{table.numbers.size}] = {{"
    numbers = [literal(number) for number in table.numbers.ravel()]
    for begin in range(0, len(numbers), 8):
        yield f"    {', '.join(numbers[begin : begin + 8])},"
    yield "};"


def _statements(network: Network) -> Iterator[str]:
    """Yield the lines of the function's body."""
    program, comment = network.program, ""
    for statement in program.statements:
        if statement.comment != comment:
            comment = statement.comment
            yield f"/* {comment} */"
        names = statement.values.items()
        places = {name: network.places[value.number] for name, value in names}
        yield from (Template(line).substitute(places) for line in statement.lines)
    if not network.memory:
        yield "(void)memory;"
    if program.takes_indices:
        yield "return 0;"
