"""One service behind both wires."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from serving.api.app import ApiSettings, create_app
from serving.api.grpc.server import serve_grpc
from serving.service import Service
from tests.services import listening

Wire = Callable[[Service], Awaitable[str]]


@pytest.fixture(params=["http", "grpc"])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    """The address of a service over one of the wires, for as long as the test lasts."""
    async with AsyncExitStack() as stack:

        async def open_(service: Service) -> str:
            if request.param == "http":
                app = create_app(service, ApiSettings())
                port = await stack.enter_async_context(listening(app))
            else:
                port = await stack.enter_async_context(serve_grpc(service, "127.0.0.1:0"))
            return f"{request.param}://127.0.0.1:{port}"

        yield open_
