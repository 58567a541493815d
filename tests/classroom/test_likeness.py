"""Likeness: copies are pointed out however they are disguised, and alike right answers are not."""

import json
import random
import re
import time

import numpy as np
import pytest

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.classroom import likeness
from minitorch_attn.classroom.likeness import FURTHER_CELLS, Pair, alike
from minitorch_attn.course import solution_source
from minitorch_attn.course.checking import examine
from minitorch_attn.course.exercise import exercises, find
from minitorch_attn.course.subject import here
from minitorch_attn.course.submission import Cell

# -- a class --------------------------------------------------------------------------------

# Right answers to set 13. Between « and » stand ways to write one thing, of which each learner
# takes one, the first most often; ways that begin with the same letter and colon go together.
SIZE = (
    "«a:H, W = x.shape[2:]¦N, C, H, W = x.shape¦area = x.shape[2] * x.shape[3]¦HW = x[0, 0].size»"
)
AREA = "«a:(H * W)¦(H * W)¦area¦HW»"
MEAN = "«x.mean(axis=(2, 3))¦np.mean(x, axis=(2, 3))¦x.mean((2, 3))¦x.mean(axis=(-2, -1))»"
RELU = "«np.maximum(a, 0)¦np.maximum(0, a)¦a * (a > 0)¦np.where(a > 0, a, 0)»"
GATE = (
    "«s[:, :, None, None]¦s[..., None, None]¦s.reshape(*s.shape, 1, 1)¦np.expand_dims(s, (2, 3))»"
)
SUM = "«(dy * x).sum(axis=(2, 3))¦np.sum(dy * x, axis=(2, 3))¦(x * dy).sum((2, 3))»"
SLOPE = "«ds * s * (1 - s)¦ds * (s * (1 - s))¦s * (1 - s) * ds¦ds * (s - s**2)»"
LAYER = (
    "«1 / (1 + np.exp(-(h @ w2.T)))¦1 / (1 + np.exp(-np.dot(h, w2.T)))¦"
    "(1 + np.tanh(h @ w2.T / 2)) / 2»"
)

WAYS = {
    "squeeze": f"""
def squeeze(x):
    {SIZE}
    z = {MEAN}

    def vjp_x(dy):
        «spread = dy[:, :, None, None] / {AREA}
        return np.broadcast_to(spread, x.shape)¦dx = dy[..., None, None]
        return np.ones_like(x) * dx / {AREA}¦dx = np.ones(x.shape)
        return dx * (dy / {AREA})[:, :, None, None]»

    return z, vjp_x
""",
    "excite": f"""
def excite(z, w1, w2):
    a = «z @ w1.T¦np.dot(z, w1.T)¦np.matmul(z, w1.T)»
    h = {RELU}
    s = {LAYER}
    return s
""",
    "scale": f"""
def scale(x, s):
    gate = {GATE}

    def vjp_x(dy):
        return «dy * gate¦gate * dy»

    def vjp_s(dy):
        ds = {SUM}
        return ds

    return «x * gate¦gate * x», (vjp_x, vjp_s)
""",
    "squeeze_excite": f"""
def squeeze_excite(x, w1, w2):
    {SIZE}
    z = {MEAN}
    a = «z @ w1.T¦np.dot(z, w1.T)¦np.matmul(z, w1.T)»
    h = {RELU}
    s = {LAYER}
    gate = {GATE}

    «def back_v(dy):
        ds = {SUM}
        return {SLOPE}

    def back_a(dy):
        dh = «back_v(dy) @ w2¦np.dot(back_v(dy), w2)»
        return «dh * (a > 0)¦np.where(a > 0, dh, 0)¦dh * (h > 0)»¦def back_v(dy):
        ds = {SUM}
        dv = {SLOPE}
        return dv

    def back_a(dy):
        da = «back_v(dy) @ w2¦np.dot(back_v(dy), w2)»
        da[a <= 0] = 0
        return da»

    def vjp_x(dy):
        dz = «back_a(dy) @ w1¦np.dot(back_a(dy), w1)»
        dx = «gate * dy¦dy * gate»
        return dx + dz«[:, :, None, None]¦[..., None, None]» / {AREA}

    def vjp_w1(dy):
        return «back_a(dy).T @ z¦np.dot(back_a(dy).T, z)¦np.einsum("nr,nc->rc", back_a(dy), z)»

    def vjp_w2(dy):
        return «back_v(dy).T @ h¦np.dot(back_v(dy).T, h)¦np.einsum("nc,nr->cr", back_v(dy), h)»

    y = «x * gate¦gate * x»
    return y, (vjp_x, vjp_w1, vjp_w2)
""",
    "SqueezeExcitation": """
class SqueezeExcitation(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = channels // reduction
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, channels, bias=False)

    def forward(self, x):
        z = «x.mean(dim=(2, 3))¦x.mean((2, 3))¦x.mean(dim=(-2, -1))»
        «s = F.sigmoid(self.fc2(F.relu(self.fc1(z))))¦h = F.relu(self.fc1(z))
        s = F.sigmoid(self.fc2(h))¦a = self.fc1(z)
        v = self.fc2(F.relu(a))
        s = F.sigmoid(v)»
        «return x * s.reshape(*s.shape, 1, 1)¦N, C = s.shape
        return x * s.reshape(N, C, 1, 1)¦gate = s.reshape(x.shape[0], x.shape[1], 1, 1)
        return gate * x»
""",
    "place": """
def place(x, residual, attention, placement):
    «if placement == "standard":
        return np.maximum(attention(residual(x)) + x, 0)¦if placement == "standard":
        y = x + attention(residual(x))
        return np.maximum(y, 0)»
    «if¦elif» placement == "pre":
        return np.maximum(«residual(attention(x)) + x¦x + residual(attention(x))», 0)
    if placement == "post":
        return attention(np.maximum(«residual(x) + x¦x + residual(x)», 0))
    «y = residual(x) + attention(x)
    return y * (y > 0)¦return np.maximum(0, residual(x) + attention(x))¦if placement != "post":
        return np.maximum(residual(x) + attention(x), 0)»
""",
}

