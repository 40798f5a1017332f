"""Clients of a service of three models, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.services import client, minilm, service, tasked, toy


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """The default model, a model with tasks, and a toy; at most 2048 inputs."""
    served = service(minilm()[0], tasked(), toy(aliases=("org/toy",)))
    async with client(served) as one:
        yield one
