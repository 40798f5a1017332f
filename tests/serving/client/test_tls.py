"""The client over gRPC through TLS, as a load balancer ends it."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from serving.api.grpc.server import serve_grpc
from tests.services import service, toy
from tests.serving.media.servers import certificate

# In a process of its own: gRPC reads its roots once.
_ASK = """
import sys
from serving.client import Client, Retries

with Client(sys.argv[1], retries=Retries(attempts=1)) as client:
    print(client.embed(["a", "b"], "toy").vectors.shape)
"""


async def test_grpcs_is_grpc_through_tls(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "localhost")
    async with serve_grpc(service(toy()), "127.0.0.1:0") as plain, _tls(pem, plain) as port:
        url = f"grpcs://localhost:{port}"
        assert await _said(url, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(pem)) == "(2, 8)"
        assert "Unavailable" in await _said(url)  # an issuer that nobody knows


async def _said(url: str, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _ASK, url),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return said.decode().strip()


@asynccontextmanager
async def _tls(pem: Path, plain: int) -> AsyncIterator[int]:
    """The port of a proxy that ends TLS before the plain one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["h2"])

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", plain)
        await asyncio.gather(_pump(reader, ours), _pump(theirs, writer))

    async with await asyncio.start_server(through, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
