"""What holds for every test: plain tests of tests/, and the notebooks that nbval runs."""

import os
import tempfile
from pathlib import Path

import pytest

# One thread, one hash seed: the same numbers everywhere, and no quarrel among xdist's workers.
# Before NumPy is imported, for it reads them only then. Kernels of notebooks inherit them.
for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("PYTHONHASHSEED", "0")

SCRATCH = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ["IPYTHONDIR"] = str(Path(SCRATCH.name) / "ipython")


def pytest_addoption(parser):
    """`pytest -m gpu --gpu-report FILE` keeps what came out on which card."""
    parser.addoption("--gpu-report", metavar="FILE", help="write outcomes, card and versions there")


def pytest_configure(config):
    """Name the sanitize file whole: nbval looks for it from the working directory."""
    config.option.nbval_sanitize_with = str(config.rootpath / "tests" / "nbval_sanitize.cfg")
    _settle(config.rootpath / "tests")
    if config.getoption("--gpu-report") and not hasattr(config, "workerinput"):
        from tests.gpu.report import Report

        config.pluginmanager.register(Report(config.getoption("--gpu-report")))


@pytest.hookimpl(tryfirst=True)  # before nbval starts the kernel of a notebook
def pytest_runtest_setup(item):
    _settle(item.path)


def _settle(path):
    """Give each file a progress of its own, never the learner's; only notebooks show figures."""
    progress = Path(SCRATCH.name) / path.parent.name / f"{path.stem}.json"
    progress.parent.mkdir(exist_ok=True)
    os.environ["MINITORCH_ATTN_PROGRESS"] = str(progress)
    # The same as the builder's: in a solved set a check that fails is an error.
    os.environ["MINITORCH_ATTN_CHECK"] = "raise" if path.parent.name == "solutions" else ""
    if path.suffix == ".ipynb":
        os.environ.pop("MPLBACKEND", None)
    else:
        os.environ["MPLBACKEND"] = "Agg"
