"""A gRPC server of our own, for one process without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

import serving.protos.embeddings_pb2 as pb
from serving.api.grpc.health import Health
from serving.api.grpc.servicer import Servicer
from serving.api.settings import ApiSettings
from serving.errors import InvalidConfig
from serving.protos.embeddings_pb2_grpc import add_EmbeddingsServiceServicer_to_server
from serving.service import Service

__all__ = ["serve_grpc"]

# Beyond the bytes of a request itself: a larger message is refused before it is read.
_ENVELOPE = 1 << 16
_GRACE_S = 5.0


@asynccontextmanager
async def serve_grpc(
    service: Service, address: str, settings: ApiSettings | None = None
) -> AsyncIterator[int]:
    """The port of a server on `address` (`host:port`, port 0: a free one), while the block lasts.

    Raises `InvalidConfig` where the address cannot be had.
    """
    settings = settings or ApiSettings()
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.body_bytes + _ENVELOPE),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    add_EmbeddingsServiceServicer_to_server(Servicer(service, settings), server)
    add_HealthServicer_to_server(Health(service, settings.probe_timeout_s), server)
    names = [pb.DESCRIPTOR.services_by_name["EmbeddingsService"].full_name]
    names += [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as taken:
        raise InvalidConfig(f"cannot listen on {address}: {taken}") from None
    await server.start()
    try:
        yield port
    finally:
        await server.stop(_GRACE_S)
