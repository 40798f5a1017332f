"""A rate against its definition, whatever the order of charges, failures and time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from serving.limits.buckets import WINDOW_MS, Month, Places, Rate, month_of
from serving.limits.decision import Spending

START = 1_780_000_000_000
NOBODY = Spending("t", ())

# What passes, what is asked for, and which of the admitted fails: None for none.
STEPS = some.lists(
    some.tuples(some.integers(0, 40_000), some.integers(0, 9), some.none() | some.integers(0, 5)),
    max_size=30,
)


@dataclass
class Charged:
    """One admitted charge; `failed_at` when it was given back."""

    at: int
    cost: int
    failed_at: int | None = None


def defined_level(charges: list[Charged], limit: int, now: int) -> int:
    """A leaking bucket that only ever saw the charges that did not fail."""
    level, last = 0, 0
    for one in charges:
        if one.failed_at is None:
            level = max(0, level - limit * (one.at - last)) + one.cost * WINDOW_MS
            last = one.at
    return max(0, level - limit * (now - last))


def remaining(rate: Rate, limit: int, now: int) -> int:
    rate.wait(limit, 0, now)
    return rate.outcome(limit, now, 0).remaining


@given(steps=STEPS, limit=some.integers(1, 12))
def test_no_order_of_charges_and_failures_lets_in_more_than_the_limit(
    steps: list[tuple[int, int, int | None]], limit: int
) -> None:
    rate, now, charges = Rate(), START, []
    for passed, cost, failing in steps:
        now += passed
        under_way = [one for one in charges if one.failed_at is None]
        if failing is not None and failing < len(under_way):
            one = under_way[failing]
            rate.give_back(limit, one.cost, one.at, now, NOBODY)
            one.failed_at = now
        if rate.wait(limit, cost, now) == 0:
            rate.take(cost, now, NOBODY)
            charges.append(Charged(now, cost))
        assert defined_level(charges, limit, now) <= limit * WINDOW_MS


@given(steps=STEPS, limit=some.integers(1, 12))
def test_of_a_failure_is_kept_at_most_what_leaked_while_it_ran(
    steps: list[tuple[int, int, int | None]], limit: int
) -> None:
    rate, now, charges = Rate(), START, []
    for passed, cost, failing in steps:
        now += passed
        under_way = [one for one in charges if one.failed_at is None]
        if failing is not None and failing < len(under_way):
            one = under_way[failing]
            rate.give_back(limit, one.cost, one.at, now, NOBODY)
            one.failed_at = now
        if rate.wait(limit, cost, now) == 0:
            rate.take(cost, now, NOBODY)
            charges.append(Charged(now, cost))
        ran = sum(one.failed_at - one.at for one in charges if one.failed_at is not None)
        level = defined_level(charges, limit, now) + limit * ran
        assert remaining(rate, limit, now) >= (limit * WINDOW_MS - level) // WINDOW_MS


@given(
    costs=some.lists(some.integers(1, 50), max_size=20),
    failing=some.sets(some.integers(0, 19)),
    limit=some.integers(50, 500),
)
def test_while_no_time_passes_failures_are_as_if_they_had_not_been(
    costs: list[int], failing: set[int], limit: int
) -> None:
    rate, kept = Rate(), 0
    for number, cost in enumerate(costs):
        fits = kept + cost <= limit
        assert (rate.wait(limit, cost, START) == 0) is fits
        if fits:
            rate.take(cost, START, NOBODY)
            kept += cost
            if number in failing:
                rate.give_back(limit, cost, START, START, NOBODY)
                kept -= cost
        assert remaining(rate, limit, START) == limit - kept


@given(limit=some.integers(1, 10**11), used=some.floats(0, 1), cost=some.floats(0, 1))
def test_it_fits_when_it_was_said_to_fit_and_not_a_millisecond_before(
    limit: int, used: float, cost: float
) -> None:
    rate = Rate()
    first, second = (max(1, int(limit * share)) for share in (used, cost))
    assert rate.wait(limit, first, START) == 0
    rate.take(first, START, NOBODY)
    wait = rate.wait(limit, second, START)
    assert wait is not None
    assert rate.wait(limit, second, START + wait) == 0
    if wait:
        assert rate.wait(limit, second, START + wait - 1) == 1


@pytest.mark.parametrize(
    ("now", "start", "end"),
    [
        ((2026, 11, 21, 8), (2026, 11, 1), (2026, 12, 1)),
        ((2026, 12, 31, 23, 59, 59), (2026, 12, 1), (2027, 1, 1)),
        ((2027, 1, 1), (2027, 1, 1), (2027, 2, 1)),
        ((2028, 2, 29), (2028, 2, 1), (2028, 3, 1)),
    ],
)
def test_a_month_is_the_calendars_in_utc(
    now: tuple[int, ...], start: tuple[int, ...], end: tuple[int, ...]
) -> None:
    assert month_of(ms(now)) == (ms(start), ms(end))
    assert month_of(ms(end)) != (ms(start), ms(end))
    assert month_of(ms(end) - 1) == (ms(start), ms(end))


@given(costs=some.lists(some.tuples(some.integers(1, 9), some.booleans()), max_size=30))
def test_a_month_is_the_sum_of_what_did_not_fail(costs: list[tuple[int, bool]]) -> None:
    month, kept = Month(), 0
    for cost, fails in costs:
        if month.wait(40, cost, START) == 0:
            month.take(cost, START, NOBODY)
            kept += cost
            if fails:
                month.give_back(40, cost, START, START, NOBODY)
                kept -= cost
        assert month.outcome(40, START, 0).remaining == 40 - kept


@given(
    steps=some.lists(
        some.tuples(some.integers(0, 50), some.integers(1, 60), some.none() | some.integers(0, 30)),
        max_size=30,
    )
)
def test_places_are_those_that_are_neither_given_back_nor_over(
    steps: list[tuple[int, int, int | None]],
) -> None:
    places, now, model = Places(), START, dict[str, int]()
    for number, (passed, hold, back) in enumerate(steps):
        now += passed
        model = {name: until for name, until in model.items() if until > now}
        if back is not None:
            places.give_back(3, 1, now, now, Spending("t", (), str(back)))
            model.pop(str(back), None)
        wait = places.wait(3, 1, now)
        assert (wait == 0) is (len(model) < 3)
        if wait == 0:
            places.take(1, now, Spending("t", (), str(number), hold))
            model[str(number)] = now + hold
        assert places.outcome(3, now, wait).remaining == 3 - len(model)


def ms(date: tuple[int, ...]) -> int:
    return round(datetime(*date, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]
