"""How much may wait, and in which order where somebody else keeps the queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving.errors import Overloaded
from serving.values import ServiceClass

__all__ = ["BULK_EVERY", "Room", "Turns", "most", "retry_after_s"]

BULK_EVERY = 8
"""While bulk rows wait, every so many batches one is theirs."""

_LONGEST_RETRY_S = 60.0
_TENANTS = 4096


def most(service_class: ServiceClass, bound: float, waiting: Mapping[ServiceClass, float]) -> float:
    """Tokens of a class that may wait, of `bound`.

    Bulk leaves half to interactive work, and has what it is served, one part in `BULK_EVERY`,
    however much of that there is.
    """
    half = bound // 2
    if service_class == "interactive":
        return bound - min(half, waiting["bulk"])
    return max(bound // BULK_EVERY, min(half, bound - waiting["interactive"]))


class Room:
    """Tokens that wait, by class, about `bound` of them at most: see `most`."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._waiting: dict[ServiceClass, int] = {"interactive": 0, "bulk": 0}

    @property
    def tokens(self) -> int:
        """Of both classes."""
        return sum(self._waiting.values())

    def enter(
        self, tokens: int, service_class: ServiceClass, retry: Callable[[int], float]
    ) -> None:
        """Take a job's tokens, or none of them: `Overloaded`.

        A class of which nothing waits takes any job. `retry` is given how many tokens have to go
        first, and gives the seconds until then.
        """
        waiting = self._waiting[service_class]
        limit = int(most(service_class, self._bound, self._waiting))
        if waiting and waiting + tokens > limit:
            message = (
                f"{self.tokens} tokens wait already, {waiting} of them {service_class}, of which"
                f" at most {limit} may"
            )
            raise Overloaded(message, retry(min(self.tokens, waiting + tokens - limit)))
        self._waiting[service_class] = waiting + tokens

    def leave(self, tokens: int, service_class: ServiceClass) -> None:
        """So many wait no more."""
        self._waiting[service_class] -= tokens


class Turns:
    """Start-time fair queueing between tenants by numbers, least first. Of one service class."""

    def __init__(self) -> None:
        self._clock = 0
        self._ends: dict[str, int] = {}

    def next(self, tenant: str, tokens: int) -> int:
        """The number of a tenant's next input, of so many tokens."""
        if len(self._ends) > _TENANTS:  # who is behind the clock begins at it anyway
            self._ends = {name: end for name, end in self._ends.items() if end > self._clock}
        start = max(self._clock, self._ends.get(tenant, 0))
        self._ends[tenant] = start + tokens
        return start

    def reached(self, number: int) -> None:
        """An input of that number has been run: whoever comes does not start before it."""
        self._clock = max(self._clock, number)


def retry_after_s(too_many: float, served: float, seconds: float) -> float:
    """Seconds until `too_many` tokens are served, where `served` took `seconds`; 0.1 to 60."""
    if not served:
        return 1.0
    return min(max(too_many * seconds / served, 0.1), _LONGEST_RETRY_S)
