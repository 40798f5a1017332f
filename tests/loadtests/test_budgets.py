"""Tallies add up, budgets are kept or broken, and the page says which."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest

from loadtests import budgets
from loadtests.tally import Cell, Tally, quantile


def tally() -> Tally:
    """Two seconds: 100 queries of 1 to 100 ms, a refusal, a failure, and one bulk request."""
    one = Tally()
    for number in range(1, 101):
        one.note(10 + number % 2, "query", "answered", number / 1000, 9)
    one.note(10, "query", "refused", 0.001)
    one.note(11, "query", "failed", 0.001)
    one.note(11, "grpc bulk", "answered", 4.0, 2000)
    return one


def test_quantiles_are_within_two_per_cent() -> None:
    queries = tally().total(lambda _, kind: kind == "query")
    for share in (0.5, 0.95, 0.99):
        assert quantile(queries, share) == pytest.approx(share / 10, rel=0.021)


def test_nothing_answered_has_no_quantile() -> None:
    assert math.isnan(quantile(Cell(), 0.5))


def test_two_processes_make_one_tally() -> None:
    here, there = tally(), tally()
    here.give(there.taken())
    assert not there.cells
    assert here.total().requests == 2 * tally().total().requests
    assert here.total().buckets.total() == 202
    assert here.span == range(10, 12)


def test_a_budget_that_is_kept() -> None:
    budget = budgets.parse(["errors=0.01", "p95.interactive=0.1", "p95.bulk=5", "tokens_per_s=1e3"])
    assert all(check.kept for check in budgets.checked(budget, tally()))


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("errors=0.009", 1 / 103),
        ("refused=0.009", 1 / 103),
        ("p95.interactive=0.09", 0.095),
        ("p95.bulk=3.9", 4.0),
        ("tokens_per_s=1500", 1450),
    ],
)
def test_a_budget_that_is_broken(word: str, found: float) -> None:
    [check] = budgets.checked(budgets.parse([word]), tally())
    assert not check.kept
    assert check.found == pytest.approx(found, rel=0.021)


def test_a_later_word_overrides() -> None:
    assert budgets.parse(["errors=0.1", "errors=0.2"]) == {"errors": 0.2}


@pytest.mark.parametrize(
    ("word", "said"), [("p96=1", "there are errors"), ("errors=x", "a number")]
)
def test_a_wrong_budget_is_explained(word: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        budgets.parse([word])


class Outside(HTMLParser):
    """What a page would fetch from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = ("src", "href", "xlink:href")
        self.found += [v for name, v in attrs if name in named and v and not v.startswith("#")]


def test_the_page_needs_nothing_from_elsewhere_and_says_what_broke() -> None:
    pytest.importorskip("matplotlib", reason="the extra `load` is not installed")
    from loadtests.page import written

    checks = budgets.checked(budgets.parse(["errors=0", "p95.bulk=5"]), tally())
    page = written(["<model>"], tally(), checks)
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert "A budget was broken" in page
    assert "&lt;model&gt;" in page
    assert page.count("<svg") == 4
