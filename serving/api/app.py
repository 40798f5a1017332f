"""The app over HTTP: hot paths answered in raw ASGI, everything else by FastAPI.

`create_app(service, settings)` is all that a server needs. The app owns neither the service's
models nor their end: who made the service closes it.
"""

from __future__ import annotations

import logging
import math
import time
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api import dialects
from serving.api.cold import cold_app
from serving.api.exchange import Exchange
from serving.api.rendering import REQUEST_ID, request_id
from serving.api.settings import ApiSettings
from serving.service import Service

__all__ = ["ApiSettings", "App", "create_app"]

log = logging.getLogger(__name__)


class App:
    """The ASGI app. `fastapi` is the app behind it, which has every route and describes them."""

    def __init__(
        self, fastapi: FastAPI, hot: dict[tuple[str, str], ASGIApp], settings: ApiSettings
    ) -> None:
        self.fastapi = fastapi
        self._hot = hot
        self._writes_request_id = settings.writes_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection scope: HTTP or lifespan."""
        if scope["type"] == "http":
            path = scope["path"]
            root = scope.get("root_path")
            if root and path.startswith(root):
                path = path[len(root) :]
            hot = self._hot.get((scope["method"], path))
            await (hot or self._cold)(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await self.fastapi(scope, receive, send)

    async def _cold(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request = scope[REQUEST_ID] = request_id(dict(scope["headers"]).get(b"x-request-id"))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent_ms = math.ceil((time.perf_counter() - began) * 1e3)
                headers = [*message["headers"], (b"openai-processing-ms", b"%d" % spent_ms)]
                if self._writes_request_id:
                    headers.append((b"x-request-id", request))
                message["headers"] = headers
            await send(message)

        try:
            await self.fastapi(scope, receive, send_with_headers)
        except Exception:
            # Starlette has answered already, and raises again for the log.
            log.exception("%s failed", request.decode())


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def create_app(service: Service, settings: ApiSettings) -> App:
    """The app that serves `service`, with every dialect of the folder."""
    routes = dialects.routes()
    hot: dict[tuple[str, str], ASGIApp] = {
        (route.method, route.path): Exchange(partial(route.answer, service), settings)
        for route in routes
    }
    return App(cold_app(service, settings, routes, hot), hot, settings)
