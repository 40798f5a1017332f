"""What FastAPI serves: models, probes, documents, and the refusal of every other path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
from serving.api.routes import Route
from serving.api.schemas import ModelEntry, ModelList
from serving.api.settings import ApiSettings
from serving.errors import MethodNotAllowed, PolyvecError, Refused, ResourceNotFound
from serving.service import Service

__all__ = ["cold_app"]

_DOCS = Path(__file__).with_name("docs.html")
_TAGS = [
    {"name": "Embeddings", "description": "Vectors, for Jina's and OpenAI's clients."},
    {"name": "Models", "description": "What is served."},
    {"name": "Probes", "description": "For orchestrators and uptime checks."},
]


def cold_app(
    service: Service,
    settings: ApiSettings,
    routes: Sequence[Route],
    hot: Mapping[tuple[str, str], ASGIApp],
    scrape: Scrape | None,
) -> FastAPI:
    """The FastAPI app, which has every route: those in `hot` it only describes and hands on."""
    app = FastAPI(
        title="Polyvec",
        version=__version__,
        summary="Embeddings on your own machines, for unchanged Jina and OpenAI clients.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    for route in routes:
        _mount(app, route, hot[route.method, route.path])
    _mount_models(app, service)
    mount_probes(app, service, settings.probe_timeout_s)
    mount_metrics(app, service.accounts.telemetry, scrape)
    _mount_documents(app, routes)
    for kind in (HTTPException, PolyvecError, Exception):
        app.add_exception_handler(kind, _failed)
    return app


class _Handed(Response):
    """A response that hands the connection on to an ASGI app."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _mount(app: FastAPI, route: Route, hot: ASGIApp) -> None:
    async def hand_on() -> Response:
        return _Handed(hot)

    app.add_api_route(
        route.path,
        hand_on,
        methods=[route.method],
        summary=route.summary,
        description=route.request.__doc__,
        tags=["Embeddings"],
        operation_id=route.operation_id,
        responses={200: {"model": route.response}, **error_responses(*route.errors)},
        openapi_extra=operation(route),
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


def _mount_documents(app: FastAPI, routes: Sequence[Route]) -> None:
    page = _DOCS.read_text(encoding="utf-8")
    # Nothing of the page comes from elsewhere, and nothing could.
    policy = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    app.add_api_route("/docs", docs, include_in_schema=False)
    requests = [route.request for route in routes]

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
