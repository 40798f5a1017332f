"""Keys, quotas, ledger and counters over gRPC: what is refused, and that it ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.api.grpc.status import code_of, details
from serving.api.settings import ApiSettings
from serving.calls import Call
from serving.engines import Engine
from serving.errors import InvalidInput, Overloaded, PolyvecError, Refused, Unavailable
from serving.protos import embeddings_pb2 as pb
from serving.protos.embeddings_pb2_grpc import EmbeddingsServiceStub
from tests.bank import Bank
from tests.services import HashEngine, StuckEngine, service, toy
from tests.serving.api.grpcs import details as details_of
from tests.serving.api.grpcs import embed, inputs, stub, trailers

TOKENS = 3  # of one character

Open = Callable[..., Awaitable[tuple[Bank, EmbeddingsServiceStub]]]


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a bank and a stub of it; closed at the end."""
    async with AsyncExitStack() as stack:

        async def make(
            engine: Engine | None = None, settings: ApiSettings | None = None, **plan: object
        ) -> tuple[Bank, EmbeddingsServiceStub]:
            made = Bank(tmp_path, engine or HashEngine(8), False, **plan)
            stack.push_async_callback(made.service.close)
            return made, await stack.enter_async_context(stub(made.service, settings))

        yield make


def key(made: Bank, tenant: str, **more: str) -> list[tuple[str, str]]:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return [*(made.headers(tenant) | named).items()]


def ended(made: Bank) -> dict[tuple[str, str], int]:
    """How often an RPC ended how, by endpoint and status."""
    found: dict[tuple[str, str], int] = {}
    text = (made.telemetry.exposition() or b"").decode()
    for family in text_string_to_metric_families(text):
        if family.name == "polyvec_requests":
            for _, labels, value, *_ in family.samples:
                which = (labels["endpoint"], labels["status"])
                found[which] = found.get(which, 0) + int(value)
    return found


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Embed", embed("a")),
        ("Rerank", pb.RerankRequest(model="toy")),
        ("Classify", pb.ClassifyRequest(model="toy")),
        ("CountTokens", pb.CountTokensRequest(model="toy")),
        ("ListModels", pb.ListModelsRequest()),
        ("GetModel", pb.GetModelRequest(model="toy")),
    ],
)
async def test_every_rpc_wants_a_key(bank: Open, method: str, request_: object) -> None:
    made, rpc = await bank()
    error = await refused(getattr(rpc, method)(request_))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert details_of(error)["ErrorInfo"].reason == "AUTH_MISSING_API_KEY"
    assert ended(made) == {(f"grpc/{method}", "401"): 1}


async def test_models_are_shown_without_a_key_where_they_are_public(bank: Open) -> None:
    _, rpc = await bank(settings=ApiSettings(open_models=True))
    assert len((await rpc.ListModels(pb.ListModelsRequest())).models) == 3
    assert (await rpc.GetModel(pb.GetModelRequest(model="toy"))).model.id == "toy"


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
async def test_a_key_comes_as_metadata(bank: Open, name: str) -> None:
    made, rpc = await bank()
    sent = made.keys["acme"].text
    value = f"Bearer {sent}" if name == "authorization" else sent
    await rpc.Embed(embed("a"), metadata=[(name, value)])
    assert ended(made) == {("grpc/Embed", "200"): 1}
    assert await made.settled() == {("acme", "toy", "", "text"): TOKENS}


