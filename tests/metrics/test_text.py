import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitorch_attn as mt
from minitorch_attn.metrics import bleu, cider, exact_match

SMOOTHINGS = ["none", "floor", "add-one", "exp"]


def words(*texts):
    return [text.split() for text in texts]


def count(text, gram):
    return sum(text[i : i + len(gram)] == gram for i in range(len(text) - len(gram) + 1))


def by_the_book(candidates, references, max_order, smoothing):
    """BLEU as sacreBLEU (smooth_method none, floor, add-k, exp) and NLTK compute it."""
    precisions, k = [], 0
    for n in range(1, max_order + 1):
        matched = total = 0
        for candidate, several in zip(candidates, references):
            grams = [candidate[i : i + n] for i in range(len(candidate) - n + 1)]
            total += len(grams)
            for gram in set(map(tuple, grams)):
                gram = list(gram)
                matched += min(count(candidate, gram), max(count(r, gram) for r in several))
        if n == 1 and matched == 0:
            return 0.0
        if smoothing == "add-one" and n > 1:
            matched, total = matched + 1, total + 1
        if total == 0:
            return 0.0
        if matched == 0 and smoothing == "none":
            return 0.0
        if matched == 0 and smoothing == "floor":
            matched = 0.1
        if matched == 0 and smoothing == "exp":
            k += 1
            matched = 1 / 2**k
        precisions.append(matched / total)
    c = sum(len(candidate) for candidate in candidates)
    r = 0
    for candidate, several in zip(candidates, references):
        lengths = sorted(len(reference) for reference in several)
        r += min(lengths, key=lambda length: abs(length - len(candidate)))
    brevity = 1.0 if c > r else math.exp(1 - r / c)
    return brevity * math.prod(precisions) ** (1 / max_order)


text = st.lists(st.sampled_from("abc"), max_size=7)
several_texts = st.lists(text, min_size=1, max_size=3)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@given(
    corpus=st.lists(st.tuples(text, several_texts), min_size=1, max_size=3), order=st.integers(1, 4)
)
def test_bleu_is_that_of_its_formula(smoothing, corpus, order):
    candidates, references = zip(*corpus)
    expected = by_the_book(candidates, references, order, smoothing)
    assert bleu(candidates, references, order, smoothing) == pytest.approx(expected, rel=1e-12)


def test_the_papers_examples():
    """Papineni et al., section 2.1: a word counts no more often than in one reference."""
    references = words("the cat is on the mat", "there is a cat on the mat")
    assert bleu(words("the the the the the the the"), [references], max_order=1) == 2 / 7
    candidates = words(
        "It is a guide to action which ensures that the military always obeys the commands of "
        "the party",
        "It is to insure the troops forever hearing the activity guidebook that party direct",
    )
    references = words(
        "It is a guide to action that ensures that the military will forever heed Party commands",
        "It is the guiding principle which guarantees the military forces always being under the "
        "command of the Party",
        "It is the practical guide for the army always to heed the directions of the party",
    )
    assert bleu(candidates[:1], [references], max_order=1) == pytest.approx(17 / 18)
    brevity = math.exp(1 - 16 / 14)
    assert bleu(candidates[1:], [references], max_order=1) == pytest.approx(brevity * 8 / 14)
    bigrams = 10 / 17
    assert bleu(candidates[:1], [references], 2) == pytest.approx(math.sqrt(17 / 18 * bigrams))


def test_numbers_of_another_implementation():
    """Values of pycocoevalcap, which smooths by 1e-15: the first three orders are not touched."""
    references = [
        words("a cat sat on the mat", "the cat is on the mat"),
        words("dogs run fast today", "a dog runs fast"),
        words("a cat sat on the mat", "the cat is on the mat"),
    ]
    candidates = words("a cat on the mat", "a dog runs", "the cat sat")
    for order, expected in [(1, 0.634736), (2, 0.593742), (3, 0.447317)]:
        assert bleu(candidates, references, order) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_perfect_text_scores_one_and_a_foreign_one_zero(smoothing):
    assert bleu(["2026-11-21"], [["2026-11-21"]], smoothing=smoothing) == pytest.approx(1)
    assert bleu(["abcdefgh"], [["2026-11-21"]], smoothing=smoothing) == 0
    assert bleu([""], [["2026-11-21"]], smoothing=smoothing) == 0


