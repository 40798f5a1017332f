"""What a replica says about its load: tokens by service class, their age, and running totals.

The totals only grow, so whoever reads two reports has the rates between them, however late a report
comes and whoever reads it: a controller that has just been restarted as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, get_args

from serving.values import ServiceClass

__all__ = ["Load"]

_CLASSES: Final[tuple[ServiceClass, ...]] = get_args(ServiceClass)


class Load:
    """The tokens of one replica, from their arrival to their vectors."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._tokens = dict.fromkeys(_CLASSES, 0)
        self._arrived = dict.fromkeys(_CLASSES, 0)
        # In order of arrival, so that the oldest is the first.
        self._since: dict[ServiceClass, dict[object, float]] = {name: {} for name in _CLASSES}
        self._served = 0
        self._busy_s = self._token_s = 0.0
        self._at = clock()

    @contextmanager
    def holding(self, tokens: int, service_class: ServiceClass) -> Iterator[None]:
        """So many tokens are here while the block runs, and are served if it does not raise."""
        self._settle()
        item = object()
        self._since[service_class][item] = self._at
        self._tokens[service_class] += tokens
        self._arrived[service_class] += tokens
        try:
            yield
            self._served += tokens
        finally:
            self._settle()
            self._tokens[service_class] -= tokens
            del self._since[service_class][item]

    def report(self) -> dict[str, float]:
        """Serve's `record_autoscaling_stats`; the names are those of `readings.Report`."""
        self._settle()
        stats = {"served": self._served, "busy_s": self._busy_s, "token_s": self._token_s}
        for name in _CLASSES:
            oldest = next(iter(self._since[name].values()), self._at)
            stats[f"{name}_tokens"] = self._tokens[name]
            stats[f"{name}_arrived"] = self._arrived[name]
            stats[f"{name}_age_s"] = self._at - oldest
        return {name: float(value) for name, value in stats.items()}

    def _settle(self) -> None:
        now = self._clock()
        here = sum(self._tokens.values())
        if here:
            self._busy_s += now - self._at
            self._token_s += here * (now - self._at)
        self._at = now
