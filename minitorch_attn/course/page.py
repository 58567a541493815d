"""A short page for a notebook: as plain text, and as HTML that fits light and dark themes."""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from typing import Protocol

from .comparison import MARKS

#: Colours that stay apart for the colour-blind; a sign and a word always say the same.
_COLOURS = {"right": "#0072B2", "wrong": "#D55E00", "open": "#999999"}
_SIGNS = {"right": "✓ ", "wrong": "✗ ", "open": ""}


class Block(Protocol):
    """A part of a page, which can be written in both forms."""

    def as_text(self) -> list[str]: ...

    def as_html(self) -> str: ...


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
        self._blocks: list[Block] = []

    def text(self, sentence: str) -> None:
        """Add a paragraph."""
        self._blocks.append(_Text(sentence))

    def code(self, text: str, label: str = "") -> None:
        """Add text in a fixed font, after a label; the parts between `MARKS` stand out."""
        self._blocks.append(_Code(text, label))

    def table(self, sections: dict[str, list[list[str]]]) -> None:
        """Add a table whose rows stand in sections, by their headings."""
        self._blocks.append(_Table(sections))

    def __str__(self) -> str:
        lines = [self.title, *(line for block in self._blocks for line in block.as_text())]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        body = "".join(block.as_html() for block in self._blocks)
        return (
            f'<div style="border-left: 4px solid {_COLOURS[self.tone]}; padding: 2px 12px; '
            f'margin: 4px 0; max-width: 56em; line-height: 1.45">'
            f'<p style="margin: 4px 0"><b>{_SIGNS[self.tone]}{_escaped(self.title)}</b></p>'
            f"{body}</div>"
        )

    def display(self) -> None:
        """Show the page: in a notebook as HTML, elsewhere as text."""
        ipython = sys.modules.get("IPython")
        if ipython is not None and ipython.get_ipython() is not None:
            ipython.display.display(self)
        else:
            print(self)


@dataclass
class _Text:
    sentence: str

    def as_text(self) -> list[str]:
        return self.sentence.split("\n")

    def as_html(self) -> str:
        return f'<p style="margin: 4px 0">{_escaped(self.sentence)}</p>'


@dataclass
class _Code:
    text: str
    label: str

    def as_text(self) -> list[str]:
        text = self.text.replace(MARKS[0], ">").replace(MARKS[1], "<")
        lines = [f"    {line}" for line in text.splitlines()]
        return [f"  {self.label}:", *lines] if self.label else lines

    def as_html(self) -> str:
        marked = html.escape(self.text).replace(MARKS[0], _MARKED).replace(MARKS[1], "</b>")
        label = f'<div style="opacity: 0.8">{_escaped(self.label)}</div>' if self.label else ""
        return (
            f'<div style="margin: 4px 0 4px 16px">{label}<pre style="{_PLAIN}">{marked}</pre></div>'
        )


_MARKED = '<b style="text-decoration: underline">'
_PLAIN = (
    "margin: 0; padding: 2px 0; background: transparent; color: inherit; white-space: pre; "
    "overflow-x: auto"
)


@dataclass
class _Table:
    sections: dict[str, list[list[str]]]

    def as_text(self) -> list[str]:
        rows = [row for rows in self.sections.values() for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = []
        for heading, rows in self.sections.items():
            lines += ["", heading]
            lines += ["  " + "  ".join(map(str.ljust, row, widths)) for row in rows]
        return [*lines, ""]

    def as_html(self) -> str:
        style = "text-align: left; background: transparent; padding:"
        lines = []
        for heading, rows in self.sections.items():
            lines.append(f'<th colspan="4" style="{style} 8px 0 2px 0">{_escaped(heading)}</th>')
            lines += [
                "".join(f'<td style="{style} 1px 12px 1px 0">{_escaped(cell)}</td>' for cell in row)
                for row in rows
            ]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f'<table style="border: none; margin: 0; font-size: inherit">{body}</table>'


def _escaped(text: str) -> str:
    """Escape, and set what stands between backticks in a fixed font."""
    parts = html.escape(text).replace("\n", "<br>").split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
