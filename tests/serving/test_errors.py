"""The tree of errors is the one drawn, and every error survives the way between processes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from serving import errors
from serving.errors import InvalidInput, Overloaded, PolyvecError, Refused, Unavailable

KINDS = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if one.__module__ == errors.__name__
]
DRAWN = {
    words[0]: words[1:]
    for line in (errors.__doc__ or "").splitlines()
    if (words := line.strip("│├└─ ").split()) and words[0] in errors.__all__
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickle(kind: type[PolyvecError]) -> None:
    error = kind("why", 2.5) if issubclass(kind, Unavailable) else kind("why", "a.field")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.args, again.field) == (error.message, error.args, error.field)
    assert again.retry_after_s == error.retry_after_s


def test_problems_survive_pickle() -> None:
    error = InvalidInput("why", "a", (("a", "is wrong", "kind", 5),))
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_in_the_docstring_has_every_error_with_its_code_and_status(
    kind: type[PolyvecError],
) -> None:
    drawn = DRAWN[kind.__name__]
    if kind is not Refused:
        assert drawn[:2] == [str(kind.status), kind.code]


def test_the_tree_in_the_docstring_has_nothing_else() -> None:
    assert set(DRAWN) == {kind.__name__ for kind in KINDS}


def test_codes_are_of_one_error_each() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_an_error_without_arguments_has_a_message() -> None:
    assert PolyvecError().message == "PolyvecError"


def test_what_is_unavailable_may_be_tried_again_after_a_second() -> None:
    assert Unavailable("why").retry_after_s == 1.0
    assert Overloaded("why", 0.2).retry_after_s == 0.2
    assert Refused("why").retry_after_s is None
