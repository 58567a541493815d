import json

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.data import (
    DataLoader,
    Dataset,
    ImageDataset,
    Subset,
    TensorDataset,
    digits,
    transforms,
)


def order(loader):
    return [int(i) for (batch,) in loader for i in batch.numpy()]


@pytest.fixture
def data():
    return TensorDataset(np.arange(10))


def test_without_shuffling_batches_come_in_order_and_the_last_holds_the_rest(data):
    batches = [b.tolist() for (b,) in DataLoader(data, batch_size=4)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("count", "drop_last", "batches"),
    [(10, False, 3), (10, True, 2), (8, False, 2), (8, True, 2), (0, False, 0), (3, True, 0)],
)
def test_the_length_is_the_number_of_batches(count, drop_last, batches):
    loader = DataLoader(TensorDataset(np.arange(count)), batch_size=4, drop_last=drop_last)
    assert len(loader) == len(list(loader)) == batches


def test_shuffling_visits_every_sample_once_in_a_new_order_every_epoch(data):
    loader = DataLoader(data, batch_size=3, shuffle=True, generator=0)
    first, second = order(loader), order(loader)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != list(range(10))


@pytest.mark.parametrize("seed", [7, np.random.default_rng])
def test_a_seed_repeats_all_epochs(data, seed):
    def epochs():
        generator = seed if seed == 7 else seed(7)
        loader = DataLoader(data, batch_size=3, shuffle=True, generator=generator)
        return [order(loader) for _ in range(3)]

    assert epochs() == epochs()


def test_manual_seed_decides_where_no_generator_is_given(data):
    mt.manual_seed(3)
    first = order(DataLoader(data, shuffle=True))
    mt.manual_seed(3)
    assert order(DataLoader(data, shuffle=True)) == first
    mt.manual_seed(4)
    assert order(DataLoader(data, shuffle=True)) != first


def test_a_loader_that_does_not_shuffle_leaves_the_generator_alone(data):
    mt.manual_seed(0)
    before = mt.default_generator().bit_generator.state
    list(DataLoader(data, batch_size=4))
    assert mt.default_generator().bit_generator.state == before


def test_a_saved_state_continues_with_the_same_epochs_through_json():
    images = np.random.default_rng(0).random((12, 1, 6, 6), dtype=np.float32)
    augmented = ImageDataset(images, np.arange(12), transform=transforms.RandomCrop(6, padding=2))

    def loader(seed):
        return DataLoader(augmented, batch_size=5, shuffle=True, generator=seed)

    def epoch(loader):
        return [(x.tolist(), y.tolist()) for x, y in loader]

    running = loader(1)
    epoch(running)
    saved = json.dumps(running.state_dict())
    rest = [epoch(running), epoch(running)]
    resumed = loader(99)
    resumed.load_state_dict(json.loads(saved))
    assert [epoch(resumed), epoch(resumed)] == rest


def test_random_transforms_draw_from_the_loaders_generator():
    images = np.random.default_rng(0).random((8, 1, 4, 4), dtype=np.float32)
    flipped = ImageDataset(images, np.arange(8), transform=transforms.RandomHorizontalFlip())

    def epoch(seed):
        ((x, _),) = DataLoader(flipped, batch_size=8, generator=seed)
        return x.tolist()

    assert epoch(0) == epoch(0) != epoch(1)


def test_batches_are_tensors_of_float_images_and_int64_labels():
    images, labels = next(iter(DataLoader(digits(), batch_size=64)))
    assert isinstance(images, mt.Tensor) and isinstance(labels, mt.Tensor)
    assert images.shape == (64, 1, 8, 8) and images.dtype == np.float32
    assert labels.shape == (64,) and labels.dtype == np.int64


def test_an_array_dataset_is_asked_once_a_batch_not_once_a_sample():
    calls = []

    class Counted(TensorDataset):
        def __getitem__(self, index):
            calls.append(index)
            return super().__getitem__(index)

    data = Counted(np.arange(100))
    list(DataLoader(Subset(data, np.arange(100)), batch_size=10, shuffle=True))
    assert len(calls) == 10


def test_batches_do_not_share_memory_with_the_dataset():
    values = np.arange(6.0)
    for (batch,) in DataLoader(TensorDataset(values), batch_size=3):
        batch.zero_()
    assert values.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_list_of_samples_is_a_dataset_too():
    pairs = [(np.array([i, i]), i % 2) for i in range(5)]
    x, y = next(iter(DataLoader(pairs, batch_size=3)))
    assert x.tolist() == [[0, 0], [1, 1], [2, 2]] and y.tolist() == [0, 1, 0]


def test_samples_that_are_not_tuples_give_single_tensors():
    class Numbers(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return np.float32(i)

    batch = next(iter(DataLoader(Numbers(), batch_size=4)))
    assert isinstance(batch, mt.Tensor) and batch.tolist() == [0, 1, 2, 3]


def test_collate_fn_gets_the_samples_and_its_result_is_handed_out():
    sentences = ["to", "be", "or", "not"]
    batches = list(DataLoader(sentences, batch_size=3, collate_fn=" ".join))
    assert batches == ["to be or", "not"]


@pytest.mark.parametrize("size", [0, -1, 2.5, None])
def test_a_batch_size_that_is_not_a_positive_integer_is_refused(data, size):
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        DataLoader(data, batch_size=size)
