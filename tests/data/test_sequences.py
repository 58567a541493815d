import datetime
import re

import numpy as np
import pytest

from minitorch_attn.data import (
    DataLoader,
    SequencePairs,
    Vocabulary,
    date_pairs,
    reversal_pairs,
    sorting_pairs,
)
from minitorch_attn.data.dates import FORMATS, written


def test_a_vocabulary_gives_back_what_it_was_given():
    letters = Vocabulary("abc")
    assert len(letters) == 6
    texts = ["cab", "", "b"]
    assert letters.decode(letters.encode(texts)) == texts
    assert letters.decode(letters.encode(texts, framed=True)) == texts


def test_tokens_0_1_2_are_padding_start_and_end():
    letters = Vocabulary("abc")
    np.testing.assert_array_equal(letters.encode(["cab", "b"]), [[5, 3, 4], [4, 0, 0]])
    framed = letters.encode(["cab", "b"], framed=True)
    np.testing.assert_array_equal(framed, [[1, 5, 3, 4, 2], [1, 4, 2, 0, 0]])
    assert letters.encode([]).shape == (0, 0)


def test_a_separator_makes_symbols_of_words():
    words = Vocabulary(["a", "cat", "sat"], separator=" ")
    np.testing.assert_array_equal(words.encode(["a cat sat", "a cat"]), [[3, 4, 5], [3, 4, 0]])
    np.testing.assert_array_equal(words.encode([["a", "cat"]]), [[3, 4]])
    assert words.decode([[3, 4, 2, 5], [2, 0, 0, 0]]) == ["a cat", ""]
    with pytest.raises(ValueError, match="'dog', in 'a dog', is not one of its symbols 'a cat sat"):
        words.encode(["a dog"])


def test_decoding_stops_at_the_first_end():
    assert Vocabulary("abc").decode([[1, 5, 0, 3, 2, 4], [2, 4, 4, 4, 4, 4]]) == ["ca", ""]


def test_a_text_alone_goes_into_a_list():
    with pytest.raises(TypeError, match=r"needs a list of texts, \['cab'\], not 'cab'"):
        Vocabulary("abc").encode("cab")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([3, 4], r"tokens \(N, T\) of integers, not \(2,\)"),
        ([[3.0, 4.0]], "of float64"),
        ([[3, 6]], "from 0 to 5, not 6"),
        ([[3, -1]], "from 0 to 5, not -1"),
    ],
)
def test_what_is_no_token_is_not_decoded(tokens, message):
    with pytest.raises(ValueError, match="^Vocabulary.decode: .*" + message):
        Vocabulary("abc").decode(tokens)


def test_no_tokens_are_empty_texts():
    assert Vocabulary("abc").decode(np.zeros((2, 0), int)) == ["", ""]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reversal_pairs(-1), "reversal_pairs: count must be an integer of at least 0"),
        (lambda: sorting_pairs(2, 0), "sorting_pairs: shortest must be .* at least 1, not 0"),
        (lambda: reversal_pairs(2, 5, 4), "reversal_pairs: longest must be .* at least 5, not 4"),
        (lambda: date_pairs(1.5), "date_pairs: count must be an integer .* not 1.5"),
        (
            lambda: SequencePairs([("a", "b"), "ab"], Vocabulary("ab"), Vocabulary("ab")),
            r"SequencePairs: pairs\[1\] must be two texts, not 'ab'",
        ),
    ],
)
def test_pairs_that_cannot_be(make, message):
    with pytest.raises(ValueError, match="^" + message):
        make()


def test_what_is_no_symbol_is_named():
    with pytest.raises(ValueError, match="'x', in 'axb', is not one of its symbols 'abc'"):
        Vocabulary("abc").encode(["ab", "axb"])
    with pytest.raises(ValueError, match="a symbol comes twice in 'aba'"):
        Vocabulary("aba")


@pytest.mark.parametrize("make", [date_pairs, reversal_pairs, sorting_pairs])
def test_a_seed_repeats_the_pairs(make):
    assert make(20, generator=3).pairs == make(20, generator=3).pairs
    assert make(20, generator=3).pairs != make(20, generator=4).pairs
    assert len(make(20)) == 20


def test_words_are_written_backwards_and_sorted():
    pairs = reversal_pairs(300, 2, 5, generator=0).pairs
    assert all(target == source[::-1] for source, target in pairs)
    assert {len(source) for source, _ in pairs} == {2, 3, 4, 5}
    pairs = sorting_pairs(300, 2, 5, generator=0).pairs
    assert all(target == "".join(sorted(source)) for source, target in pairs)


def test_a_batch_is_as_long_as_it_needs():
    words = reversal_pairs(50, 3, 9, generator=0)
    sources, lengths, targets = words.batch(np.array([4, 7]), np.random.default_rng())
    assert words.source_vocabulary.decode(sources) == [words[4][0], words[7][0]]
    assert lengths.tolist() == [len(words[4][0]), len(words[7][0])]
    assert sources.shape == (2, lengths.max())
    assert targets.shape == (2, lengths.max() + 2)
    assert (targets[:, 0] == 1).all() and ((targets == 2).sum(axis=1) == 1).all()


def test_a_loader_hands_out_tensors():
    source, lengths, target = next(iter(DataLoader(date_pairs(30, generator=0), 8)))
    assert source.shape[0] == lengths.shape[0] == target.shape[0] == 8
    assert source.shape[1] == max(lengths.tolist())
    assert target.shape[1] == 12


@pytest.mark.parametrize(
    ("form", "text"),
    list(
        zip(
            FORMATS,
            [
                "3 may 1979",
                "3 may 1979",
                "may 3, 1979",
                "may 3 1979",
                "thursday, may 3, 1979",
                "the 3rd of may 1979",
                "03.05.1979",
                "5/3/1979",
            ],
            strict=True,
        )
    ),
)
def test_a_day_in_every_format(form, text):
    assert written(datetime.date(1979, 5, 3), form) == text


def test_the_endings_of_ordinals():
    form = "{day}{th}"
    texts = [written(datetime.date(2000, 1, day), form) for day in (1, 2, 3, 4, 11, 12, 13, 21, 22)]
    assert texts == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd"]


def test_every_pair_is_of_one_day():
    pairs = date_pairs(2000, generator=0)
    for source, target in pairs.pairs:
        day = datetime.date.fromisoformat(target)
        assert source in {written(day, form) for form in FORMATS}
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", target)
    pairs.source_vocabulary.encode([source for source, _ in pairs.pairs])
    assert pairs.target_vocabulary.decode(
        pairs.target_vocabulary.encode([target for _, target in pairs.pairs])
    ) == [target for _, target in pairs.pairs]


def test_a_day_for_testing_is_in_no_pair_for_training():
    train = {target for _, target in date_pairs(20_000, generator=0).pairs}
    test = {target for _, target in date_pairs(2000, train=False, generator=0).pairs}
    assert len(train) > 10_000 and len(test) > 1000
    assert not train & test
