"""Which submissions are so much alike that their teacher may want to look at both.

That two people wrote much the same is a hint where to look, and never a verdict: they may have
learned together, or from the same page, or one of them may know nothing of it.

Most right answers to a short exercise are alike, so likeness as such says nothing. What is asked
instead is how much of what two learners share the class does *not* share. Answers are taken apart
into statements, without comments, the words of strings and layout, and with a learner's own names
reduced to which of them are the same. Their order does not count. In a class of n a statement that
c others have beside the two has a price in bits, the surprise at it in a further answer:

    price = log2((n - 1) / (c + 1)).

What nearly everybody writes is nearly free, and so a short exercise is; what the exercise hands
out, what the course's own solution has and what the lesson shows is free.

The likeness of two answers is the price of what they share over the price of all that the one who
has less of it has, so that nothing can be hidden by adding to it. It counts only if what they share
is worth more than chance brings among so many pairs: log2 of their number, and `MARGIN` bits, which
one class in a thousand would reach. Few exercises are long enough for that, but all those of a set
together are. A threshold much below 0.8 brings pairs who have no more than an approach in common.
"""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import math
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..course import plan, solution_source
from ..course.exercise import exercises
from ..course.files import ROOT
from ..course.submission import BadNotebook, Cell, read_submission

#: So many bits more than the number of pairs explains must be shared.
MARGIN = 10

#: In a smaller class nobody can say what is usual.
SMALLEST_CLASS = 5

#: So much of a cell and of an exercise is read, in letters.
MOST_CODE = 20_000

#: Stands for an exercise where helpers and trials in further cells are meant.
FURTHER_CELLS = "further cells"

Statement = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two learners whose submissions are much alike: a hint where to look, never a verdict.

    Attributes
    ----------
    first, second : str
        The learners.
    likeness : float
        From 0 to 1: of what the one has that is not common, the part that the other has too.
    exercises : tuple of str
        Where they are most alike, the clearest first; `FURTHER_CELLS` is one of them.
    bits : float
        How surprising it is, in the whole set, for two who know nothing of each other.
    """

    first: str
    second: str
    likeness: float
    exercises: tuple[str, ...]
    bits: float

    def __str__(self) -> str:
        return (
            f"{self.first} and {self.second}: {self.likeness:.0%} alike, "
            f"most of all in {', '.join(self.exercises)}"
        )


def alike(notebooks: Mapping[str, Path], lesson: int, threshold: float = 0.8) -> list[Pair]:
    """The pairs of submissions that are much alike, the clearest first: hints, not verdicts.

    Parameters
    ----------
    notebooks : mapping of str to Path
        Each learner's notebook; one that cannot be read is passed over.
    lesson : int
        The exercise set.
    threshold : float
        The least likeness that is pointed out, from 0 to 1: of an exercise, or of the whole set.

    Returns
    -------
    list of Pair
        Empty for a class of fewer than five: nobody can say what is usual in it.
    """
    submissions = dict(_readable(notebooks, lesson))
    learners, n = list(submissions), len(submissions)
    if n < SMALLEST_CLASS:
        return []
    free = _free(lesson)
    parts = {
        part: _overlap([_statements(code[part], lesson) - free for code in submissions.values()])
        for part in next(iter(submissions.values()))
    }
    whole = _Overlap(
        np.sum([part.shared for part in parts.values()], axis=0),
        np.sum([part.own for part in parts.values()], axis=0),
    )
    enough = MARGIN + math.log2(math.comb(n, 2) * (len(parts) + 1))
    likeness = np.max([part.likeness(enough) for part in (whole, *parts.values())], axis=0)
    details = {part: (overlap.shared, overlap.likeness()) for part, overlap in parts.items()}

    pairs = []
    for i, j in np.argwhere(np.triu(likeness, 1) >= max(threshold, 1e-9)):
        here = {part: (bits[i, j], ratio[i, j]) for part, (bits, ratio) in details.items()}
        pairs.append(
            Pair(
                learners[i],
                learners[j],
                float(likeness[i, j]),
                _clearest(here, threshold),
                float(whole.shared[i, j]),
            )
        )
    return sorted(pairs, key=lambda pair: pair.bits, reverse=True)


def _clearest(details: dict[str, tuple[float, float]], threshold: float) -> tuple[str, ...]:
    """The parts in which two are alike, three at most, by the bits they share and the likeness."""
    most = sorted(details, key=details.__getitem__, reverse=True)
    alike = [part for part in most if details[part][0] and details[part][1] >= threshold]
    return tuple(alike[:3] or most[:1])


# -- what is compared -----------------------------------------------------------------------


def _readable(notebooks: Mapping[str, Path], lesson: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Each learner whose notebook can be read, with the code of each part of it."""
    for learner, path in notebooks.items():
        try:
            yield learner, _parts(read_submission(path, lesson).cells, lesson)
        except BadNotebook:
            continue


