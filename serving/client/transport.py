"""How a question reaches a server. Over every wire it is the same protobuf message to a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from google.protobuf.message import Message

from serving.errors import InvalidConfig

__all__ = ["Transport", "open_transport"]


class Transport(Protocol):
    """A connection to one server."""

    async def ask(
        self, method: str, request: Message, headers: Mapping[str, str], timeout_s: float
    ) -> Message:
        """The answer of the RPC `method`. Raises a `PolyvecError`, `Unavailable` for no answer."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


def open_transport(url: str, connections: int) -> Transport:
    """By the scheme: http, https, grpc, or grpcs (gRPC over TLS).

    Raises `InvalidConfig` for what is no such address. Nothing is connected yet.
    """
    parts = urlsplit(url)
    try:
        known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is none
        known = False
    if known and parts.scheme in ("http", "https"):
        from serving.client.over_http import HttpTransport

        return HttpTransport(url, connections)
    if known and parts.scheme in ("grpc", "grpcs") and parts.port is not None:
        from serving.client.over_grpc import GrpcTransport

        return GrpcTransport(parts.netloc, secure=parts.scheme == "grpcs")
    raise InvalidConfig(
        f"{url!r} is no server's address; it is such as http://host:8000 or grpc://host:9000"
    )
