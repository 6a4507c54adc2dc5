"""Finding patterns of operators in a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minidl.onnx.graph_file import Graph, Node
from minidl.onnx.patterns import COMMUTATIVE, Operator, Pattern
from minidl.typing import Array

TOLERANCE = 1e-6  # of numbers in a pattern, relative: other programs round √2 differently


@dataclass
class Match:
    """What a pattern's names stand for in a graph."""

    values: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def copy(self) -> Match:
        """Return a copy, to come back to."""
        return Match(dict(self.values), dict(self.constants), list(self.nodes))

    def inputs(self, pattern: Pattern) -> tuple[str, ...]:
        """Return the names of the pattern's inputs in the graph."""
        return tuple(self.values[name] for name in pattern.inputs)

    def outputs(self, pattern: Pattern) -> tuple[str, ...]:
        """Return the names of the pattern's outputs in the graph."""
        return tuple(self.values[name] for name in pattern.outputs)


def find(graph: Graph, node: Node, pattern: Pattern) -> Match | None:
    """Return how a pattern fits whose last operator is this node; None if it does not.

    It fits if operators, attributes and numbers are the same, up to the order in sums and products,
    and nothing else uses the values inside.
    """
    if node.kind != pattern.last:
        return None
    search = _Search(graph, pattern)
    match = search.value(Match(), pattern.outputs[0], node.results[0])
    return match if match is not None and search.is_closed(match) else None


@dataclass
class _Search:
    graph: Graph
    pattern: Pattern

    def value(self, match: Match, word: str | float, name: str) -> Match | None:
        """Return the match in which a word of the pattern stands for a value of the graph."""
        constant = self.graph.constants.get(name)
        if isinstance(word, float):
            if constant is None or constant.size != 1:
                return None
            return match if np.isclose(constant, word, rtol=TOLERANCE).all() else None
        if word in match.values:
            return match if match.values[word] == name else None
        if word in match.constants:
            same = constant is not None and np.array_equal(constant, match.constants[word])
            return match if same else None
        if (operator := self.pattern.producer.get(word)) is not None:
            return self._operator(match, operator, word, name)
        if (constant is None) != (word in self.pattern.inputs):
            return None
        if constant is None:
            match.values[word] = name
        else:
            match.constants[word] = constant
        return match

    def _operator(self, match: Match, operator: Operator, word: str, name: str) -> Match | None:
        node = self.graph.producers.get(name)
        if node is None or node.kind != operator.kind or node.attributes != operator.attributes:
            return None
        if len(node.operands) != len(operator.operands) or node in match.nodes:
            return None
        if len(node.results) != len(operator.results):
            return None
        if node.results[operator.results.index(word)] != name:
            return None
        orders = [node.operands]
        if operator.kind in COMMUTATIVE:
            orders.append(node.operands[::-1])
        for order in orders:
            found: Match | None = match.copy()
            for inner, value in zip(operator.operands, order, strict=True):
                found = None if found is None else self.value(found, inner, value)
            if found is not None:
                found.values |= zip(operator.results, node.results, strict=True)
                found.nodes.append(node)
                return found
        return None

    def is_closed(self, match: Match) -> bool:
        """Return whether only the pattern's outputs are used outside of the match."""
        outputs = set(match.outputs(self.pattern))
        return all(
            name in outputs
            or (
                name not in self.graph.outputs
                and all(user in match.nodes for user in self.graph.users.get(name, []))
            )
            for node in match.nodes
            for name in node.results
        )