def test_too_short_a_text_pays_and_too_long_a_one_has_paid_already():
    reference = [["abcdefgh"]]
    assert bleu(["abcd"], reference) == pytest.approx(math.exp(1 - 8 / 4))
    assert bleu(["abcdefghhh"], reference, max_order=1) == pytest.approx(8 / 10)


def test_of_two_references_as_near_the_shorter_counts():
    assert bleu(["abcd"], [["abcdef", "ab"]], max_order=1) == 1


def test_a_corpus_is_counted_as_one_and_not_as_a_mean_of_sentences():
    candidates, references = ["abcdefgh", "xyzuvw"], [["abcdefgh"], ["dcbafe"]]
    alone = [bleu([c], [r]) for c, r in zip(candidates, references)]
    assert alone == [pytest.approx(1), 0]
    precisions = [8 / 14, 7 / 12, 6 / 10, 5 / 8]
    assert bleu(candidates, references) == pytest.approx(math.prod(precisions) ** 0.25)


def test_smoothing_is_for_orders_without_a_match():
    candidates, references = ["abxcd"], [["abcd"]]  # 4 of 5, 2 of 4, 0 of 3, 0 of 2
    assert bleu(candidates, references) == 0
    root = {"floor": [0.1 / 3, 0.1 / 2], "exp": [1 / 2 / 3, 1 / 4 / 2]}
    for smoothing, last_two in root.items():
        expected = math.prod([4 / 5, 2 / 4, *last_two]) ** 0.25
        assert bleu(candidates, references, smoothing=smoothing) == pytest.approx(expected)
    expected = (4 / 5 * 3 / 5 * 1 / 4 * 1 / 3) ** 0.25
    assert bleu(candidates, references, smoothing="add-one") == pytest.approx(expected)


def test_tokens_may_be_anything_also_arrays_of_numbers():
    tokens = np.array([[3, 4, 5, 6, 2], [4, 4, 5, 3, 2]])
    assert bleu(tokens, [[row] for row in tokens]) == pytest.approx(1)
    assert exact_match(tokens, tokens[::-1]) == 0 and exact_match(tokens, tokens) == 1


def test_tensors_of_tokens_are_compared_by_their_numbers():
    tokens = mt.tensor([[3, 4, 5, 6, 2], [4, 4, 5, 3, 2]])
    assert bleu(tokens, [[row] for row in tokens]) == pytest.approx(1)
    assert bleu(tokens, [[row.numpy()] for row in tokens]) == pytest.approx(1)
    assert exact_match(tokens, tokens[::-1]) == 0 and exact_match(tokens, tokens) == 1


def test_a_text_shorter_than_the_longest_ngrams_scores_nothing():
    assert bleu(["abc"], [["abc"]]) == 0 and bleu(["abc"], [["abc"]], max_order=3) == 1


def test_exact_match_is_the_share_of_texts_without_a_mistake():
    assert exact_match(["2026-11-21", "2026-11-22"], ["2026-11-21", "2026-11-23"]) == 0.5
    assert exact_match(["ab", "b", "c"], ["a", "bb", "c"]) == pytest.approx(1 / 3)
    assert exact_match([["a", "b"]], [("a", "b")]) == 1


@pytest.mark.parametrize("metric", [bleu, cider, exact_match])
def test_candidates_and_references_come_in_pairs(metric):
    name = metric.__name__
    with pytest.raises(ValueError, match=f"{name}: .* got 1 candidates and 2 references"):
        metric(["ab"], [["ab"], ["cd"]])
    with pytest.raises(ValueError, match=f"{name}: .* got 0 candidates and 0 references"):
        metric([], [])


