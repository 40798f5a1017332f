"""Behind a real server: slow, dropped and oversized requests, and clients that say little."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from serving.api.app import ApiSettings, create_app
from serving.engines import Engine
from tests.services import StuckEngine, listening, service, toy

BODY = b'{"model": "toy", "input": "a"}'
SETTINGS = ApiSettings(body_bytes=100_000, body_timeout_s=0.2, probe_timeout_s=0.2)


class Connection:
    """A socket to write raw HTTP into."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, *headers: str, body: bytes = b"") -> None:
        """A POST with those headers and this much of a body."""
        head = "\r\n".join(("POST /v1/embeddings HTTP/1.1", "host: x", *headers, "", ""))
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    async def write(self, some: bytes) -> None:
        """More of the body."""
        self._writer.write(some)
        await self._writer.drain()

    async def answer(self) -> tuple[int, str, dict[str, object]]:
        """Status, headers and body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await self._reader.readexactly(length))
        return int(head.split(" ")[1]), head, body

    async def is_closed(self) -> bool:
        """Whether the server ends the connection, without another byte."""
        return await self._reader.read() == b""

    def drop(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def served(engine: Engine | None = None) -> AsyncIterator[int]:
    app = create_app(service(toy(), engine=engine), SETTINGS)
    async with asyncio.timeout(20), listening(app) as port:
        yield port


async def test_a_body_without_a_content_type_is_json() -> None:
    async with served() as port, connected(port) as line:
        await line.send(f"content-length: {len(BODY)}", body=BODY)
        status, head, body = await line.answer()
    assert (status, body["model"]) == (200, "toy")
    assert "content-type: application/json" in head


async def test_a_body_in_pieces_is_put_together() -> None:
    async with served() as port, connected(port) as line:
        await line.send("transfer-encoding: chunked")
        for one in (BODY[:10], BODY[10:11], BODY[11:]):
            await line.write(b"%x\r\n%b\r\n" % (len(one), one))
        await line.write(b"0\r\n\r\n")
        assert (await line.answer())[0] == 200


async def test_a_declared_size_over_the_limit_is_refused_without_reading() -> None:
    async with served() as port, connected(port) as line:
        await line.send("content-length: 50000000")
        status, _, body = await line.answer()
    assert (status, body["code"]) == (413, "INPUT_BODY_TOO_LARGE")
    assert "100000 bytes" in str(body["detail"])


async def test_an_undeclared_size_over_the_limit_is_counted() -> None:
    async with served() as port, connected(port) as line:
        await line.send("transfer-encoding: chunked")
        await line.write(b"%x\r\n%b\r\n" % (100_001, b" " * 100_001))
        assert (await line.answer())[0] == 413


async def test_fifty_megabytes_are_refused_and_the_next_request_is_answered() -> None:
    async with served() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        big = await http.post("/v1/embeddings", content=b" " * 50_000_000)
        assert (big.status_code, big.json()["code"]) == (413, "INPUT_BODY_TOO_LARGE")
        assert (await http.post("/v1/embeddings", content=BODY)).status_code == 200


@pytest.mark.parametrize("some", [b"", b'{"model"'])
async def test_a_body_that_does_not_come_is_not_waited_for(some: bytes) -> None:
    async with served() as port, connected(port) as line:
        await line.send(f"content-length: {len(BODY)}", body=some)
        status, _, body = await line.answer()
        assert (status, body["code"]) == (408, "INPUT_BODY_TIMEOUT")
        assert await line.is_closed()


async def test_a_client_that_goes_in_the_middle_of_its_body_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as port:
        async with connected(port) as line:
            await line.send("content-length: 100", body=BODY)
            line.drop()
        async with connected(port) as line:
            await line.send(f"content-length: {len(BODY)}", body=BODY)
            assert (await line.answer())[0] == 200
    assert caplog.records == []


async def test_the_work_of_a_client_that_has_gone_is_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = StuckEngine()
    async with served(engine) as port, connected(port) as line:
        await line.send(f"content-length: {len(BODY)}", body=BODY)
        await engine.asked.wait()
        assert not engine.cancelled.is_set()
        line.drop()
        await engine.cancelled.wait()
    assert caplog.records == []


async def test_a_refusal_leaves_the_connection_open() -> None:
    async with served() as port, connected(port) as line:
        for body, status in ((b"{", 400), (b"{}", 422), (BODY, 200)):
            await line.send(f"content-length: {len(body)}", body=body)
            assert (await line.answer())[0] == status


async def test_many_at_once_get_their_own_answers() -> None:
    async with served() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

        async def embedding(text: str) -> object:
            answer = await http.post("/v1/embeddings", json={"model": "toy", "input": text})
            return answer.json()["data"][0]["embedding"]

        texts = [f"text {i % 8}" for i in range(64)]
        together = await asyncio.gather(*map(embedding, texts))
        assert together == [await embedding(text) for text in texts[:8]] * 8
