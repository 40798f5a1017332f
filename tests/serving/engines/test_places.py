"""Who has a place, who makes room and who waits. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.engines._places import STAY_S, Move, Places

NAMES = ("a", "b", "c", "d", "e")


def filled(*names: str, loads_per_minute: int = 6000) -> Places:
    places = Places(len(names), loads_per_minute)
    for name in names:
        assert places.next([name], 0.0) == Move(name, None)
        places.loaded(name, 0.0)
    return places


def test_the_one_that_is_idle_longest_makes_room() -> None:
    places = filled("a", "b")
    for name in ("a", "b", "a"):
        assert places.hold(name)
        places.release(name)
    assert places.next(["c"], 1.0) == Move("c", "b")
    assert not places.hold("b")
    assert not places.hold("c")
    places.loaded("c", 1.0)
    assert places.hold("c")


def test_what_is_held_stays_however_long_another_waits() -> None:
    places = filled("a")
    assert places.hold("a")
    assert all(places.next(["b"], float(now)) is None for now in range(100))
    places.release("a")
    assert places.next(["b"], 100.0) == Move("b", "a")


def test_one_in_use_goes_on_for_a_while_and_is_then_given_to_nobody_else() -> None:
    places = filled("a")
    assert places.hold("a")
    assert places.next(["b"], STAY_S / 2) is None
    assert places.hold("a")
    assert places.later(STAY_S / 2) == STAY_S / 2
    assert places.next(["b"], STAY_S) is None
    assert not places.hold("a")
    assert places.later(STAY_S) is None


def test_one_that_was_to_go_stays_where_nobody_wants_its_place_any_more() -> None:
    places = filled("a")
    places.hold("a")
    places.next(["b"], STAY_S)
    assert places.next(["a"], STAY_S) is None
    assert places.hold("a")


def test_loads_are_bounded_in_each_minute() -> None:
    places = filled("a", "b", loads_per_minute=6)  # the first two came at once
    assert places.next(["c"], 5.0) is None
    assert places.later(5.0) == 5.0
    assert places.next(["c"], 10.0) == Move("c", "a")
    places.loaded("c", 10.0)
    assert places.next(["d"], 19.9) is None
    assert places.next(["d"], 20.0) == Move("d", "b")


def test_one_that_has_just_come_is_used_before_it_goes() -> None:
    places = Places(1, 6000)
    assert places.next(["a", "b"], 0.0) == Move("a", None)
    places.loaded("a", 0.0)
    assert places.next(["a", "b"], 9.0) is None
    assert places.hold("a")


def test_a_load_that_failed_leaves_its_place_empty() -> None:
    places = Places(1, 6000)
    assert places.next(["a"], 0.0) == Move("a", None)
    assert places.next(["b"], 1.0) is None
    places.lost("a")
    assert places.next(["b"], 1.0) == Move("b", None)


@dataclass
class Waiter:
    name: str
    since: float


@dataclass
class Seen:
    held: list[str] = field(default_factory=list)
    waiting: list[Waiter] = field(default_factory=list)
    loading: list[str] = field(default_factory=list)
    resident: set[str] = field(default_factory=set)
    loads: list[float] = field(default_factory=list)


class Churn(RuleBasedStateMachine):
    """Callers come and go at random; whoever waits is served as the engine does it."""

    PLACES, RATE = 2, 120

    def __init__(self) -> None:
        super().__init__()
        self.places = Places(self.PLACES, self.RATE)
        self.seen = Seen()
        self.now = 0.0

    def advance(self) -> None:
        seen = self.seen
        while (move := self.places.next([w.name for w in seen.waiting], self.now)) is not None:
            assert move.come not in seen.resident
            assert move.gone is None or (move.gone in seen.resident)
            assert move.gone not in seen.held
            assert move.gone not in seen.loading
            seen.resident.discard(move.gone or "")
            seen.resident.add(move.come)
            seen.loading.append(move.come)
            seen.loads.append(self.now)
        for waiter in list(seen.waiting):
            if self.places.hold(waiter.name):
                assert waiter.name in seen.resident
                seen.waiting.remove(waiter)
                seen.held.append(waiter.name)

    @rule(name=st.sampled_from(NAMES))
    def ask(self, name: str) -> None:
        self.seen.waiting.append(Waiter(name, self.now))
        self.advance()

    @precondition(lambda self: self.seen.held)
    @rule(which=st.integers(0, 99))
    def finish(self, which: int) -> None:
        self.places.release(self.seen.held.pop(which % len(self.seen.held)))
        self.advance()

    @precondition(lambda self: self.seen.waiting)
    @rule(which=st.integers(0, 99))
    def give_up(self, which: int) -> None:
        self.seen.waiting.pop(which % len(self.seen.waiting))
        self.advance()

    @precondition(lambda self: self.seen.loading)
    @rule(well=st.booleans())
    def load_ends(self, well: bool) -> None:
        name = self.seen.loading.pop(0)
        if well:
            self.places.loaded(name, self.now)
        else:
            self.places.lost(name)
            self.seen.resident.discard(name)
        self.advance()

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.advance()

    @invariant()
    def never_more_than_there_are_places(self) -> None:
        assert set(self.places.names) == self.seen.resident
        assert len(self.seen.resident) <= self.PLACES

    @invariant()
    def never_more_loads_than_allowed(self) -> None:
        loads = self.seen.loads
        for at, begun in enumerate(loads):
            within = [one for one in loads[at:] if one - begun <= 10]
            assert len(within) <= self.PLACES + 10 * self.RATE / 60 + 1e-6

    def teardown(self) -> None:
        """Whoever waits is served in the end, where those who hold are done sooner or later."""
        for _ in range(200):
            if not self.seen.waiting:
                return
            self.wait(1.0)
            while self.seen.loading:
                self.load_ends(True)
            while self.seen.held:
                self.finish(0)
        raise AssertionError(f"{self.seen.waiting} still wait")


TestChurn = Churn.TestCase
TestChurn.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
