"""How near written texts are to those that were wanted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence, Sized

from ..engine import Tensor
from ..ops.arguments import integer

SMOOTHINGS = ("none", "floor", "add-one", "exp")
CIDER_ORDER, CIDER_SIGMA = 4, 6.0  # the longest n-grams, and how much another length may differ

Text = Sequence[Hashable]


def exact_match(candidates: Sequence[Text], references: Sequence[Text]) -> float:
    """Share of the candidates that are their reference, token by token.

    Parameters
    ----------
    candidates, references : sequences of texts
        As many of one as of the other. A text is a sequence of tokens, such as a str.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        If there are none, or not as many of both.
    """
    _check_pairs("exact_match", candidates, references)
    matches = [list(c) == list(r) for c, r in zip(candidates, references)]
    return sum(matches) / len(matches)


def bleu(
    candidates: Sequence[Text],
    references: Sequence[Sequence[Text]],
    max_order: int = 4,
    smoothing: str = "none",
) -> float:
    r"""BLEU of a corpus: how many of the candidates' n-grams stand in their references.

    .. math::

        p_n = \frac{\sum_i \sum_g \min(\#_g(c_i),\ \max_r \#_g(r))}{\sum_i \sum_g \#_g(c_i)},
        \qquad
        \mathrm{BLEU} = \min(1,\ e^{1 - R / C}) \Bigl(\prod_{n=1}^{M} p_n\Bigr)^{1/M}

    The sums are over all candidates :math:`c_i` and their n-grams :math:`g`, and :math:`r` goes
    over the references of :math:`c_i`; an n-gram counts no more often than in one of them.
    C is the length of all candidates together, and R that of their references, of each candidate's
    the one nearest in length (the shorter of two as near).

    The counts of the whole corpus are added before they are divided: it is not a mean over
    sentences. How texts are split into tokens changes the number; only numbers for the same tokens
    can be compared.

    Parameters
    ----------
    candidates : sequence of texts
        A text is a sequence of tokens: ``"a date".split()`` for words, a str for characters.
    references : sequence of sequences of texts
        One or more references for each candidate.
    max_order : int
        M, the longest n-grams. Without smoothing, texts of fewer tokens than this score 0 even if
        they are perfect.
    smoothing : str
        What is done where no n-gram of some length matches, so that the product would be 0:
        "none" leaves it 0; "floor" counts 0.1 matches; "add-one" adds one match and one n-gram at
        every length but 1; "exp" counts 1/2 of a match at the first such length, 1/4 at the next,
        and so on.

    Returns
    -------
    float
        From 0 to 1. (It is often given times 100.)

    Raises
    ------
    ValueError
        If there are no candidates or not as many references, if a text is a str and another, to
        which it is compared, a sequence of tokens, if max_order is not an integer of at least 1, or
        the smoothing unknown.

    References
    ----------
    Papineni, Roukos, Ward and Zhu, "BLEU: a Method for Automatic Evaluation of Machine Translation"
    (ACL 2002), section 2. Smoothing: Chen and Cherry, "A Systematic Comparison of Smoothing
    Techniques for Sentence-Level BLEU" (WMT 2014), methods 1 to 3. Post, "A Call for Clarity in
    Reporting BLEU Scores" (WMT 2018), whose sacreBLEU has all four.
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(
            f"bleu: smoothing must be one of {', '.join(SMOOTHINGS)}, not {smoothing!r}"
        )
    max_order = integer("bleu", "max_order", max_order, least=1)
    _check_pairs("bleu", candidates, references)
    _check_texts("bleu", candidates, references)
    matches, counts = [0] * max_order, [0] * max_order
    for candidate, several in zip(candidates, references):
        for n in range(1, max_order + 1):
            found = _ngrams(candidate, n)
            wanted = Counter[Hashable]()
            for reference in several:
                wanted |= _ngrams(reference, n)  # the larger count of each
            matches[n - 1] += (found & wanted).total()  # the smaller count of each
            counts[n - 1] += found.total()
    precisions = list(_precisions(matches, counts, smoothing))
    if not any(matches) or min(precisions) == 0:
        return 0.0
    C = sum(map(len, candidates))
    R = sum(_nearest_length(len(c), several) for c, several in zip(candidates, references))
    return math.exp(min(0.0, 1 - R / C) + sum(map(math.log, precisions)) / max_order)


def cider(candidates: Sequence[Text], references: Sequence[Sequence[Text]]) -> float:
    r"""CIDEr-D of captions: n-grams they share with what people said, those that tell most first.

    .. math::

        g(t)_\omega &= \#_\omega(t)\ \log \frac{N}{\max(1, \mathrm{df}_\omega)} \\
        s_n(c, r) &= e^{-(|c| - |r|)^2 / 2 \sigma^2}\
        \frac{\min(g^n(c), g^n(r)) \cdot g^n(r)}{\lVert g^n(c) \rVert\, \lVert g^n(r) \rVert}

    A text t becomes a vector :math:`g^n(t)` with a number for each n-gram :math:`\omega`: how often
    it is there, times how rare it is. :math:`\mathrm{df}_\omega` is the number of pictures, of all
    N, in whose references it stands. Two texts are compared by the cosine of their vectors, but an
    n-gram counts no more often than in the reference, and a text of another length pays
    (:math:`\sigma = 6`). The score is 10 times the mean of :math:`s_n` over n = 1, ..., 4, over the
    references of a candidate, and over the candidates.

    An n-gram that is said of every picture counts nothing; of one picture alone the score is 0.

    Parameters
    ----------
    candidates, references
        As for `bleu`: the references of all pictures are also what the frequencies come from.

    Returns
    -------
    float
        From 0 to 10.

    Raises
    ------
    ValueError
        As `bleu`.

    References
    ----------
    Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015),
    sections 4 and 7.2. The factor 10, and to take the frequencies from the references at hand, are
    those of the authors' code.
    """
    _check_pairs("cider", candidates, references)
    _check_texts("cider", candidates, references)
    frequency = Counter(
        gram for several in references for gram in {g for r in several for g in _all_ngrams(r)}
    )

    def vectors(text: Text) -> list[dict[Hashable, float]]:
        return [
            {
                gram: count * math.log(len(references) / max(1, frequency[gram]))
                for gram, count in _ngrams(text, n).items()
            }
            for n in range(1, CIDER_ORDER + 1)
        ]

    total = 0.0
    for candidate, several in zip(candidates, references):
        ours = vectors(candidate)
        for reference in several:
            brevity = math.exp(-((len(candidate) - len(reference)) ** 2) / (2 * CIDER_SIGMA**2))
            cosines = sum(map(_clipped_cosine, ours, vectors(reference)))
            total += brevity * cosines / CIDER_ORDER / len(several)
    return 10 * total / len(candidates)


def _all_ngrams(text: Text) -> Iterator[Hashable]:
    for n in range(1, CIDER_ORDER + 1):
        yield from _ngrams(text, n)


def _clipped_cosine(ours: dict[Hashable, float], theirs: dict[Hashable, float]) -> float:
    norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    shared = sum(min(a, theirs[gram]) * theirs[gram] for gram, a in ours.items() if gram in theirs)
    return shared / norms if norms else 0.0


def _are_texts(several: Sequence[Text]) -> bool:
    return (
        not isinstance(several, str)
        and len(several) > 0
        and all(isinstance(text, Sized) for text in several)
    )


def _check_texts(name: str, candidates: Sequence[Text], references: Sequence) -> None:
    if not all(map(_are_texts, references)):
        raise ValueError(
            f"{name}: needs a list of references for each candidate; for one reference each, write "
            "[[reference] for reference in references]"
        )
    for candidate, several in zip(candidates, references):
        if any(isinstance(reference, str) != isinstance(candidate, str) for reference in several):
            raise ValueError(
                f"{name}: a candidate and its references must all be str, or all sequences of "
                f"tokens: got {candidate!r} beside {several!r}"
            )


def _ngrams(text: Text, n: int) -> Counter[Hashable]:
    text = text.tolist() if isinstance(text, Tensor) else text
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def _nearest_length(length: int, references: Sequence[Text]) -> int:
    return min((abs(len(r) - length), len(r)) for r in references)[1]


def _precisions(matches: Sequence[int], counts: Sequence[int], smoothing: str) -> Iterator[float]:
    unmatched = 0
    for n, (matched, count) in enumerate(zip(matches, counts), start=1):
        smoothed: float = matched
        if smoothing == "add-one" and n > 1:
            smoothed, count = matched + 1, count + 1
        elif matched == 0 and smoothing == "floor":
            smoothed = 0.1
        elif matched == 0 and smoothing == "exp":
            unmatched += 1
            smoothed = 0.5**unmatched
        yield smoothed / count if count else 0.0


def _check_pairs(name: str, candidates: Sequence[Text], references: Sequence) -> None:
    if len(candidates) != len(references) or not len(candidates):
        raise ValueError(
            f"{name}: needs as many references as candidates, and at least one; got "
            f"{len(candidates)} candidates and {len(references)} references"
        )
