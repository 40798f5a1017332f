"""Who goes next and who gets in, whatever comes: between classes, tenants, and a tenant's jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching import BULK_EVERY, Queue, Room, Ticket, Turns
from serving.errors import Overloaded
from serving.values import ServiceClass

BUDGET = 500
LENGTHS = st.sampled_from([1, 3, 12, 40, 66, 130, 250, 499, 900])
CLASSES: st.SearchStrategy[ServiceClass] = st.sampled_from(["interactive", "bulk"])
TENANTS = st.sampled_from(["a", "b", "c"])
# Of one class of length, of which every batch has at least one row.
ALIKE = st.integers(65, 256)
FOREVER = float("inf")


@dataclass(frozen=True)
class Add:
    lengths: list[int]
    service_class: ServiceClass
    tenant: str
    patience: float


@dataclass(frozen=True)
class Drop:
    which: int


@dataclass(frozen=True)
class Take:
    pass


ADDS = st.builds(
    Add, st.lists(LENGTHS, min_size=1, max_size=40), CLASSES, TENANTS, st.sampled_from([3, FOREVER])
)
STEPS = st.lists(
    st.one_of(ADDS, ADDS, st.builds(Drop, st.integers(0, 99)), st.builds(Take)), max_size=60
)


@dataclass
class Watched:
    """A queue, and what has gone into it and come out; every take is a second."""

    queue: Queue[int] = field(default_factory=lambda: Queue(BUDGET, 1 << 40))
    tickets: list[Ticket[int]] = field(default_factory=list)
    given: list[Add] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    out: Counter[tuple[int, int]] = field(default_factory=Counter)
    now: float = 0.0

    def step(self, step: Add | Drop | Take) -> None:
        match step:
            case Add():
                number, until = len(self.tickets), self.now + step.patience
                add = self.queue.add
                self.tickets.append(
                    add(number, step.lengths, step.service_class, self.now, until, step.tenant)
                )
                self.given.append(step)
            case Drop(which) if self.tickets:
                number = which % len(self.tickets)
                self.gone.add(number)
                self.queue.drop(self.tickets[number])
            case Take():
                self.take()

    def take(self) -> int:
        """How many rows there were."""
        self.now += 1
        batch = self.queue.take(self.now)
        lengths = [row.length for row in batch.rows]
        assert lengths == sorted(lengths)
        assert len(lengths) < 2 or len(lengths) * lengths[-1] <= BUDGET
        assert not self.gone & {row.ticket.owner for row in batch.rows}
        assert not self.gone & set(batch.late)
        assert len({row.ticket.service_class for row in batch.rows}) <= 1
        self.gone.update(batch.late)
        self.out.update((row.ticket.owner, row.place) for row in batch.rows)
        return len(lengths)


@settings(deadline=None)
@given(STEPS)
def test_everything_that_waits_comes_out_once_and_what_has_gone_never(
    steps: list[Add | Drop | Take],
) -> None:
    watched = Watched()
    for step in steps:
        watched.step(step)
        waiting = [ticket for ticket in watched.tickets if ticket.rows]
        assert len(watched.queue) == sum(ticket.rows for ticket in waiting)
        assert watched.queue.tokens == sum(ticket.tokens for ticket in waiting)
    while watched.take():
        pass
    assert set(watched.out.values()) <= {1}
    for number, add in enumerate(watched.given):
        if number not in watched.gone:
            assert {(number, place) for place in range(len(add.lengths))} <= set(watched.out)
    assert (len(watched.queue), watched.queue.tokens, watched.queue.oldest) == (0, 0, None)


@settings(deadline=None)
@given(st.data())
def test_tenants_that_wait_are_within_a_batch_of_each_other(data: st.DataObject) -> None:
    queue: Queue[str] = Queue(BUDGET, 1 << 40)
    left: Counter[str] = Counter()
    longest = 0
    for tenant in ("a", "b", "c")[: data.draw(st.integers(2, 3))]:
        for job in data.draw(st.lists(st.lists(ALIKE, min_size=1, max_size=30), min_size=3)):
            queue.add(tenant, job, "interactive", 0.0, FOREVER, tenant)
            left[tenant] += sum(job)
            longest = max(longest, *job)
    had = dict.fromkeys(left, 0)
    while min(left.values()) >= BUDGET:
        for row in queue.take(0.0).rows:
            had[row.ticket.tenant] += row.length
            left[row.ticket.tenant] -= row.length
        assert max(had.values()) - min(had.values()) <= BUDGET + longest


@settings(deadline=None)
@given(st.lists(st.lists(ALIKE, min_size=1, max_size=60), min_size=1), ALIKE, st.booleans())
def test_one_text_waits_for_two_batches_of_its_length_however_much_another_tenant_has(
    jobs: list[list[int]], length: int, begun: bool
) -> None:
    queue: Queue[str] = Queue(BUDGET, 1 << 40)
    for job in jobs:
        queue.add("flood", job, "interactive", 0.0, FOREVER, "flood")
    if begun:
        queue.take(0.0)
    queue.add("one", [length], "interactive", 0.0, FOREVER, "other")
    owners = {row.ticket.owner for _ in range(3) for row in queue.take(0.0).rows}
    assert "one" in owners


@settings(deadline=None)
@given(st.integers(1, 20), st.lists(ALIKE, min_size=1, max_size=12))
def test_no_stream_of_newcomers_starves_a_job_or_a_tenant(tenants: int, job: list[int]) -> None:
    queue: Queue[str] = Queue(BUDGET, 1 << 40)
    ticket = queue.add("old", job, "interactive", 0.0, FOREVER, "t0")
    for turn in range(8 * len(job) * (len(job) + tenants)):
        for n in range(5):  # as many as a batch takes
            tenant = f"t{(5 * turn + n) % tenants}"
            queue.add("new", [100], "interactive", 0.0, FOREVER, tenant)
        queue.take(0.0)
        if not ticket.rows:
            return
    pytest.fail(f"{ticket.rows} of {len(job)} rows still wait")


def test_a_tenant_s_jobs_take_turns() -> None:
    queue: Queue[str] = Queue(BUDGET, 1 << 40)
    queue.add("large", [100] * 200, "interactive", 0.0, FOREVER, "t")
    queue.take(0.0)
    queue.add("small", [100] * 4, "interactive", 0.0, FOREVER, "t")
    owners = [row.ticket.owner for _ in range(2) for row in queue.take(0.0).rows]
    assert owners.count("small") == 4


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(LENGTHS, st.integers(0, 3)), min_size=1, max_size=80))
def test_bulk_delays_interactive_work_by_one_batch_in_eight_and_changes_nothing_else(
    arrivals: list[tuple[int, int]],
) -> None:
    def order(bulk: bool) -> Iterator[list[int]]:
        """The interactive batches, each by its owners; one of none where bulk was served."""
        queue: Queue[int] = Queue(BUDGET, 1 << 40)
        for number, (length, _) in enumerate(arrivals):
            queue.add(number, [length], "interactive", 0.0, FOREVER)
        if bulk:
            queue.add(-1, [400] * 400, "bulk", 0.0, FOREVER)
        for _, pauses in [*arrivals, *[(0, 0)] * len(arrivals)]:
            for _ in range(pauses + 1):
                owners = [row.ticket.owner for row in queue.take(0.0).rows]
                yield [] if owners[:1] == [-1] else owners

    alone = [batch for batch in order(bulk=False) if batch]
    beside = list(order(bulk=True))
    assert [batch for batch in beside if batch] == alone
    last = max(at for at, batch in enumerate(beside) if batch)
    turns = [at for at, batch in enumerate(beside[:last]) if not batch]
    assert all(later - earlier >= BULK_EVERY for earlier, later in pairwise(turns))
    assert not turns or turns[0] >= BULK_EVERY - 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), max_size=20), st.integers(1, 400))
def test_bulk_never_fills_the_half_that_is_for_interactive_work(
    jobs: list[int], tokens: int
) -> None:
    queue: Queue[str] = Queue(BUDGET, 800)
    for job in jobs:
        try:
            queue.add("bulk", [1] * job, "bulk", 0.0, FOREVER)
        except Overloaded:
            assert queue.tokens + job > 400
    assert queue.tokens <= 400
    queue.add("interactive", [1] * tokens, "interactive", 0.0, FOREVER)


def refused(room: Room, tokens: int, service_class: ServiceClass) -> bool:
    try:
        room.enter(tokens, service_class, float)
    except Overloaded:
        return True
    return False


def test_interactive_work_may_have_all_of_the_queue_and_bulk_what_is_left_or_its_own_part() -> None:
    room = Room(80)
    assert not refused(room, 80, "interactive")
    assert refused(room, 1, "interactive")
    assert not refused(room, 80 // BULK_EVERY, "bulk")
    assert refused(room, 1, "bulk")
    room.leave(60, "interactive")
    assert not refused(room, 30, "bulk")
    assert refused(room, 1, "bulk")
    assert not refused(room, 20, "interactive")
    assert refused(room, 1, "interactive")


def test_a_class_of_which_nothing_waits_takes_any_job_and_costs_the_other_its_own_half_only() -> (
    None
):
    room = Room(100)
    assert not refused(room, 1000, "bulk")
    assert not refused(room, 50, "interactive")
    assert refused(room, 1, "interactive")


def test_a_refusal_says_how_many_tokens_have_to_go_first() -> None:
    asked: list[int] = []

    def retry(tokens: int) -> float:
        asked.append(tokens)
        return 7.0

    room = Room(100)
    room.enter(40, "bulk", retry)
    with pytest.raises(Overloaded, match="at most 50 may") as raised:
        room.enter(30, "bulk", retry)
    assert (asked, raised.value.retry_after_s) == ([20], 7.0)


def test_numbers_let_another_s_scheduler_be_fair() -> None:
    turns = Turns()
    flood = [turns.next("flood", 100) for _ in range(50)]
    turns.reached(flood[9])
    assert flood[9] <= turns.next("other", 100) < flood[10]
    assert turns.next("flood", 100) == 5000
    turns.reached(5000)
    assert turns.next("third", 1) == 5000
