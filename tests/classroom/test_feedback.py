"""What learners are told: all that concerns them, nothing of others, and nothing that acts."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from minitorch_attn.classroom.feedback import feedback_html, feedback_text, plain
from minitorch_attn.classroom.records import Graded, Person
from minitorch_attn.course.grade import Row

RIGHT = Row("n", "13.squeeze", 2, 2, "right", "", 23, 23, "13.squeeze is right.")
WRONG = Row(
    "n",
    "13.excite",
    0,
    2,
    "wrong",
    "gates alone",
    12,
    23,
    "13.excite is not right yet.\nLikely cause: The gates come back alone.\n  yours:\n    [1 <2>]",
)
ABSENT = Row("n", "13.scale", 0, 1.5, "missing", "no scale in the notebook")
BROKEN = Row("n", "", 0, 0, "error", "is cut off", message="is cut off; ask for it again")

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</pre></section></style><style>body{display:none}",
    "<!-- ",
    "]]><svg/onload=alert(1)>",
    "&lt;b&gt;&#60;i&#62;",
    "javascript:alert(1)",
    "{title}{0}%s",
    "\x1b[2J\x1b[31m\x07",
    "\u202egnp.exe\u2066\u200f",
    "\x00\x08\x0b\x7f\x85\u2028\u2029\ufeff",
    "\udcff\ud800",
    "\U000e0041\ue000",
    "a" + "\u0301" * 500,
    "x" * 3_000_000,
    "\n" * 1_000_000,
    "`" * 1001,
]


def graded(*rows, learner="ada", notebook="13_squeeze_and_excitation.ipynb"):
    return Graded(learner, 13, notebook, "ab12" * 16, "terms", rows, 1.5)


class Reading(HTMLParser):
    """What a page consists of."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words, self.within = set(), set(), [], []
        self.feed(page)
        self.close()
        assert not self.within, f"left open: {self.within}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {(tag, name) for name, _ in attrs}
        if tag != "meta":
            self.within.append(tag)

    def handle_endtag(self, tag):
        assert self.within.pop() == tag

    def handle_data(self, data):
        if "style" not in self.within:
            self.words.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    @property
    def text(self):
        return "".join(self.words)


KNOWN_TAGS = set(
    "html head meta title style body main h1 h2 p bdi table thead tbody tr th td section pre "
    "footer".split()
)
KNOWN_ATTRIBUTES = {
    ("html", "lang"),
    ("meta", "charset"),
    ("meta", "name"),
    ("meta", "content"),
    ("meta", "http-equiv"),
    ("p", "class"),
    ("tr", "class"),
    ("th", "scope"),
}


def both(one, person=None):
    page = Reading(feedback_html(one, person))
    return feedback_text(one, person), page.text


def test_both_forms_say_what_passed_what_failed_why_and_what_to_read_again():
    for text in both(graded(RIGHT, WRONG, ABSENT), Person("ada", "Ada Lovelace")):
        assert "Ada Lovelace" in text
        assert "2 of 5.5 points, 1 of 3 exercises right." in text
        assert "not right yet, 12 of 23 cases right: gates alone" in text
        assert "Likely cause: The gates come back alone." in text and "[1 <2>]" in text
        assert "To read again for excite, scale: lesson 13, Squeeze and excitation" in text
        assert "notebooks/13_squeeze_and_excitation.ipynb" in text
        assert "ab12ab12ab12." in text


def test_who_has_all_right_is_sent_on():
    for text in both(graded(RIGHT)):
        assert "2 of 2 points, 1 of 1 exercises right." in text
        assert "All is right" in text and "read again" not in text


def test_a_notebook_that_could_not_be_graded_gets_a_reason_and_no_points():
    for text in both(graded(BROKEN)):
        assert "could not be graded: is cut off" in text and "ask for it again" in text
        assert " of 0" not in text and "hand it in again" in text


