import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn

from .parity import normal

LENGTHS = [2, 5, 1, 4]


def sequences():
    return [normal(n, 3) for n in LENGTHS]


@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_fills_up_behind_each_sequence(batch_first):
    padded = nn.pad_sequence(sequences(), batch_first, -1.0).numpy()
    padded = padded if batch_first else padded.swapaxes(0, 1)
    assert padded.shape == (4, 5, 3)
    for row, sequence in zip(padded, sequences()):
        np.testing.assert_array_equal(row[: len(sequence)], sequence)
        np.testing.assert_array_equal(row[len(sequence) :], -1)


def test_integers_are_padded_with_integers():
    padded = nn.pad_sequence([[1, 2, 3], [4]], batch_first=True)
    assert padded.dtype == np.int64
    assert padded.tolist() == [[1, 2, 3], [4, 0, 0]]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[5, 4, 2, 1], LENGTHS])
def test_packing_is_pytorchs(batch_first, lengths):
    rnn = pytest.importorskip("torch").nn.utils.rnn
    torch = pytest.importorskip("torch")
    x = normal(4, 5, 3) if batch_first else normal(5, 4, 3)
    falling = lengths == sorted(lengths, reverse=True)
    ours = nn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=falling)
    theirs = rnn.pack_padded_sequence(torch.tensor(x), lengths, batch_first, enforce_sorted=falling)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    for settings in ({}, {"batch_first": True}, {"padding_value": 7.0, "total_length": 6}):
        for a, b in zip(
            nn.pad_packed_sequence(ours, **settings), rnn.pad_packed_sequence(theirs, **settings)
        ):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_packing_and_padding_carry_gradients_to_the_sequences():
    leaves = [mt.tensor(s, requires_grad=True) for s in sequences()]
    padded, _ = nn.pad_packed_sequence(nn.pack_sequence(leaves, enforce_sorted=False))
    dy = normal(*padded.shape)
    padded.backward(dy)
    for n, leaf in enumerate(leaves):
        np.testing.assert_array_equal(leaf.grad.numpy(), dy[: len(leaf), n])


def test_the_rows_are_those_of_the_docstring():
    abc, x = [[1], [2], [3]], [[9]]
    packed = nn.pack_sequence([abc, x])
    assert packed.data.reshape(-1).tolist() == [1, 9, 2, 3]
    assert packed.batch_sizes.tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5, 4, 1], r"an input \(5, 4, 3\) of N = 4 sequences needs as many lengths"),
        ([5, 4, 3, 2, 1], r"needs as many lengths, .* \(is batch_first right\?\)"),
        ([5.0, 4.0, 2.0, 1.0], "integers, not"),
        ([6, 4, 2, 1], "lengths must be from 1 to L = 5"),
        ([5, 4, 2, 0], "lengths must be from 1 to L = 5"),
    ],
)
def test_lengths_that_do_not_fit(lengths, message):
    with pytest.raises(mt.ShapeError, match=message):
        nn.pack_padded_sequence(normal(5, 4, 3), lengths)


def test_other_mistakes():
    with pytest.raises(ValueError, match=r"the lengths must fall, not \[2, 5, 1, 4\]: sort"):
        nn.pack_padded_sequence(normal(5, 4, 3), LENGTHS)
    with pytest.raises(ValueError, match="total_length=3 is less than 5, the greatest length"):
        nn.pad_packed_sequence(nn.pack_sequence(sequences(), False), total_length=3)
    with pytest.raises(mt.ShapeError, match="needs at least one sequence"):
        nn.pad_sequence([])
    for unlike in ([normal(2, 3), normal(2, 4)], [normal(2), normal(2, 4)], [1.0, 2.0]):
        with pytest.raises(mt.ShapeError, match="may differ in their length alone"):
            nn.pad_sequence(unlike)
    with pytest.raises(mt.ShapeError, match=r"needs a padded batch \(L, N, \*\), not \(5,\)"):
        nn.pack_padded_sequence(normal(5), [5])
    with pytest.raises(TypeError, match="needs a PackedSequence, not a Tensor"):
        nn.pad_packed_sequence(mt.zeros(3))


def test_unsigned_lengths_fall_as_others_do():
    packed = nn.pack_padded_sequence(normal(3, 2), np.array([3, 1], "uint8"))
    assert packed.batch_sizes.tolist() == [2, 1, 1]


def test_any_iterable_of_sequences_is_padded_and_packed():
    padded = nn.pad_sequence(mt.ones(length) for length in (2, 1))
    np.testing.assert_array_equal(padded.numpy(), [[1, 1], [1, 0]])
    assert nn.pack_sequence(mt.ones(length) for length in (2, 1)).batch_sizes.tolist() == [2, 1]
