"""What exports read: events after a cursor, none left out; parcels that add up to the ledger."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import InvalidConfig
from serving.metering.outbox import Draw, Parcel, identifier, ledger_of
from serving.metering.sinks import open_sink
from serving.metering.sinks._ledger import SqlLedger
from tests.postgres import Postgres
from tests.usage import NOON, event, events, raw

_numbers = itertools.count()
HOUR = int(NOON)
DRAW = Draw("tok", "tokens", {"acme", "zorn"}, HOUR - 86400, HOUR + 86400, cancellable_since=0)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/usage.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.make(f"outbox{next(_numbers)}")


@pytest.fixture
def ledger(url: str) -> SqlLedger:
    sink = open_sink(url)
    assert isinstance(sink, SqlLedger)
    return sink


def test_a_cursor_goes_over_every_event_once_in_order(ledger: SqlLedger) -> None:
    ledger.write(events(7))
    seen = []
    while page := ledger.page("out", 3):
        seen += [entry.id for _, entry in page]
        assert ledger.page("out", 3) == page  # the same again, until it advances
        ledger.advance("out", page[-1][0])
    assert seen == [str(i) for i in range(7)]
    ledger.advance("out", 1)
    assert ledger.page("out", 3) == []
    assert len(ledger.page("another", 9)) == 7


def test_an_event_comes_back_as_it_went_in(ledger: SqlLedger) -> None:
    whole = event("x", task="retrieval.query", image_tokens=9, dimensions=64, status=500)
    ledger.write([whole])
    assert ledger.page("out", 1)[0][1] == whole


def test_a_reader_misses_nothing_of_several_writers(url: str, ledger: SqlLedger) -> None:
    ledger.write([event("first")])
    done = threading.Event()

    def write(number: int) -> None:
        sink = open_sink(url)
        for i in range(40):
            sink.write([event(f"{number}-{i}-{j}") for j in range(3)])
        sink.close()

    seen: list[str] = []

    def read() -> None:
        while True:
            last = done.is_set()
            while page := ledger.page("out", 50):
                seen.extend(entry.id for _, entry in page)
                ledger.advance("out", page[-1][0])
            if last:
                return

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert len(seen) == len(set(seen)) == 361


def test_one_holder_has_the_turn_until_it_runs_out(ledger: SqlLedger) -> None:
    assert ledger.take_turn("out", "a", now=100, seconds=60)
    assert not ledger.take_turn("out", "b", now=159, seconds=60)
    assert ledger.take_turn("other", "b", now=159, seconds=60)
    assert ledger.take_turn("out", "a", now=150, seconds=60)
    assert not ledger.take_turn("out", "b", now=200, seconds=60)
    assert ledger.take_turn("out", "b", now=210, seconds=60)
    assert not ledger.take_turn("out", "a", now=211, seconds=60)


def parcels(ledger: SqlLedger) -> list[tuple[str, str, int]]:
    return [(p.kind, p.identifier, p.value) for p in ledger.waiting("out", 0, 100)]


def test_an_hour_is_one_parcel_of_each_tenant(ledger: SqlLedger) -> None:
    ledger.write([*events(4), event("z", tenant="zorn"), event("n", tenant="nobody")])
    assert ledger.draw("out", DRAW) == 2
    assert ledger.draw("out", DRAW) == 0
    assert parcels(ledger) == [
        ("event", "acme:tok:2026-01-31T12", 40),
        ("event", "zorn:tok:2026-01-31T12", 10),
    ]


def test_what_is_settled_is_not_sent_again(ledger: SqlLedger) -> None:
    ledger.write([*events(4), event("z", tenant="zorn")])
    ledger.draw("out", DRAW)
    first, second = ledger.waiting("out", 0, 9)
    ledger.settle("out", [first], now=HOUR)
    assert ledger.waiting("out", 0, 9) == [second]
    assert ledger.waiting("out", second.seq, 9) == []
    assert ledger.draw("out", DRAW) == 0


def test_an_hour_that_grows_gets_the_difference(ledger: SqlLedger) -> None:
    ledger.write(events(1))
    ledger.draw("out", DRAW)
    ledger.settle("out", ledger.waiting("out", 0, 9), now=HOUR)
    ledger.write(events(3))
    assert ledger.draw("out", DRAW) == 1
    assert parcels(ledger) == [("event", "acme:tok:2026-01-31T12:1", 20)]
    ledger.write(events(4))
    ledger.draw("out", DRAW)
    assert parcels(ledger)[1] == ("event", "acme:tok:2026-01-31T12:2", 10)


def test_an_hour_that_shrinks_is_cancelled_and_sent_anew(url: str, ledger: SqlLedger) -> None:
    ledger.write(events(1))
    ledger.draw("out", DRAW)
    ledger.settle("out", ledger.waiting("out", 0, 9), now=HOUR)
    raw(url, "UPDATE usage_hour SET text_tokens = 4")
    draw = replace(DRAW, cancellable_since=HOUR - 1)
    assert ledger.draw("out", draw) == 2
    assert ledger.draw("out", draw) == 0
    assert parcels(ledger) == [
        ("cancel", "acme:tok:2026-01-31T12", 0),
        ("event", "acme:tok:2026-01-31T12:1", 4),
    ]


def test_an_hour_that_vanishes_is_cancelled_only(url: str, ledger: SqlLedger) -> None:
    ledger.write(events(1))
    ledger.draw("out", DRAW)
    ledger.settle("out", ledger.waiting("out", 0, 9), now=HOUR)
    raw(url, "DELETE FROM usage_hour")
    assert ledger.draw("out", DRAW) == 1
    assert ledger.draw("out", DRAW) == 0
    assert parcels(ledger) == [("cancel", "acme:tok:2026-01-31T12", 0)]


def test_what_is_too_old_to_be_cancelled_is_taken_back_by_a_negative_value(
    url: str, ledger: SqlLedger
) -> None:
    ledger.write(events(1))
    ledger.draw("out", DRAW)
    ledger.settle("out", ledger.waiting("out", 0, 9), now=HOUR)
    raw(url, "UPDATE usage_hour SET text_tokens = 4")
    assert ledger.draw("out", replace(DRAW, cancellable_since=HOUR)) == 1
    assert parcels(ledger) == [("event", "acme:tok:2026-01-31T12:1", -6)]


def test_a_meter_sums_what_it_measures_of_its_models(ledger: SqlLedger) -> None:
    ledger.write(
        [event("a", image_tokens=5, items=3), event("b", model="clip", text_tokens=1, items=2)]
    )
    for measure, models, value in [
        ("tokens", None, 16),
        ("text_tokens", None, 11),
        ("image_tokens", None, 5),
        ("items", ("minilm",), 3),
        ("requests", ("minilm", "clip"), 2),
    ]:
        meter = f"{measure}-{models}"
        ledger.draw("out", replace(DRAW, meter=meter, measure=measure, models=models))  # type: ignore[arg-type]
        assert [p.value for p in ledger.waiting("out", 0, 99) if p.meter == meter] == [value]


def test_hours_outside_are_not_drawn(ledger: SqlLedger) -> None:
    ledger.write([event("a", time=HOUR - 1.0), event("b", time=HOUR), event("c", time=HOUR + 3600)])
    ledger.draw("out", replace(DRAW, since=HOUR, until=HOUR + 3600))
    assert [parcel.hour for parcel in ledger.waiting("out", 0, 9)] == [HOUR]


def test_an_identifier_fits_and_stays_distinct() -> None:
    assert identifier("acme", "tok", HOUR, 0) == "acme:tok:2026-01-31T12"
    assert identifier("acme", "tok", HOUR, 2) == "acme:tok:2026-01-31T12:2"
    long = {identifier("t" * n, "m", HOUR, r) for n in (120, 121) for r in range(3)}
    assert len(long) == 6
    assert all(len(name) <= 100 for name in long)


def test_only_a_ledger_with_a_cursor_can_be_exported_from(ledger: SqlLedger) -> None:
    assert ledger_of(ledger) is ledger
    with pytest.raises(InvalidConfig, match="sqlite"):
        ledger_of(open_sink("jsonl:///"))


def test_a_slot_is_a_tenants_hour_of_a_meter() -> None:
    assert Parcel(1, "event", "i", "acme", "tok", HOUR, 1).slot == ("acme", "tok", HOUR)
