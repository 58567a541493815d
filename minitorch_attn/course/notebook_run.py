"""Running a notebook in a fresh kernel of this environment, with outputs that hold elsewhere."""

import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from ..engine.optional import require
from .notebook_source import NOT_RUN

Notebook = Any  # nbformat's NotebookNode: cells, metadata

# One thread and one hash seed give the same numbers in the same order everywhere.
SAME_EVERYWHERE = {
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}

# What differs from run to run and says nothing. tests/nbval_sanitize.cfg has the same rules.
VOLATILE = {
    r"[^\s\"']*ipykernel_\d+[/\\]\d+\.py": "<cell>",
    r"(/tmp|/var/folders/\w+/\w+/T|[A-Z]:\\[^\s\"']*\\Temp)[/\\][^\s\"']+": "<temporary>",
    r"\b0x[0-9a-fA-F]{6,}\b": "0x0",
    r"\[\d\d:\d\d<[^\]]*\]": "[time]",
}

# A live widget has a random id, and nothing to show once its kernel is gone.
WIDGET = "application/vnd.jupyter.widget-view+json"


class RunError(RuntimeError):
    """A cell that failed, by its index in the notebook, and what it said."""

    def __init__(self, index: int, message: str):
        super().__init__(message)
        self.index = index


def kernel_environment(scratch: Path, folder: Path) -> dict[str, str]:
    """Environment of a kernel that leaves no trace in the user's own files."""
    environment = SAME_EVERYWHERE | os.environ
    environment.pop("MPLBACKEND", None)  # the kernel's own choice puts figures into the notebook
    environment["IPYTHONDIR"] = str(scratch / "ipython")
    environment["MINITORCH_ATTN_PROGRESS"] = str(scratch / "progress.json")
    environment["MINITORCH_ATTN_CHECK"] = "raise" if folder.name == "solutions" else ""
    return environment


def run_notebook(notebook: Notebook, folder: Path, limit: float) -> float:
    """Run all cells in place, `folder` being the working directory; return the seconds it took.

    In the folder ``solutions`` a check that fails is an error of the cell.

    Raises
    ------
    RunError
        If a cell raises, the kernel dies, or `limit` seconds in all are over.
    """
    nbclient = require("nbclient", extra="course", purpose="run a notebook")
    nbclient_errors = require("nbclient.exceptions", extra="course", purpose="run a notebook")
    started = time.monotonic()
    current = 0

    def remember(cell: Any, cell_index: int) -> None:
        nonlocal current
        current = cell_index

    def seconds_left(cell: Any) -> int:
        return max(1, round(started + limit - time.monotonic()))

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        client = nbclient.NotebookClient(
            notebook,
            km=_kernel_manager(),
            timeout_func=seconds_left,
            resources={"metadata": {"path": str(folder)}},
            coalesce_streams=True,
            record_timing=False,
            skip_cells_with_tag=NOT_RUN,
            on_cell_start=remember,
        )
        log = Path(scratch) / "kernel.log"
        try:
            with log.open("wb") as stderr:
                environment = kernel_environment(Path(scratch), folder)
                client.execute(cleanup_kc=True, env=environment, stderr=stderr)
        except nbclient_errors.CellTimeoutError:
            raise RunError(current, f"the limit of {limit:g} s is over.") from None
        except nbclient_errors.DeadKernelError:
            words = log.read_text(encoding="utf-8", errors="replace")[-1000:]
            raise RunError(current, f"the kernel died. Its last words:\n{words}") from None
        except nbclient_errors.CellExecutionError as error:
            raise RunError(current, _last_words(error)) from None
    normalise(notebook)
    return time.monotonic() - started


def _kernel_manager() -> Any:
    """Start kernels with this very Python, whatever kernels the user has registered."""
    purpose = "run a notebook"
    client = require("jupyter_client", extra="course", purpose=purpose)
    ipykernel = require("ipykernel.kernelspec", extra="course", purpose=purpose)

    known_kernels: Any = client.kernelspec.KernelSpecManager

    class ThisPython(known_kernels):
        def get_kernel_spec(self, kernel_name: str) -> Any:
            return client.kernelspec.KernelSpec(**ipykernel.get_kernel_dict())

    return client.AsyncKernelManager(kernel_spec_manager=ThisPython())


def _last_words(error: Any) -> str:
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback).strip().splitlines()
    return "\n".join(["it raised", *(f"    {line}" for line in traceback[-12:])])


def normalise(notebook: Notebook) -> None:
    """Take out of the outputs what differs from run to run; doing it twice changes nothing."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
            if "text" in output:
                output["text"] = _settled(output["text"])
            if "traceback" in output:
                output["traceback"] = [_settled(line) for line in output["traceback"]]
            for mime, value in output.get("data", {}).items():
                if isinstance(value, str) and (mime.startswith("text/") or mime == "image/svg+xml"):
                    output["data"][mime] = _settled(value)


def _settled(text: str) -> str:
    for pattern, replacement in VOLATILE.items():
        text = re.sub(pattern, replacement, text)
    return text
