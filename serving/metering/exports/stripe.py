"""Stripe meter events: a tenant's hour of a meter as one event, and corrections of it.

The identifier is `tenant:meter:hour`, and Stripe refuses one that it has seen in the last 24 hours,
which is what a repeat wants to hear. An hour that grows after it was sent (a spool came late) gets
a further event of the difference; one that shrinks is cancelled by meter event adjustments, as long
as Stripe allows it (24 hours), and later by a negative value. Parcels are written down before they
are sent; only one that Stripe took and that was then left unsettled for over a day is counted
twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import httpx

from serving.errors import InvalidConfig, Unavailable
from serving.metering.events import HOUR_S
from serving.metering.exports._http import client, post, words
from serving.metering.outbox import MEASURES, Draw, HourlyOutbox, Measure, Parcel

__all__ = ["Stripe", "StripeMeter", "StripeOptions"]

log = logging.getLogger(__name__)

_DAY_S = 24 * HOUR_S
_OLDEST_S = 34 * _DAY_S  # a timestamp may lie 35 days back
_CANCEL_S = 23 * HOUR_S  # an event may be cancelled for 24 hours
_REFUSALS = (400, 404, 422)  # of this one request; a wrong key or a full house are not


@dataclass(frozen=True, slots=True)
class StripeMeter:
    """A meter at Stripe by its `event_name`, and what it sums. `models` None is all of them."""

    event_name: str
    measure: Measure = "tokens"
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StripeOptions:
    """A secret `key`, the meters, and the Stripe customer of each tenant that is billed there.

    An hour is sent `grace_s` after it has ended, and none that began before `since` (in seconds
    since the epoch), so that switching this on does not bill the past.
    """

    key: str
    meters: tuple[StripeMeter, ...]
    customers: Mapping[str, str]
    since: float
    grace_s: float = 300.0
    batch: int = 100
    timeout_s: float = 10.0
    url: str = "https://api.stripe.com"
    name: str = "stripe"

    def __post_init__(self) -> None:
        for meter in self.meters:
            if ":" in meter.event_name or not meter.event_name:
                raise InvalidConfig(f"stripe: the event name {meter.event_name!r} has a colon")
            if meter.measure not in MEASURES:
                raise InvalidConfig(
                    f"stripe: {meter.measure!r} is no measure; it may be {', '.join(MEASURES)}"
                )

    def __repr__(self) -> str:
        return f"StripeOptions(meters={self.meters}, url={self.url!r})"


class Stripe:
    """See `Exporter`."""

    def __init__(self, outbox: HourlyOutbox, options: StripeOptions) -> None:
        self.name = options.name
        self._outbox, self._options = outbox, options
        self._http = client({"authorization": f"Bearer {options.key}"}, options.timeout_s)
        # How far a pass over what waits has come, and the hours refused in it.
        self._after = 0
        self._refused: dict[tuple[str, str, int], str] = {}

    def send(self, now: float) -> int:
        """Write down what is due, then send the next parcels.

        A parcel that Stripe refuses stays, and with it the later ones of its hour, which may
        correct it; other hours go on. `Unavailable` at the end where any was refused.
        """
        if not self._after:
            self._refused.clear()
            self._draw(now)
        waiting = self._outbox.waiting(self.name, self._after, self._options.batch)
        self._after = waiting[-1].seq if len(waiting) == self._options.batch else 0
        for parcel in waiting:
            if parcel.slot in self._refused:
                continue
            if why := self._refusal(parcel):
                log.critical("%s refused %s: %s", self.name, parcel.identifier, why)
                self._refused[parcel.slot] = f"{parcel.identifier}: {why}"
            else:
                self._outbox.settle(self.name, [parcel], now)
        if self._refused and not self._after:
            raise Unavailable(f"{len(self._refused)} hours were refused, such as {self._example()}")
        return len(waiting)

    def close(self) -> None:
        """See `Exporter`."""
        self._http.close()

    def _example(self) -> str:
        return next(iter(self._refused.values()))

    def _draw(self, now: float) -> None:
        options = self._options
        until = int(now - options.grace_s) // HOUR_S * HOUR_S
        since = max(int(now - _OLDEST_S), ceil(options.since / HOUR_S) * HOUR_S)
        for meter in options.meters:
            draw = Draw(
                meter.event_name,
                meter.measure,
                options.customers.keys(),
                since,
                until,
                int(now - _CANCEL_S),
                meter.models,
            )
            self._outbox.draw(self.name, draw)

    def _refusal(self, parcel: Parcel) -> str | None:
        """Why Stripe does not take a parcel and never will; None where it has it."""
        customer = self._options.customers.get(parcel.tenant)
        if customer is None:
            return f"the tenant {parcel.tenant} has no customer at Stripe any more"
        cancels = parcel.kind == "cancel"
        path = "meter_event_adjustments" if cancels else "meter_events"
        answer = post(
            self._http,
            f"{self._options.url}/v1/billing/{path}",
            self.name,
            data=_cancel(parcel) if cancels else _event(parcel, customer),
            # An event's own identifier does that; and a key would repeat a failure for a day.
            headers={"idempotency-key": f"cancel:{parcel.identifier}"} if cancels else {},
        )
        if answer.is_success or _is_repeat(answer):
            return None
        if answer.status_code in _REFUSALS:
            return words(answer)
        raise Unavailable(f"{self.name} takes nothing now: {words(answer)}")


def _event(parcel: Parcel, customer: str) -> dict[str, str]:
    return {
        "event_name": parcel.meter,
        "identifier": parcel.identifier,
        "timestamp": str(parcel.hour),
        "payload[stripe_customer_id]": customer,
        "payload[value]": str(parcel.value),
    }


def _cancel(parcel: Parcel) -> dict[str, str]:
    return {
        "event_name": parcel.meter,
        "type": "cancel",
        "cancel[identifier]": parcel.identifier,
    }


def _is_repeat(answer: httpx.Response) -> bool:
    """Whether Stripe has this identifier already: by its code or, where it has none, in words."""
    if answer.status_code != 400:
        return False
    text = answer.text
    return "duplicate_meter_event" in text or "already exists with identifier" in text
