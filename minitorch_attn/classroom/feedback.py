"""What a learner is told of their submission: as plain text, and as a web page on its own.

Names, causes and messages are what learners wrote or made their code say. In what is written here
they are text and nothing else: no markup, no control of a terminal, no change of the direction of
reading, and no more of it than a person reads.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import textwrap
import unicodedata
from collections.abc import Iterator

from ..course import plan
from ..course.grade import Row
from .records import Graded, Person

#: So much of a name, a cause and a message is shown.
MOST_OF_NAME, MOST_OF_CAUSE, MOST_OF_MESSAGE, MOST_LINES = 100, 200, 8000, 100

#: What a verdict says of an exercise.
WORDS = {
    "right": "right",
    "wrong": "not right yet",
    "raised": "raised an exception",
    "too slow": "did not end in time",
    "not written": "not written yet",
    "unusable": "not what is asked for",
    "stopped": "ended its own process",
    "missing": "not in the notebook",
    "imported": "the library's own, which does not count",
    "solution taken": "the solution was called, which does not count",
}


def feedback_text(graded: Graded, person: Person | None = None, course: str = "") -> str:
    """Feedback on a submission as plain text.

    Parameters
    ----------
    graded : Graded
        The submission.
    person : Person, optional
        Its learner, by whose name they are greeted; without it, by the name of their folder.
    course : str
        The class's title, to stand above all.

    Raises
    ------
    ValueError
        If the person is another learner.
    """
    lines = [_title(graded), _name(graded, person), "", _summary(graded), ""]
    if course:
        lines.insert(0, plain(course, MOST_OF_NAME))
    if graded.is_graded:
        table = [
            (_exercise(row), _points(row.points, row.out_of), _result(row)) for row in graded.rows
        ]
        widths = [max(map(len, column)) for column in zip(*table)]
        lines += ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    for row in _to_explain(graded):
        lines += ["", _heading(row)]
        # No line that a learner's code wrote begins as those of this text do.
        lines += [f"  | {line}".rstrip() for line in _message(row).split("\n")]
    lines += ["", _advice(graded), "", _footer(graded)]
    return "\n".join(lines) + "\n"


def feedback_html(graded: Graded, person: Person | None = None, course: str = "") -> str:
    """Feedback on a submission as one web page: no script, no link, nothing to load.

    Parameters
    ----------
    graded, person, course
        As of `feedback_text`.

    Raises
    ------
    ValueError
        If the person is another learner.
    """
    name = _name(graded, person)
    sections = "".join(map(_section, _to_explain(graded)))
    return _PAGE.format(
        policy=_POLICY,
        style=_STYLE,
        title=html.escape(_title(graded)),
        course=f'<p class="name"><bdi>{html.escape(plain(course, MOST_OF_NAME))}</bdi></p>'
        if course
        else "",
        name=html.escape(name),
        summary=html.escape(_summary(graded)),
        table=_table(graded) if graded.is_graded else "",
        sections=sections,
        advice=html.escape(_advice(graded)),
        footer=html.escape(_footer(graded)),
    )


def plain(text: str, letters: int) -> str:
    """Text in which nothing acts: what cannot be seen is spelled out.

    Parameters
    ----------
    text : str
        From anybody.
    letters : int
        Of a longer text the beginning is kept, and the rest counted.
    """
    text = text.replace("\r\n", "\n")
    more = len(text) - letters
    shown = "".join(_shown(letter) for letter in text[:letters])
    return f"{shown} ... ({more:,} more characters)" if more > 0 else shown


# Zero-width joiners are part of how some languages are written.
_HARMLESS = "\n\u200c\u200d"
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _shown(letter: str) -> str:
    if letter in _HARMLESS or unicodedata.category(letter) not in _UNSEEN:
        return letter
    return "    " if letter == "\t" else letter.encode("unicode_escape").decode("ascii")


# -- what is said ---------------------------------------------------------------------------


def _name(graded: Graded, person: Person | None) -> str:
    if person is not None and person.learner != graded.learner:
        raise ValueError(
            f"the submission is {graded.learner!r}'s, the person {person.learner!r}: feedback is "
            "for the one who handed it in"
        )
    name = person.name if person is not None and person.name else graded.learner
    return plain(name.replace("\n", " "), MOST_OF_NAME)


def _title(graded: Graded) -> str:
    return f"Exercises {graded.lesson:02d}: {plan.lesson(graded.lesson).title}"


def _summary(graded: Graded) -> str:
    if not graded.is_graded:
        return f"This notebook could not be graded: {_cause(graded.rows[0])}"
    right, total = sum(row.verdict == "right" for row in graded.rows), len(graded.rows)
    exercises = f"{right} of {total} exercises right"
    return f"{_points(graded.points, graded.out_of)} points, {exercises}."


def _points(points: float, out_of: float) -> str:
    return f"{points:g} of {out_of:g}"


def _exercise(row: Row) -> str:
    return plain(row.exercise.partition(".")[2], MOST_OF_NAME)


def _cause(row: Row) -> str:
    return plain(row.cause.replace("\n", " "), MOST_OF_CAUSE)


def _result(row: Row) -> str:
    """The verdict in words, how many cases were right, and the cause in short."""
    words = WORDS.get(row.verdict, plain(row.verdict, MOST_OF_CAUSE))
    if row.verdict in ("right", "not written") or not row.cases:
        return words
    cases = f"{words}, {row.passed} of {row.cases} cases right"
    return f"{cases}: {_cause(row)}" if row.cause else cases


def _to_mend(graded: Graded) -> Iterator[Row]:
    return (row for row in graded.rows if row.verdict != "right")


def _to_explain(graded: Graded) -> Iterator[Row]:
    """What there is more to say of than the summary and the table do."""
    return (row for row in _to_mend(graded) if row.exercise or row.message != row.cause)


def _message(row: Row) -> str:
    """What the learner would have read in the notebook."""
    lines = row.message.replace("\r\n", "\n").split("\n")
    more = len(lines) - MOST_LINES
    text = plain("\n".join(lines[:MOST_LINES]), MOST_OF_MESSAGE)
    return f"{text}\n... ({more:,} more lines)" if more > 0 else text


def _advice(graded: Graded) -> str:
    lesson = plan.lesson(graded.lesson)
    if not any(_to_mend(graded)):
        return "All is right: on to the next lesson."
    if not graded.is_graded:
        return "Mend the notebook, run it from top to bottom, and hand it in again."
    names = [_exercise(row) for row in _to_mend(graded)]
    return (
        f"To read again for {', '.join(names)}: lesson {lesson.number:02d}, {lesson.title}, in "
        f"notebooks/{lesson.name}.ipynb. In the exercises, hint(...) helps step by step."
    )


def _footer(graded: Graded) -> str:
    name = plain(graded.notebook.replace("\n", " "), MOST_OF_NAME)
    return f"This is about {name} as it was handed in, SHA-256 {plain(graded.digest[:12], 12)}."


# -- the page -------------------------------------------------------------------------------

_SIGNS = {"right": "✓", "wrong": "✗"}


def _heading(row: Row) -> str:
    return _exercise(row) or "What is wrong"


def _tone(row: Row) -> str:
    return "right" if row.verdict == "right" else "wrong"


def _table(graded: Graded) -> str:
    lines = "".join(
        f'<tr class="{_tone(row)}"><th scope="row">{html.escape(_exercise(row))}</th>'
        f"<td>{html.escape(_points(row.points, row.out_of))}</td>"
        f"<td>{_SIGNS[_tone(row)]} <bdi>{html.escape(_result(row))}</bdi></td></tr>\n"
        for row in graded.rows
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("exercise", "points", "result"))
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>\n"


def _section(row: Row) -> str:
    runs = itertools.groupby(_message(row).split("\n"), _is_code)
    blocks = "".join(_block(list(lines), is_code) for is_code, lines in runs)
    heading = f"<h2>{_SIGNS['wrong']} {html.escape(_heading(row))}</h2>"
    return f"<section>\n{heading}\n{blocks}</section>\n"


def _block(lines: list[str], is_code: bool) -> str:
    if is_code:
        code = html.escape(textwrap.dedent("\n".join(lines)).strip("\n"))
        return f"<pre>{code}</pre>\n" if code else ""
    return "".join(f"<p><bdi>{html.escape(line)}</bdi></p>\n" for line in lines)


def _is_code(line: str) -> bool:
    """Whether a line of a message is of code, an array or a print: sentences are not indented."""
    return not line or line.startswith(" ")


_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b; --soft: #595959;
  --line: #c8c8c8; --code: #f3f3f3; --right: #005a8d; --wrong: #a33b00; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #15171b; --ink: #e8e8e8;
  --soft: #b0b4bb; --line: #454a53; --code: #20242a; --right: #74bcf2; --wrong: #ffa063; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 1rem; }
h1, h2, p, td:last-child { overflow: hidden; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0 0; }
h2 { font-size: 1.1rem; margin: 0 0 0.5rem; color: var(--wrong); }
.name, footer { color: var(--soft); margin: 0.25rem 0 1rem; }
.summary { font-size: 1.1rem; font-weight: bold; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0;
  border-bottom: 1px solid var(--line); }
tbody th { font-weight: normal; font-family: ui-monospace, monospace; }
td:nth-child(2) { white-space: nowrap; }
.right td:last-child { color: var(--right); }
.wrong td:last-child { color: var(--wrong); }
section p { margin: 0.4rem 0; }
section { border-left: 4px solid var(--wrong); padding-left: 1rem; margin: 1.5rem 0; }
pre { margin: 0.5rem 0; padding: 0.5rem 0.75rem; background: var(--code); overflow: auto;
  font: 0.85rem/1.45 ui-monospace, monospace; direction: ltr; unicode-bidi: isolate; }
footer { font-size: 0.85rem; border-top: 1px solid var(--line); padding-top: 0.5rem; }
@media print { pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""

_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

#: The browser applies this one style, and neither runs nor loads anything at all.
_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{course}<h1>{title}</h1>
<p class="name"><bdi>{name}</bdi></p>
<p class="summary"><bdi>{summary}</bdi></p>
{table}{sections}<p>{advice}</p>
<footer><bdi>{footer}</bdi></footer>
</main>
</body>
</html>
"""
