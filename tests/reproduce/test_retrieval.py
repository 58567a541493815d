from pathlib import Path

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.__main__ import main
from minitorch_attn.attention import CroW, RegionalAttention
from minitorch_attn.reproduce import retrieval
from minitorch_attn.reproduce.retrieval import Pooled, Regional, Search
from minitorch_attn.retrieval import PCAWhitening, RegionalMAC, gem, mac, spoc

pytest.importorskip("sklearn")

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
DESCRIPTORS = ["MAC", "SPoC", "GeM", "R-MAC", "R-MAC, regional attention", "CroW"]
STEPS = ["", "whitened", "expanded", "re-ranked"]
SMALL = ["--limit", "30", "--epochs", "1", "--channels", "8", "--components", "4"]
SMALL += ["--queries", "2", "--gallery", "10"]
QUICK = ["reproduce", "retrieval", "--data", "digits", *SMALL]


def table(capsys):
    """What was printed before the table, and its numbers by descriptor and step."""
    said, _, rows = capsys.readouterr().out.partition("descriptor ")
    found, descriptor = {}, None
    for line in rows.splitlines()[1:]:
        name, numbers = line[:28].rstrip(), [float(number) for number in line[28:].split()]
        descriptor = descriptor if name.startswith("  ") else name
        found[descriptor, name.strip() if name.startswith("  ") else ""] = numbers
    return said, found


def maps(*shape):
    return np.maximum(np.random.default_rng(0).normal(size=shape), 0)


def test_six_descriptors_are_searched_by_in_four_ways(capsys):
    assert main(QUICK) == 0
    said, found = table(capsys)
    assert list(found) == [(name, step) for name in DESCRIPTORS for step in STEPS]
    assert all(len(row) == 4 and all(0 <= n <= 100 for n in row) for row in found.values())
    assert "189 training images of 7 classes, and 21 kept apart" in said
    assert "20 queries and 100 images in the gallery, of 10 classes" in said


def test_the_same_arguments_give_the_same_numbers_and_seeds_are_averaged(capsys):
    both = []
    for seeds in "1", "1", "2":
        main([*QUICK, "--seeds", seeds])
        both.append(table(capsys)[1])
    assert both[0] == both[1] != both[2]


def test_training_images_are_of_seen_classes_and_none_is_kept_apart_too():
    labels = np.arange(1000) % 10
    fitted, apart = retrieval._training_images(labels, 7, None)
    assert labels[fitted].max() == labels[apart].max() == 6
    assert len(fitted) == 630 and len(apart) == 70
    assert not set(fitted) & set(apart)
    fitted, apart = retrieval._training_images(labels, 7, 20)
    assert np.bincount(labels[np.concatenate([fitted, apart])]).tolist() == [20] * 7


def test_queries_are_not_in_the_gallery_and_all_classes_are_there_alike():
    labels = np.random.default_rng(0).permutation(np.arange(100) % 10)
    queries, gallery = retrieval._split(labels, 2, 5)
    assert not set(queries) & set(gallery)
    assert (np.bincount(labels[queries]) == 2).all() and (np.bincount(labels[gallery]) == 5).all()


def test_queries_that_leave_nothing_to_search_for_are_refused(capsys):
    assert main([*QUICK, "--queries", "500"]) == 2
    assert "--queries 500 leaves nothing to search for" in capsys.readouterr().err


def test_the_scores_tell_seen_from_unseen_classes():
    search = Search(maps(2, 1, 1, 1), np.array([0, 9]), maps(4, 1, 1, 1), np.array([0, 0, 9, 9]), 7)
    assert search.score(np.array([[0, 1, 2, 3], [2, 3, 0, 1]])) == [1, 1, 1, 1]
    backwards = search.score(np.array([[0, 1, 2, 3], [0, 1, 2, 3]]))
    assert backwards[0] == backwards[2] == 1 and max(backwards[1], backwards[3]) <= 0.5


def test_a_pooled_descriptor_is_whitened_as_a_whole():
    x, apart = maps(3, 4, 5, 5), maps(20, 4, 5, 5) + 0.1
    describe = Pooled(spoc)
    np.testing.assert_allclose(np.linalg.norm(describe(x), axis=1), 1)
    whitening = PCAWhitening(2).fit(describe.parts(apart))
    np.testing.assert_allclose(
        describe(x, whitening.transform), whitening.transform(describe.parts(x))
    )


def test_regions_are_whitened_one_by_one_and_weighed_by_attention():
    x = maps(3, 4, 6, 6)
    mt.manual_seed(0)
    attention = RegionalAttention(4).to("float64")
    parts = Regional().parts(x).reshape(3, -1, 4)
    np.testing.assert_allclose(Regional()(x), parts.sum(axis=1))
    whitening = PCAWhitening(2).fit(parts.reshape(-1, 4))
    np.testing.assert_allclose(
        Regional()(x, whitening.transform), whitening.transform(parts).sum(axis=1)
    )
    weighed = []
    attention.gate.register_forward_hook(lambda m, inputs, w: weighed.append(w.numpy()))
    y = Regional(attention)(x)
    np.testing.assert_allclose(y, (weighed[0] * parts).sum(axis=1))


def test_whitening_is_learned_on_the_images_kept_apart(monkeypatch):
    learned_on = []

    class Watched(PCAWhitening):
        def fit(self, x):
            learned_on.append(np.asarray(x))
            return super().fit(x)

    monkeypatch.setattr(retrieval, "PCAWhitening", Watched)
    labels, apart = np.array([0, 9] * 15), maps(40, 4, 5, 5) + 0.1
    search = Search(maps(30, 4, 5, 5), labels, maps(30, 4, 5, 5), labels, 7)
    dict(retrieval._measure(2, search, RegionalAttention(4).to("float64"), apart))
    kinds = [Pooled(mac), Pooled(spoc), Pooled(gem), Regional(), Regional(), Pooled(CroW())]
    for x, kind in zip(learned_on, kinds, strict=True):
        np.testing.assert_allclose(x, kind.parts(apart))


