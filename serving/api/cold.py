"""What FastAPI serves: models, probes, documents, and the refusal of every other path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import __version__
from serving.api.describe import document, error_responses, operation
from serving.api.metrics import Scrape, mount_metrics
from serving.api.models import entry, find, listing
from serving.api.probes import mount_probes
from serving.api.rendering import REQUEST_ID, error_headers, error_value
from serving.api.routes import OWN, Ends, Route
from serving.api.schemas import ModelEntry, ModelList
from serving.api.settings import ApiSettings
from serving.api.usage import mount_usage
from serving.errors import MethodNotAllowed, PolyvecError, Refused, ResourceNotFound
from serving.service import Service

__all__ = ["Mount", "cold_app"]

Mount: TypeAlias = Callable[[FastAPI], None]
"""What adds routes to the app."""

_DOCS = Path(__file__).with_name("docs.html")
_OWN_TAG: dict[str, object] = {"name": OWN, "description": "Vectors, scores and classes."}
_TAGS: list[dict[str, object]] = [
    {"name": "Batches", "description": "Files of lines, embedded when there is time."},
    {"name": "Models", "description": "What is served."},
    {"name": "Usage", "description": "What was used, and what it costs."},
    {"name": "Probes", "description": "For orchestrators and uptime checks."},
]


def cold_app(
    service: Service,
    settings: ApiSettings,
    ends: Ends,
    hot: Mapping[tuple[str, str], ASGIApp],
    scrape: Scrape | None,
    mounts: Sequence[Mount] = (),
) -> FastAPI:
    """The FastAPI app, which has every route: those in `hot` it only describes and hands on."""
    app = FastAPI(
        title="Polyvec",
        version=__version__,
        summary="Embeddings on your own machines, for unchanged clients of many APIs.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=[_OWN_TAG, *_clients(ends), *_TAGS],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    for end, routes in ends.items():
        _mount(app, routes, hot[end])
    _mount_models(app, service)
    mount_probes(app, service, settings.probe_timeout_s)
    mount_metrics(app, service.accounts.telemetry, scrape)
    mount_usage(app, service.accounts)
    for mount in mounts:
        mount(app)
    _mount_documents(app, ends)
    for kind in (HTTPException, PolyvecError, Exception):
        app.add_exception_handler(kind, _failed)
    return app


def _clients(ends: Ends) -> list[dict[str, object]]:
    """A tag for each client that a dialect is for, beside our own."""
    tags = dict.fromkeys(routes[-1].tag for routes in ends.values())
    return [
        {"name": tag, "description": f"The same, as clients of {tag} ask for it."}
        for tag in tags
        if tag != OWN
    ]


class _Handed(Response):
    """A response that hands the connection on to an ASGI app."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _mount(app: FastAPI, routes: Sequence[Route], hot: ASGIApp) -> None:
    """One operation for all the dialects of a path, in the name of that which claims nothing."""

    async def hand_on() -> Response:
        return _Handed(hot)

    named = routes[-1]
    prose = [route.request.__doc__ or "" for route in reversed(routes) if route.request]
    answers: Any = reduce(or_, (route.response for route in routes))
    errors = sorted({status for route in routes for status in route.errors})
    app.add_api_route(
        named.path,
        hand_on,
        methods=[named.method],
        summary=named.summary,
        description="\n\n".join(prose),
        tags=[named.tag],
        operation_id=named.operation_id,
        responses={200: {"model": answers}, **error_responses(*errors)},
        openapi_extra=operation(routes),
    )


def _mount_models(app: FastAPI, service: Service) -> None:
    async def models() -> JSONResponse:
        """Every model that is served, with its sizes and tasks."""
        return JSONResponse(listing(service.catalog))

    async def model(model_id: str) -> JSONResponse:
        """One model by its id or an alias, which may contain `/`, or as `jina-ai/ID`."""
        return JSONResponse(entry(find(service.catalog, model_id)))

    app.add_api_route(
        "/v1/models",
        models,
        summary="List models",
        tags=["Models"],
        operation_id="list_models",
        responses={200: {"model": ModelList}, **error_responses(500)},
    )
    app.add_api_route(
        "/v1/models/{model_id:path}",
        model,
        summary="Describe a model",
        tags=["Models"],
        operation_id="get_model",
        responses={200: {"model": ModelEntry}, **error_responses(404, 500)},
    )


def _mount_documents(app: FastAPI, ends: Ends) -> None:
    page = _DOCS.read_text(encoding="utf-8")
    # Nothing of the page comes from elsewhere, and nothing could.
    policy = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    app.add_api_route("/docs", docs, include_in_schema=False)
    requests = [one.request for routes in ends.values() for one in routes if one.request]

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app, requests)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


async def _failed(request: Request, error: Exception) -> JSONResponse:
    own, headers = _ours(request, error)
    headers |= {name.decode(): value.decode() for name, value in error_headers(own)}
    value = error_value(own, request.scope.get(REQUEST_ID, b""))
    return JSONResponse(value, own.status, headers)


def _ours(request: Request, error: Exception) -> tuple[PolyvecError, dict[str, str]]:
    if isinstance(error, PolyvecError):
        return error, {}
    if not isinstance(error, HTTPException):
        return PolyvecError("something failed on our side; the log has it under this id"), {}
    headers, path = dict(error.headers or {}), request.url.path
    if error.status_code == 404:
        return ResourceNotFound(f"there is no {path}; /docs shows what there is"), headers
    if error.status_code == 405:
        allowed = headers.get("Allow", headers.get("allow", ""))
        return MethodNotAllowed(f"{path} answers {allowed}, not {request.method}"), headers
    return Refused(str(error.detail)), headers
