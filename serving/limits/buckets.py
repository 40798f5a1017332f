"""The arithmetic of limits: a rate, a month, places. Whole numbers only; no clock, no I/O.

Times are milliseconds since the epoch, UTC. `stores/_scripts.py` does the same in Lua, and a test
holds the two equal, so nothing here may round where a double would round otherwise.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from serving.limits.decision import Outcome, Spending
from serving.limits.limit import BucketName

__all__ = [
    "PLACE_WAIT_MS",
    "WINDOW_MS",
    "Month",
    "Places",
    "Rate",
    "State",
    "month_of",
    "new_state",
]

WINDOW_MS = 60_000

# When a place is free is not known; an embedding takes a fraction of a second.
PLACE_WAIT_MS = 1_000


class State(Protocol):
    """The use of one bucket. The caller's `now` may stand still or jump back; nothing breaks."""

    def wait(self, limit: int, cost: int, now: int) -> int | None:
        """Milliseconds until `cost` fits: 0 if it does now, None if waiting does not help."""
        ...

    def take(self, cost: int, now: int, spending: Spending) -> None:
        """Charge; only after `wait` has said 0 for the same `now`."""
        ...

    def outcome(self, limit: int, now: int, wait: int | None) -> Outcome:
        """What is left; only after `wait` was called for the same `now`."""
        ...

    def give_back(self, limit: int, cost: int, at: int, now: int, spending: Spending) -> None:
        """Undo a charge made at `at`."""
        ...


class Rate:
    """GCRA, written as a bucket that leaks: `limit` units a minute, a minute's worth at once.

    One unit weighs 60 000 and `limit` leak each millisecond, so a level is a whole number whatever
    the limit. The theoretical arrival time of GCRA is `at + level / limit`.
    """

    __slots__ = ("_at", "_level", "_seen")

    def __init__(self) -> None:
        self._level = self._at = 0
        self._seen = 0  # the level at the last look; looking changes nothing that is kept

    def wait(self, limit: int, cost: int, now: int) -> int | None:
        """See `State`. None where the cost is above a minute's worth."""
        self._look(limit, now)
        if cost > limit:
            return None
        over = self._seen - (limit - cost) * WINDOW_MS
        return -(-over // limit) if cost and over > 0 else 0

    def take(self, cost: int, now: int, spending: Spending) -> None:
        """See `State`."""
        if cost:
            self._level = self._seen = self._seen + cost * WINDOW_MS
            self._at = now

    def outcome(self, limit: int, now: int, wait: int | None) -> Outcome:
        """See `State`."""
        remaining = max(0, limit * WINDOW_MS - self._seen) // WINDOW_MS
        return Outcome(remaining, -(-self._seen // limit) if limit else 0, wait)

    def give_back(self, limit: int, cost: int, at: int, now: int, spending: Spending) -> None:
        """Take out of the bucket what of the charge may still be in it.

        What has leaked since is not given twice: the bucket may have been otherwise empty, and then
        more than the limit would be let in. So a request that failed after a second gives back all
        but a second's worth, which has leaked by then.
        """
        left = cost * WINDOW_MS - limit * max(0, now - at)
        if left > 0:
            self._look(limit, now)
            self._level, self._at = max(0, self._seen - left), now

    def _look(self, limit: int, now: int) -> None:
        passed = now - self._at
        if passed >= WINDOW_MS:
            self._seen = 0
        else:
            self._seen = max(0, self._level - limit * max(0, passed))


class Month:
    """Units used in a calendar month; a new month starts at nothing."""

    __slots__ = ("end", "start", "used")

    def __init__(self) -> None:
        self.used = self.start = self.end = 0

    def wait(self, limit: int, cost: int, now: int) -> int | None:
        """See `State`. None where it does not fit: a month is not waited for."""
        if not self.start <= now < self.end:
            self.used, (self.start, self.end) = 0, month_of(now)
        return None if cost and self.used + cost > limit else 0

    def take(self, cost: int, now: int, spending: Spending) -> None:
        """See `State`."""
        self.used += cost

    def outcome(self, limit: int, now: int, wait: int | None) -> Outcome:
        """See `State`."""
        return Outcome(max(0, limit - self.used), self.end - now if self.used else 0, wait)

    def give_back(self, limit: int, cost: int, at: int, now: int, spending: Spending) -> None:
        """See `State`; a charge of a month that is over stays with that month."""
        self.wait(limit, 0, now)
        if at >= self.start:
            self.used = max(0, self.used - cost)


class Places:
    """Who is under way, each until given back or, for gateways that died, until its time is up."""

    __slots__ = ("earliest", "held")

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.earliest = 0  # no place ends before

    def wait(self, limit: int, cost: int, now: int) -> int | None:
        """See `State`. The wait is a guess; None where nothing is allowed."""
        if self.held and now >= self.earliest:
            self._forget(now)
        if not cost or len(self.held) + cost <= limit:
            return 0
        return PLACE_WAIT_MS if cost <= limit else None

    def take(self, cost: int, now: int, spending: Spending) -> None:
        """See `State`."""
        if cost:
            until = now + spending.hold_ms
            self.earliest = min(until, self.earliest) if self.held else until
            self.held[spending.place] = until

    def outcome(self, limit: int, now: int, wait: int | None) -> Outcome:
        """See `State`; when it is full again is not known and said to be now."""
        return Outcome(max(0, limit - len(self.held)), 0, wait)

    def give_back(self, limit: int, cost: int, at: int, now: int, spending: Spending) -> None:
        """See `State`; a place that has expired is gone already."""
        self.held.pop(spending.place, None)

    def _forget(self, now: int) -> None:
        self.held = {place: until for place, until in self.held.items() if until > now}
        self.earliest = min(self.held.values(), default=0)


def new_state(name: BucketName) -> State:
    """An unused bucket of that name."""
    match name:
        case "month":
            return Month()
        case "concurrency":
            return Places()
        case _:
            return Rate()


def month_of(now: int) -> tuple[int, int]:
    """The calendar month around `now`: its first millisecond, and that of the next one, in UTC."""
    day = datetime.fromtimestamp(now / 1000, UTC)
    start = datetime(day.year, day.month, 1, tzinfo=UTC)
    end = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
    return round(start.timestamp() * 1000), round(end.timestamp() * 1000)
