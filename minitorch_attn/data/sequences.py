"""Pairs of sequences: a network reads the first of them and is to write the second."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..ops.arguments import integer
from .dataset import Dataset, Seed, as_generator

PADDING, START, END = 0, 1, 2  # the tokens of every vocabulary


class Vocabulary:
    """Symbols by number: 0 is padding, 1 starts a sequence, 2 ends it, the symbols follow.

    Parameters
    ----------
    symbols : iterable of str
        A string gives its characters.
    separator : str
        What stands between two symbols of a text: nothing between characters, " " between words.

    Attributes
    ----------
    symbols : tuple of str
    separator : str

    Examples
    --------
    >>> letters = Vocabulary("abc")
    >>> letters.encode(["cab", "b"])
    array([[5, 3, 4],
           [4, 0, 0]])
    >>> letters.encode(["b"], framed=True)
    array([[1, 4, 2]])
    >>> letters.decode([[5, 3, 4, 2, 3], [4, 2, 0, 0, 0]])
    ['cab', 'b']
    >>> words = Vocabulary(["a", "cat"], separator=" ")
    >>> words.encode(["a cat"])
    array([[3, 4]])
    """

    def __init__(self, symbols: Iterable[str], separator: str = ""):
        self.symbols = tuple(symbols)
        self.separator = separator
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols, END + 1)}
        if len(self._numbers) < len(self.symbols):
            raise ValueError(
                f"Vocabulary: a symbol comes twice in {self.separator.join(self.symbols)!r}"
            )

    def __len__(self) -> int:
        """Number of tokens, the three special ones among them."""
        return END + 1 + len(self.symbols)

    def encode(self, texts: Sequence[Sequence[str]], framed: bool = False) -> np.ndarray:
        """Texts as tokens (N, L), filled up with padding.

        Parameters
        ----------
        texts : sequence of sequences of symbols
            One text alone goes into a list, too. A string is split at the separator.
        framed : bool
            Whether each gets a start before and an end behind, as a target needs them.

        Raises
        ------
        ValueError
            If a text holds something that is no symbol.
        TypeError
            If `texts` is a string.
        """
        if isinstance(texts, str):
            raise TypeError(f"Vocabulary.encode: needs a list of texts, [{texts!r}], not {texts!r}")
        rows = [[self._number(symbol, text) for symbol in self._split(text)] for text in texts]
        if framed:
            rows = [[START, *row, END] for row in rows]
        tokens = np.full((len(rows), max(map(len, rows), default=0)), PADDING)
        for row, numbers in zip(tokens, rows):
            row[: len(numbers)] = numbers
        return tokens

    def decode(self, tokens: Iterable[Iterable[int]]) -> list[str]:
        """The texts of tokens (N, T), each up to its first end, without start and padding.

        Raises
        ------
        ValueError
            If the tokens are no integers (N, T), or one of them is not of this vocabulary.
        """
        rows = np.asarray(tokens)
        if rows.size == 0:
            return [""] * len(rows)
        if rows.ndim != 2 or rows.dtype.kind not in "iu":
            raise ValueError(
                "Vocabulary.decode: needs tokens (N, T) of integers, not "
                f"{rows.shape} of {rows.dtype}"
            )
        if rows.min() < 0 or rows.max() >= len(self):
            raise ValueError(
                f"Vocabulary.decode: tokens are from 0 to {len(self) - 1}, not "
                f"{rows.min() if rows.min() < 0 else rows.max()}"
            )
        return [self._text(row) for row in rows]

    def _split(self, text: Sequence[str]) -> Sequence[str]:
        if self.separator and isinstance(text, str):
            return text.split(self.separator)
        return text

    def _number(self, symbol: str, text: Sequence[str]) -> int:
        if symbol not in self._numbers:
            raise ValueError(
                f"Vocabulary: {symbol!r}, in {text!r}, is not one of its symbols "
                f"{self.separator.join(self.symbols)!r}"
            )
        return self._numbers[symbol]

    def _text(self, row: np.ndarray) -> str:
        ends = np.flatnonzero(row == END)
        before = row[: ends[0]] if len(ends) else row
        written = (self.symbols[number - END - 1] for number in before if number > END)
        return self.separator.join(written)


class SequencePairs(Dataset):
    """Pairs of texts: what is read, and what is to be written.

    `pairs[i]` is a pair of texts; a batch is made of arrays: sources (N, L), their lengths (N,),
    and targets (N, T) with their start and end. Both are as long as the batch needs.

    Parameters
    ----------
    pairs : sequence of (str, str)
    source_vocabulary, target_vocabulary : Vocabulary
        Of what is read, and of what is written.

    Raises
    ------
    ValueError
        If one of them is no pair.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        source_vocabulary: Vocabulary,
        target_vocabulary: Vocabulary,
    ):
        self.pairs = list(pairs)
        for i, pair in enumerate(self.pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(f"SequencePairs: pairs[{i}] must be two texts, not {pair!r}")
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.pairs[index]

    def batch(
        self, indices: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sources (N, L), their lengths (N,) and targets (N, T) of the samples of some numbers."""
        sources, targets = zip(*(self.pairs[int(i)] for i in indices))
        return (
            self.source_vocabulary.encode(sources),
            np.array([len(source) for source in sources]),
            self.target_vocabulary.encode(targets, framed=True),
        )


LETTERS = "abcdefghi"


def reversal_pairs(
    count: int, shortest: int = 4, longest: int = 20, generator: Seed = None
) -> SequencePairs:
    """Words of random letters, to be written from the last letter to the first.

    To write a word backwards one must have kept all of it: every letter, and their order.

    Parameters
    ----------
    count : int
        How many pairs.
    shortest, longest : int
        Bounds of the words' lengths, from 1 on.
    generator : numpy.random.Generator or int, optional
        A generator or a seed; the default generator if left out.

    Raises
    ------
    ValueError
        If `count` or a bound is none, or `shortest` above `longest`.
    """
    words = _words("reversal_pairs", count, shortest, longest, generator)
    letters = Vocabulary(LETTERS)
    return SequencePairs([(word, word[::-1]) for word in words], letters, letters)


def sorting_pairs(
    count: int, shortest: int = 4, longest: int = 20, generator: Seed = None
) -> SequencePairs:
    """Words of random letters, to be written in the order of the alphabet.

    The counterpart of `reversal_pairs`: nine counts are all one must have kept. Arguments as there.
    """
    words = _words("sorting_pairs", count, shortest, longest, generator)
    letters = Vocabulary(LETTERS)
    return SequencePairs([(word, "".join(sorted(word))) for word in words], letters, letters)


def _words(who: str, count: int, shortest: int, longest: int, generator: Seed) -> list[str]:
    count = integer(who, "count", count, least=0)
    shortest = integer(who, "shortest", shortest, least=1)
    longest = integer(who, "longest", longest, least=shortest)
    random = as_generator(generator)
    lengths = random.integers(shortest, longest, count, endpoint=True)
    letters = np.array(list(LETTERS))
    return ["".join(random.choice(letters, length)) for length in lengths]
