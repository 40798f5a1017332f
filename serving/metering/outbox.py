"""What an export needs of a ledger: a turn, events after a cursor, hourly parcels to be sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from serving.errors import InvalidConfig
from serving.metering.events import UsageEvent

__all__ = [
    "MEASURES",
    "Draw",
    "HourlyOutbox",
    "Journal",
    "Ledger",
    "Measure",
    "Parcel",
    "Turns",
    "identifier",
    "ledger_of",
]

Measure: TypeAlias = Literal["tokens", "text_tokens", "image_tokens", "items", "requests"]
MEASURES: tuple[Measure, ...] = ("tokens", "text_tokens", "image_tokens", "items", "requests")

_LONGEST = 100  # characters of an identifier, at Stripe


@dataclass(frozen=True, slots=True)
class Draw:
    """Which hours, from `since` to before `until` in seconds since the epoch, a meter is due for.

    `models` narrows it to some; None is all. A parcel sent after `cancellable_since` can still be
    taken back at the other side.
    """

    meter: str
    measure: Measure
    tenants: Collection[str]
    since: int
    until: int
    cancellable_since: int
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """One thing to send: an `event` with a value, or a `cancel` of the event of that identifier."""

    seq: int
    kind: Literal["event", "cancel"]
    identifier: str
    tenant: str
    meter: str
    hour: int
    value: int

    @property
    def slot(self) -> tuple[str, str, int]:
        """What parcels correct each other within: tenant, meter and hour."""
        return self.tenant, self.meter, self.hour


class Turns(Protocol):
    """Several gateways export from one ledger, one at a time."""

    def take_turn(self, exporter: str, holder: str, now: float, seconds: float) -> bool:
        """Whether `holder` has the turn, and keeps it for so many seconds; asked again, longer."""
        ...


class Journal(Protocol):
    """The events in the order in which they were added, and how far each export has come."""

    def page(self, exporter: str, limit: int) -> list[tuple[int, UsageEvent]]:
        """The next events after the exporter's cursor, each with its number."""
        ...

    def advance(self, exporter: str, seq: int) -> None:
        """Move the cursor behind the event of that number; never backwards."""
        ...


class HourlyOutbox(Protocol):
    """Hourly sums as parcels, written down before they are sent so that a repeat is the same."""

    def draw(self, exporter: str, draw: Draw) -> int:
        """Write parcels until those of each hour add up to the ledger's sum; how many it took.

        An hour that has grown gets a further event of the difference. One that has shrunk gets
        cancels of its events and one of the whole, or, where they are too old to be cancelled, an
        event with a negative value.
        """
        ...

    def waiting(self, exporter: str, after: int, limit: int) -> list[Parcel]:
        """Parcels not yet sent with a number above `after`, in the order they were drawn in."""
        ...

    def settle(self, exporter: str, parcels: Sequence[Parcel], now: float) -> None:
        """Note that these have been taken by the other side."""
        ...


@runtime_checkable
class Ledger(Turns, Journal, HourlyOutbox, Protocol):
    """A ledger that can be exported from: those in SQL."""


def ledger_of(sink: object) -> Ledger:
    """The sink, where it can be exported from; else `InvalidConfig`."""
    if isinstance(sink, Ledger):
        return sink
    raise InvalidConfig("exports need a ledger with a cursor: sqlite:// or postgresql://")


def identifier(tenant: str, meter: str, hour: int, revision: int) -> str:
    """`tenant:meter:hour`, then `:1`, `:2` … for its later parcels; at most 100 characters.

    Where it would be longer, the tenant and meter are a hash of themselves.
    """
    at = f"{datetime.fromtimestamp(hour, UTC):%Y-%m-%dT%H}" + (f":{revision}" if revision else "")
    name = f"{tenant}:{meter}"
    if len(name) + 1 + len(at) > _LONGEST:
        name = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name}:{at}"