def _parts(cells: Sequence[Cell], lesson: int) -> dict[str, str]:
    """The code of each exercise's cells, and of the further ones."""
    parts = {exercise.id: "" for exercise in exercises(lesson)} | {FURTHER_CELLS: ""}
    for cell in (Cell(cell.source[:MOST_CODE], cell.mark) for cell in cells):
        names = {cell.mark, *cell.defines}
        own = [one.id for one in exercises(lesson) if one.name in names] or [FURTHER_CELLS]
        for part in own:
            if len(parts[part]) < MOST_CODE:
                parts[part] += f"{cell.source}\n"
    return parts


@cache
def _free(lesson: int) -> frozenset[Statement]:
    """What a learner has from the course: from the stubs, the solutions and the lesson."""
    name = f"{plan.lesson(lesson).name}.py"
    paths = [ROOT / "notebooks" / "source" / name, ROOT / "solutions" / "source" / name]
    texts = [
        cell.source
        for path in paths
        if path.is_file()
        for cell in solution_source.cells_of(path)
        if cell.cell_type == "code"
    ]
    texts += [solution_source.stub(exercise) for exercise in exercises(lesson)]
    return frozenset().union(*(_statements(text, lesson) for text in texts))


# -- how much two answers share -------------------------------------------------------------


@dataclass(frozen=True)
class _Overlap:
    """What is shared in a class of n, in bits.

    Attributes
    ----------
    shared : (n, n) array
        By each pair.
    own : (n,) array
        What each learner has.
    """

    shared: np.ndarray
    own: np.ndarray

    def likeness(self, enough: float = 0.0) -> np.ndarray:
        """(n, n): the share of a pair's lesser half that is shared; 0 if that is not enough."""
        less = np.minimum.outer(self.own, self.own)
        some = (less > 0) & (self.shared >= enough)
        return np.divide(self.shared, less, out=np.zeros_like(less), where=some)


def _overlap(answers: Sequence[Iterable[Statement]]) -> _Overlap:
    n = len(answers)
    owners: dict[Statement, list[int]] = defaultdict(list)
    for learner, answer in enumerate(answers):
        for statement in answer:
            owners[statement].append(learner)
    overlap = _Overlap(np.zeros((n, n)), np.zeros(n))
    for learners in owners.values():
        price = math.log2((n - 1) / max(len(learners) - 1, 1))
        overlap.own[learners] += price
        overlap.shared[np.ix_(learners, learners)] += price
    return overlap


# -- code as statements ---------------------------------------------------------------------

_TEXT, _OWN = "a text", "own "

_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)

# From Python 3.12 on an f-string is many tokens; before, it is one.
_OPENS = getattr(tokenize, "FSTRING_START", None)
_CLOSES = getattr(tokenize, "FSTRING_END", None)


def _statements(source: str, lesson: int) -> frozenset[Statement]:
    """The statements of a source, as far as it can be read; those of text alone are left out."""
    given = _given_names(lesson)
    found: set[Statement] = set()
    line: list[tuple[int, str]] = []
    for kind, text in [*_tokens(source), (tokenize.NEWLINE, "")]:
        if kind == tokenize.NEWLINE or text == ";":
            if any(kind != tokenize.STRING for kind, _ in line):
                found.add(_numbered(_words(line, given)))
            line = []
        else:
            line.append((kind, text))
    return frozenset(found)


def _numbered(words: Iterable[str]) -> Statement:
    """The words, with own names replaced by numbers in the order of their appearance."""
    numbers: dict[str, str] = {}
    return tuple(
        numbers.setdefault(word, f"{_OWN}{len(numbers)}") if word.startswith(_OWN) else word
        for word in words
    )


def _tokens(source: str) -> Iterator[tuple[int, str]]:
    """Kind and text of each token but those of the layout."""
    within = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            within += (token.type == _OPENS) - (token.type == _CLOSES)
            if token.type == _CLOSES and not within:
                yield tokenize.STRING, ""
            elif not within and token.type not in _LAYOUT:
                yield token.type, token.string
    except (tokenize.TokenError, SyntaxError, ValueError):
        return


def _words(line: Sequence[tuple[int, str]], given: frozenset[str]) -> Iterator[str]:
    """The tokens of a line, with the mark of a learner's own name on all that may be one."""
    texts = ["", "", *(text for _, text in line), ""]
    depth = 0
    for i, (kind, text) in enumerate(line, 2):
        depth += (text in tuple("([{")) - (text in tuple(")]}"))
        if kind == tokenize.STRING:
            yield _TEXT
        elif kind != tokenize.NAME or keyword.iskeyword(text):
            yield text
        elif texts[i - 1] == ".":
            yield f"{_OWN}.{text}" if texts[i - 2] == "self" else text
        elif text in given or (depth and texts[i + 1] == "="):
            yield text
        else:
            yield _OWN + text


@cache
def _given_names(lesson: int) -> frozenset[str]:
    """The names that are no learner's own: Python's, and what the exercise set imports."""
    cells = solution_source.cells_of(solution_source.source_path(lesson))
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    imports = [
        node
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {(one.asname or one.name).partition(".")[0] for node in imports for one in node.names}
    return frozenset({"self", *dir(builtins), *names})
