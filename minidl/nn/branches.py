"""Layers side by side, and what joins their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import combinations
from typing import Any

from minidl.nn.activations import Tanh
from minidl.nn.array_checks import is_lengths
from minidl.nn.checks import check_choice
from minidl.nn.container import Container, form_after
from minidl.nn.forms import Form, MisfitError
from minidl.nn.joining import Add, Concat, Join, Multiply, Stack, described, fits_beside
from minidl.nn.layer import Examples, Layer
from minidl.nn.lengths import steps_in
from minidl.nn.linear import Linear
from minidl.nn.summary import Member, describe_branch, may_be_alike, shape_in_words
from minidl.nn.tuples import (
    Shape,
    added,
    backward_through,
    is_several,
    through,
    without_tuple_of_one,
)
from minidl.typing import Array

JOINS: dict[str | None, type[Join] | None] = {
    "concat": Concat,
    "add": Add,
    "multiply": Multiply,
    "stack": Stack,
    None: None,
}


class Parallel(Container):
    """Layers side by side, the branches, and their outputs joined.

    y = join(branch_1(x), branch_2(x), …),  dx = Σ_i dy_i · ∂branch_i/∂x

    One input goes to every branch. Of several, each branch gets its own: the first input goes to
    the first branch, and so on. The lengths of padded sequences stand behind their sequences:
    ``layer(table, sequences, lengths)``.

    One layer may be several branches, such as both of a Siamese network: its gradients add up.

    Parameters
    ----------
    *branches
        Layers.
    join
        ``"concat"`` along the last dimension, ``"add"`` or ``"multiply"`` element by element,
        ``"stack"`` along a new dimension before the last; None returns the outputs as a tuple.
    **named
        More branches, which are named in messages, tables and paths. Inputs for named branches may
        come in a dict (see ``Trainer.fit``).

    Shapes
    ------
    x as the branches take it. The outputs of the branches have the same shape; for ``"concat"``
    their last dimensions may differ, and without a join all dimensions may.

    Raises
    ------
    TypeError
        For branches that are no layers, none at all, another number of inputs than of branches, and
        lengths that no branch takes.
    ValueError
        For outputs that cannot be joined, when the layer is built if their widths are known.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Parallel(nn.Linear(4, 3), nn.Identity())(np.ones((2, 4), np.float32)).shape
    (2, 7)
    >>> towers = nn.Parallel(table=nn.Linear(4, 3), image=nn.Linear(9, 3), join="multiply")
    >>> towers(np.ones((2, 4), np.float32), np.ones((2, 9), np.float32)).shape
    (2, 3)
    """

    branches: dict[str, Layer]
    join: str | None
    joint: Join | None

    def __init__(self, *branches: Layer, join: str | None = "concat", **named: Layer) -> None:
        self.branches = {str(number): layer for number, layer in enumerate(branches)} | named
        for name, branch in self.branches.items():
            if not isinstance(branch, Layer):
                raise TypeError(f"Parallel takes layers, got {branch!r} as branch {name}")
        if not self.branches:
            raise TypeError("Parallel: expected at least one branch, got none")
        for name in named:
            if name == "joint" or not name.isidentifier():
                raise ValueError(
                    f"Parallel: a branch cannot be called {name!r}; names are those that Python "
                    "allows, but not 'joint', which is the join"
                )
        if join is not None:
            check_choice("Parallel", "join", join, *filter(None, JOINS))
        self.join = join
        kind = JOINS[join]
        self.joint = None if kind is None else kind()
        self.check_forms()
        self.assign_paths()

    @property
    def takes_indices(self) -> bool:  # type: ignore[override]
        """Whether all branches take indices."""
        return all(branch.takes_indices for branch in self.branches.values())

    @property
    def index_limit(self) -> int | None:  # type: ignore[override]
        """The least ``index_limit`` of the branches."""
        limits = [branch.index_limit for branch in self.branches.values()]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def takes_lengths(self) -> bool:  # type: ignore[override]
        """Whether any branch takes lengths."""
        return any(branch.takes_lengths for branch in self.branches.values())

    def forward(self, *inputs: Any, lengths: Array | None = None) -> Any:
        given = self.by_branch((*inputs, lengths) if lengths is not None else inputs)
        shared = len(given) == 1
        if shared and given[0][1] is not None and not self.takes_lengths:
            raise TypeError(
                f"{self.label}: got an input and lengths, a vector of integers, and no branch "
                "takes lengths"
            )
        outputs = []
        for number, branch in enumerate(self.branches.values()):
            x, own = given[0 if shared else number]
            outputs.append(through(branch, x, own))
        self.save(shared)
        if self.joint is None:
            return tuple(outputs)
        self._check_outputs(outputs)
        return self.joint(*outputs)

    def by_branch(self, inputs: tuple[Any, ...]) -> list[tuple[Any, Array | None]]:
        """Return (input, lengths or None) of every branch, or of all if there is one input.

        Raises
        ------
        TypeError
            For another number of inputs.
        """
        branches, count = list(self.branches.values()), len(self.branches)
        if len(inputs) == 2 and is_lengths(inputs[1]):
            own = count == 2 and branches[1].takes_indices and not branches[1].takes_lengths
            if not own:
                return [(inputs[0], inputs[1])]
        given: list[tuple[Any, Array | None]] = []
        lengths = len(inputs) - count  # how many of the inputs must be lengths
        for x in inputs:
            after_sequences = 0 < len(given) <= count and branches[len(given) - 1].takes_lengths
            if lengths > 0 and after_sequences and is_lengths(x) and given[-1][1] is None:
                given[-1] = given[-1][0], x
                lengths -= 1
            else:
                given.append((x, None))
        if len(given) not in (1, count):
            raise TypeError(self._wrong_count(len(given)))
        return given

    def with_lengths(
        self, parts: tuple[Any, ...], lengths: Array, steps: int | None
    ) -> tuple[Any, ...]:
        """Return an input for each branch, with the lengths behind sequences of so many steps."""
        given: list[Any] = []
        for part, branch in zip(parts, self.branches.values(), strict=True):
            own = branch.takes_lengths and steps in steps_in(part)
            given += (part, lengths) if own else (part,)
        return tuple(given)

    def _wrong_count(self, given: int) -> str:
        cure = "; lengths stand behind their sequences" if given > len(self.branches) else ""
        return (
            f"{self.label}: expected one input for all branches, or one for each of the "
            f"{len(self.branches)}, got {given}{cure}"
        )

    def _check_outputs(self, outputs: list[Any]) -> None:
        """Raise ValueError, naming branches and layers, if the outputs cannot be joined."""
        assert self.joint is not None
        for name, output in zip(self.branches, outputs, strict=True):
            if not fits_beside(output, outputs[0], self.joint.to_the_last):
                raise self._misfit(name, described(outputs[0]), described(output))

    def check_shapes(self, input_shape: Shape) -> None:
        given = len(input_shape) if input_shape is not None and is_several(input_shape) else 1
        if given not in (1, len(self.branches)):
            raise ValueError(self._wrong_count(given))
        outputs = self._output_shapes(input_shape)
        for name, output in zip(self.branches, outputs, strict=True):
            if self.joint and not may_be_alike(output, outputs[0], self.joint.to_the_last):
                raise self._misfit(name, shape_in_words(outputs[0]), shape_in_words(output))

    def _misfit(self, name: str, first: str, output: str) -> ValueError:
        assert self.joint is not None
        return ValueError(
            f"{self.label}: {self._in_words(next(iter(self.branches)))} gives {first}, "
            f"{self._in_words(name)} gives {output}; join={self.join!r} needs "
            f"{self.joint.expectation()}"
        )

    def _in_words(self, name: str) -> str:
        return f"branch {name} {self.branches[name].short_name()}"

    def backward(self, *dys: Any) -> Any:
        if len(dys) == 1 and type(dys[0]) is tuple:
            (dys,) = dys
        shared = self.saved(*dys)
        if self.joint is not None:
            dys = self.joint.backward(*dys)
            dys = dys if type(dys) is tuple else (dys,)
        # The latest call first: one layer may be several branches.
        branches = list(self.branches.values())
        pairs = zip(reversed(branches), reversed(dys), strict=True)
        gradients = [backward_through(branch, dy) for branch, dy in pairs][::-1]
        return reduce(added, gradients) if shared else tuple(gradients)

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the branches by their names, and the join."""
        return ((name.removeprefix("branches."), layer) for name, layer in super().children())

    def output_shape(self, input_shape: Shape) -> Shape:
        outputs = self._output_shapes(input_shape)
        return outputs if self.joint is None else self.joint.output_shape(outputs)

    def _output_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        """Return the shape of the output of each branch."""
        pairs = zip(self.branches.values(), self._shapes(input_shape), strict=True)
        return tuple(branch.output_shape(shape) for branch, shape in pairs)

    def _shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """Return the shape of the input of each branch."""
        count = len(self.branches)
        if shape is not None and is_several(shape) and len(shape) == count > 1:
            return shape
        shape = without_tuple_of_one(shape)
        return (None if is_several(shape) else shape,) * count

    def members(self, input_shape: Shape) -> Iterator[Member]:
        shapes = self._shapes(input_shape)
        yield from zip(self.branches, self.branches.values(), shapes, strict=True)

    def form_after(self, form: Form, place: str = "") -> Form:
        count = len(self.branches)
        # An input of the model may be a tuple, with an array for each branch.
        forms = form.parts or (form,) * count
        if len(forms) != count:
            forms = (Form(),) * count
        elif form.parts is None:  # what is known is so of the first array, if it is a tuple
            forms = (form, *(Form(form.maker),) * (count - 1))
        outputs = {
            name: form_after(branch, given, f" of branch {name}{place}")
            for (name, branch), given in zip(self.branches.items(), forms, strict=True)
        }
        if self.joint is None:
            return Form(self, parts=tuple(outputs.values()))
        self._check_forms_of(outputs)
        ranks = frozenset.intersection(*(output.ranks for output in outputs.values()))
        widths = [output.width for output in outputs.values()]
        known = [width for width in widths if width is not None]
        if self.joint.to_the_last:
            width = sum(known) if len(known) == len(widths) else None
        else:
            width = known[0] if known else None
        if self.join == "stack":
            ranks = frozenset(rank + 1 for rank in ranks)
        return Form(self, ranks, width, ())

    def _check_forms_of(self, outputs: dict[str, Form]) -> None:
        """Raise MisfitError, naming two branches, if what is known of their outputs differs."""
        assert self.joint is not None
        needs = f"join={self.join!r} needs {self.joint.expectation()}"
        for (one, first), (other, output) in combinations(outputs.items(), 2):
            gives = f"{self._in_words(one)} gives", f"{self._in_words(other)} gives"
            if first.ranks.isdisjoint(output.ranks):
                raise MisfitError(
                    f"{gives[0]} {first.described()} and {gives[1]} {output.described()}; {needs}"
                )
            widths = first.width, output.width
            if not self.joint.to_the_last and None not in widths and widths[0] != widths[1]:
                raise MisfitError(
                    f"{gives[0]} {widths[0]} features and {gives[1]} {widths[1]}; {needs}"
                )

    @property
    def headline(self) -> str:
        """What a table says of the layer, above its branches."""
        return f"({self.join})" if self.join else ""

    def __repr__(self) -> str:
        parts = [
            describe_branch(layer) if name.isdigit() else f"{name}={describe_branch(layer)}"
            for name, layer in self.branches.items()
        ]
        parts += [] if self.join == "concat" else [f"join={self.join!r}"]
        return f"{type(self).__name__}({', '.join(parts)})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(Linear(3, 2, rng=0), Tanh()), ((4, 3),)
        yield cls(Linear(3, 2, rng=0), Linear(3, 2, rng=1), join="add"), ((4, 3), (4, 3))
        yield cls(a=Linear(2, 3, rng=0), b=Tanh(), c=Tanh(), join=None), ((1, 2),)
        yield cls(Linear(2, 3, rng=0), Linear(2, 3, rng=1), join="multiply"), ((3, 2),)
        yield cls(Linear(2, 3, rng=0), Linear(2, 3, rng=1), join="stack"), ((3, 2), (3, 2))
        twice = Linear(2, 2, rng=0)
        yield cls(twice, twice), ((3, 2), (3, 2))
