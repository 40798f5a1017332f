"""The queue's promises, as sentences. Time is an argument, owners are strings."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest

from serving.batching import BULK_EVERY, Batch, Queue, Ticket
from serving.errors import Overloaded
from serving.values import ServiceClass

FOREVER = float("inf")


def queue(batch_tokens: int = 4096, queue_tokens: int = 1 << 30) -> Queue[str]:
    return Queue(batch_tokens, queue_tokens)


def add(
    queue: Queue[str],
    owner: str,
    lengths: Sequence[int],
    service_class: ServiceClass = "interactive",
    deadline: float = FOREVER,
) -> Ticket[str]:
    return queue.add(owner, lengths, service_class, 0.0, deadline)


def owners(batch: Batch[str]) -> list[str]:
    return [row.ticket.owner for row in batch.rows]


def lengths(batch: Batch[str]) -> list[int]:
    return [row.length for row in batch.rows]


def batches(queue: Queue[str], now: float = 0.0) -> Iterable[Batch[str]]:
    while (batch := queue.take(now)).rows:
        yield batch


def test_an_empty_queue_gives_an_empty_batch() -> None:
    assert queue().take(0.0).rows == ()


def test_what_waits_goes_together_shortest_first() -> None:
    waiting = queue()
    add(waiting, "a", [12, 5])
    add(waiting, "b", [9])
    assert lengths(waiting.take(0.0)) == [5, 9, 12]
    assert len(waiting) == waiting.tokens == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_batch_costs_more_than_its_budget_and_every_row_leaves_once(seed: int) -> None:
    chance = random.Random(seed)
    waiting = queue(batch_tokens=500)
    expected = set()
    for job in range(200):
        sizes = [chance.choice([1, 3, 12, 40, 130, 499, 900]) for _ in range(chance.randint(1, 5))]
        add(waiting, str(job), sizes, chance.choice(["interactive", "bulk"]))
        expected |= {(str(job), place) for place in range(len(sizes))}
    seen = []
    for batch in batches(waiting):
        sizes = lengths(batch)
        assert sizes == sorted(sizes)
        assert len(sizes) == 1 or len(sizes) * sizes[-1] <= 500
        seen += [(row.ticket.owner, row.place) for row in batch.rows]
    assert len(seen) == len(expected)
    assert set(seen) == expected
    assert len(waiting) == waiting.tokens == 0


def test_a_row_longer_than_the_budget_goes_alone() -> None:
    waiting = queue(batch_tokens=100)
    add(waiting, "long", [900])
    add(waiting, "short", [3])
    assert sorted(map(owners, batches(waiting))) == [["long"], ["short"]]


def test_a_short_text_goes_into_the_next_batch_however_many_documents_wait() -> None:
    waiting = queue()
    for n in range(50):
        add(waiting, f"document {n}", [8000])
    for _ in range(7):
        assert lengths(waiting.take(0.0)) == [8000]
        add(waiting, "short", [12])
        assert owners(waiting.take(0.0)) == ["short"]


def test_a_document_is_not_starved_by_a_flood_of_short_texts() -> None:
    waiting = queue()
    add(waiting, "flood", [12] * 5000)
    waiting.take(0.0)
    add(waiting, "document", [8000])
    add(waiting, "flood", [12] * 5000)
    taken = [owners(waiting.take(0.0))[0] for _ in range(2)]
    assert "document" in taken


def test_floods_of_short_and_long_share_the_tokens() -> None:
    waiting = queue()
    add(waiting, "short", [12] * 20000)
    add(waiting, "long", [8000] * 50)
    served = {"short": 0, "long": 0}
    for _ in range(30):
        batch = waiting.take(0.0)
        served[owners(batch)[0]] += batch.tokens
    assert 0.8 < served["short"] / served["long"] < 1.25


def test_a_full_shelf_gives_rows_near_in_length_and_always_its_oldest() -> None:
    waiting = queue(batch_tokens=1000)
    chance = random.Random(1)
    for n in range(300):
        add(waiting, str(n), [chance.randint(65, 256)])
    oldest = 0
    real = paid = 0
    seen: set[int] = set()
    for batch in batches(waiting):
        assert oldest in map(int, owners(batch))
        seen |= set(map(int, owners(batch)))
        oldest = next((n for n in range(300) if n not in seen), 300)
        real += batch.tokens
        paid += len(batch.rows) * batch.rows[-1].length
    assert real / paid > 0.85


def test_a_batch_is_topped_up_from_its_neighbours_while_that_costs_little_padding() -> None:
    waiting = queue()
    add(waiting, "a", [14, 16])
    add(waiting, "b", [17, 19])
    add(waiting, "far", [400])
    assert lengths(waiting.take(0.0)) == [14, 16, 17, 19]
    assert lengths(waiting.take(0.0)) == [400]


def test_interactive_rows_go_before_bulk_ones() -> None:
    waiting = queue()
    add(waiting, "bulk", [10], "bulk")
    add(waiting, "interactive", [10])
    assert list(map(owners, batches(waiting))) == [["interactive"], ["bulk"]]


def test_bulk_rows_get_one_batch_in_eight() -> None:
    waiting = queue(batch_tokens=100)
    add(waiting, "bulk", [100] * 10, "bulk")
    add(waiting, "interactive", [100] * 100)
    order = [owners(waiting.take(0.0))[0] for _ in range(2 * BULK_EVERY)]
    assert order.count("bulk") == 2
    assert order[BULK_EVERY - 1] == "bulk"


def test_rows_whose_owner_has_gone_are_never_batched() -> None:
    waiting = queue()
    gone = add(waiting, "gone", [10, 10])
    add(waiting, "here", [10])
    waiting.drop(gone)
    assert (len(waiting), waiting.tokens) == (1, 10)
    assert list(map(owners, batches(waiting))) == [["here"]]


def test_dropping_twice_counts_once() -> None:
    waiting = queue()
    gone = add(waiting, "gone", [10])
    waiting.drop(gone)
    waiting.drop(gone)
    assert (len(waiting), waiting.tokens) == (0, 0)


def test_a_job_dropped_between_its_batches_leaves_nothing_behind() -> None:
    waiting = queue(batch_tokens=20)
    job = add(waiting, "job", [10] * 5)
    assert len(waiting.take(0.0).rows) == 2
    assert (job.rows, job.tokens) == (3, 30)
    waiting.drop(job)
    assert (len(waiting), waiting.tokens) == (0, 0)
    assert waiting.take(0.0).rows == ()


def test_many_that_went_away_leave_no_memory_behind() -> None:
    waiting = queue()
    add(waiting, "here", [10], "bulk")
    for _ in range(100):
        waiting.drop(add(waiting, "gone", [10] * 100, "bulk"))
    shelves = [shelf for lane in waiting._lanes.values() for shelf in lane.shelves.values()]
    assert sum(len(flow.rows) for shelf in shelves for flow in shelf.flows.values()) < 3000
    assert list(map(owners, batches(waiting))) == [["here"]]


def test_a_deadline_that_passed_is_reported_once_and_never_batched() -> None:
    waiting = queue()
    add(waiting, "late", [10, 10, 10], deadline=5.0)
    add(waiting, "in time", [10], deadline=6.0)
    batch = waiting.take(5.5)
    assert owners(batch) == ["in time"]
    assert batch.late == ["late"]
    assert len(waiting) == 0


def test_late_owners_are_reported_even_when_nothing_else_waits() -> None:
    waiting = queue()
    add(waiting, "late", [10], deadline=1.0)
    batch = waiting.take(2.0)
    assert (list(batch.rows), batch.late) == ([], ["late"])


def test_a_job_that_would_overflow_is_refused_whole() -> None:
    waiting = queue(queue_tokens=100)
    add(waiting, "first", [60])
    with pytest.raises(Overloaded):
        add(waiting, "second", [20, 21])
    assert waiting.tokens == 60
    add(waiting, "third", [40])


def test_an_empty_queue_takes_any_job() -> None:
    waiting = queue(queue_tokens=100)
    add(waiting, "large", [50] * 32)
    assert len(waiting) == 32


def test_a_refusal_says_when_to_come_back() -> None:
    waiting = queue(queue_tokens=1000)
    add(waiting, "first", [1000])
    with pytest.raises(Overloaded) as unknown:
        add(waiting, "second", [100])
    waiting.served(tokens=500, seconds=10.0)
    with pytest.raises(Overloaded) as known:
        add(waiting, "third", [100])
    assert unknown.value.retry_after_s == 1.0
    assert known.value.retry_after_s == pytest.approx(2.0)


def test_clearing_names_every_owner_once() -> None:
    waiting = queue()
    add(waiting, "a", [10, 800])
    add(waiting, "b", [10], "bulk")
    assert sorted(waiting.clear()) == ["a", "b"]
    assert (len(waiting), waiting.tokens) == (0, 0)
    assert waiting.take(0.0).rows == ()


def test_the_oldest_is_the_one_that_waits_longest_whatever_its_length_and_class() -> None:
    waiting = queue(batch_tokens=100)
    assert waiting.oldest is None
    first = waiting.add("bulk", [900], "bulk", 1.0, FOREVER)
    waiting.add("short", [3], "interactive", 2.0, FOREVER)
    waiting.add("late", [90], "interactive", 3.0, FOREVER)
    assert waiting.oldest == 1.0
    waiting.drop(first)
    assert waiting.oldest == 2.0
    assert owners(waiting.take(4.0)) == ["short"]
    assert waiting.oldest == 3.0
    waiting.clear()
    assert waiting.oldest is None
