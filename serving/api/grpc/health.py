"""`grpc.health.v1`: what a kubelet's probe and a client's load balancing ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
from grpc_health.v1 import health_pb2 as pb

from serving.api.grpc.rpc import Context
from serving.service import Service

__all__ = ["Health"]

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
_LIVE = "live"
_READY = ("", "embeddings.v1.EmbeddingsService", "ready")
_LOOK_S = 1.0


class Health:
    """The health protocol's servicer. No key is asked for: a kubelet has none.

    `live` is served while the process answers, and nothing else counts for it. The empty name,
    `ready` and our own service are served while every model answers.
    """

    def __init__(self, service: Service, timeout_s: float, look_s: float = _LOOK_S) -> None:
        self._service, self._timeout_s, self._look_s = service, timeout_s, look_s

    async def Check(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        """Whether that service is served; NOT_FOUND where it is none of ours."""
        if request.service == _LIVE or request.service in _READY:
            return pb.HealthCheckResponse(status=await self._status(request.service))
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details(f"there is no service of that name; there are {', '.join(_NAMES)}")
        return pb.HealthCheckResponse()

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:
        """The status of every service."""
        ready = pb.HealthCheckResponse(status=await self._status(""))
        live = pb.HealthCheckResponse(status=SERVING)
        return pb.HealthListResponse(statuses=dict.fromkeys(_READY, ready) | {_LIVE: live})

    async def Watch(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[pb.HealthCheckResponse, None]:
        """The status now, and again whenever it is another; for ever."""
        known = request.service == _LIVE or request.service in _READY
        last = None
        while True:
            status = await self._status(request.service) if known else _UNKNOWN
            if status != last:
                yield pb.HealthCheckResponse(status=status)
                last = status
            await asyncio.sleep(self._look_s)

    async def _status(self, name: str) -> pb.HealthCheckResponse.ServingStatus:
        if name == _LIVE:
            return SERVING
        try:
            async with asyncio.timeout(self._timeout_s):
                return NOT_SERVING if await self._service.unready() else SERVING
        except TimeoutError:
            return NOT_SERVING


_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN
_NAMES = [*(repr(name) for name in _READY), repr(_LIVE)]
