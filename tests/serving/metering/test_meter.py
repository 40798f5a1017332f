"""From `record` to the ledger: at once for the caller, once for the bill, none lost on the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.errors import InvalidConfig, Unavailable
from serving.metering.events import UsageEvent
from serving.metering.meter import Meter, MeterOptions, open_meter
from serving.metering.questions import Question, UsageRow
from serving.metering.sinks import EventRefused, Written, open_sink
from serving.metering.spool import line_of
from tests.usage import NOON, Watcher, at, event, events

ALL = Question(at(0, day=1), at(23), ())


class Ledger:
    """A sink in memory, up or down as told; `gate` closed: a write hangs."""

    def __init__(self) -> None:
        self.found: dict[str, UsageEvent] = {}
        self.up = True
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.poison: set[str] = set()

    def write(self, events: Sequence[UsageEvent]) -> Written:
        self.asked.set()
        self.gate.wait()
        if not self.up:
            raise Unavailable("down")
        if bad := self.poison & {e.id for e in events}:
            raise EventRefused(f"{sorted(bad)} do not fit")
        new = {e.id: e for e in events if e.id not in self.found}
        self.found |= new
        return Written(len(new), len(events) - len(new))

    def usage(self, question: Question) -> list[UsageRow]:
        return []

    def close(self) -> None:
        self.asked.clear()


def options(folder: Path, **changes: object) -> MeterOptions:
    said: dict[str, object] = {
        "spool": str(folder / "spool"),
        "flush_s": 0.005,
        "retry_s": 0.01,
        "retry_max_s": 0.02,
        **changes,
    }
    return MeterOptions(**said)  # type: ignore[arg-type]


def start(folder: Path, ledger: Ledger, watcher: Watcher | None = None, **more: object) -> Meter:
    return Meter(ledger, options(folder, **more), watcher, clock=lambda: NOON + 100)


def test_every_event_is_in_the_ledger_after_close(tmp_path: Path) -> None:
    meter = open_meter(options(tmp_path, url=f"sqlite://{tmp_path}/usage.db"))
    for entry in events(2000):
        meter.record(entry)
    assert meter.close()
    assert (meter.written(), meter.duplicates(), meter.dropped()) == (2000, 0, 0)
    assert (meter.lag(), meter.spooled()) == (0.0, 0)
    sink = open_sink(f"sqlite://{tmp_path}/usage.db")
    assert sink.usage(ALL)[0].totals.requests == 2000
    sink.close()
    assert list((tmp_path / "spool").iterdir()) == []
    assert meter.close()


def test_an_event_arrives_without_a_close(tmp_path: Path) -> None:
    ledger, watcher = Ledger(), Watcher()
    meter = start(tmp_path, ledger, watcher)
    meter.record(event("a"))
    watcher.wait("written", 1)
    meter.record(event("a"))
    watcher.wait("duplicate", 1)
    assert meter.duplicates() == 1
    meter.close()


def test_recording_waits_for_no_ledger_that_hangs(tmp_path: Path) -> None:
    ledger, watcher = Ledger(), Watcher()
    ledger.gate.clear()
    meter = start(tmp_path, ledger, watcher)
    meter.record(event("first", time=NOON))
    ledger.asked.wait()
    for entry in events(5000):
        meter.record(entry)
    lag, spooled = watcher.wait_for_standing()
    assert spooled == meter.spooled() == 5001
    assert lag == meter.lag() == 100.0
    assert meter.written() == 0
    ledger.gate.set()
    watcher.wait("written", 5001)
    assert meter.close()
    assert len(ledger.found) == 5001


def test_a_ledger_that_is_down_gets_all_of_it_later(tmp_path: Path) -> None:
    ledger, watcher = Ledger(), Watcher()
    ledger.up = False
    meter = start(tmp_path, ledger, watcher)
    for entry in events(3000):
        meter.record(entry)
    watcher.wait("failed", 2000)  # it is asked again and again
    assert meter.spooled() == 3000
    ledger.up = True
    watcher.wait("written", 3000)
    assert watcher.results["dropped"] == 0
    assert meter.close()


def test_what_a_close_could_not_deliver_the_next_process_does(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.up = False
    meter = start(tmp_path, ledger)
    for entry in events(50):
        meter.record(entry)
    assert not meter.close(timeout_s=0.05)
    assert ledger.found == {}
    ledger.up = True
    watcher = Watcher()
    again = start(tmp_path, ledger, watcher)
    watcher.wait("written", 50)
    again.close()
    assert list(ledger.found) == [str(i) for i in range(50)]
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_the_dead_left_counts_as_lag(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.up = False
    meter = start(tmp_path, ledger)
    for entry in events(50):
        meter.record(entry)
    meter.close(timeout_s=0.05)
    watcher = Watcher()
    again = start(tmp_path, ledger, watcher)
    watcher.wait("failed", 50)
    assert again.lag() == 100.0
    assert 45 <= again.spooled() <= 55
    ledger.up = True
    watcher.wait("written", 50)
    again.close()


def test_the_event_that_no_ledger_takes_is_set_aside_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, watcher = Ledger(), Watcher()
    ledger.poison = {"7", "33"}
    meter = start(tmp_path, ledger, watcher, batch_events=20)
    with caplog.at_level(logging.CRITICAL):
        for entry in events(50):
            meter.record(entry)
        assert meter.close()
    assert len(ledger.found) == 48
    assert meter.dropped() == watcher.results["dropped"] == 2
    kept = (tmp_path / "spool" / "refused.log").read_bytes()
    assert kept == b"".join(line_of(e) for e in events(50) if e.id in ledger.poison)
    assert "['7'] do not fit" in caplog.text


def test_beyond_the_queue_what_is_dropped_is_counted_and_its_sums_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, watcher = Ledger(), Watcher()
    meter = start(tmp_path, ledger, watcher, queue_events=0)
    with caplog.at_level(logging.CRITICAL):
        for entry in events(3):
            meter.record(entry)
        assert meter.dropped() == 3
        watcher.wait("dropped", 3)
        assert meter.dropped() == 3
        meter.close()
    assert "requests=3" in caplog.text
    assert "text_tokens=30" in caplog.text
    assert "acme" in caplog.text
    assert ledger.found == {}


def test_after_close_nothing_is_taken_silently(tmp_path: Path) -> None:
    meter = start(tmp_path, Ledger())
    meter.close()
    meter.record(event("late"))
    assert meter.dropped() == 1


def test_an_event_that_cannot_be_written_down_takes_no_other_with_it(tmp_path: Path) -> None:
    ledger = Ledger()
    meter = start(tmp_path, ledger)
    for name in ("a", "\ud800", "b"):
        meter.record(event(name))
    meter.close()
    assert list(ledger.found) == ["a", "b"]
    assert meter.dropped() == 1


def test_a_broken_line_is_set_aside_and_the_others_arrive(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.up = False
    meter = start(tmp_path, ledger)
    for entry in events(5):
        meter.record(entry)
    meter.close(timeout_s=0.05)
    [segment] = tmp_path.glob("spool/*/0*")
    segment.write_bytes(segment.read_bytes().replace(b'"id":"2"', b'"id":"9"'))
    ledger.up, watcher = True, Watcher()
    again = start(tmp_path, ledger, watcher)
    watcher.wait("written", 4)
    again.close()
    assert list(ledger.found) == ["0", "1", "3", "4"]
    assert again.dropped() == 1
    assert b'"id":"9"' in (tmp_path / "spool" / "refused.log").read_bytes()


def test_an_observer_that_fails_disturbs_nothing(tmp_path: Path) -> None:
    class Broken(Watcher):
        def counted(self, result: object, events: int) -> None:
            raise RuntimeError("no metrics today")

    ledger = Ledger()
    meter = start(tmp_path, ledger, Broken())
    for entry in events(10):
        meter.record(entry)
    assert meter.close()
    assert len(ledger.found) == 10


def test_a_delivery_that_ended_before_its_segment_went_is_repeated_and_counted(
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    ledger.write(events(30))  # as if the process had died between commit and removal
    ledger.up = False
    meter = start(tmp_path, ledger)
    for entry in events(40):
        meter.record(entry)
    meter.close(timeout_s=0.05)
    ledger.up, watcher = True, Watcher()
    again = start(tmp_path, ledger, watcher)
    watcher.wait("duplicate", 30)
    again.close()
    assert (again.written(), again.duplicates()) == (10, 30)


def test_what_was_synced_says_so(tmp_path: Path) -> None:
    ledger, watcher = Ledger(), Watcher()
    meter = start(tmp_path, ledger, watcher)
    meter.record(event("a"))
    watcher.wait("written", 1)
    assert meter.synced()
    meter.close()


def test_what_was_synced_by_a_time_is_not_held_up_by_what_came_later(tmp_path: Path) -> None:
    meter = start(tmp_path, Ledger(), flush_s=60.0)
    meter.record(event("later", time=NOON + 10))
    assert meter.synced(NOON + 9)
    assert not meter.synced(NOON + 10)
    assert not meter.synced()
    meter.close()
    assert meter.synced(NOON + 10) and meter.synced()


def test_a_spool_that_cannot_be_made_is_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(InvalidConfig, match=r"ledger\.spool"):
        start(tmp_path, Ledger())
