from pathlib import Path

import numpy as np
import pytest

from minitorch_attn.__main__ import main
from minitorch_attn.reproduce import stn

pytest.importorskip("sklearn")

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
QUICK = ["reproduce", "stn", "--data", "digits", "--limit", "64", "--epochs", "1"]


def table(capsys):
    """The rows that were printed, by model: parameters, error, the paper's error."""
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("model"))
    rows = [line.split() for line in lines[start + 1 :]]
    return {name: [float(n.replace(",", "")) for n in numbers] for name, *numbers in rows}


def test_four_models_are_printed_beside_the_papers_numbers(capsys):
    assert main([*QUICK, "--filters", "4"]) == 0
    rows = table(capsys)
    assert list(rows) == ["FCN", "CNN", "ST-FCN", "ST-CNN"]
    assert [paper for *_, paper in rows.values()] == [2.1, 1.2, 1.2, 0.7]
    assert rows["FCN"][0] == 784 * 256 + 256 + 256 * 256 + 256 + 2570
    assert rows["CNN"][0] == 4 * 81 + 4 + 4 * 4 * 49 + 4 + 10 * (4 * 4 + 1)
    assert rows["ST-FCN"][0] - rows["FCN"][0] == 785 * 32 + 2 * 33 * 32 + 33 * 6
    assert rows["ST-CNN"][0] - rows["CNN"][0] == 26 * 20 + 501 * 20 + 21 * 20 + 21 * 6
    assert all(0 <= error <= 100 for _, error, _ in rows.values())


@pytest.mark.parametrize("protocol", ["RTS", "P", "E"])
@pytest.mark.parametrize("transform", stn.TRANSFORMS)
def test_every_protocol_and_transform_runs(protocol, transform, capsys):
    chosen = ["--protocol", protocol, "--transform", transform, "--filters", "2"]
    assert main([*QUICK, *chosen, "--limit", "32"]) == 0
    index = stn.TRANSFORMS.index(transform)
    assert table(capsys)["ST-CNN"][2] == stn.TABLE_1[protocol]["ST-CNN"][index]


def test_cluttered_digits_are_averaged_behind_the_transformer(capsys):
    assert main([*QUICK, "--protocol", "TC", "--filters", "4"]) == 0
    rows = table(capsys)
    assert [paper for *_, paper in rows.values()] == [13.2, 3.5, 2.0, 1.7]
    rest = 257 * 256 + 2570  # behind the first layer
    assert rows["FCN"][0] == 60**2 * 256 + 256 + rest
    assert rows["ST-FCN"][0] == 30**2 * 256 + 256 + rest + 3601 * 32 + 2 * 33 * 32 + 33 * 6
    assert rows["CNN"][0] == 4 * 81 + 4 + 4 * 4 * 49 + 4 + 10 * (4 * 10**2 + 1)
    small = 26 * 20 + 501 * 20 + (20 * 9**2 + 1) * 20 + 21 * 6
    assert rows["ST-CNN"][0] == 4 * 81 + 4 + 4 * 4 * 49 + 4 + 10 * (4 * 2**2 + 1) + small


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_what_the_last_transformer_reads_is_animated_epoch_by_epoch(suffix, tmp_path, capsys):
    pillow = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    file = tmp_path / f"reading.{suffix}"
    models = ["--models", "ST-FCN", "FCN", "--epochs", "2", "--lr", "0.01"]
    assert main([*QUICK, *models, "--animate", str(file)]) == 0
    with pillow.open(file) as animation:
        shown = {"gif": 0, "png": 1}[suffix]  # a PNG has besides what stands where nothing moves
        assert animation.n_frames == shown + 3
        frames = []
        for n in range(shown, shown + 3):
            animation.seek(n)
            frames.append(np.asarray(animation.convert("RGB"), int))
    below_the_title = slice(40, None)
    for before, after in zip(frames, frames[1:]):
        assert np.abs(before - after)[below_the_title].max() > 50


def test_the_animation_does_not_change_the_error(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    chosen = [*QUICK, "--models", "ST-FCN", "--protocol", "E"]
    main(chosen)
    without = table(capsys)
    main([*chosen, "--animate", str(tmp_path / "reading.png")])
    assert table(capsys) == without


@pytest.mark.parametrize("name", ["reading.mp4", "no/such/folder/reading.gif"])
def test_an_animation_that_cannot_be_saved_is_refused_before_training(name, capsys):
    with pytest.raises(SystemExit):
        main([*QUICK, "--animate", name])
    assert "a .gif or .png, in a folder that is there" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--limit", "--epochs", "--batch-size", "--filters", "--seeds"])
@pytest.mark.parametrize("value", ["0", "-5", "1.5", "many"])
def test_numbers_that_cannot_be_are_refused_before_training(option, value, capsys):
    with pytest.raises(SystemExit):
        main([*QUICK, f"{option}={value}"])
    told = f"argument {option}: must be a whole number of at least 1, not {value}"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "fast"])
def test_a_learning_rate_is_a_positive_number(rate, capsys):
    with pytest.raises(SystemExit):
        main([*QUICK, f"--lr={rate}"])
    assert f"must be a positive number, not {rate}" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["32", "128"])  # in the last step, or before it
def test_numbers_that_are_not_finite_are_told_and_give_no_error_rate(limit, capsys):
    chosen = ["--models", "ST-FCN", "--lr", "1e30", "--limit", limit]
    assert main([*QUICK, *chosen]) == 1
    out, err = capsys.readouterr()
    assert "ST-FCN" not in out and "reproduce stn: " in err


def test_without_a_transformer_there_is_nothing_to_animate(tmp_path, capsys):
    file = tmp_path / "reading.gif"
    assert main([*QUICK, "--models", "FCN", "--animate", str(file)]) == 2
    assert "none of the models has a transformer" in capsys.readouterr().err
    assert not file.exists()


def test_it_learns_and_the_same_arguments_give_the_same_error(capsys):
    chosen = ["--models", "FCN", "ST-FCN", "--limit", "1000", "--epochs", "4"]
    errors = []
    for _ in range(2):
        main([*QUICK, *chosen])
        errors.append(table(capsys))
    assert errors[0] == errors[1]
    assert all(error < 60 for _, error, _ in errors[0].values())  # guessing has 90


def test_missing_files_are_told_in_words(tmp_path, capsys):
    folder = ["--data", "mnist", "--data-folder", str(tmp_path), "--no-download"]
    assert main([*QUICK, *folder]) == 2
    told = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz" in told and "--data digits" in told


@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason="needs the real MNIST files")
def test_it_runs_on_mnist(capsys):
    folder = ["--data", "mnist", "--data-folder", str(REAL_DATA), "--no-download"]
    assert main([*QUICK, *folder, "--models", "ST-FCN"]) == 0
    assert list(table(capsys)) == ["ST-FCN"]
