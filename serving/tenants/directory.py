"""From what a request says of itself to a tenant: the seam, and the directory of one tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serving.errors import InvalidKey, MissingKey
from serving.tenants.tenant import LOCAL, Tenant

__all__ = ["LocalDirectory", "TenantDirectory", "TenantsState", "presented"]

_LONGEST = 256  # five times a key
_SHORT_OF = "Invalid API key: the Authorization header is not of the form Bearer <key>"


@dataclass(frozen=True, slots=True)
class TenantsState:
    """How the directory stands: `problem` is why the newest file is not the one in use, or None.

    `loaded_at` is a `time.time()`; `loads` and `failures` count since the start.
    """

    problem: str | None = None
    tenants: int = 1
    keys: int = 0
    loaded_at: float = 0.0
    loads: int = 0
    failures: int = 0


class TenantDirectory(Protocol):
    """Knows every tenant of a service by their keys."""

    def identify(
        self, authorization: str | bytes | None, api_key: str | bytes | None = None
    ) -> Tenant:
        """The tenant of a request, by its `authorization` and its `x-api-key` or `api-key` value.

        Raises `MissingKey` where neither has a key and `InvalidKey` where the key is none of a
        tenant's, and nothing else whatever the values are. Never blocks.
        """
        ...

    def recall(self, tenant: str, key_id: str) -> Tenant:
        """The tenant of a key that it identified before, as both are now.

        Raises `InvalidKey` where the key, or that tenant, counts no more.
        """
        ...

    def state(self) -> TenantsState:
        """How things stand, for `/ready` and the metrics."""
        ...

    def close(self) -> None:
        """Stop watching; `identify` goes on with what is known."""
        ...


class LocalDirectory:
    """Everyone is the local tenant, whatever they send: clients cannot be without a key."""

    def identify(
        self, authorization: str | bytes | None, api_key: str | bytes | None = None
    ) -> Tenant:
        """The local tenant."""
        return LOCAL

    def recall(self, tenant: str, key_id: str) -> Tenant:
        """The local tenant, of whom there were no others."""
        if tenant != LOCAL.id:
            raise InvalidKey("Invalid API key: its tenant is not known here any more")
        return LOCAL

    def state(self) -> TenantsState:
        """One tenant, and nothing wrong with it."""
        return TenantsState()

    def close(self) -> None:
        """Nothing to stop."""


def presented(authorization: str | bytes | None, api_key: str | bytes | None = None) -> str:
    """The key in a request's header values, of ASCII and not too long; it may still be no key.

    `Authorization: Bearer` goes before the key's own header, and that before any other scheme,
    which may be meant for a proxy. Raises `MissingKey` or `InvalidKey`.
    """
    sent, own = _text(authorization), _text(api_key)
    scheme, _, rest = sent.partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return _bounded(rest.strip())
    if own:
        return _bounded(own)
    if not sent or scheme.lower() == "bearer":
        raise MissingKey("no API key was sent; send it as Authorization: Bearer <key>")
    raise InvalidKey(_SHORT_OF)


def _bounded(key: str) -> str:
    if len(key) > _LONGEST or not key.isascii():
        raise InvalidKey("Invalid API key: it is not one that this service makes")
    return key


def _text(value: str | bytes | None) -> str:
    if value is None:
        return ""
    return (value.decode("latin-1") if isinstance(value, bytes) else value).strip(" \t")
