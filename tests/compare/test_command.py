"""`python -m minitorch_attn compare`."""

import json

import pytest

from minitorch_attn.__main__ import main
from minitorch_attn.compare import sweep

pytest.importorskip("matplotlib")
SMALL = ["--epochs", "1", "--images", "32", "--seeds", "2", "--rounds", "2"]


@pytest.fixture
def here(monkeypatch):
    """Train and measure in this process; the list says what was trained."""
    trained = []

    def one_by_one(tasks, settings, workers):
        for name, seed in tasks:
            trained.append((name, seed))
            yield (name, seed), sweep._accuracies(name, seed, settings)

    monkeypatch.setattr(sweep, "sweep", one_by_one)
    monkeypatch.setattr(sweep, "measure_apart", sweep.measure)
    return trained


def compare(tmp_path, *arguments):
    return main(["compare", *SMALL, "--json", str(tmp_path / "found.json"), *arguments])


def rows(tmp_path):
    report = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in report["rows"]}


def test_writes_a_table_a_file_and_a_figure(tmp_path, here, capsys):
    assert compare(tmp_path, "--only", "simam") == 0
    told = capsys.readouterr().out
    assert "4 trainings of 1 epochs" in told and "SimAM" in told and "multiply-adds" in told
    assert rows(tmp_path).keys() == {"nothing", "SimAM"}
    assert rows(tmp_path)["SimAM"]["accuracies"].keys() == {"0", "1"}
    assert rows(tmp_path)["SimAM"]["costs"]["time"] > 0
    assert (tmp_path / "found.png").read_bytes()[1:4] == b"PNG"


def test_goes_on_where_it_stopped(tmp_path, here):
    compare(tmp_path, "--only", "simam", "--seeds", "1")
    here.clear()
    compare(tmp_path, "--only", "simam", "eca")
    assert here == [("ECA", 0), ("nothing", 1), ("ECA", 1), ("SimAM", 1)]
    here.clear()
    assert compare(tmp_path, "--only", "simam", "eca") == 0 and here == []


def test_an_interrupted_sweep_has_kept_what_was_done(tmp_path, here, monkeypatch):
    whole = sweep.sweep

    def interrupted(tasks, settings, workers):
        yield next(whole(tasks, settings, workers))
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "sweep", interrupted)
    assert compare(tmp_path, "--only", "simam") == 130
    assert rows(tmp_path)["nothing"]["accuracies"].keys() == {"0"}


def test_without_rounds_the_times_of_before_stay(tmp_path, here):
    compare(tmp_path, "--only", "simam")
    before = rows(tmp_path)["SimAM"]["costs"]
    compare(tmp_path, "--only", "simam", "--rounds", "0")
    assert rows(tmp_path)["SimAM"]["costs"] == pytest.approx(before, rel=0.05)
    assert rows(tmp_path)["SimAM"]["costs"]["time"] == before["time"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--figure", "found.txt"], "must end with"),
        (["--figure", "nowhere/found.png"], "no folder nowhere"),
        (["--json", "nowhere/found.json"], "no folder nowhere"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_trainings(
    tmp_path, here, capsys, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    assert compare(tmp_path, "--only", "simam", *arguments) == 2
    assert words in capsys.readouterr().err and here == []


def test_rounds_are_not_negative(tmp_path, here, capsys):
    with pytest.raises(SystemExit):
        compare(tmp_path, "--rounds", "-1")
    assert "at least 0" in capsys.readouterr().err


def test_a_file_of_other_settings_is_not_mixed_up(tmp_path, here, capsys):
    compare(tmp_path, "--only", "simam")
    before = rows(tmp_path)
    assert compare(tmp_path, "--only", "simam", "--epochs", "2") == 2
    assert "--afresh" in capsys.readouterr().err and rows(tmp_path) == before
    assert compare(tmp_path, "--only", "eca", "--epochs", "2", "--afresh") == 0
    assert rows(tmp_path).keys() == {"nothing", "ECA"}


def test_a_row_that_is_not_there_is_told_with_those_that_are(tmp_path, here, capsys):
    assert compare(tmp_path, "--only", "simbm") == 2
    assert "simbm" in capsys.readouterr().err


@pytest.mark.parametrize("argument", [["--seeds", "0"], ["--epochs", "x"], ["--workers", "-1"]])
def test_counts_must_be_counts(tmp_path, argument, capsys):
    with pytest.raises(SystemExit):
        compare(tmp_path, *argument)
    assert "at least 1" in capsys.readouterr().err
