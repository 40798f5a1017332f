"""The choices of a rollout that quotas honour, and the limiter that they amount to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.limits.guard import Guarded, OnStoreError
from serving.limits.limiter import Limiter
from serving.limits.observing import Observer
from serving.limits.stores import Call, RateStore, StoreOptions, open_store

__all__ = ["QuotaOptions", "open_limiter"]


@dataclass(frozen=True, slots=True)
class QuotaOptions:
    """Where use is counted, and what holds when it cannot be.

    `store` is a URL, its scheme a file in `serving/limits/stores`. `on_store_error`: without the
    store `open` admits all, `closed` refuses all with a 503, `local` counts in each gateway alone.
    `shadow` counts and refuses nobody. No request waits longer than `timeout_s` for the store.
    After `hold_s` the place of a gateway that was killed comes back: longer than a request takes.
    """

    store: str = "memory://"
    on_store_error: OnStoreError = "local"
    shadow: bool = False
    timeout_s: float = 0.25
    connections: int = 16
    hold_s: float = 120.0


def open_limiter(
    options: QuotaOptions,
    *,
    observer: Observer | None = None,
    took: Callable[[float], None] = lambda seconds: None,
    call: Call | None = None,
) -> Limiter:
    """A limiter as chosen; `call` reaches the keeper of `cluster://`. `InvalidConfig` for a URL.

    `took` is told how many seconds each call to a store outside this process took.

    Nothing is connected yet: a gateway starts without its store.
    """
    store: RateStore = open_store(
        options.store, StoreOptions(options.timeout_s, options.connections, call)
    )
    if not options.store.startswith("memory:"):  # which cannot fail
        store = Guarded(
            store, options.on_store_error, timeout_s=options.timeout_s, observer=observer, took=took
        )
    return Limiter(store, shadow=options.shadow, hold_s=options.hold_s, observer=observer)
