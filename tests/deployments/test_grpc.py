"""gRPC through HAProxy and Serve on a real node: the same service as over HTTP, errors and all."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import grpc
import httpx
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deployments.grpc import SERVICES, GrpcIngress, grpc_options
from deployments.local import LocalNode
from serving.api.grpc.health import Health
from serving.api.grpc.servicer import Servicer
from serving.protos import embeddings_pb2 as pb
from serving.protos.embeddings_pb2_grpc import EmbeddingsServiceStub
from tests.deployments.conftest import MINI, WIRES_TOKENS, key_of
from tests.deployments.test_accounts import TOKENS, wait_for
from tests.serving.api.grpcs import details, embed, trailers, vectors


@pytest.fixture
async def channel(node: LocalNode) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(node.address.grpc, options) as one:
        yield one


@pytest.fixture
def rpc(channel: grpc.aio.Channel) -> EmbeddingsServiceStub:
    return EmbeddingsServiceStub(channel)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("model", "options"),
    [(MINI, {}), (MINI, {"normalized": True}), ("by-task", {"task": "retrieval.query"})],
)
async def test_vectors_and_usage_are_those_of_http(
    http: httpx.Client, rpc: EmbeddingsServiceStub, model: str, options: dict[str, object]
) -> None:
    texts = ["a cat", "", "a dog"]
    body = {"model": model, "input": texts, "embedding_type": "base64", **options}
    over_http = http.post("/v1/embeddings", json=body).json()
    sent = [*key_of("tests").items()]
    answer = await rpc.Embed(embed(*texts, model=model, **options), metadata=sent)
    found = [np.frombuffer(base64.b64decode(r["embedding"]), "<f4") for r in over_http["data"]]
    np.testing.assert_allclose(vectors(answer), np.array(found), atol=1e-5)
    assert answer.usage.total_tokens == over_http["usage"]["total_tokens"]


@pytest.mark.ray
async def test_both_wires_spend_one_budget_and_write_one_ledger(
    node: LocalNode, rpc: EmbeddingsServiceStub
) -> None:
    key, limits, refused = key_of("wires"), set(), []
    async with httpx.AsyncClient(base_url=node.address.url, headers=key) as http:
        for _ in range(WIRES_TOKENS // TOKENS // 2):
            over_http = await http.post("/v1/embeddings", json={"model": "null", "input": "x"})
            limits.add(over_http.headers["x-ratelimit-limit-tokens"])
            call = rpc.Embed(embed("x", model="null"), metadata=[*key.items()])
            await call
            told = trailers(await call.trailing_metadata())
            limits.add(str(told["x-ratelimit-limit-tokens"]))
        over_http = await http.post("/v1/embeddings", json={"model": "null", "input": "x"})
        refused.append((over_http.json()["code"], over_http.headers["x-should-retry"]))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rpc.Embed(embed("x", model="null"), metadata=[*key.items()])
    told = trailers(error.value.trailing_metadata())
    refused.append((details(error.value)["ErrorInfo"].reason, told["x-should-retry"]))
    assert refused == [("RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED", "false")] * 2
    assert limits == {"1000000"}
    assert wait_for(node, "wires", WIRES_TOKENS) == (WIRES_TOKENS // TOKENS, WIRES_TOKENS)


@pytest.mark.ray
async def test_errors_keep_their_details_and_show_nothing_of_the_inside(
    rpc: EmbeddingsServiceStub,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rpc.Embed(embed("x", model="none"), metadata=[*key_of("tests").items()])
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert details(error.value)["ErrorInfo"].reason == "INPUT_MODEL_NOT_FOUND"
    assert "Traceback" not in (error.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rpc.ListModels(pb.ListModelsRequest())
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.ray
async def test_a_stream_goes_through(rpc: EmbeddingsServiceStub) -> None:
    async def asked() -> AsyncIterator[pb.EmbedStreamRequest]:
        for tag in range(100):
            request = embed(f"text {tag}", model="null" if tag != 50 else "none")
            yield pb.EmbedStreamRequest(client_tag=str(tag), request=request)

    stream = rpc.EmbedStream(asked(), metadata=[*key_of("tests").items()])
    said = {one.client_tag: one async for one in stream}
    assert set(said) == {str(tag) for tag in range(100)}
    errors = [tag for tag, one in said.items() if one.WhichOneof("result") == "error"]
    assert errors == ["50"]


@pytest.mark.ray
async def test_a_client_that_gives_up_is_let_go(rpc: EmbeddingsServiceStub) -> None:
    sent = [*key_of("tests").items()]
    texts = [f"{number} " + "word " * 200 for number in range(200)]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await rpc.Embed(embed(*texts, model=MINI), metadata=sent, timeout=0.5)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await rpc.Embed(embed("short", model=MINI), metadata=sent)).usage.total_tokens == 3


@pytest.mark.ray
async def test_a_kubelet_asks_without_a_key(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    said = await health.Check(health_pb2.HealthCheckRequest())
    assert said.status == health_pb2.HealthCheckResponse.SERVING
    mirror = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    [answer] = [one async for one in mirror.ServerReflectionInfo(iter([asked]))]
    names = {one.name for one in answer.list_services_response.service}
    assert {"embeddings.v1.EmbeddingsService", "grpc.health.v1.Health"} <= names


@pytest.mark.ray
def test_the_door_is_haproxys(node: LocalNode) -> None:
    port = node.address.grpc_port
    # Of the whole machine: a HAProxy that has been reloaded is nobody's child.
    open_ = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    names = {psutil.Process(one.pid).name() for one in open_ if one.laddr.port == port}
    assert names == {"haproxy"}


def test_the_ingress_has_a_method_for_every_rpc() -> None:
    services = [pb.DESCRIPTOR, health_pb2.DESCRIPTOR]
    names = {
        method.name
        for file in services
        for service in file.services_by_name.values()
        for method in service.methods
    }
    own = {name for name in vars(GrpcIngress) if not name.startswith("_")}
    assert own == names
    served = {name for kind in (Servicer, Health) for name in vars(kind) if name[0].isupper()}
    assert own == served


def test_what_serve_is_told_to_import_is_there() -> None:
    from ray._common.utils import import_attr

    assert grpc_options(9000)["grpc_servicer_functions"] == list(SERVICES)
    assert all(callable(import_attr(name)) for name in SERVICES)