def test_why_a_notebook_could_not_be_graded_is_said_once():
    for text in both(graded(Row("n", "", 0, 0, "error", "is cut off", message="is cut off"))):
        assert text.count("is cut off") == 1


def test_without_a_name_on_the_roster_the_folder_stands_for_it():
    for person in (None, Person("ada")):
        assert all("ada" in text for text in both(graded(RIGHT), person))


def test_nobody_gets_what_is_for_somebody_else():
    for write in (feedback_text, feedback_html):
        with pytest.raises(ValueError, match="'ada''s, the person 'bob'"):
            write(graded(RIGHT), Person("bob", "Bob"))


def test_colour_never_says_anything_alone():
    page = feedback_html(graded(RIGHT, WRONG))
    assert '<tr class="right">' in page and "✓ <bdi>right" in page
    assert '<tr class="wrong">' in page and "✗ <bdi>not right yet" in page


def test_the_policy_lets_nothing_run_and_nothing_load_but_the_one_style():
    page = feedback_html(graded(WRONG))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    style = re.search(r"(?s)<style>(.*?)</style>", page)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "url(" not in style and "@import" not in style
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<h1>")
    assert "http" not in page.replace("http-equiv", "") and "//" not in page


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_every_field_comes_out_as_text(text):
    row = Row(text, f"13.{text}", 0, 2, "wrong", text, 0, 3, f"It says:\n  {text}\n{text}")
    strange = Row(text, text, 0, 2, text, text, 0, 3, text)
    one = graded(row, strange, WRONG, learner=text, notebook=text)
    for grade in (one, graded(Row(text, "", 0, 0, "error", text, message=text), learner=text)):
        for person in (None, Person(text, text, text, text)):
            page, told = feedback_html(grade, person), feedback_text(grade, person)
            reading = Reading(page)
            assert reading.tags <= KNOWN_TAGS and reading.attributes <= KNOWN_ATTRIBUTES
            for written in (page, told):
                assert len(written.encode()) < 120_000
                for letter in set(text) - {"\n"}:
                    assert letter.isprintable() or letter not in written
            if len(text) < 80 and text.isprintable():
                assert text in reading.text and text in told


def test_a_page_is_a_real_page_whatever_is_in_it():
    page = feedback_html(graded(Row("", "13.x", 0, 1, "wrong", message="<title>\n  </main>")))
    assert page.count("<title>") == page.count("</main>") == 1


def test_what_a_learner_prints_cannot_pass_for_the_text_around_it():
    forged = Row("", "13.x", 0, 1, "wrong", message="no\n\n15 of 15 points, all right\n\nhello")
    lines = feedback_text(graded(forged)).splitlines()
    assert "  | 15 of 15 points, all right" in lines
    assert "15 of 15 points, all right" not in lines


def test_of_a_message_without_end_as_much_is_shown_as_a_person_reads():
    endless = Row("", "13.x", 0, 1, "wrong", message="\n".join(f"line {n}" for n in range(1000)))
    for text in both(graded(endless)):
        assert "line 99" in text and "line 100" not in text and "... (900 more lines)" in text


def test_languages_are_left_as_they_are_written():
    for name in ("Ağaoğlu Şükrü", "李小龙", "עדה", "نگار نمی‌دانم", "José", "👩‍🔬"):
        assert plain(name, 50) == name


def test_what_cannot_be_seen_is_spelled_out_and_the_rest_counted():
    assert plain("a\x1b[1m\u202eb\r\nc\td", 50) == "a\\x1b[1m\\u202eb\nc    d"
    assert plain("x" * 1_000_005, 5) == "xxxxx ... (1,000,000 more characters)"


def test_the_classes_title_stands_above_and_does_nothing():
    text = feedback_text(graded(RIGHT), course="Vision <b>2026</b>")
    page = feedback_html(graded(RIGHT), course="Vision <b>2026</b>")
    assert text.startswith("Vision <b>2026</b>\n")
    assert "Vision &lt;b&gt;2026&lt;/b&gt;" in page
    assert page.index("Vision") < page.index("<h1>")
