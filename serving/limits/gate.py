"""A bound on what is under way: requests and tokens. Full means refused at once, never piled up."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType

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

    def request(self) -> _Held:
        """Hold one request's place in a `with` block; `Overloaded` where none is free."""
        return _Held(self._take_place, self._give_place_back)

    def tokens(self, count: int) -> _Held:
        """Hold room for `count` tokens in a `with` block; `Overloaded` where it lacks."""
        return _Held(partial(self._take_room, count), partial(self._give_room_back, count))

    def _take_place(self) -> None:
        if self._requests >= self._max_requests:
            raise Overloaded(
                f"{self._max_requests} requests are under way in this gateway", self._wait_s()
            )
        self._requests += 1

    def _give_place_back(self, done: bool) -> None:
        self._requests -= 1

    def _take_room(self, count: int) -> None:
        if self._tokens and self._tokens + count > self._max_tokens:
            raise Overloaded(
                f"{self._tokens} tokens are under way in this gateway; it takes {self._max_tokens}",
                self._wait_s(),
            )
        self._tokens += count

    def _give_room_back(self, count: int, done: bool) -> None:
        self._tokens -= count
        if done:  # failures would make the wait look short
            self._record(count)

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


class _Held:
    """What is taken on entering a block and given back on leaving it, done or failed.

    A class, because a generator costs three times as much to enter.
    """

    __slots__ = ("_give_back", "_take")

    def __init__(self, take: Callable[[], None], give_back: Callable[[bool], None]) -> None:
        self._take, self._give_back = take, give_back

    def __enter__(self) -> None:
        self._take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back(kind is None)
