"""Which adapters have a place in an engine, and which makes room for which. Pure: time is given.

Whoever uses an adapter holds it, and what is held stays. What is asked for and has no place waits:
the first to ask is the first to get one, that of the adapter that has been idle longest. Where none
is idle, the one that has been there longest is given to nobody else from then on, and goes when
those who hold it are done; but not before it has been there for `STAY_S`. Loads are bounded in each
minute. So more adapters than places cost waiting, and never the work of those that have one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["STAY_S", "Move", "Places"]

STAY_S = 1.0
"""Seconds for which an adapter in use has its place at least."""


class Move(NamedTuple):
    """An adapter to be loaded, and the one whose place it gets; None for an empty place."""

    come: str
    gone: str | None


@dataclass(slots=True)
class _Place:
    since: float
    held: int = 0
    ready: bool = False
    leaving: bool = False


class Places:
    """`places` of them, filled at most `loads_per_minute` times, after one time each at once."""

    def __init__(self, places: int, loads_per_minute: int) -> None:
        self._most = places
        self._rate = loads_per_minute / 60
        self._loads = float(places)  # that may begin now
        self._at = 0.0
        self._places: dict[str, _Place] = {}  # the one that is idle longest first

    @property
    def names(self) -> tuple[str, ...]:
        """Those that have a place, or are about to be loaded into one."""
        return tuple(self._places)

    @property
    def load_s(self) -> float:
        """Seconds from one load to the next where many are wanted."""
        return 1 / self._rate

    def hold(self, name: str) -> bool:
        """Hold that adapter, until it is released, if it has a place and is to keep it."""
        place = self._places.get(name)
        if place is None or not place.ready or place.leaving:
            return False
        place.held += 1
        return True

    def release(self, name: str) -> None:
        """Hold it no more."""
        place = self._places.pop(name)
        place.held -= 1
        self._places[name] = place  # the last to have been used

    def next(self, wanted: Collection[str], now: float) -> Move | None:
        """What to load next for those who wait, the first of them first; None for nothing now.

        The place is taken; it is `loaded` or `lost` after that.
        """
        self._loads = min(self._most, self._loads + (now - self._at) * self._rate)
        self._at = now
        missing = [one for one in wanted if one not in self._places]
        if missing and self._loads < 1:
            return None
        # One that has just been loaded is not idle: those who wait for it are about to hold it.
        idle = next(
            (
                one
                for one, place in self._places.items()
                if place.ready and not place.held and (place.leaving or one not in wanted)
            ),
            None,
        )
        full = len(self._places) >= self._most
        if not missing or (full and idle is None):
            self._let_go(len(missing), now)
            return None
        if full and idle is not None:
            del self._places[idle]
        self._places[missing[0]] = _Place(now)
        self._loads -= 1
        return Move(missing[0], idle if full else None)

    def loaded(self, name: str, now: float) -> None:
        """Its load has ended well."""
        self._places[name] = _Place(now, ready=True)

    def lost(self, name: str) -> None:
        """Its load has failed: the place is empty."""
        del self._places[name]

    def later(self, now: float) -> float | None:
        """Seconds after which `next` knows more though nobody has released one; None for never."""
        if self._loads < 1:
            return (1 - self._loads) / self._rate
        waits = [place.since + STAY_S - now for place in self._places.values() if place.ready]
        return min((wait for wait in waits if wait > 0), default=None)

    def _let_go(self, wanted: int, now: float) -> None:
        """So many are to leave as soon as nobody holds them: the first to come that may."""
        may = [
            place
            for place in self._places.values()
            if place.leaving or (place.held and now - place.since >= STAY_S)
        ]
        may.sort(key=lambda place: (not place.leaving, place.since))
        for at, place in enumerate(may):
            place.leaving = at < wanted
