"""The far side of the seam: a process that runs a notebook's cells and keeps what they define.

Started by `subject.Worker`, never by hand. It speaks over its standard input and output, which it
takes for itself before any of the learner's code runs.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import os
from typing import IO, Any

from . import checking
from .subject import Host
from .wire import WireError, read_message, write_message


class NotebookHost(Host):
    """A host that can also run cells, in IPython's shell where there is one."""

    answers_with = (BaseException,)  # a learner's SystemExit or KeyboardInterrupt ends nothing here

    def __init__(self) -> None:
        self._shell = _ipython_shell()
        super().__init__(self._shell.user_ns if self._shell else {"__name__": "__main__"})
        self.namespace.update(exit=_leave, quit=_leave)
        self._taken = checking.begin_grading()

    def do_run(self, request: Any) -> None:
        """Run one cell; what it raises is the answer."""
        if self._shell is None:
            self._run_plainly(request["source"], request["title"])
            return
        outcome = self._shell.run_cell(request["source"], store_history=False)
        error = outcome.error_before_exec or outcome.error_in_exec
        if isinstance(error, SyntaxError):  # IPython says "incomplete input" where Python says why
            ast.parse(self._shell.transform_cell(request["source"]), request["title"])
        if error is not None:
            raise error

    def do_home(self, request: Any) -> str:
        """The module in which what has a name was defined."""
        return str(getattr(self.namespace[request["name"]], "__module__", ""))

    def do_taken(self, request: Any) -> list[str]:
        """The exercises whose solution the notebook took."""
        return sorted(self._taken)

    def _run_plainly(self, source: str, title: str) -> None:
        lines = [
            "" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()
        ]
        source = "\n".join(lines) + "\n"
        linecache.cache[title] = (len(source), None, source.splitlines(True), title)
        exec(compile(ast.parse(source), title, "exec"), self.namespace)


def _leave(code: object = None) -> None:
    """Stand in for ``exit`` and ``quit``: what they end here is the cell."""
    raise SystemExit(code)


def _ipython_shell() -> Any:
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config
    except ImportError:
        return None
    config = Config()
    config.HistoryManager.enabled = False
    shell: Any = InteractiveShell.instance(config=config)
    # Nobody looks: no tracebacks, and figures stay with MPLBACKEND=Agg whatever %matplotlib says.
    shell.showtraceback = shell.showsyntaxerror = lambda *args, **settings: None
    shell.enable_matplotlib = lambda gui=None: (gui, "agg")
    # IPython 9 records all that a cell prints, slowly and without end; `Host` listens anyway.
    shell._tee = lambda channel: contextlib.nullcontext()
    return shell


def _own_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Take standard input and output away from the learner's code, which gets silence instead."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(silence, standard)
    return requests, replies


def main() -> None:
    """Answer requests until the pipe is closed."""
    requests, replies = _own_pipes()
    host = NotebookHost()
    while True:
        try:
            request, arrays = read_message(requests)
        except WireError:
            return
        write_message(replies, *host.answer(request, arrays))


if __name__ == "__main__":
    main()