def test_attention_learns_while_the_network_stays_as_it_is(monkeypatch):
    fitted = []

    def fit_and_watch(args, model, dataset, epochs, seed):
        before = {name: p.numpy().copy() for name, p in model.state_dict().items()}
        accuracy = fit(args, model, dataset, epochs, seed)
        after = {name: p.numpy() for name, p in model.state_dict().items()}
        moved = {name for name in before if not np.array_equal(before[name], after[name])}
        fitted.append((model, moved))
        return accuracy

    fit = retrieval._fit
    monkeypatch.setattr(retrieval, "_fit", fit_and_watch)
    assert main(QUICK) == 0
    (_, _), (model, moved) = fitted
    assert isinstance(model[0], RegionalMAC)
    assert moved and all(name.startswith("0.attention") for name in moved)


def test_it_learns_and_what_was_seen_is_found_best(capsys):
    chosen = ["--limit", "150", "--epochs", "5", "--channels", "16", "--lr", "0.01"]
    assert main([*QUICK, *chosen, "--gallery", "40"]) == 0
    seen, unseen, first, _ = table(capsys)[1]["CroW", ""]
    assert seen > 25 and first > 25 and seen > unseen  # guessing has about 10


@pytest.mark.parametrize("option", ["--limit", "--queries", "--gallery", "--components", "--seeds"])
@pytest.mark.parametrize("value", ["0", "-5", "many"])
def test_numbers_that_cannot_be_are_refused(option, value, capsys):
    with pytest.raises(SystemExit):
        main([*QUICK, f"{option}={value}"])
    told = f"argument {option}: must be a whole number of at least 1, not {value}"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--components", "9"], "--components 9 are too many: --channels 8 and 21 images"),
        (["--limit", "3"], "2 images kept apart for whitening allow 1"),
        (["--limit", "1"], "0 images kept apart for whitening allow 0"),
    ],
)
def test_too_little_to_learn_whitening_from_is_told_before_training(options, why, capsys):
    assert main([*QUICK, *options]) == 2
    out, err = capsys.readouterr()
    assert why in err and not out


def test_classes_must_be_the_same_and_three_at_least():
    assert retrieval._seen_classes("abc", "abc") == 2
    assert retrieval._seen_classes("abcdefghij", "abcdefghij") == 7
    with pytest.raises(ValueError, match="needs 3 classes at least, .* there are 2"):
        retrieval._seen_classes("ab", "ab")
    with pytest.raises(ValueError, match=r"different classes: \['a', 'b', 'c'\] and \['a', 'c'\]"):
        retrieval._seen_classes("abc", "ac")


def test_a_gallery_smaller_than_the_neighbourhood_is_searched_as_well(capsys):
    assert main([*QUICK, "--queries", "1", "--gallery", "1"]) == 0
    assert ("CroW", "re-ranked") in table(capsys)[1]


def test_attention_sees_all_classes_where_images_are_sorted_and_many(monkeypatch):
    fitted = []

    def fit_and_watch(args, model, dataset, epochs, seed):
        fitted.append(dataset)
        return 0.0

    monkeypatch.setattr(retrieval, "_fit", fit_and_watch)
    monkeypatch.setattr(retrieval, "ATTENDED", 30)
    labels = np.repeat(np.arange(7), 10)
    images = np.zeros((70, 1, 8, 8), np.uint8)
    args = retrieval.argparse.Namespace(channels=4, epochs=1)
    retrieval._train(args, images, labels, 7, 0)
    kept = fitted[1].arrays[1]
    assert len(kept) <= 30 and set(np.asarray(kept)) == set(range(7))


def test_numbers_that_are_not_finite_are_told(capsys):
    assert main([*QUICK, "--lr", "1e30"]) == 1
    out, err = capsys.readouterr()
    assert "CroW" not in out and "reproduce retrieval: " in err


def test_missing_files_are_told_in_words(tmp_path, capsys):
    folder = ["--data", "mnist", "--data-folder", str(tmp_path), "--no-download"]
    assert main(["reproduce", "retrieval", *folder]) == 2
    told = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz" in told and "--data digits" in told
    assert main(["reproduce", "retrieval", "--data", "folder"]) == 2
    assert "needs --data-folder" in capsys.readouterr().err
    assert main(["reproduce", "retrieval", "--data", "folder", *folder[2:4]]) == 2
    told = capsys.readouterr().err
    assert "no images found" in told and "digits" not in told


def test_it_runs_on_folders_of_images(tmp_path, capsys):
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, many in (("train", 20), ("test", 8)):
        for label in range(10):
            folder = tmp_path / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(many):
                pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                pillow.fromarray(pixels).save(folder / f"{number}.png")
    chosen = ["--data", "folder", "--data-folder", str(tmp_path), *SMALL, "--gallery", "6"]
    assert main(["reproduce", "retrieval", *chosen]) == 0
    assert list(table(capsys)[1])[0] == ("MAC", "")


@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason="needs the real MNIST files")
def test_it_runs_on_mnist(capsys):
    folder = ["--data", "mnist", "--data-folder", str(REAL_DATA), "--no-download"]
    assert main(["reproduce", "retrieval", *folder, *SMALL]) == 0
    assert len(table(capsys)[1]) == len(DESCRIPTORS) * len(STEPS)
