import numpy as np
import pytest

from minitorch_attn.data import Dataset, Subset, TensorDataset, random_split
from minitorch_attn.engine import ShapeError, manual_seed, tensor


class Squares(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i >= 10:
            raise IndexError(i)
        return np.full(2, float(i)), i * i


def test_a_tensor_dataset_gives_samples_and_slices():
    data = TensorDataset(np.arange(12).reshape(6, 2), np.arange(6))
    assert len(data) == 6
    x, y = data[-1]
    assert x.tolist() == [10, 11] and y == 5
    x, y = data[1:3]
    assert x.tolist() == [[2, 3], [4, 5]] and y.tolist() == [1, 2]


def test_a_tensor_dataset_takes_tensors_and_shares_their_memory():
    x = tensor([[1.0], [2.0]])
    data = TensorDataset(x)
    assert np.shares_memory(data.arrays[0], x.numpy())


@pytest.mark.parametrize("arrays", [(), (np.zeros(3), np.zeros(4)), (np.float32(1),)])
def test_a_tensor_dataset_refuses_arrays_that_do_not_agree(arrays):
    with pytest.raises(ShapeError, match="same number of samples in axis 0"):
        TensorDataset(*arrays)


def test_a_dataset_of_ones_own_is_stacked_into_batches():
    x, y = Squares().batch(np.array([3, 0]), np.random.default_rng(0))
    assert x.tolist() == [[3, 3], [0, 0]]
    assert y.tolist() == [9, 0] and y.dtype == np.int64


def test_a_dataset_can_be_iterated():
    assert [y for _, y in Squares()] == [i * i for i in range(10)]
    assert len(list(TensorDataset(np.arange(4)))) == 4


def test_samples_of_different_shapes_are_refused_with_their_shapes():
    class Ragged(Squares):
        def __getitem__(self, i):
            return np.zeros(i + 1)

    with pytest.raises(ShapeError, match=r"\(1,\), \(3,\).*collate_fn"):
        Ragged().batch(np.array([2, 0]), np.random.default_rng(0))


def test_a_dataset_without_its_methods_says_which_is_missing():
    with pytest.raises(NotImplementedError, match="Dataset does not define __len__"):
        len(Dataset())


def test_a_subset_renumbers_samples_singly_in_slices_and_in_batches():
    data = Subset(TensorDataset(np.arange(10) * 10), [7, 2, 5])
    assert len(data) == 3
    assert data[0] == (70,) and data[-1] == (50,)
    assert data[1:][0].tolist() == [20, 50]
    (batch,) = data.batch(np.array([2, 0]), np.random.default_rng(0))
    assert batch.tolist() == [50, 70]
    with pytest.raises(IndexError):
        data[3]


def test_a_subset_of_a_subset_or_of_a_list_works():
    assert Subset(Subset(TensorDataset(np.arange(10)), [9, 8, 7]), [2])[0] == (7,)
    pairs = [(float(i), i) for i in range(5)]
    _, y = Subset(pairs, [4, 1]).batch(np.array([1, 0]), np.random.default_rng(0))
    assert y.tolist() == [1, 4]


def test_random_split_shares_out_every_sample_once():
    parts = random_split(TensorDataset(np.arange(10)), [7, 3], generator=0)
    assert [len(p) for p in parts] == [7, 3]
    assert sorted(parts[0][:][0].tolist() + parts[1][:][0].tolist()) == list(range(10))
    assert parts[0][:][0].tolist() != sorted(parts[0][:][0])


def test_random_split_is_decided_by_the_seed():
    data = TensorDataset(np.arange(100))
    first, again, other = (random_split(data, [0.5, 0.5], generator=s)[0] for s in (1, 1, 2))
    assert first.indices.tolist() == again.indices.tolist() != other.indices.tolist()
    manual_seed(5)
    default = random_split(data, [0.5, 0.5])[0]
    manual_seed(5)
    assert random_split(data, [0.5, 0.5])[0].indices.tolist() == default.indices.tolist()


def test_fractions_hand_what_rounding_leaves_to_the_first_parts():
    parts = random_split(range(11), [0.5, 0.25, 0.25], generator=0)
    assert [len(p) for p in parts] == [6, 3, 2]


@pytest.mark.parametrize("lengths", [[5, 4], [12, -2], [0.5, 0.6], [1.5, -0.5]])
def test_lengths_that_do_not_add_up_are_refused(lengths):
    with pytest.raises(ValueError, match="add up to"):
        random_split(range(10), lengths)
