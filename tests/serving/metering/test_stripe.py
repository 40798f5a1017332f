"""Stripe: hours as meter events that add up to the ledger, whatever happens to them on the way."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from serving.errors import InvalidConfig, Unavailable
from serving.metering.exports.stripe import Stripe, StripeMeter, StripeOptions
from serving.metering.sinks._ledger import SqlLedger
from tests.billing import Answer, Billing
from tests.usage import NOON, event, events, raw

LATER = NOON + 2 * 3600


def drain(exporter: Stripe, now: float = LATER) -> None:
    while exporter.send(now):
        pass


class StripeSide:
    """Meter events by identifier, refused where known; sums by customer and event name."""

    def __init__(self, billing: Billing) -> None:
        self.events: dict[str, dict[str, str]] = {}
        self.cancelled: set[str] = set()
        self.archived: set[str] = set()
        billing.accept = self.accept

    def accept(self, path: str, body: bytes) -> Answer:
        form = dict(parse_qsl(body.decode()))
        if form["event_name"] in self.archived:
            return 400, '{"error": {"code": "archived_meter"}}'
        if path == "/v1/billing/meter_event_adjustments":
            assert form["type"] == "cancel"
            self.cancelled.add(form["cancel[identifier]"])
            return 200, "{}"
        assert path == "/v1/billing/meter_events"
        if form["identifier"] in self.events:
            return 400, '{"error": {"message": "An event already exists with identifier"}}'
        self.events[form["identifier"]] = form
        return 200, "{}"

    def total(self, customer: str) -> int:
        return sum(
            int(form["payload[value]"])
            for name, form in self.events.items()
            if form["payload[stripe_customer_id]"] == customer and name not in self.cancelled
        )


def stripe(ledger: SqlLedger, billing: Billing, **changes: object) -> Stripe:
    said: dict[str, object] = {
        "key": "sk_test_1",
        "meters": (StripeMeter("tok"),),
        "customers": {"acme": "cus_1", "zorn": "cus_2"},
        "since": NOON - 86400,
        "url": billing.url,
        **changes,
    }
    return Stripe(ledger, StripeOptions(**said))  # type: ignore[arg-type]


def test_an_hour_is_one_meter_event(ledger: SqlLedger, billing: Billing) -> None:
    side = StripeSide(billing)
    ledger.write([*events(5), event("z", tenant="zorn"), event("n", tenant="nobody")])
    exporter = stripe(ledger, billing)
    drain(exporter)
    exporter.close()
    assert billing.requests[0][1]["authorization"] == "Bearer sk_test_1"
    assert side.events["acme:tok:2026-01-31T12"] == {
        "event_name": "tok",
        "identifier": "acme:tok:2026-01-31T12",
        "timestamp": str(int(NOON)),
        "payload[stripe_customer_id]": "cus_1",
        "payload[value]": "50",
    }
    assert len(billing.requests) == len(side.events) == 2


def test_an_hour_is_sent_when_it_has_ended_and_some_time_has_passed(
    ledger: SqlLedger, billing: Billing
) -> None:
    side = StripeSide(billing)
    ledger.write(events(5))
    exporter = stripe(ledger, billing, grace_s=300)
    drain(exporter, NOON + 3600 + 299)
    assert side.events == {}
    drain(exporter, NOON + 3600 + 300)
    assert len(side.events) == 1
    exporter.close()


def test_nothing_from_before_the_start_is_billed(ledger: SqlLedger, billing: Billing) -> None:
    side = StripeSide(billing)
    ledger.write([event("a", time=NOON - 1.0), event("b")])
    exporter = stripe(ledger, billing, since=NOON - 1800)
    drain(exporter)
    exporter.close()
    assert list(side.events) == ["acme:tok:2026-01-31T12"]


@pytest.mark.parametrize("failure", [(500, ""), (429, ""), (409, ""), (401, ""), (0, "")])
def test_a_parcel_that_was_not_answered_is_sent_again_and_counts_once(
    ledger: SqlLedger, billing: Billing, failure: Answer
) -> None:
    side = StripeSide(billing)
    ledger.write([*events(5), event("z", tenant="zorn")])
    exporter = stripe(ledger, billing)
    billing.refusals = [failure]
    with pytest.raises(Unavailable, match="stripe"):
        exporter.send(LATER)
    ledger.write(events(8))  # the hour has grown since
    drain(exporter)
    exporter.close()
    assert (side.total("cus_1"), side.total("cus_2")) == (80, 10)


def test_late_usage_is_a_further_event_of_the_difference(
    ledger: SqlLedger, billing: Billing
) -> None:
    side = StripeSide(billing)
    exporter = stripe(ledger, billing)
    for count in (2, 3, 7):
        ledger.write(events(count))
        drain(exporter)
    exporter.close()
    values = {name: form["payload[value]"] for name, form in side.events.items()}
    base = "acme:tok:2026-01-31T12"
    assert values == {base: "20", f"{base}:1": "10", f"{base}:2": "40"}


def test_usage_that_is_taken_back_is_adjusted(
    ledger: SqlLedger, billing: Billing, ledger_url: str
) -> None:
    side = StripeSide(billing)
    ledger.write(events(5))
    exporter = stripe(ledger, billing)
    drain(exporter)
    raw(ledger_url, "UPDATE usage_hour SET text_tokens = 30")
    drain(exporter, LATER + 60)
    exporter.close()
    assert side.cancelled == {"acme:tok:2026-01-31T12"}
    assert side.total("cus_1") == 30
    raw(ledger_url, "UPDATE usage_hour SET text_tokens = 20")
    late = stripe(ledger, billing)
    drain(late, LATER + 2 * 86400)  # past the day in which Stripe cancels
    late.close()
    assert side.total("cus_1") == 20
    assert len(side.cancelled) == 1


def test_a_refused_hour_stays_and_does_not_hold_up_the_others(
    ledger: SqlLedger, billing: Billing
) -> None:
    side = StripeSide(billing)
    side.archived = {"old"}
    ledger.write([event(i, time=NOON + i * 60, tenant=f"t{i % 3}") for i in range(9)])
    exporter = stripe(
        ledger,
        billing,
        meters=(StripeMeter("old"), StripeMeter("items", "items")),
        customers={f"t{i}": f"cus_{i}" for i in range(3)},
        batch=2,
    )
    for _ in range(2):  # and again, without counting anything twice
        with pytest.raises(Unavailable, match="3 hours were refused"):
            drain(exporter)
    assert [side.total(f"cus_{i}") for i in range(3)] == [3, 3, 3]
    side.archived = set()
    drain(exporter)
    exporter.close()
    assert [side.total(f"cus_{i}") for i in range(3)] == [33, 33, 33]


def test_a_correction_waits_for_what_it_corrects(
    ledger: SqlLedger, billing: Billing, ledger_url: str
) -> None:
    side = StripeSide(billing)
    ledger.write(events(5))
    exporter = stripe(ledger, billing)
    drain(exporter)
    raw(ledger_url, "UPDATE usage_hour SET text_tokens = 30")
    billing.refusals = [(400, "no such event yet")]
    with pytest.raises(Unavailable):
        drain(exporter)
    assert side.total("cus_1") == 50  # the new event was not sent beside the old one
    drain(exporter)
    exporter.close()
    assert side.total("cus_1") == 30


def test_options_hide_the_key_and_refuse_what_is_no_meter() -> None:
    options = StripeOptions("sk_live_secret", (StripeMeter("tok"),), {}, since=0)
    assert "secret" not in repr(options)
    for meter in (StripeMeter("a:b"), StripeMeter(""), StripeMeter("a", "pixels")):  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig):
            StripeOptions("k", (meter,), {}, since=0)