#: What learners call their own things in place of the names above.
NAMES = {
    "z": ["mean", "pooled", "squeezed"],
    "a": ["lin", "pre", "u"],
    "h": ["hidden_units", "act"],
    "s": ["weights", "sig"],
    "gate": ["g", "s4"],
    "dx": ["grad_x", "gx"],
    "dy": ["grad", "upstream"],
    "y": ["out", "result"],
    "back_v": ["to_v", "grad_v"],
}


def written(template, rng):
    """One learner's way through a template."""
    taken = {}

    def take(found):
        name, text = re.fullmatch(r"(?s)(?:([a-z]):)?(.*)", found[1]).groups()
        ways = text.split("¦")
        if name not in taken:
            choice = 0 if rng.random() < 0.4 else rng.randrange(len(ways))
            if name is None:
                return ways[choice]
            taken[name] = choice
        return ways[taken[name]]

    while "«" in template:
        template = re.sub(r"«([^«»]*)»", take, template)
    return template.strip("\n")


def renamed(code, rng, share=1.0):
    for name, others in NAMES.items():
        if rng.random() < share:
            code = re.sub(rf"(?<![\w.]){name}(?!\w)", rng.choice(others), code)
    return code


def answers(rng):
    """A learner's own right answers to the whole set."""
    return {name: renamed(written(way, rng), rng, 0.3) for name, way in WAYS.items()}


def save(folder, name, own, number=13):
    """A notebook as it was handed out, with answers in the exercises' cells."""
    cells = [{"cell_type": "code", "metadata": {}, "source": "import numpy as np"}]
    for exercise in exercises(number):
        marks = {"nbgrader": {"grade_id": exercise.name, "solution": True}}
        source = own.get(exercise.name, solution_source.stub(exercise))
        cells.append({"cell_type": "code", "metadata": marks, "source": source})
        check = f'check("{exercise.id}", {exercise.name})'
        cells.append({"cell_type": "code", "metadata": {}, "source": check})
    cells += [{"cell_type": "code", "metadata": {}, "source": own.get(FURTHER_CELLS, "")}]
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}))
    return path


@pytest.fixture
def pairs(tmp_path):
    """Write a class down and compare it; gives the pairs' names."""

    def compare(people, threshold=0.8, number=13):
        notebooks = {name: save(tmp_path, name, own, number) for name, own in people.items()}
        found = alike(notebooks, number, threshold)
        return {(pair.first, pair.second): pair for pair in found}

    return compare


def people(count, seed=0):
    rng = random.Random(seed)
    return {f"learner {n}": answers(rng) for n in range(count)}


# -- what is pointed out --------------------------------------------------------------------


def test_the_ways_to_answer_are_right():
    for seed in range(3):
        for name, code in answers(random.Random(seed)).items():
            namespace = {"np": np, "F": F, "nn": nn}
            exec(code, namespace)
            report = examine(find(f"13.{name}"), here(namespace[name]))
            assert report.verdict == "right", f"{code}\n{report.page}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [8, 40])
