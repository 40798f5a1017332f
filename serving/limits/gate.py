"""A bound on what is under way: requests and tokens. Full means refused at once, never piled up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.errors import Overloaded

__all__ = ["Gate"]

_SHORTEST_S, _LONGEST_S = 0.1, 30.0
_RATE_WINDOW_S = 5.0


class Gate:
    """Counts requests and tokens under way in one process; refuses past `requests` or `tokens`.

    A job that alone exceeds `tokens` is let in when nothing else is under way, so that no size of
    batch is refused on an idle server.
    """

    def __init__(
        self, requests: int, tokens: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_requests, self._max_tokens, self._clock = requests, tokens, clock
        self._requests = self._tokens = 0
        self._done, self._rate, self._since = 0, 0.0, clock()

    @property
    def under_way(self) -> int:
        """Requests that hold a place."""
        return self._requests

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold one request's place; `Overloaded` where none is free."""
        if self._requests >= self._max_requests:
            raise Overloaded(
                f"{self._max_requests} requests are under way in this gateway", self._wait_s()
            )
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def tokens(self, count: int) -> Iterator[None]:
        """Hold `count` tokens' room; `Overloaded` where they do not fit beside those under way."""
        if self._tokens and self._tokens + count > self._max_tokens:
            raise Overloaded(
                f"{self._tokens} tokens are under way in this gateway; it takes {self._max_tokens}",
                self._wait_s(),
            )
        self._tokens += count
        try:
            yield
        finally:
            self._tokens -= count
        self._record(count)  # of what was done: failures would make the wait look short

    def _record(self, count: int) -> None:
        self._done += count
        elapsed = self._clock() - self._since
        if elapsed >= _RATE_WINDOW_S:
            self._rate, self._done, self._since = self._done / elapsed, 0, self._clock()

    def _wait_s(self) -> float:
        """Seconds until about half of what is under way is done, at the rate of late."""
        elapsed = max(self._clock() - self._since, 1e-3)
        rate = max(self._rate, self._done / elapsed)
        if rate <= 0:
            return 1.0
        return min(max(self._tokens / 2 / rate, _SHORTEST_S), _LONGEST_S)