@pytest.mark.parametrize(
    ("candidate", "several"), [(["a", "cat"], ["a", "cat"]), ("a cat", [["a", "cat"]])]
)
def test_words_and_characters_are_not_compared(candidate, several):
    with pytest.raises(ValueError, match="must all be str, or all sequences of tokens: got"):
        bleu([candidate], [several], max_order=1)


@pytest.mark.parametrize("max_order", [0, -1, 2.0, None])
def test_a_longest_ngram_that_is_none_is_refused(max_order):
    with pytest.raises(ValueError, match="bleu: max_order must be an integer of at least 1"):
        bleu(["abcd"], [["abcd"]], max_order)


@pytest.mark.parametrize("references", [["abcd"], [[]], [[1, 2, 3, 4]]])
def test_a_reference_that_is_not_in_a_list_is_refused(references):
    with pytest.raises(ValueError, match="needs a list of references for each candidate"):
        bleu(["abcd"], references)


def test_an_unknown_smoothing_is_refused_by_name():
    with pytest.raises(ValueError, match="one of none, floor, add-one, exp, not 'laplace'"):
        bleu(["ab"], [["ab"]], smoothing="laplace")


# -- CIDEr-D --------------------------------------------------------------------------------


def cider_by_the_book(candidates, references):
    """The paper's equations with a dense vector over all n-grams of all texts."""
    scores = []
    for candidate, several in zip(candidates, references):
        by_order = []
        for n in range(1, 5):

            def grams(text, n=n):
                return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]

            known = sorted({g for t in [candidate] + sum(references, []) for g in grams(t)})
            idf = np.array(
                [
                    math.log(len(references))
                    - math.log(max(1, sum(any(g in grams(r) for r in rs) for rs in references)))
                    for g in known
                ]
            )

            def vector(text, grams=grams, known=known, idf=idf):
                return idf * np.array([grams(text).count(g) for g in known], float)

            cosines = []
            for reference in several:
                c, r = vector(candidate), vector(reference)
                norms = np.linalg.norm(c) * np.linalg.norm(r)
                cosine = np.minimum(c, r) @ r / norms if norms else 0.0
                gap = len(candidate) - len(reference)
                cosines.append(cosine * math.exp(-(gap**2) / 72))
            by_order.append(np.mean(cosines))
        scores.append(10 * np.mean(by_order))
    return np.mean(scores)


@given(corpus=st.lists(st.tuples(text, several_texts), min_size=1, max_size=4))
def test_cider_is_that_of_its_equations(corpus):
    candidates, references = (list(part) for part in zip(*corpus))
    expected = cider_by_the_book(candidates, references)
    assert cider(candidates, references) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_cider_of_another_implementation():
    """The value of pycocoevalcap."""
    references = [
        words("a cat sat on the mat", "the cat is on the mat"),
        words("dogs run fast today", "a dog runs fast"),
        words("a cat sat on the mat", "the cat is on the mat"),
    ]
    candidates = words("a cat on the mat", "a dog runs", "the cat sat")
    assert cider(candidates, references) == pytest.approx(2.824383, abs=1e-6)


def test_cider_of_the_right_words_is_ten_and_of_foreign_ones_zero():
    texts = words("a 3 left of a 7", "a 1 above a 2", "a 0 left of a 5")
    assert cider(texts, [[text] for text in texts]) == pytest.approx(10)
    assert cider(texts, [[text] for text in words("x y z v", "x z v w", "y z w v")]) == 0


def test_what_is_said_of_every_picture_counts_nothing():
    references = [[text] for text in words("a cat sleeps", "a dog sleeps", "a cow sleeps")]
    assert cider(words("a a sleeps", "a", "sleeps a"), references) == 0
    assert cider(words("a cat"), [words("a cat")]) == 0


def test_cider_refuses_what_bleu_refuses():
    with pytest.raises(ValueError, match="cider: needs a list of references for each candidate"):
        cider(["abcd"], ["abcd"])
    with pytest.raises(ValueError, match="cider: .* must all be str, or all sequences of tokens"):
        cider([["a", "cat"]], [["a cat"]])
