"""What a policy learns about its replicas: how fast they are, how long they take to start."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp

__all__ = ["RateCurve", "StartUps", "Trend"]

_ENOUGH_S = 5.0  # busy replica-seconds before a level's rate is believed
_RECENT_S = 60.0  # busy seconds of a replica that weigh as much as all before them
_APART = 1.3  # levels nearer to each other than this differ by noise
_NEW = 0.3  # weight of the latest start-up
_FAST_S, _SLOW_S = 30.0, 150.0  # of the two averages whose distance is a slope
_JUMP = 0.1  # averages further apart than this saw a jump, which says nothing of what follows


@dataclass(slots=True)
class _Level:
    tokens: float = 0.0
    seconds: float = 0.0
    token_s: float = 0.0
    at: float = 0.0

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    @property
    def held(self) -> float:
        return self.token_s / self.seconds


class RateCurve:
    """Tokens per second of a busy replica, by how many tokens it has.

    A replica with little to do is slow: a batch of one text takes nearly as long as one of thirty.
    So the rate at low load is not what the replica could do, only a bound below it. Rates are kept
    by level (powers of two of the tokens a busy replica has, and `full` from one batch up), and
    until the full one is known the best of them is reckoned with. BBR learns a path's bandwidth in
    this way from a sender that does not always have something to send: a sample that is limited by
    the application counts only where it is higher (draft-ietf-ccwg-bbr).
    """

    def __init__(self, batch_tokens: float, memory_s: float) -> None:
        self._batch, self._memory_s = batch_tokens, memory_s
        self._full = int(batch_tokens).bit_length() + 1
        self._levels: dict[int, _Level] = {}

    def learn(
        self, served: float, busy_s: float, token_s: float, replicas: int, now: float
    ) -> None:
        """`served` tokens in `busy_s` busy seconds of one replica, or of several summed up."""
        if busy_s <= 0:
            return
        held = token_s / busy_s
        key = self._full if held >= self._batch else int(held).bit_length()
        level = self._levels.setdefault(key, _Level())
        kept = exp(-busy_s / (_RECENT_S * max(1, replicas)))
        level.tokens = level.tokens * kept + served
        level.seconds = level.seconds * kept + busy_s
        level.token_s = level.token_s * kept + token_s
        level.at = now

    def rate(self, now: float) -> float:
        """Tokens per second of one replica; 0 where nothing is known."""
        self._forget(now)
        believed = [level for level in self._levels.values() if level.seconds >= _ENOUGH_S]
        if not believed:
            seconds = sum(level.seconds for level in self._levels.values())
            return sum(level.tokens for level in self._levels.values()) / max(seconds, 1e-9)
        if self.is_full(now):
            return self._levels[self._full].rate
        believed.sort(key=lambda level: level.held)
        best = max(level.rate for level in believed)
        return max(best, self._doubled(believed[-2], believed[-1])) if believed[1:] else best

    def _doubled(self, lower: _Level, upper: _Level) -> float:
        """The rate with twice the tokens of `upper`: no further, the next level will be seen.

        Tokens are through in the seconds of a batch, a fixed part and a part for each token, so
        `1 / rate = fixed / held + each`, and two levels give both.
        """
        if lower.held <= 0 or upper.held < _APART * lower.held or not lower.tokens:
            return 0.0
        slower = 1 / lower.rate - 1 / upper.rate
        fixed = slower / (1 / lower.held - 1 / upper.held)
        each = 1 / upper.rate - fixed / upper.held
        if fixed <= 0 or each <= 0:
            return 0.0
        return 1 / (fixed / min(2 * upper.held, self._batch) + each)

    def is_full(self, now: float) -> bool:
        """Whether `rate` is what a replica can do; else it can do at least that."""
        self._forget(now)
        full = self._levels.get(self._full)
        return full is not None and full.seconds >= _ENOUGH_S

    def _forget(self, now: float) -> None:
        """Texts change: what has not been seen for so long is not known any more."""
        for key in [k for k, level in self._levels.items() if now - level.at > self._memory_s]:
            del self._levels[key]


class StartUps:
    """Seconds from a replica's order until it answers, its node's included."""

    def __init__(self, expected_s: float) -> None:
        self.seconds = expected_s
        self._learnt = False
        self._target: int | None = None
        self._orders: deque[tuple[int, float]] = deque()

    def observe(self, now: float, running: int, target: int) -> None:
        """So many are ordered by now, and so many run."""
        if self._target is not None and target > self._target:
            self._orders.append((target, now))
        while self._orders and self._orders[-1][0] > target:
            self._orders.pop()
        self._target = target
        while self._orders and self._orders[0][0] <= running:
            _, ordered = self._orders.popleft()
            took = now - ordered
            self.seconds = self.seconds + _NEW * (took - self.seconds) if self._learnt else took
            self._learnt = True


class Trend:
    """By what part a demand that rises steadily will have risen after some time; never negative.

    An average over τ lags τ behind a ramp, so two averages are apart by the slope times the
    difference of their τ.
    """

    def __init__(self) -> None:
        self._fast = self._slow = 0.0
        self._at: float | None = None

    def observe(self, demand: float, now: float) -> None:
        """The demand at this moment."""
        if self._at is None:
            self._fast = self._slow = demand
        else:
            seconds = now - self._at
            self._fast += (1 - exp(-seconds / _FAST_S)) * (demand - self._fast)
            self._slow += (1 - exp(-seconds / _SLOW_S)) * (demand - self._slow)
        self._at = now

    def growth(self, seconds: float) -> float:
        """The rise after so many seconds, as a part of the demand."""
        apart = self._fast / self._slow - 1 if self._slow > 0 else 0.0
        if not 0 < apart < _JUMP:
            return 0.0
        return min(apart * seconds / (_SLOW_S - _FAST_S), _JUMP)
