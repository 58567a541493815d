import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import training_cli
from minitorch_attn.__main__ import main
from minitorch_attn.data import DataLoader, digits
from minitorch_attn.models import se_resnet
from minitorch_attn.serialization import load
from minitorch_attn.simulator import simulated_gpu
from minitorch_attn.simulator.kernels import NoCompiler, compiler
from minitorch_attn.training import evaluate

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
QUICK = ["train", "--model", "mlp", "--limit", "200", "--epochs", "2", "--dtype", "float64"]


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_row_is_printed_for_each_epoch(capsys):
    assert main(QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mlp: 9,610 parameters"
    assert lines[1] == "digits: 200 training and 200 test images of 1x8x8, 10 classes"
    assert lines[2].split()[0] == "epoch"
    assert [line.split()[0] for line in lines[3:]] == ["1", "2"]


@pytest.mark.parametrize("model", ["se_resnet", "resnet", "mlp"])
def test_every_model_learns_the_digits(model, tmp_path):
    path = tmp_path / "history.csv"
    assert main(["train", "--model", model, "--epochs", "2", "--csv", str(path), "--quiet"]) == 0
    header, _, last = rows(path)
    assert float(last[header.index("valid_accuracy")]) > 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["cosine", "warmup", "step", "constant"])
def test_every_optimizer_and_schedule_runs(optimizer, schedule, tmp_path):
    path = tmp_path / "history.csv"
    chosen = ["--optimizer", optimizer, "--schedule", schedule, "--csv", str(path)]
    assert main([*QUICK, *chosen, "--quiet"]) == 0
    header, first, last = rows(path)
    lr = header.index("learning_rate")
    peak = training_cli.LEARNING_RATES[optimizer]
    assert float(first[lr]) == pytest.approx(peak / 10 if schedule == "warmup" else peak)
    if schedule in ("cosine", "step"):
        assert float(last[lr]) < peak


def test_the_same_arguments_give_the_same_file_and_another_seed_another(tmp_path):
    contents = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        path = tmp_path / name
        main([*QUICK, "--augment", "--seed", seed, "--csv", str(path), "--quiet"])
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_a_stopped_training_goes_on_from_its_checkpoint_to_the_same_numbers(tmp_path, monkeypatch):
    whole, parts, checkpoint = (tmp_path / name for name in ("whole", "parts", "c.safetensors"))
    main([*QUICK, "--augment", "--csv", str(whole), "--quiet"])

    update = training_cli._Table.update

    def stop_after_first(self, history):
        update(self, history)
        raise KeyboardInterrupt

    arguments = [*QUICK, "--augment", "--csv", str(parts), "--checkpoint", str(checkpoint)]
    monkeypatch.setattr(training_cli._Table, "update", stop_after_first)
    assert main([*arguments, "--quiet"]) == 130
    assert len(rows(parts)) == 2
    monkeypatch.setattr(training_cli._Table, "update", update)
    assert main([*arguments, "--quiet"]) == 0
    assert parts.read_bytes() == whole.read_bytes()


def test_epochs_of_an_earlier_run_are_printed_too(tmp_path, capsys):
    arguments = [*QUICK, "--checkpoint", str(tmp_path / "c.safetensors")]
    main(arguments)
    first = capsys.readouterr().out
    main(arguments)
    assert capsys.readouterr().out == first


def test_a_checkpoint_of_other_data_is_refused_in_words(tmp_path, capsys):
    arguments = ["--checkpoint", str(tmp_path / "c.safetensors"), "--quiet"]
    main([*QUICK, *arguments])
    assert main([*QUICK, "--augment", *arguments]) == 2
    assert "augment: False in the file, True here" in capsys.readouterr().err
    assert main([*QUICK, "--augment", "--no-resume", *arguments]) == 0


def test_the_saved_model_scores_as_the_table_says(tmp_path):
    model_path, csv_path = tmp_path / "m" / "model.safetensors", tmp_path / "history.csv"
    arguments = ["--epochs", "1", "--limit", "300", "--save", str(model_path), "--quiet"]
    main(["train", *arguments, "--dtype", "float64", "--csv", str(csv_path)])
    model = se_resnet().double()
    model.load_state_dict(load(model_path))
    train, test = digits(), digits(False)
    scale = train.images.mean(dtype=np.float64), train.images.std(dtype=np.float64)
    test.transform = lambda images: (images.astype(np.float64) - scale[0]) / scale[1]
    batches = [next(iter(DataLoader(test, 300)))]
    header, row = rows(csv_path)
    measured = evaluate(model, batches)
    assert measured["accuracy"] == float(row[header.index("valid_accuracy")])
    assert measured["loss"] == pytest.approx(float(row[header.index("valid_loss")]), rel=1e-4)


def test_divergence_is_told_in_words_and_by_the_status(capsys):
    assert main([*QUICK, "--lr", "1e200", "--clip-grad", "1e200", "--quiet"]) == 1
    assert "is not a finite number, training stopped" in capsys.readouterr().err


def test_missing_files_are_told_in_words(tmp_path, capsys):
    folder = ["--data-folder", str(tmp_path), "--no-download"]
    assert main([*QUICK, "--data", "mnist", *folder]) == 2
    assert "train-images-idx3-ubyte.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [["--epochs", "0"], ["--lr", "-1"], ["--batch-size", "x"], ["--model", "resnet1000"]],
)
def test_impossible_arguments_are_refused_at_once(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *wrong])
    assert stopped.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_help_says_what_every_option_does_and_its_default():
    parser = argparse.ArgumentParser()
    training_cli.add_arguments(parser)
    for action in parser._actions:
        assert action.help, action.option_strings
        is_switch = action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction)
        if not is_switch and action.dest not in ("csv", "save"):
            assert "default" in action.help, action.option_strings


def test_the_command_leaves_the_default_dtype_as_it_was():
    before = mt.get_default_dtype()
    main([*QUICK, "--epochs", "1", "--quiet"])
    assert mt.get_default_dtype() == before


def test_the_command_runs_from_a_shell_and_prints_no_bar_into_a_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "minitorch_attn", *QUICK], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 5


def test_it_trains_on_a_gpu_in_half_precision_too(tmp_path):
    try:
        compiler()
    except NoCompiler as missing:
        pytest.skip(str(missing))
    command = ["train", "--model", "mlp", "--limit", "200", "--epochs", "2", "--quiet"]
    losses = []
    for further in ([], ["--device", "cuda", "--precision", "float16"]):
        path = tmp_path / "history.csv"
        with simulated_gpu():
            assert main([*command, *further, "--csv", str(path)]) == 0
        losses.append([float(row[2]) for row in rows(path)[1:]])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.01)


def test_a_gpu_that_is_not_there_is_told_in_words(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main([*QUICK, "--device", "cuda"]) == 2
    assert "the package 'cupy' is needed" in capsys.readouterr().err


def test_half_precision_of_float64_is_refused_rather_than_left_undone(capsys):
    assert main([*QUICK, "--precision", "float16", "--dtype", "float64"]) == 2
    assert "--precision casts no float64: leave out one" in capsys.readouterr().err


@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason="needs the real files of MNIST")
def test_mnist_is_trained_on(tmp_path):
    path = tmp_path / "history.csv"
    where = ["--data", "mnist", "--data-folder", str(REAL_DATA), "--no-download"]
    what = ["--model", "mlp", "--limit", "2000", "--epochs", "2"]
    assert main(["train", *where, *what, "--csv", str(path), "--quiet"]) == 0
    header, _, last = rows(path)
    assert float(last[header.index("valid_accuracy")]) > 0.8