def test_people_who_worked_alone_are_not_pointed_out(pairs, count, seed):
    assert pairs(people(count, seed)) == {}


def disguised(code, rng):
    """Other names, comments, texts, layout."""
    code = renamed(code, rng).replace("\n    return", "  # now the result\n\n    return ")
    code = re.sub(r"(?m)^((?:def|class) .*:)$", r'\1\n    """Mine alone."""', code)
    return code.replace("(dy", "( dy")


def reordered(code):
    """The functions within the function, and the cases of a branch, from the last to the first."""
    head, *inner = re.split(r"(?m)^(?=    def )", f"{code}\n")
    tail = ""
    if inner:
        last = re.split(r"(?m)^(?=    (?!def|    ))", inner[-1], maxsplit=1)
        inner[-1], tail = last[0], "".join(last[1:])
    return head + "".join(reversed(inner)) + tail


def interrupted(code):
    return code.replace("    return", "    debug = 7\n    print(debug)\n    return")


@pytest.mark.parametrize("disguise", ["none", "renamed", "reordered", "all", "added to"])
def test_a_copy_is_pointed_out_in_its_disguise(pairs, disguise):
    rng = random.Random(5)
    changes = {
        "none": lambda code: code,
        "renamed": lambda code: disguised(code, rng),
        "reordered": reordered,
        "all": lambda code: reordered(disguised(code, rng)),
        "added to": interrupted,
    }
    everybody = people(40)
    own = everybody["learner 7"]
    copy = {name: changes[disguise](code) for name, code in own.items()}
    assert disguise == "none" or copy["squeeze_excite"] != own["squeeze_excite"]
    found = pairs(everybody | {"the copy": copy})
    assert list(found) == [("learner 7", "the copy")]
    pair = found["learner 7", "the copy"]
    assert pair.likeness > 0.95
    assert pair.bits > 20 and "13.squeeze_excite" in pair.exercises


def test_a_copy_of_one_long_answer_is_found_in_it_alone(pairs):
    everybody = people(40)
    own = everybody["learner 3"]["squeeze_excite"]
    own = own.replace(
        "return y, (", "rules = vjp_x, vjp_w1, vjp_w2\n    assert len(rules) == 3\n    return y, ("
    )
    own = own.replace("    y = ", "    shape = x.shape\n    assert len(shape) == 4\n    y = ")
    everybody["learner 3"]["squeeze_excite"] = own
    everybody["learner 9"]["squeeze_excite"] = disguised(own, random.Random(1))
    found = pairs(everybody)
    assert list(found) == [("learner 3", "learner 9")]
    assert found["learner 3", "learner 9"].exercises == ("13.squeeze_excite",)


def test_helpers_in_further_cells_are_compared_too(pairs):
    everybody = people(40)
    helpers = "def squash(v):\n" + "".join(f"    v = v * {n} - {n} / v\n" for n in range(2, 9))
    everybody["learner 1"][FURTHER_CELLS] = helpers
    everybody["learner 2"][FURTHER_CELLS] = helpers.replace("v", "what")
    found = pairs(everybody)
    assert list(found) == [("learner 1", "learner 2")]
    assert found["learner 1", "learner 2"].exercises == (FURTHER_CELLS,)


def test_three_who_handed_in_the_same_are_three_pairs(pairs):
    everybody = people(40)
    for name in ("learner 11", "learner 12"):
        everybody[name] = everybody["learner 10"]
    assert len(pairs(everybody)) == 3


# -- what is not ----------------------------------------------------------------------------

RELU_RULE = """
def relu_rule(x):
    def vjp_x(dy):
        return np.where(x > 0, dy, 0)

    return np.where(x > 0, x, 0), vjp_x
"""


def test_short_answers_that_look_alike_say_nothing(pairs):
    def own(rng):
        relu = rng.choice(["np.maximum(x, 0)", "np.where(x > 0, x, 0)", "x * (x > 0)"])
        softmax = rng.choice(["np.exp(x - x.max(-1, keepdims=True))", "np.exp(x - np.max(x))"])
        return {
            "relu": f"def relu(x):\n    return {relu}",
            "relu_rule": RELU_RULE,
            "softmax": f"def softmax(x):\n    e = {softmax}\n    return e / e.sum(-1)[..., None]",
        }

    rng = random.Random(0)
    assert pairs({f"learner {n}": own(rng) for n in range(40)}, 0.5, number=0) == {}


def test_a_class_that_wrote_all_the_same_says_nothing(pairs):
    same = answers(random.Random(3))
    assert pairs({f"learner {n}": same for n in range(12)}) == {}


