"""`/metrics`: what Prometheus scrapes, in its text format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from fastapi import FastAPI, Response

from serving.api.describe import error_responses
from serving.errors import ResourceNotFound
from serving.telemetry import Telemetry

__all__ = ["Scrape", "mount_metrics"]

Scrape: TypeAlias = Callable[[], Awaitable[bytes]]

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def mount_metrics(app: FastAPI, telemetry: Telemetry, scrape: Scrape | None) -> None:
    """The route; with no `scrape`, of this process alone, and 404 where nothing is recorded."""

    async def metrics() -> Response:
        """Every metric of this node, as Prometheus' text."""
        text = telemetry.exposition() if scrape is None else await scrape()
        if text is None:
            raise ResourceNotFound("metrics are switched off here: metrics.enabled is false")
        return Response(text, headers={"content-type": _TYPE})

    app.add_api_route(
        "/metrics",
        metrics,
        response_class=Response,
        summary="Metrics for Prometheus",
        tags=["Probes"],
        operation_id="metrics",
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **error_responses(404, 500, 503),
        },
    )
