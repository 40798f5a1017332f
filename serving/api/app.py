"""The app over HTTP: hot paths answered in raw ASGI, everything else by FastAPI.

`create_app(service, settings)` is all that a server needs. The app owns neither the service's
models nor their end: who made the service closes it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.accounts import Accounts
from serving.api import dialects
from serving.api.cold import Mount, cold_app
from serving.api.exchange import Exchange
from serving.api.metrics import Scrape
from serving.api.rendering import (
    REQUEST_ID,
    TENANT,
    error_body,
    error_headers,
    key_of,
    request_id,
)
from serving.api.routes import grouped, verb
from serving.api.settings import ApiSettings
from serving.errors import PolyvecError
from serving.service import Service

__all__ = ["ApiSettings", "App", "create_app"]

log = logging.getLogger(__name__)


class App:
    """The ASGI app. `fastapi` is the app behind it, which has every route and describes them."""

    def __init__(
        self,
        fastapi: FastAPI,
        hot: dict[tuple[str, str], ASGIApp],
        accounts: Accounts,
        settings: ApiSettings,
    ) -> None:
        self.fastapi = fastapi
        self._hot, self._accounts = hot, accounts
        self._writes_request_id = settings.writes_request_id
        self._open = _open_paths(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection scope: HTTP or lifespan."""
        if scope["type"] == "http":
            path = scope["path"]
            root = scope.get("root_path")
            if root and path.startswith(root):
                path = path[len(root) :]
            hot = self._hot.get((scope["method"], path))
            if hot is not None:
                await hot(scope, receive, send)
            else:
                await self._cold(scope, path, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await self.fastapi(scope, receive, send)

    async def _cold(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        sent: dict[bytes, bytes] = dict(scope["headers"])
        request = scope[REQUEST_ID] = request_id(sent.get(b"x-request-id"))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent_ms = math.ceil((time.perf_counter() - began) * 1e3)
                headers = [*message["headers"], (b"openai-processing-ms", b"%d" % spent_ms)]
                if self._writes_request_id:
                    headers.append((b"x-request-id", request))
                message["headers"] = headers
            await send(message)

        try:
            if not path.startswith(self._open):
                scope[TENANT] = self._accounts.identify(*key_of(sent))
            await self.fastapi(scope, receive, send_with_headers)
        except PolyvecError as refused:
            await _refuse(send_with_headers, refused, request)
        except Exception:
            # Starlette has answered already, and raises again for the log.
            log.exception("%s failed", request.decode())


def _open_paths(settings: ApiSettings) -> tuple[str, ...]:
    """Beginnings of the paths that need no key."""
    switched = {
        "/v1/models": settings.open_models,
        "/metrics": settings.open_metrics,
        "/docs": settings.open_docs,
        "/openapi.json": settings.open_docs,
    }
    return ("/live", "/ready", "/health", *(path for path, on in switched.items() if on))


async def _refuse(send: Send, error: PolyvecError, request: bytes) -> None:
    body = error_body(error, request)
    headers = [
        *error_headers(error),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def create_app(
    service: Service,
    settings: ApiSettings,
    scrape: Scrape | None = None,
    mounts: Sequence[Mount] = (),
) -> App:
    """The app that serves `service`, with every dialect of the folder.

    `scrape` gives what `/metrics` shows; without it, the service's own telemetry does. `mounts` add
    routes that not every service has.
    """
    ends, accounts = grouped(dialects.routes()), service.accounts
    hot: dict[tuple[str, str], ASGIApp] = {
        end: Exchange(verb(some, service, settings.accept_token_ids), end[1], accounts, settings)
        for end, some in ends.items()
    }
    cold = cold_app(service, settings, ends, hot, scrape, mounts)
    return App(cold, hot, accounts, settings)