def test_what_is_handed_out_and_the_courses_own_solution_are_free(pairs):
    solved = {one.name: solution_source.solution(one) for one in exercises(13)}
    everybody = people(20) | {"a": {}, "b": {}, "c": solved, "d": solved}
    found = pairs(everybody, threshold=0.01)
    assert not {name for pair in found for name in pair} & set("abcd")


def test_in_a_class_of_four_nobody_can_say(pairs):
    same = answers(random.Random(3))
    assert pairs({"a": same, "b": same, "c": {}, "d": {}}) == {}


def test_a_pair_is_told_as_what_it_is():
    pair = Pair("ada", "bob", 0.934, ("13.place", "13.scale"), 40.0)
    assert str(pair) == "ada and bob: 93% alike, most of all in 13.place, 13.scale"
    for words in (likeness.__doc__, Pair.__doc__):
        assert re.search(r"a hint where to look, (and )?never a\s+verdict", words)


# -- whatever is handed in ------------------------------------------------------------------


def test_what_cannot_be_read_is_passed_over(pairs, tmp_path):
    everybody = people(10)
    everybody["the copy"] = everybody["learner 4"]
    notebooks = {name: save(tmp_path, name, own) for name, own in everybody.items()}
    (tmp_path / "broken.ipynb").write_bytes(b'{"cells": [\xff')
    (tmp_path / "folder.ipynb").mkdir()
    notebooks |= {"broken": tmp_path / "broken.ipynb", "folder": tmp_path / "folder.ipynb"}
    notebooks |= {"absent": tmp_path / "absent.ipynb"}
    (pair,) = alike(notebooks, 13)
    assert (pair.first, pair.second) == ("learner 4", "the copy")


HOSTILE = [
    "def squeeze(x:\n  return",
    "def squeeze(x):\n        return 1\n    return 2",
    "%timeit x\n!ls\n?x\n$ x",
    "x = '''",
    "x = f'{x!r:{y}}' f\"{'a'}\"; z = rb'\\x00'",
    "\x00\x01\udcff",
    "(" * 30_000,
    "x = " + "-" * 30_000 + "1",
    "x = 1\n" * 50_000,
    "a" * 300_000,
    "\n".join(f"x{n} = {n}" for n in range(20_000)),
    "\\\n" * 9_000,
    "名 = 1; ａ = 2",
]


def test_no_code_stops_the_comparison_or_holds_it_up(pairs):
    everybody = people(10) | {
        f"hostile {n}": dict.fromkeys([*WAYS, FURTHER_CELLS], code)
        for n, code in enumerate(HOSTILE)
    }
    everybody["the copy"] = everybody["learner 4"]
    started = time.process_time()
    assert ("learner 4", "the copy") in pairs(everybody)
    assert time.process_time() - started < 30


def test_of_code_without_end_the_beginning_is_read():
    cells = [Cell("x = 1\n" * 100_000, mark) for mark in ("squeeze", "") for _ in range(50)]
    parts = likeness._parts(cells, 13)
    assert all(len(code) <= 2 * likeness.MOST_CODE for code in parts.values())
    assert parts["13.squeeze"] and parts[FURTHER_CELLS] and not parts["13.excite"]


def test_what_stands_before_a_fault_is_read():
    good = "y = x @ w + x[0]"
    for bad in ("y = (", "x = '''", "  z = 1\n y"):
        read = likeness._statements(f"{good}\n{bad}", 13)
        assert likeness._statements(good, 13) <= read


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("y = x + 1", "total   =\\\n  first+1 # sum"),
        ("y = x + 1; z = y", "a = b + 1\nb = a"),
        ('"""Text."""\ny = f(x)', "y = g(h)"),
        ('y = x + "a"', "y = x + 'bcd'"),
        ('y = f"{x}" + x', "y = f'{a}{b}' + x"),
        ("self.hidden = x", "self.inner = z"),
        ("for i in range(3): pass", "for what in range(3): pass"),
    ],
)
def test_names_texts_and_layout_do_not_count(one, two):
    assert likeness._statements(one, 13) == likeness._statements(two, 13)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("y = x + x", "y = x + z"),
        ("y = np.exp(x)", "y = np.log(x)"),
        ("y = x.sum(axis=0)", "y = x.sum(keepdims=0)"),
        ("y = x + 1", "y = x + 2"),
        ("y = x + 1", "y = x - 1"),
        ("y = max(x)", "y = min(x)"),
    ],
)
def test_what_is_computed_does(one, two):
    assert likeness._statements(one, 13) != likeness._statements(two, 13)
