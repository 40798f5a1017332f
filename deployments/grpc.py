"""The RPCs on Serve's ingress deployment, and what Serve's gRPC door is told.

Serve calls the ingress by an RPC's own name alone, whatever its service, and needs a method for
each. All of them are the servicer's; the servicer knows no Ray.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc_health.v1 import health_pb2

import serving.protos.embeddings_pb2 as pb
from serving.api.grpc.health import Health
from serving.api.grpc.rpc import Context
from serving.api.grpc.servicer import Servicer

__all__ = ["SERVICES", "GrpcIngress", "grpc_options"]

SERVICES = (
    "serving.protos.embeddings_pb2_grpc.add_EmbeddingsServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
)
"""What Serve imports on every node to know the RPCs."""


def grpc_options(port: int) -> dict[str, Any]:
    """Serve's `grpc_options`, with reflection on.

    No timeout of Serve's: it would end a long stream, and every message has a deadline of its own.
    """
    return {"port": port, "grpc_servicer_functions": list(SERVICES), "enable_reflection": True}


class GrpcIngress:
    """Mixed into the ingress, which sets `_servicer` and `_health`."""

    _servicer: Servicer
    _health: Health

    async def Embed(self, request: pb.EmbedRequest, grpc_context: Context) -> pb.EmbedResponse:
        """See `Servicer`, here and below."""
        return await self._servicer.Embed(request, grpc_context)

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedStreamRequest], grpc_context: Context
    ) -> AsyncGenerator[pb.EmbedStreamResponse, None]:
        """Messages as they come."""
        async with aclosing(self._servicer.EmbedStream(requests, grpc_context)) as stream:
            async for answer in stream:
                yield answer

    async def Rerank(self, request: pb.RerankRequest, grpc_context: Context) -> pb.RerankResponse:
        """Documents by relevance."""
        return await self._servicer.Rerank(request, grpc_context)

    async def Classify(
        self, request: pb.ClassifyRequest, grpc_context: Context
    ) -> pb.ClassifyResponse:
        """Inputs by labels."""
        return await self._servicer.Classify(request, grpc_context)

    async def CountTokens(
        self, request: pb.CountTokensRequest, grpc_context: Context
    ) -> pb.CountTokensResponse:
        """What would be billed."""
        return await self._servicer.CountTokens(request, grpc_context)

    async def ListModels(
        self, request: pb.ListModelsRequest, grpc_context: Context
    ) -> pb.ListModelsResponse:
        """Every model."""
        return await self._servicer.ListModels(request, grpc_context)

    async def GetModel(
        self, request: pb.GetModelRequest, grpc_context: Context
    ) -> pb.GetModelResponse:
        """One model."""
        return await self._servicer.GetModel(request, grpc_context)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Context
    ) -> health_pb2.HealthCheckResponse:
        """See `Health`, here and below."""
        return await self._health.Check(request, grpc_context)

    async def List(
        self, request: health_pb2.HealthListRequest, grpc_context: Context
    ) -> health_pb2.HealthListResponse:
        """Every status."""
        return await self._health.List(request, grpc_context)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """Every change."""
        async with aclosing(self._health.Watch(request, grpc_context)) as changes:
            async for status in changes:
                yield status