async def test_what_a_tenant_may_not_use_is_refused(bank: Open) -> None:
    made, rpc = await bank()
    error = await refused(rpc.Embed(embed("a"), metadata=key(made, "globex")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert ended(made) == {("grpc/Embed", "403"): 1}


async def test_where_a_tenant_stands_is_told_with_every_answer(bank: Open) -> None:
    made, rpc = await bank(requests_per_minute=2, tokens_per_minute=1000)
    sent = key(made, "acme")
    answered = rpc.Embed(embed("a"), metadata=sent)
    await answered
    told = trailers(await answered.trailing_metadata())
    assert told["x-ratelimit-remaining-requests"] == "1"
    assert told["x-ratelimit-remaining-tokens"] == str(1000 - TOKENS)
    listed = rpc.ListModels(pb.ListModelsRequest(), metadata=sent)
    await listed
    told = trailers(await listed.trailing_metadata())
    assert told["x-ratelimit-remaining-requests"] == "1"
    error = await refused(rpc.Embed(embed(), metadata=sent))
    assert trailers(error.trailing_metadata())["x-ratelimit-limit-requests"] == "2"


async def test_a_refusal_of_a_quota_says_when_to_come_back(bank: Open) -> None:
    engine = HashEngine(8)
    made, rpc = await bank(engine, requests_per_minute=1)
    sent = key(made, "acme")
    await rpc.Embed(embed("a"), metadata=sent)
    error = await refused(rpc.Embed(embed("a"), metadata=sent))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told, known = trailers(error.trailing_metadata()), details_of(error)
    wait_ms = int(told["retry-after-ms"])
    assert 0 < wait_ms <= 60_000 and int(told["retry-after"]) == -(-wait_ms // 1000)
    assert known["RetryInfo"].retry_delay.ToMilliseconds() == wait_ms
    [violation] = known["QuotaFailure"].violations
    assert (violation.subject, violation.quota_metric) == ("tenant:acme", "requests")
    assert violation.quota_value == 1
    assert known["ErrorInfo"].reason == "RATE_REQUEST_LIMIT_EXCEEDED"
    assert engine.calls == 1
    assert ended(made) == {("grpc/Embed", "200"): 1, ("grpc/Embed", "429"): 1}
    assert await made.settled() == {("acme", "toy", "", "text"): TOKENS}


async def test_a_quota_that_no_wait_helps_says_so(bank: Open) -> None:
    made, rpc = await bank(monthly_tokens=TOKENS)
    sent = key(made, "acme")
    await rpc.Embed(embed("a"), metadata=sent)
    error = await refused(rpc.Embed(embed("a"), metadata=sent))
    assert trailers(error.trailing_metadata())["x-should-retry"] == "false"
    assert "RetryInfo" not in details_of(error)
    assert "QuotaFailure" in details_of(error)


async def test_counting_tokens_charges_nothing(bank: Open) -> None:
    made, rpc = await bank(tokens_per_minute=TOKENS)
    sent = key(made, "acme")
    for _ in range(3):
        request = pb.CountTokensRequest(model="toy", inputs=inputs("a"))
        assert (await rpc.CountTokens(request, metadata=sent)).usage.total_tokens == TOKENS
    await rpc.Embed(embed("a"), metadata=sent)
    assert await made.settled() == {("acme", "toy", "", "text"): TOKENS}


async def test_the_same_request_under_an_idempotency_key_is_billed_once(bank: Open) -> None:
    made, rpc = await bank()
    sent = key(made, "acme", idempotency_key="once")
    await rpc.Embed(embed("a"), metadata=sent)
    again = rpc.Embed(embed("a"), metadata=sent)
    await again
    assert trailers(await again.trailing_metadata())["idempotent-replayed"] == "true"
    await rpc.Embed(embed("b"), metadata=sent)
    assert await made.settled() == {("acme", "toy", "", "text"): 2 * TOKENS}


@pytest.mark.parametrize(
    "sent", [{"x_service_class": "fast"}, {"idempotency_key": ""}, {"x_request_timeout_ms": "0"}]
)
async def test_terms_that_mean_nothing_are_refused_by_name(
    bank: Open, sent: dict[str, str]
) -> None:
    made, rpc = await bank()
    error = await refused(rpc.Embed(embed("a"), metadata=key(made, "acme", **sent)))
    [violation] = details_of(error)["BadRequest"].field_violations
    assert violation.field == next(iter(sent)).replace("_", "-")


async def test_a_client_that_hangs_up_frees_the_engine_and_owes_nothing(bank: Open) -> None:
    engine = StuckEngine()
    made, rpc = await bank(engine)
    call = rpc.Embed(embed("a"), metadata=key(made, "acme"))
    asking = asyncio.ensure_future(call)  # type: ignore[arg-type]
    await engine.asked.wait()
    call.cancel()
    await engine.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking
    while not ended(made):
        await asyncio.sleep(0)
    assert ended(made) == {("grpc/Embed", "499"): 1}
    assert await made.settled() == {}


async def test_the_clients_deadline_is_the_requests(bank: Open) -> None:
    engine = StuckEngine()
    made, rpc = await bank(engine)
    error = await refused(rpc.Embed(embed("a"), metadata=key(made, "acme"), timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await engine.cancelled.wait()
    assert await made.settled() == {}


async def test_a_deadline_in_metadata_is_honoured_as_over_http(bank: Open) -> None:
    made, rpc = await bank(StuckEngine())
    sent = key(made, "acme", x_request_timeout_ms="20")
    error = await refused(rpc.Embed(embed("a"), metadata=sent))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert details_of(error)["ErrorInfo"].reason == "SERVICE_TIMEOUT"
    assert ended(made) == {("grpc/Embed", "504"): 1}


async def test_what_fails_on_our_side_shows_nothing_of_it() -> None:
    async with stub(service(toy(), engine=HashEngine(8, RuntimeError("secret")))) as rpc:
        error = await refused(rpc.Embed(embed("a")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error) and "Traceback" not in str(error)
    assert details_of(error)["ErrorInfo"].metadata["request_id"]


async def test_an_overload_is_unavailable_with_when_to_come_back() -> None:
    engine = HashEngine(8, Overloaded("the queue is full", 2.5))
    async with stub(service(toy(), engine=engine)) as rpc:
        error = await refused(rpc.Embed(embed("a")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details_of(error)["RetryInfo"].retry_delay.ToMilliseconds() == 2500
    assert trailers(error.trailing_metadata())["retry-after-ms"] == "2500"


def every(kind: type[PolyvecError]) -> list[type[PolyvecError]]:
    return [kind, *(leaf for one in kind.__subclasses__() for leaf in every(one))]


def test_every_refusal_has_a_code_that_says_whose_fault_it_is() -> None:
    ours = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK}
    for kind in every(Refused):
        assert code_of(kind("why")) not in ours, kind
    assert code_of(Unavailable("why")) is grpc.StatusCode.UNAVAILABLE
    assert code_of(PolyvecError("why")) is grpc.StatusCode.INTERNAL


async def test_a_long_reason_fits_a_clients_metadata() -> None:
    problems = tuple((f"inputs.{i}" * 30, "ü" * 4000, "x", None) for i in range(16))
    wrong = InvalidInput("猫" * 5000, "inputs", problems)
    assert len(details(wrong, Call("x" * 128, "grpc/Embed"))) < 5000
    async with stub(service(toy(), engine=HashEngine(8, wrong))) as rpc:
        error = await refused(rpc.Embed(embed("a")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(details_of(error)["BadRequest"].field_violations) == 8
