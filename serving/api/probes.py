"""`/live`, `/ready` and `/health`: whether to restart us, whether to send requests, how we are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from serving.api.describe import Described, error_responses
from serving.api.rendering import REQUEST_ID, error_headers, error_value
from serving.api.schemas import Health, Live, Unready
from serving.errors import Unavailable
from serving.service import Service

__all__ = ["mount_probes"]

_Probe = Callable[..., Awaitable[JSONResponse]]


def mount_probes(app: FastAPI, service: Service, timeout_s: float) -> None:
    """The three probes. A check of a model that takes longer than `timeout_s` counts as failed."""

    async def live() -> JSONResponse:
        """The process answers. Nothing else counts: a failing model is no cause to restart."""
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> JSONResponse:
        """200 when every model answers, 503 with the reasons until then.

        `problems` are of parts without which requests are answered all the same.
        """
        reasons = await _reasons(service, timeout_s)
        problems = service.accounts.problems()
        if not reasons:
            return JSONResponse({"status": "ok"} | ({"problems": problems} if problems else {}))
        why = "; ".join(f"{model}: {reason}" for model, reason in reasons.items())
        error = Unavailable(f"not ready: {why}")
        headers = {name.decode(): value.decode() for name, value in error_headers(error)}
        body = error_value(error, request.scope.get(REQUEST_ID, b""))
        return JSONResponse(body | {"reasons": reasons, "problems": problems}, 503, headers)

    async def health() -> JSONResponse:
        """Always 200 while we answer, as Jina's; `degraded` says which model does not, and why."""
        reasons = await _reasons(service, timeout_s)
        models = {spec.id: reasons.get(spec.id, "ok") for spec in service.catalog.specs}
        return JSONResponse({"status": "degraded" if reasons else "ok", "models": models})

    unready = error_responses(503)[503] | {"model": Unready}
    _mount(app, "/live", live, {200: {"model": Live}})
    _mount(app, "/ready", ready, {200: {"model": Live}, 503: unready})
    _mount(app, "/health", health, {200: {"model": Health}})


def _mount(app: FastAPI, path: str, probe: _Probe, responses: dict[int | str, Described]) -> None:
    name = path.removeprefix("/")
    app.add_api_route(path, probe, responses=responses, tags=["Probes"], operation_id=name)
    app.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)


async def _reasons(service: Service, timeout_s: float) -> dict[str, str]:
    try:
        async with asyncio.timeout(timeout_s):
            return await service.unready()
    except TimeoutError:
        late = f"no answer to a check within {timeout_s:g} seconds"
        return {spec.id: late for spec in service.catalog.specs}
