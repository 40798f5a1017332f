"""Reports of replicas to one reading of their group, which is all that the policy knows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields

__all__ = ["NAMES", "Group", "Groups", "Reading", "Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """What one replica said at a moment; see `load.Load`. Totals are `served` to `token_s` and
    what has `arrived`; the rest is as it was at that moment."""

    at: float
    interactive_tokens: float = 0.0
    bulk_tokens: float = 0.0
    interactive_age_s: float = 0.0
    bulk_age_s: float = 0.0
    interactive_arrived: float = 0.0
    bulk_arrived: float = 0.0
    served: float = 0.0
    busy_s: float = 0.0  # seconds with anything to do
    token_s: float = 0.0  # tokens here, summed over seconds


NAMES = tuple(field.name for field in fields(Report))[1:]
"""What a replica reports, by the names of its metrics."""


@dataclass(frozen=True, slots=True)
class Group:
    """The replicas of a group together. Tokens; rates in tokens per second.

    `served`, `busy_s` and `token_s` are what has been added since the last reading, summed over
    replicas, and each replica's own are in `work`.
    """

    interactive: float
    bulk: float
    interactive_rate: float
    bulk_rate: float
    interactive_age_s: float = 0.0
    bulk_age_s: float = 0.0
    work: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """A moment of a replica group.

    `target` are the replicas ordered, of which `running` can answer; the others are starting.
    `held` are requests that wait for a replica to exist. `group` is None until replicas have
    reported twice.
    """

    now: float
    running: int
    target: int
    floor: int
    ceiling: int
    held: float = 0.0
    group: Group | None = None


class Groups:
    """Puts the newest report of every replica beside the one before it."""

    def __init__(self) -> None:
        self._last: dict[Hashable, Report] = {}
        self._rates: dict[Hashable, tuple[float, float]] = {}

    def read(self, reports: Mapping[Hashable, tuple[Report, Report]]) -> Group | None:
        """The group of `replica -> (oldest report known, newest)`; None before any rate is."""
        work = []
        for replica, (oldest, newest) in reports.items():
            before = self._last.get(replica, oldest)
            seconds = newest.at - before.at
            if seconds <= 0:
                continue
            self._last[replica] = newest
            self._rates[replica] = (
                (newest.interactive_arrived - before.interactive_arrived) / seconds,
                (newest.bulk_arrived - before.bulk_arrived) / seconds,
            )
            work.append(
                (
                    newest.served - before.served,
                    newest.busy_s - before.busy_s,
                    newest.token_s - before.token_s,
                )
            )
        for gone in self._last.keys() - reports.keys():
            del self._last[gone], self._rates[gone]
        if not self._rates:
            return None
        latest = [newest for _, newest in reports.values()]
        return Group(
            interactive=sum(report.interactive_tokens for report in latest),
            bulk=sum(report.bulk_tokens for report in latest),
            interactive_rate=sum(rate for rate, _ in self._rates.values()),
            bulk_rate=sum(rate for _, rate in self._rates.values()),
            interactive_age_s=max(report.interactive_age_s for report in latest),
            bulk_age_s=max(report.bulk_age_s for report in latest),
            work=tuple(work),
        )
