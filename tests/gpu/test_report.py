"""The report of a run on a card, tried with tests of its own."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_report_counts_outcomes_and_names_failures(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert False\n"
        "def test_left_out(): pytest.skip('no card')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    command += ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}"]
    command += ["--confcutdir", str(ROOT), "-p", "conftest", "--gpu-report", "report.json"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["outcomes"] == {"passed": 1, "failed": 1, "skipped": 1}
    (failed,) = report["failed"]
    assert failed.endswith("test_a.py::test_wrong")
    assert set(report) >= {"date", "card", "python"}
