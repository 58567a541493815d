"""What was found is kept, in words and in pictures."""

import json

import numpy as np
import pytest

from minitorch_attn.compare import ROWS, Comparison, Costs, load
from minitorch_attn.compare.report import GROUPS, figure, group_of, not_learned, ordered, table


def comparison():
    found = Comparison()
    for name, values in {
        "SimAM": [0.5, 0.7, 0.6],
        "nothing": [0.4, 0.6, 0.7],
        "MAC": [0.9, 0.9, 0.9],
        "VGG": [0.3],
        "one block more": [0.8],
    }.items():
        row = found.row(name)
        row.accuracies = dict(enumerate(values))
        row.train_accuracies = dict(enumerate(values))
    found.row("nothing").costs = Costs(100, 1000, 5_000_000, 1.0, 1.0, 1.0)
    found.row("SimAM").costs = Costs(100, 2000, 7_500_000)
    return found


def test_what_is_saved_is_read_back(tmp_path):
    file = tmp_path / "found.json"
    found = comparison()
    found.save(file)
    again = load(file)
    assert again.rows.keys() == found.rows.keys() and again.settings == found.settings
    assert again.rows["SimAM"].accuracies == {0: 0.5, 1: 0.7, 2: 0.6}
    assert again.rows["nothing"].costs == found.rows["nothing"].costs
    assert np.isnan(again.rows["SimAM"].costs.time)
    assert again.about["numpy"] == np.__version__
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_the_file_is_strict_json(tmp_path):
    comparison().save(tmp_path / "found.json")

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "found.json").read_text(), parse_constant=refuse)


def test_rows_that_are_no_longer_known_are_left_out(tmp_path):
    file = tmp_path / "found.json"
    comparison().save(file)
    file.write_text(file.read_text().replace('"SimAM"', '"SimBM"'))
    assert "SimBM" not in load(file).rows and "MAC" in load(file).rows


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m minitorch_attn compare --json"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"settings": {"x": 1}, "about": {}}'])
def test_a_file_of_something_else_is_named(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is no comparison"):
        load(file)


def test_missing_trainings_come_seed_by_seed():
    assert comparison().missing(["nothing", "VGG", "CBAM"], 2) == [
        ("CBAM", 0),
        ("VGG", 1),
        ("CBAM", 1),
    ]


def test_rows_stand_in_the_order_of_the_course_whatever_was_first():
    assert list(comparison().rows) == ["nothing", "one block more", "SimAM", "MAC", "VGG"]
    assert list(ROWS).index("nothing") == 0


def test_mean_spread_and_difference():
    found = comparison()
    found.rows["SimAM"].train_accuracies[0] = 0.8
    assert found.rows["SimAM"].mean == pytest.approx(0.6)
    assert found.rows["SimAM"].train_mean == pytest.approx(0.7)
    assert found.rows["SimAM"].spread == pytest.approx(0.1)
    assert np.isnan(found.rows["VGG"].spread)
    mean, error = found.difference("SimAM")
    assert mean == pytest.approx(1 / 30)
    assert error == pytest.approx(np.std([0.1, 0.1, -0.1], ddof=1) / 3**0.5)
    assert found.difference("VGG")[0] == pytest.approx(-0.1)  # of seed 0 alone


def test_table_tells_all_there_is():
    lines = table(comparison()).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["nothing", "one", "SimAM", "MAC", "VGG"]
    sim_am = next(line for line in lines if line.startswith("SimAM"))
    assert "60.0 ± 10.0" in sim_am and "+3.3 ± 6.7" in sim_am and "2/3" in sim_am
    assert "2,000" in sim_am and "7.5 MB" in sim_am
    assert next(line for line in lines if line.startswith("VGG")).count("±") == 0


def test_every_row_is_in_a_group():
    found = Comparison()
    assert {group_of(found.row(name)) for name in ROWS} == set(GROUPS)
    assert group_of(found.row("a quarter wider")) == "no attention"
    assert group_of(found.row("VisionTransformer")) == "in place of all"


def test_within_a_group_the_most_accurate_comes_first_but_the_baseline():
    found = comparison()
    found.row("CBAM").accuracies = {0: 0.95}
    names = [row.name for row in ordered(found)]
    assert names == ["nothing", "one block more", "CBAM", "SimAM", "MAC", "VGG"]


def test_figure_shows_each_seed_and_each_cost():
    drawn = figure(comparison(), ["no attention", "inside each block"])
    accuracy, parameters, products, time, memory = drawn.axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == [
        "nothing",
        "one block more",
        "SimAM",
    ]
    dots = [d.get_offsets() for d in accuracy.collections]
    np.testing.assert_allclose(np.sort(dots[2][:, 0]), [50, 60, 70])
    assert [len(ax.collections) for ax in (parameters, products, memory)] == [2, 2, 2]
    assert products.collections[1].get_offsets()[0, 0] == pytest.approx(2.0)
    assert memory.collections[1].get_offsets()[0, 0] == pytest.approx(1.5)


def test_a_row_that_has_not_learned_is_named_at_the_edge():
    found = comparison()
    found.row("VisionTransformer").accuracies = {0: 0.1, 1: 0.12}
    assert not_learned(found) == ["VisionTransformer"]
    accuracy = figure(found).axes[0]
    assert [text.get_text() for text in accuracy.texts] == ["← 11 %"]
    assert accuracy.get_xlim()[0] > 20
