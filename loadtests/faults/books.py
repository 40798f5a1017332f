"""Answers against the ledger, request by request: what was lost, what was billed twice. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loadtests.client import percentile

__all__ = ["Asked", "Row", "Verdict", "judged", "table", "usual_s"]

_COLUMNS = (
    "fault", "sent", "answered", "retried", "slow", "lost", "unbilled", "billed twice",
    "healed s", "recovered s", "worst s", "verdict",
)  # fmt: skip
_UNDER_WAY_S = 1.0  # from a gateway's answer to when a client has it that waits for a processor


@dataclass(slots=True)
class Asked:
    """One request, with its repeats under the same key. Times are of one monotonic clock.

    `event` is the id under which it has to be in the ledger, once. `trouble` has what came of the
    attempts that were not answered; `refusal` is the last of them where there was no further one.
    """

    event: str
    sent: float
    answered: float | None = None
    tokens: int = 0
    trouble: list[str] = field(default_factory=list)
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """An event of the ledger."""

    id: str
    tokens: int
    status: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the requests of one run.

    `lost`: accepted or not, they were never answered, however often they were repeated. `slow`:
    were repeated, or took longer than was usual before. `unbilled`: answered, and not in the
    ledger. `twice`: events with tokens that belong to no answer, or other tokens than were
    answered. `recovered_s` is from the fault to when the last slow one was sent; `worst_s` the
    longest wait for an answer.
    """

    sent: int
    answered: int
    retried: int
    slow: int
    lost: int
    unbilled: int
    twice: int
    recovered_s: float
    worst_s: float
    trouble: Mapping[str, int]
    unbilled_after_s: tuple[float, ...] = ()

    def sound(self, unsynced_s: float) -> bool:
        """Nothing lost, nothing billed twice, and nothing unbilled but what was on no disk yet.

        A process that is killed loses what it answered in the last `unsynced_s` before that:
        `serving.metering.meter`.
        """
        timely = all(-unsynced_s <= after <= _UNDER_WAY_S for after in self.unbilled_after_s)
        return not self.lost and not self.twice and timely


def judged(requests: Sequence[Asked], rows: Iterable[Row], struck: float, slow_s: float) -> Verdict:
    """The verdict on a run in which the fault came at `struck`.

    A request that took longer than `slow_s`, or a repeat, did not get what it would have before.
    """
    billed = {row.id: row.tokens for row in rows if row.tokens}
    known = {one.event: one for one in requests}
    answered = [one for one in requests if one.answered is not None]
    unbilled = [one for one in answered if one.event not in billed and one.tokens]
    twice = sum(
        event not in known or (known[event].answered is not None and tokens != known[event].tokens)
        for event, tokens in billed.items()
    )
    poor = [
        one.sent
        for one in requests
        if one.sent >= struck - slow_s and _poor(one, slow_s) and _until(one) >= struck
    ]
    return Verdict(
        sent=len(requests),
        answered=len(answered),
        retried=sum(bool(one.trouble) for one in answered),
        slow=len(poor),
        lost=len(requests) - len(answered),
        unbilled=len(unbilled),
        twice=twice,
        recovered_s=max(0.0, max(poor, default=struck) - struck),
        worst_s=max((one.answered - one.sent for one in answered if one.answered), default=0.0),
        trouble=Counter(what for one in requests for what in one.trouble),
        unbilled_after_s=tuple((one.answered or 0.0) - struck for one in unbilled),
    )


def usual_s(requests: Sequence[Asked], struck: float) -> float:
    """What was slow before the fault: three times what 99 of 100 took, half a second or more."""
    before = [
        one.answered - one.sent
        for one in requests
        if one.answered is not None and one.answered < struck
    ]
    return max(0.5, 3 * percentile(before, 0.99)) if before else 0.5


def table(verdicts: Mapping[str, tuple[Verdict, float, bool]]) -> str:
    """Lines of Markdown: a fault's verdict, the seconds until it was healed, and whether sound."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for name, (one, healed_s, sound) in verdicts.items():
        counts = (one.sent, one.answered, one.retried, one.slow, one.lost, one.unbilled, one.twice)
        times = [f"{seconds:.1f}" for seconds in (healed_s, one.recovered_s, one.worst_s)]
        lines.append(
            f"| {' | '.join(map(str, [name, *counts, *times, 'ok' if sound else 'BROKEN']))} |"
        )
    return "\n".join(lines)


def _poor(one: Asked, slow_s: float) -> bool:
    return bool(one.trouble) or one.answered is None or one.answered - one.sent > slow_s


def _until(one: Asked) -> float:
    return float("inf") if one.answered is None else one.answered
