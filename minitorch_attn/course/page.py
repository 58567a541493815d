"""A short page for a notebook: as plain text, and as HTML that fits light and dark themes."""

from __future__ import annotations

import html
import sys
from typing import Any

from .comparison import MARKS

#: Colours that stay apart for the colour-blind; a word always says the same.
_COLOURS = {"right": "#0072B2", "wrong": "#D55E00", "open": "#999999"}
_SIGNS = {"right": "✓", "wrong": "✗", "open": ""}


class Page:
    """A title and blocks below it, shown once by `display`.

    Parameters
    ----------
    title : str
        The first line.
    tone : str
        ``"right"``, ``"wrong"`` or ``"open"``: the colour of the edge.
    """

    def __init__(self, title: str, tone: str = "open"):
        self.title, self.tone = title, tone
        self._blocks: list[tuple[str, Any]] = []

    def text(self, sentence: str) -> None:
        """Add a paragraph."""
        self._blocks.append(("text", sentence))

    def heading(self, words: str) -> None:
        """Add a heading."""
        self._blocks.append(("heading", words))

    def code(self, text: str, label: str = "") -> None:
        """Add text in a fixed font, after a label; the parts between `MARKS` stand out."""
        self._blocks.append(("code", (label, text)))

    def table(self, rows: list[list[str]]) -> None:
        """Add rows of cells."""
        self._blocks.append(("table", rows))

    def __str__(self) -> str:
        lines = [self.title]
        for kind, content in self._blocks:
            lines += _AS_TEXT[kind](content)
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sign = f"{_SIGNS[self.tone]} " if _SIGNS[self.tone] else ""
        body = "".join(_AS_HTML[kind](content) for kind, content in self._blocks)
        return (
            f'<div style="border-left: 4px solid {_COLOURS[self.tone]}; padding: 2px 12px; '
            f'margin: 4px 0; max-width: 56em; line-height: 1.45">'
            f'<p style="margin: 4px 0"><b>{sign}{_escaped(self.title)}</b></p>{body}</div>'
        )

    def display(self) -> None:
        """Show the page: in a notebook as HTML, elsewhere as text."""
        ipython = sys.modules.get("IPython")
        if ipython is not None and ipython.get_ipython() is not None:
            ipython.display.display(self)
        else:
            print(self)


def _escaped(text: str) -> str:
    """Escape, and set what stands between backticks in a fixed font."""
    parts = html.escape(text).split("`")
    if len(parts) % 2 == 0:
        return html.escape(text)
    return "".join(
        f"<code>{part}</code>" if i % 2 else part.replace("\n", "<br>")
        for i, part in enumerate(parts)
    )


def _code_as_text(content: tuple[str, str]) -> list[str]:
    label, text = content
    text = text.replace(MARKS[0], ">").replace(MARKS[1], "<")
    first = [f"  {label}:"] if label else []
    return first + [f"    {line}" for line in text.splitlines()]


def _code_as_html(content: tuple[str, str]) -> str:
    label, text = content
    marked = (
        html.escape(text)
        .replace(MARKS[0], '<b style="text-decoration: underline">')
        .replace(MARKS[1], "</b>")
    )
    first = f'<div style="opacity: 0.8">{_escaped(label)}</div>' if label else ""
    return (
        f'<div style="margin: 4px 0 4px 16px">{first}'
        '<pre style="margin: 0; padding: 2px 0; background: transparent; color: inherit; '
        f'white-space: pre; overflow-x: auto">{marked}</pre></div>'
    )


def _table_as_text(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]


def _table_as_html(rows: list[list[str]]) -> str:
    style = "padding: 1px 12px 1px 0; text-align: left; background: transparent"
    lines = "".join(
        "<tr>" + "".join(f'<td style="{style}">{_escaped(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f'<table style="border: none; margin: 0">{lines}</table>'


_AS_TEXT = {
    "text": lambda sentence: sentence.split("\n"),
    "heading": lambda words: ["", words],
    "code": _code_as_text,
    "table": _table_as_text,
}
_AS_HTML = {
    "text": lambda sentence: f'<p style="margin: 4px 0">{_escaped(sentence)}</p>',
    "heading": lambda words: f'<p style="margin: 10px 0 2px 0"><b>{_escaped(words)}</b></p>',
    "code": _code_as_html,
    "table": _table_as_html,
}
