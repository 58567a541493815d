"""What the rules hold stays in memory until the backward pass: they hold no more than they need."""

import numpy as np
import pytest

import minitorch_attn.functional as F
from minitorch_attn.ops import (
    arithmetic,
    conversion,
    einsum,
    indexing,
    padding,
    reduction,
    shape,
    shuffle,
)

from .parity import normal, positive

X = normal(2, 3, 4)

HOLD_NOTHING = {
    "add": (arithmetic.add, (X, X), {}),
    "subtract": (arithmetic.subtract, (X, X), {}),
    "negative": (arithmetic.negative, (X,), {}),
    "sum": (reduction.sum, (X,), {"dim": 1}),
    "mean": (reduction.mean, (X,), {"dim": 1}),
    "cumsum": (reduction.cumsum, (X,), {"dim": 1}),
    "reshape": (shape.reshape, (X,), {"shape": (4, 6)}),
    "transpose": (shape.transpose, (X,), {"dim0": 0, "dim1": 1}),
    "movedim": (shape.movedim, (X,), {"source": 0, "destination": 1}),
    "broadcast_to": (shape.broadcast_to, (X,), {"shape": (5, 2, 3, 4)}),
    "cat": (shape._cat, (X, X), {"dim": 0}),
    "stack": (shape._stack, (X, X), {"dim": 0}),
    "pad": (
        padding._pad_constant,
        (X,),
        {"pairs": ((0, 0), (0, 0), (1, -1)), "value": 0},
    ),
    "pad, reflected": (
        padding._pad_from_inside,
        (X,),
        {"pairs": ((0, 0), (0, 0), (1, 2)), "mode": "reflect"},
    ),
    "channel_shuffle": (shuffle.channel_shuffle, (X,), {"groups": 3}),
    "flip": (shape.flip, (X,), {"dims": 0}),
    "roll": (shape.roll, (X,), {"shifts": 1, "dims": 0}),
    "repeat": (shape.repeat, (X,), {"sizes": (2, 1, 1)}),
    "tril": (shape.tril, (X,), {}),
    "clone": (shape.clone, (X,), {}),
    "getitem": (indexing._getitem, (X,), {"index": (0, slice(1, None))}),
    "astype": (conversion.astype, (X,), {"dtype": "float32"}),
}


def held(rule):
    """The arrays in a rule's closure, also through the functions that it calls."""
    for cell in rule.__closure__ or ():
        values = cell.cell_contents
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, np.ndarray):
                yield value
            elif callable(value) and hasattr(value, "__closure__"):
                yield from held(value)


def rules_of(op, inputs, settings):
    _, rules = op.__wrapped__(*inputs, **settings)
    return rules if isinstance(rules, tuple) else (rules,)


@pytest.mark.parametrize("name", HOLD_NOTHING)
def test_linear_rules_hold_no_array(name):
    for rule in rules_of(*HOLD_NOTHING[name]):
        assert not list(held(rule))


@pytest.mark.parametrize("op", [F.multiply, F.matmul])
def test_the_rule_of_a_factor_holds_the_other_factor_alone(op):
    a, b = normal(4, 4), normal(4, 4, seed=1)
    vjp_a, vjp_b = rules_of(op, (a, b), {})
    assert [x is b for x in held(vjp_a)] == [True]
    assert [x is a for x in held(vjp_b)] == [True]


def test_a_product_of_an_einsum_holds_the_other_factor_alone():
    a, b = normal(4, 4), normal(4, 4, seed=1)
    vjp_a, vjp_b = rules_of(einsum._product, (a, b), {"labels": ("ij", "jk"), "kept": "ik"})
    assert [x is b for x in held(vjp_a)] == [True]
    assert [x is a for x in held(vjp_b)] == [True]


@pytest.mark.parametrize("op", [F.exp, F.sqrt, F.sigmoid, F.tanh, F.relu, F.softmax, F.log_softmax])
def test_rules_that_need_the_output_do_not_hold_the_input(op):
    x = positive(3, 4)
    settings = {"dim": 1} if "softmax" in op.__name__ else {}
    y, rule = op.__wrapped__(x, **settings)
    assert [z is y for z in held(rule)] == [True]
