"""A gate is full at once, never piles up, and says when to come back."""

from __future__ import annotations

import pytest

from serving.errors import Overloaded
from serving.limits.gate import Gate


class Clock:
    """A clock that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(requests=2, tokens=100, clock=clock)


def test_as_many_requests_as_allowed_and_no_more(gate: Gate) -> None:
    with gate.request(), gate.request():
        assert gate.under_way == 2
        with pytest.raises(Overloaded, match="2 requests are under way"), gate.request():
            pass
        assert gate.under_way == 2
    assert gate.under_way == 0


def test_a_failed_request_gives_its_place_back(gate: Gate) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="x"), gate.request():
            raise ValueError("x")
    assert gate.under_way == 0


def test_tokens_that_fit_beside_each_other_are_let_in(gate: Gate) -> None:
    with gate.tokens(60), gate.tokens(40):
        pass


def test_tokens_that_do_not_fit_are_refused(gate: Gate) -> None:
    with (
        gate.tokens(60),
        pytest.raises(Overloaded, match=r"60 tokens are under way .* takes 100"),
        gate.tokens(41),
    ):
        pass


def test_a_failure_gives_the_tokens_back(gate: Gate) -> None:
    with pytest.raises(ValueError, match="x"), gate.tokens(100):
        raise ValueError("x")
    with gate.tokens(100):
        pass


def test_a_batch_larger_than_everything_is_let_in_on_an_idle_server(gate: Gate) -> None:
    with gate.tokens(1000), pytest.raises(Overloaded), gate.tokens(1):
        pass


def test_without_a_rate_the_wait_is_a_second(gate: Gate) -> None:
    with gate.tokens(100), pytest.raises(Overloaded) as refused, gate.tokens(1):
        pass
    assert refused.value.retry_after_s == 1.0


def test_the_wait_is_until_half_of_it_is_done_at_the_rate_of_late(gate: Gate, clock: Clock) -> None:
    with gate.tokens(100):
        clock.now += 10  # 10 tokens a second
    with gate.tokens(80), pytest.raises(Overloaded) as refused, gate.tokens(30):
        pass
    assert refused.value.retry_after_s == pytest.approx(4.0)


def test_the_wait_is_bounded_on_both_sides(gate: Gate, clock: Clock) -> None:
    with gate.tokens(1):
        clock.now += 10
    with gate.tokens(100), pytest.raises(Overloaded) as long, gate.tokens(1):
        pass
    assert long.value.retry_after_s == 30.0
    for _ in range(100):
        with gate.tokens(100):
            clock.now += 0.06
    with gate.tokens(100), pytest.raises(Overloaded) as short, gate.tokens(1):
        pass
    assert short.value.retry_after_s == pytest.approx(0.1, abs=0.1)
