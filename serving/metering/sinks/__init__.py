"""Where events end up: one file a kind of ledger, the file's name is the scheme of its URL.

A sink decides by an event's id alone whether it is new, and adds new events and their hourly sums
in one transaction. Several processes may write at once. It connects when it is first used, so that
a gateway starts while its ledger is down.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import unquote, urlsplit

from serving.errors import InvalidConfig
from serving.folder import Folder
from serving.metering.events import UsageEvent
from serving.metering.questions import Question, UsageRow

__all__ = [
    "SINKS",
    "EventRefused",
    "UsageSink",
    "Written",
    "file_of",
    "open_sink",
    "state_folder",
]

SINKS = Folder(__name__, __path__[0])


class EventRefused(Exception):
    """`EventRefused(message)`: the ledger is there and can never take one of these events."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: `new` events were added, `duplicates` were there already."""

    new: int
    duplicates: int


class UsageSink(Protocol):
    """A ledger. Its methods may be called from any thread; they block, so never an event loop's."""

    def write(self, events: Sequence[UsageEvent]) -> Written:
        """Add those that are new, all or none; returns when they would outlive a loss of power.

        Raises `Unavailable` where the same batch may be taken later, with nothing or everything of
        it added, and `EventRefused` where one of its events can never be taken.
        """
        ...

    def usage(self, question: Question) -> list[UsageRow]:
        """The sums asked for, in order of time and then of names. Raises `Unavailable`."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


class _Module(Protocol):
    def open_sink(self, url: str) -> UsageSink:
        """The sink of that URL, not yet connected; `InvalidConfig` for a URL it cannot read."""
        ...


def open_sink(url: str) -> UsageSink:
    """The sink for a URL such as `sqlite:///`; `InvalidConfig` names the schemes there are."""
    scheme = url.partition(":")[0]
    if scheme not in SINKS or not url.startswith(f"{scheme}://"):
        choices = ", ".join(f"{name}://" for name in SINKS.names())
        raise InvalidConfig(f"ledger.url begins with {scheme!r}; it may begin with {choices}")
    return cast(_Module, SINKS.load(scheme)).open_sink(url)


def file_of(url: str, default: str) -> Path:
    """The file that a URL names: `x:///a/b` is /a/b, `x://a/b` is below the working directory.

    With no path at all (`x:///`) it is `default` in the state folder.
    """
    parts = urlsplit(url)
    path = unquote(parts.netloc + parts.path)
    return Path(path) if path.strip("/") else state_folder() / default


def state_folder() -> Path:
    """Where this machine keeps what must survive: `$POLYVEC_STATE`, or ~/.local/state/polyvec."""
    named = os.environ.get("POLYVEC_STATE")
    return Path(named) if named else Path.home() / ".local" / "state" / "polyvec"
