"""Redis over TLS: see `serving.limits.stores.redis`."""

from __future__ import annotations

from serving.limits.stores.redis import open_store

__all__ = ["open_store"]
