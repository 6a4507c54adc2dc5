"""Texts as sequences of numbered characters."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

import numpy as np

from minidl.nn.checks import check_count
from minidl.typing import Array


class Characters:
    """Numbers the characters of a text: the integers that an ``Embedding`` takes.

    Parameters
    ----------
    characters
        All characters, each once, in the order of their numbers.

    Raises
    ------
    ValueError
        If there is none, or one occurs twice.

    Examples
    --------
    >>> from minidl import datasets
    >>> text = datasets.Characters.of("to be or not to be")
    >>> text
    Characters(' benort')
    >>> text.encode("note"), text.decode([6, 4, 1, 2])
    (array([3, 4, 6, 2]), 'tobe')
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._numbers = {character: number for number, character in enumerate(characters)}
        if not characters or len(self._numbers) != len(characters):
            raise ValueError(
                f"Characters: expected characters, each once, got {reprlib.repr(characters)}"
            )

    @classmethod
    def of(cls, text: str) -> Characters:
        """Number the characters that occur in a text, in alphabetical order."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Array:
        """Return the number of each character, int64.

        Raises
        ------
        ValueError
            For an unknown character, saying which and where.
        """
        numbers = [self._numbers.get(character, -1) for character in text]
        if -1 in numbers:
            place = numbers.index(-1)
            raise ValueError(
                f"Characters: {text[place]!r}, at {place} of the text, is none of the "
                f"{len(self)} known"
            )
        return np.array(numbers, np.int64)

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of these numbers."""
        numbers = list(numbers)
        for number in numbers:
            if not 0 <= number < len(self):
                raise ValueError(f"decode: {number} is none of the numbers 0 to {len(self) - 1}")
        return "".join(self.characters[number] for number in numbers)

    def chunks(self, text: str, batch_size: int, steps: int) -> tuple[Array, Array]:
        """Cut a text into chunks to predict the next character in, for a ``stateful`` layer.

        The text is cut into ``batch_size`` streams of equal length, and these into chunks of
        ``steps`` characters. Batch k, rows k · batch_size and following, holds the k-th chunk of
        every stream: row i of a batch continues row i of the batch before it. Without
        shuffling, the state that a ``stateful`` layer carries is that of the text so far.
        Characters that do not fill a chunk of every stream are left out.

        Parameters
        ----------
        text
            Of known characters.
        batch_size, steps
            Streams, and characters of a chunk, ≥ 1.

        Returns
        -------
        x, y
            int64; y is one character ahead of x.

        Shapes
        ------
        x and y (chunks · batch_size, steps).

        Raises
        ------
        ValueError
            For a text that is too short to fill one chunk of every stream.

        Examples
        --------
        >>> from minidl import datasets
        >>> text = datasets.Characters("abcdefghijklm")
        >>> x, y = text.chunks("abcdefghijklm", batch_size=2, steps=3)
        >>> [text.decode(row) for row in x], [text.decode(row) for row in y]
        (['abc', 'ghi', 'def', 'jkl'], ['bcd', 'hij', 'efg', 'klm'])
        """
        batch_size = check_count("chunks", "batch_size", batch_size)
        steps = check_count("chunks", "steps", steps)
        count = (len(text) - 1) // (batch_size * steps)
        if count < 1:
            raise ValueError(
                f"chunks: a text of {len(text):,} characters does not fill {batch_size} chunks of "
                f"{steps}, which takes {batch_size * steps + 1:,}"
            )
        numbers = self.encode(text)
        length = count * steps  # of a stream
        x, y = (
            numbers[ahead : ahead + batch_size * length]
            .reshape(batch_size, count, steps)
            .swapaxes(0, 1)
            .reshape(-1, steps)
            for ahead in (0, 1)
        )
        return x, y

    def __repr__(self) -> str:
        return f"Characters({self.characters!r})"


def python_topics() -> str:
    """Return the help topics of Python, a text of some 500,000 characters.

    It differs a little from one version of Python to the next.

    Examples
    --------
    >>> from minidl import datasets
    >>> "statement" in datasets.python_topics()
    True
    """
    from pydoc_data.topics import topics

    return "\n".join(topics.values())
