"""`/live`, `/ready` and `/health`: whether to restart us, whether to send us requests, how we are."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from serving.api.describe import error_responses
from serving.api.rendering import error_headers, error_value
from serving.api.schemas import Health, Live, Unready
from serving.errors import Unavailable
from serving.service import Service

__all__ = ["mount_probes"]

_TAGS = ["Probes"]


def mount_probes(app: FastAPI, service: Service, timeout_s: float) -> None:
    """The three probes. A check of a model that takes longer than `timeout_s` counts as failed."""

    async def live() -> JSONResponse:
        """The process answers. Nothing else is looked at: a failing model is no cause to restart."""
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> JSONResponse:
        """200 when every model answers, 503 with the reasons until then."""
        reasons = await _reasons(service, timeout_s)
        if not reasons:
            return JSONResponse({"status": "ok"})
        why = "; ".join(f"{model}: {reason}" for model, reason in reasons.items())
        error = Unavailable(f"not ready: {why}")
        headers = {name.decode(): value.decode() for name, value in error_headers(error)}
        body = error_value(error, request.scope.get("polyvec.request_id", b"")) | {"reasons": reasons}
        return JSONResponse(body, 503, headers)

    async def health() -> JSONResponse:
        """Always 200, for people and uptime checks (as Jina's): `degraded` names who does not answer."""
        reasons = await _reasons(service, timeout_s)
        models = {spec.id: reasons.get(spec.id, "ok") for spec in service.catalog.specs}
        return JSONResponse({"status": "degraded" if reasons else "ok", "models": models})

    unready = error_responses(503)
    unready[503]["model"] = Unready
    app.add_api_route("/live", live, responses={200: {"model": Live}}, tags=[*_TAGS])
    app.add_api_route("/ready", ready, responses={200: {"model": Live}} | unready, tags=[*_TAGS])
    app.add_api_route("/health", health, responses={200: {"model": Health}}, tags=[*_TAGS])
    for path, probe in (("/live", live), ("/ready", ready), ("/health", health)):
        app.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)


async def _reasons(service: Service, timeout_s: float) -> dict[str, str]:
    try:
        async with asyncio.timeout(timeout_s):
            return await service.unready()
    except TimeoutError:
        late = f"no answer to a check within {timeout_s:g} seconds"
        return {spec.id: late for spec in service.catalog.specs}
