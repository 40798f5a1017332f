"""EmbedStream: tags, errors that end nothing, back-pressure, one bill a message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from serving.api.grpc.streaming import answers
from serving.protos import embeddings_pb2 as pb
from tests.bank import Bank
from tests.services import HashEngine, StuckEngine, service, toy
from tests.serving.api.grpcs import details, embed, stub
from tests.serving.api.test_grpc_accounts import TOKENS, ended, key


async def asked(*requests: pb.EmbedRequest, **more: str) -> AsyncIterator[pb.EmbedStreamRequest]:
    for tag, request in enumerate(requests):
        yield pb.EmbedStreamRequest(client_tag=str(tag), request=request, **more)


async def test_every_message_is_answered_under_its_tag() -> None:
    texts = [f"text {number}" for number in range(40)]
    async with stub(service(toy())) as rpc:
        stream = rpc.EmbedStream(asked(*map(embed, texts)))
        got = {one.client_tag: one.response.data for one in [said async for said in stream]}
        assert len(got) == 40
        for tag, text in enumerate(texts):
            assert got[str(tag)] == (await rpc.Embed(embed(text))).data


async def test_one_bad_message_does_not_end_the_stream() -> None:
    requests = [embed("a"), embed("a", model="none"), embed(), embed("b")]
    async with stub(service(toy())) as rpc:
        said = [one async for one in rpc.EmbedStream(asked(*requests))]
    errors = {one.client_tag: one.error for one in said if one.WhichOneof("result") == "error"}
    assert {tag: error.reason for tag, error in errors.items()} == {
        "1": "INPUT_MODEL_NOT_FOUND",
        "2": "INPUT_INVALID",
    }
    assert errors["1"].code == grpc.StatusCode.NOT_FOUND.value[0]
    assert errors["2"].field == "inputs"
    assert not errors["2"].HasField("retry_after_ms")
    assert {one.client_tag for one in said if one.WhichOneof("result") == "response"} == {"0", "3"}


async def test_a_stream_without_a_key_ends_at_once(tmp_path: Path) -> None:
    made = Bank(tmp_path, HashEngine(8), False)
    async with stub(made.service) as rpc:
        stream = rpc.EmbedStream()  # nothing is sent: grpc.aio hides the code behind a failed write
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert details(refused.value)["ErrorInfo"].reason == "AUTH_MISSING_API_KEY"
    assert ended(made) == {("grpc/EmbedStream", "401"): 1}
    await made.service.close()


async def test_every_message_is_billed_and_limited_alone(tmp_path: Path) -> None:
    made = Bank(tmp_path, HashEngine(8), False, requests_per_minute=2)
    async with stub(made.service) as rpc:
        stream = rpc.EmbedStream(asked(*[embed("a")] * 3), metadata=key(made, "acme"))
        said = [one async for one in stream]
    [refused] = [one.error for one in said if one.WhichOneof("result") == "error"]
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert 0 < refused.retry_after_ms <= 60_000
    assert ended(made) == {("grpc/EmbedStream", "200"): 2, ("grpc/EmbedStream", "429"): 1}
    assert await made.settled() == {("acme", "toy", "", "text"): 2 * TOKENS}
    await made.service.close()


async def test_a_message_sent_again_under_its_key_is_billed_once(tmp_path: Path) -> None:
    made = Bank(tmp_path, HashEngine(8), False)
    async with stub(made.service) as rpc:
        for _ in range(2):
            stream = rpc.EmbedStream(
                asked(embed("a"), idempotency_key="1"), metadata=key(made, "acme")
            )
            assert [one.client_tag async for one in stream] == ["0"]
    assert await made.settled() == {("acme", "toy", "", "text"): TOKENS}
    await made.service.close()


async def test_a_client_that_hangs_up_frees_all_of_its_messages(tmp_path: Path) -> None:
    engine = StuckEngine()
    made = Bank(tmp_path, engine, False)
    async with stub(made.service) as rpc:
        stream = rpc.EmbedStream(asked(*[embed("a")] * 3), metadata=key(made, "acme"))
        reading = asyncio.ensure_future(anext(aiter(stream)))
        await engine.asked.wait()
        stream.cancel()
        await engine.cancelled.wait()
        await asyncio.gather(reading, return_exceptions=True)
    assert set(ended(made)) == {("grpc/EmbedStream", "499")}
    assert await made.settled() == {}
    await made.service.close()


async def test_no_more_is_read_than_answers_are_taken() -> None:
    read = 0

    async def questions() -> AsyncIterator[int]:
        nonlocal read
        for number in range(100):
            read += 1
            yield number

    async def answer(number: int) -> int:
        return number

    stream = answers(questions(), answer, in_flight=4)
    got = []
    async for one in stream:
        got.append(one)
        for _ in range(20):  # whatever could go on, does
            await asyncio.sleep(0)
        assert read <= len(got) + 4
    assert sorted(got) == list(range(100))


async def test_answers_come_as_they_are_ready() -> None:
    first = asyncio.Event()

    async def questions() -> AsyncIterator[int]:
        yield 0
        yield 1

    async def answer(number: int) -> int:
        if number == 0:
            await first.wait()
        return number

    stream = answers(questions(), answer, in_flight=2)
    assert await anext(stream) == 1
    first.set()
    assert [one async for one in stream] == [0]


async def test_what_is_under_way_is_cancelled_when_the_stream_is_closed() -> None:
    begun, cancelled = asyncio.Event(), []

    async def questions() -> AsyncIterator[int]:
        yield 0
        yield 1

    async def answer(number: int) -> int:
        if number == 1:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
        else:
            await begun.wait()
        return number

    stream = answers(questions(), answer, in_flight=2)
    assert await anext(stream) == 0
    await stream.aclose()
    assert cancelled == [1]
