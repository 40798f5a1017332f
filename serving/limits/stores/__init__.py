"""Where the use of limits is kept. One file a store; the file's name is the scheme of its URL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast
from urllib.parse import urlsplit

from serving.errors import InvalidConfig, Unavailable
from serving.folder import Folder
from serving.limits.decision import Decision, Spending

__all__ = [
    "STORES",
    "Call",
    "Clock",
    "RateStore",
    "StoreOptions",
    "StoreUnavailable",
    "open_store",
]

STORES = Folder(__name__, __path__[0])

Clock: TypeAlias = Callable[[], int]
Call: TypeAlias = Callable[..., Awaitable[object]]


class StoreUnavailable(Unavailable):
    """`StoreUnavailable(message)`: a store cannot be reached, or says that it cannot answer."""


class RateStore(Protocol):
    """Keeps what tenants have used. Store modules have `open_store(url, options) -> RateStore`.

    All verbs raise `StoreUnavailable` where the store cannot be asked; whether a spending was
    charged is then unknown. Any other error is a fault of ours.
    """

    async def take(self, spending: Spending) -> Decision:
        """Charge every charge of `spending` if each fits, else charge none.

        Atomic over all processes that share the store; at most one round trip.
        """
        ...

    async def give_back(self, spending: Spending, decision: Decision) -> None:
        """Undo the charges in `spending`, which are some of those that `decision` admitted.

        A place is given back once, however often it is said; the rest each time it is said. With
        `decision.at_ms` 0 only the place is given back: whether the rest was charged is not known.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """`timeout_s` bounds a connect, a wait for a connection and an answer, each.

    `connections` is the most that are open at once. `call` is how a `cluster` store reaches its
    keeper. `clock` (milliseconds since the epoch) stands in for the store's own, for tests.
    """

    timeout_s: float = 0.25
    connections: int = 16
    call: Call | None = None
    clock: Clock | None = None


def open_store(url: str, options: StoreOptions | None = None) -> RateStore:
    """The store that `url` names; `InvalidConfig` names the schemes. Nothing is connected yet."""
    scheme = urlsplit(url).scheme
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES.names())
        raise InvalidConfig(f"no store of quotas is called {scheme!r}; there are {known}")
    return cast(RateStore, STORES.load(scheme).open_store(url, options or StoreOptions()))
