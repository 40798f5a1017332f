"""Shared by the gateways of one cluster: one keeper counts, in memory, and every gateway asks it.

This file knows no cluster. `deployments` gives each gateway `call`, and runs one `Keeper` where
`call` leads. When the keeper starts anew, what was counted is forgotten.
"""

from __future__ import annotations

from typing import cast

from serving.errors import InvalidConfig
from serving.limits.decision import Decision, Spending
from serving.limits.stores import Call, Clock, RateStore, StoreOptions
from serving.limits.stores.memory import MemoryStore

__all__ = ["ClusterStore", "Keeper", "open_store"]


def open_store(url: str, options: StoreOptions) -> RateStore:
    """`cluster://`; `InvalidConfig` outside a cluster, where no `call` is given."""
    if options.call is None:
        raise InvalidConfig("cluster:// keeps quotas in a Ray cluster, and this gateway is in none")
    return ClusterStore(options.call)


class ClusterStore:
    """Asks a keeper. `await call(verb, *arguments)` is what `Keeper.call` answers there.

    `call` raises `StoreUnavailable` where the keeper cannot be reached, in words of this house.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    async def take(self, spending: Spending) -> Decision:
        """See `RateStore`."""
        return cast(Decision, await self._call("take", spending))

    async def give_back(self, spending: Spending, decision: Decision) -> None:
        """See `RateStore`."""
        await self._call("give_back", spending, decision)

    async def close(self) -> None:
        """The keeper serves other gateways too."""


class Keeper:
    """Counts for a whole cluster. Everything it is asked and answers can be pickled."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._store = MemoryStore(clock)

    async def call(self, verb: str, *arguments: object) -> object:
        """The answer to one call of a `ClusterStore`; ValueError for a verb that it does not send.

        Nothing in it awaits anything, so it may run beside itself.
        """
        match verb, arguments:
            case "take", (Spending() as spending,):
                return await self._store.take(spending)
            case "give_back", (Spending() as spending, Decision() as decision):
                await self._store.give_back(spending, decision)
                return None
        raise ValueError(f"a keeper of quotas has no {verb!r}")
