"""Numbers on the command line: what is taken, and what is said of what is not."""

from argparse import ArgumentTypeError

import pytest

from minitorch_attn.command_line import count, count_or_0, rate


def test_numbers_that_fit_are_taken():
    assert (count("1"), count("12"), count_or_0("0")) == (1, 12, 0)
    assert rate("3e-3") == 3e-3


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "²"])
def test_what_is_no_count_is_refused_with_the_least_that_there_is(text):
    with pytest.raises(ArgumentTypeError, match=f"whole number of at least 1, not {text}"):
        count(text)


def test_0_is_taken_where_it_means_something():
    with pytest.raises(ArgumentTypeError, match="at least 0, not -1"):
        count_or_0("-1")


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "fast"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ArgumentTypeError, match=f"positive number, not {text}"):
        rate(text)
