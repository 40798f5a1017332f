"""Exports take turns, go on after failures, and run on a thread of their own."""

from __future__ import annotations

import threading

from serving.metering.exports import Exports
from serving.metering.exports.cloudevents import CloudEvents, CloudEventsOptions
from serving.metering.sinks import open_sink
from serving.metering.sinks._ledger import SqlLedger
from tests.billing import Answer, Billing, OpenMeter
from tests.usage import NOON, event, events

LATER = NOON + 2 * 3600


def cloud(ledger: SqlLedger, billing: Billing, **more: object) -> CloudEvents:
    options = CloudEventsOptions(f"{billing.url}/api/v1/events", batch=4, **more)  # type: ignore[arg-type]
    return CloudEvents(ledger, options)


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = LATER

    def __call__(self) -> float:
        return self.now


def test_exports_go_on_after_a_failure_later_and_later(ledger: SqlLedger, billing: Billing) -> None:
    meter, clock = OpenMeter(billing), Clock()
    ledger.write(events(4))
    exports = Exports(ledger, [cloud(ledger, billing)], every_s=10, retry_max_s=30, clock=clock)
    billing.refusals = [(503, "")] * 4
    asked = []
    for _ in range(12):
        exports.step()
        asked.append(len(billing.requests))
        clock.now += 10
    assert asked == [1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5]
    assert len(meter.seen) == 4
    exports.close()


class Told:
    """An `ExportObserver` that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []
        self.lags: list[float] = []

    def exported(self, exporter: str, result: str, events: int) -> None:
        self.events.append((exporter, result, events))

    def behind(self, exporter: str, seconds: float) -> None:
        self.lags.append(seconds)


def test_an_observer_is_told_what_was_sent_and_how_far_it_is_behind(
    ledger: SqlLedger, billing: Billing
) -> None:
    OpenMeter(billing)
    clock, told = Clock(), Told()
    ledger.write(events(6))
    exports = Exports(ledger, [cloud(ledger, billing)], clock=clock, observer=told)
    billing.refusals = [(503, "")]
    for _ in range(3):
        clock.now += 60
        exports.step()
    name = "cloudevents"
    assert told.events == [(name, "failed", 1), (name, "sent", 4), (name, "sent", 2)]
    assert told.lags == [60, 0, 0]
    exports.close()


def test_several_gateways_take_turns(ledger: SqlLedger, billing: Billing, ledger_url: str) -> None:
    meter, clock = OpenMeter(billing), Clock()
    other = open_sink(ledger_url)
    assert isinstance(other, SqlLedger)
    one = Exports(ledger, [cloud(ledger, billing)], clock=clock)
    two = Exports(other, [cloud(other, billing)], clock=clock)
    ledger.write(events(4))
    one.step()
    ledger.write([event("more")])
    two.step()  # the turn is the first one's, which has not said that it is done with it
    assert len(meter.seen) == 4
    clock.now += 60
    two.step()
    assert len(meter.seen) == meter.received == 5
    one.close()
    two.close()
    other.close()


def test_a_thread_exports_until_it_is_closed(ledger: SqlLedger, billing: Billing) -> None:
    arrived = threading.Event()
    OpenMeter(billing)
    accept = billing.accept

    def told(path: str, body: bytes) -> Answer:
        arrived.set()
        return accept(path, body)

    billing.accept = told
    exports = Exports(ledger, [cloud(ledger, billing)], every_s=0.01)
    exports.start()
    ledger.write(events(1))
    assert arrived.wait(30)
    exports.close()
