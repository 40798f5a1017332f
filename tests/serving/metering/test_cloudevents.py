"""CloudEvents: every event, in OpenMeter's shape, again where it was not taken."""

from __future__ import annotations

import pytest

from serving.errors import Unavailable
from serving.metering.exports.cloudevents import CloudEvents, CloudEventsOptions
from serving.metering.sinks import open_sink
from serving.metering.sinks._ledger import SqlLedger
from tests.billing import Answer, Billing, OpenMeter
from tests.usage import NOON, event, events

LATER = NOON + 2 * 3600


def cloud(ledger: SqlLedger, billing: Billing, **more: object) -> CloudEvents:
    options = CloudEventsOptions(f"{billing.url}/api/v1/events", batch=4, **more)  # type: ignore[arg-type]
    return CloudEvents(ledger, options)


def drain(exporter: CloudEvents) -> None:
    while exporter.send(LATER):
        pass


def test_every_event_is_sent_in_openmeters_shape(ledger: SqlLedger, billing: Billing) -> None:
    meter = OpenMeter(billing)
    ledger.write([*events(9), event("x", task="code", image_tokens=3, modality="mixed")])
    exporter = cloud(ledger, billing, headers={"Authorization": "Bearer om_1"})
    drain(exporter)
    exporter.close()
    path, headers, _ = billing.requests[0]
    assert path == "/api/v1/events"
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert headers["authorization"] == "Bearer om_1"
    assert len(billing.requests) == 3
    assert meter.received == len(meter.seen) == 10
    assert meter.seen["polyvec", "x"] == {
        "specversion": "1.0",
        "type": "embeddings",
        "id": "x",
        "source": "polyvec",
        "subject": "acme",
        "time": "2026-01-31T12:00:00.250000Z",
        "datacontenttype": "application/json",
        "data": {
            "model": "minilm",
            "task": "code",
            "modality": "mixed",
            "tokens": 13,
            "text_tokens": 10,
            "image_tokens": 3,
            "items": 1,
            "dimensions": 384,
            "status": 200,
            "key_id": "key-1",
            "duration_s": 0.012345,
        },
    }


@pytest.mark.parametrize("failure", [(500, "no"), (429, ""), (301, ""), (400, "bad"), (0, "")])
def test_what_was_not_taken_is_sent_again_under_the_same_id(
    ledger: SqlLedger, billing: Billing, failure: Answer
) -> None:
    meter = OpenMeter(billing)
    ledger.write(events(6))
    exporter = cloud(ledger, billing)
    billing.refusals = [failure]
    with pytest.raises(Unavailable, match="cloudevents"):
        exporter.send(LATER)
    drain(exporter)
    exporter.close()
    assert [name for _, name in meter.seen] == [str(i) for i in range(6)]
    assert meter.received == (10 if failure[0] == 0 else 6)  # the first four were taken twice


def test_a_batch_that_is_too_large_is_halved(ledger: SqlLedger, billing: Billing) -> None:
    meter = OpenMeter(billing)
    ledger.write(events(4))
    billing.refusals = [(413, ""), (413, "")]
    exporter = cloud(ledger, billing)
    assert exporter.send(LATER) == 1
    drain(exporter)
    exporter.close()
    assert len(meter.seen) == meter.received == 4
    billing.refusals = [(413, "")]
    ledger.write([event("huge")])
    last = cloud(ledger, billing)
    with pytest.raises(Unavailable, match="413"):
        last.send(LATER)
    last.close()


def test_a_cursor_outlives_its_process(
    ledger: SqlLedger, billing: Billing, ledger_url: str
) -> None:
    meter = OpenMeter(billing)
    ledger.write(events(5))
    first = cloud(ledger, billing)
    first.send(LATER)
    first.close()
    again = open_sink(ledger_url)
    assert isinstance(again, SqlLedger)
    second = cloud(again, billing)
    drain(second)
    second.close()
    again.close()
    assert meter.received == len(meter.seen) == 5
