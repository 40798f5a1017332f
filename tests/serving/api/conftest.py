"""Clients of a service of four models, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.services import able, client, minilm, service, tasked, toy


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """The default model, one with tasks, a toy and one that does all; at most 2048 inputs."""
    served = service(minilm()[0], tasked(), toy(aliases=("org/toy",)), able())
    async with client(served) as one:
        yield one
