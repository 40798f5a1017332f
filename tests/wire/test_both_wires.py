"""HTTP and gRPC are one service: the same vectors, usage, limits and ledger, whichever is asked."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from serving.api.grpc.status import code_of
from serving.client.retrying import error_of
from serving.engines import Engine
from serving.protos import embeddings_pb2 as pb
from serving.protos.embeddings_pb2_grpc import EmbeddingsServiceStub
from tests.bank import Bank
from tests.services import HashEngine, client
from tests.serving.api.grpcs import details, stub, trailers

SPENT = ("limit", "remaining")


@dataclass
class Said:
    """An answer as both wires can give it; `error` is its machine code."""

    vectors: list[bytes]
    tokens: int
    headers: dict[str, str]
    error: str = ""
    status: object = None


Ask = Callable[[dict[str, object], dict[str, str]], Awaitable[Said]]


def over_http(http: httpx.AsyncClient) -> Ask:
    async def ask(body: dict[str, object], headers: dict[str, str]) -> Said:
        sent = {"embedding_type": "base64"} | body
        answer = await http.post("/v1/embeddings", json=sent, headers=headers)
        told, found = dict(answer.headers), answer.json()
        if answer.status_code != 200:
            status = code_of(error_of(answer.status_code, found["code"], "", None, None))
            return Said([], 0, told, found["code"], status)
        vectors = [base64.b64decode(row["embedding"]) for row in found["data"]]
        return Said(vectors, found["usage"]["total_tokens"], told)

    return ask


def over_grpc(rpc: EmbeddingsServiceStub) -> Ask:
    async def ask(body: dict[str, object], headers: dict[str, str]) -> Said:
        fields = {name: value for name, value in body.items() if name not in ("model", "input")}
        inputs = [pb.Input(text=text) for text in body["input"]]  # type: ignore[attr-defined]
        options = pb.EmbedOptions(**fields)  # type: ignore[arg-type]
        request = pb.EmbedRequest(model=body["model"], inputs=inputs, options=options)  # type: ignore[arg-type]
        call = rpc.Embed(request, metadata=[*headers.items()])
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            told = trailers(error.trailing_metadata())
            code = details(error)["ErrorInfo"].reason
            return Said([], 0, told, code, error.code())  # type: ignore[arg-type]
        told = trailers(await call.trailing_metadata())
        packed = [one.vectors[0].packed for one in answer.data]
        return Said(packed, answer.usage.total_tokens, told)  # type: ignore[arg-type]

    return ask


@pytest.mark.parametrize(
    "body",
    [
        {"model": "toy", "input": ["one", "two"]},
        {"model": "tasked", "input": [""], "task": "retrieval.query", "dimensions": 2},
        {"model": "tasked", "input": ["x"], "input_type": "query", "normalized": False},
        {"model": "able", "input": ["a", "b"], "late_chunking": True},
        {"model": "none", "input": ["x"]},
        {"model": "toy", "input": []},
        {"model": "toy", "input": ["x"], "dimensions": 3},
        {"model": "tasked", "input": ["x"], "task": "none"},
        {"model": "toy", "input": ["x" * 200]},
    ],
    ids=lambda body: "-".join(str(value)[:12] for value in body.values()),
)
@pytest.mark.parametrize("engine", [HashEngine(8), HashEngine(8, RuntimeError("broken"))])
async def test_both_say_charge_and_bill_the_same(
    tmp_path: Path, body: dict[str, object], engine: Engine
) -> None:
    said, billed = [], []
    for wire in ("http", "grpc"):
        folder = tmp_path / wire
        folder.mkdir()
        made = Bank(folder, engine, False, requests_per_minute=3, tokens_per_minute=100)
        headers = made.headers("acme")
        async with client(made.service) as http, stub(made.service) as rpc:
            ask = over_http(http) if wire == "http" else over_grpc(rpc)
            said.append([await ask(body, headers) for _ in range(4)])
        billed.append(await made.settled())
        await made.service.close()
    for one, other in zip(*said, strict=True):
        assert one.vectors == other.vectors and one.tokens == other.tokens
        assert (one.error, one.status) == (other.error, other.status)
        for part in SPENT:
            for unit in ("requests", "tokens"):
                name = f"x-ratelimit-{part}-{unit}"
                assert one.headers.get(name) == other.headers.get(name)
        assert ("retry-after" in one.headers) == ("retry-after" in other.headers)
    assert billed[0] == billed[1]
