"""Keys, quotas, ledger and counters over HTTP, in one process: what is refused, charged, billed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api.app import ApiSettings, create_app
from serving.api.dialects import routes
from serving.engines import Engine
from serving.errors import Unavailable
from serving.metering.reconciling import reconcile
from tests.bank import Bank, billed_in
from tests.services import HashEngine, StuckEngine, client
from tests.tenants import bearer

BODY = {"model": "toy", "input": ["one", "two"]}
TOKENS = 2 * (3 + 2)


Open = Callable[..., Awaitable[tuple[Bank, httpx.AsyncClient]]]


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a bank and a client of it; closed at the end."""
    opened: list[tuple[Bank, httpx.AsyncClient]] = []

    async def make(
        engine: Engine | None = None,
        settings: ApiSettings | None = None,
        shadow: bool = False,
        **plan: object,
    ) -> tuple[Bank, httpx.AsyncClient]:
        made = Bank(tmp_path, engine or HashEngine(8), shadow, **plan)
        opened.append((made, client(made.service, settings)))
        return opened[-1]

    yield make
    for made, http in opened:
        await http.aclose()
        await made.service.close()


async def test_every_route_wants_a_key_but_the_probes(bank: Open) -> None:
    made, http = await bank()
    app = create_app(made.service, ApiSettings())
    known = [(m, r.path) for r in app.fastapi.routes for m in getattr(r, "methods", ()) or ()]
    hot = {(route.method, route.path) for route in routes()}
    assert hot <= set(known)
    asked = 0
    for method, path in known:
        answer = await http.request(method, path.replace("{model_id:path}", "toy"))
        if path in ("/live", "/ready", "/health"):
            assert answer.status_code == 200, (method, path)
            continue
        asked += 1
        assert answer.status_code == 401, (method, path)
        if method != "HEAD":
            assert answer.json()["code"] == "AUTH_MISSING_API_KEY", (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert asked >= len(hot) + 4
    unknown = await http.get("/no/such/path")
    assert unknown.status_code == 401


@pytest.mark.parametrize(
    ("open_route", "path"),
    [
        ("open_models", "/v1/models"),
        ("open_models", "/v1/models/toy"),
        ("open_metrics", "/metrics"),
        ("open_docs", "/docs"),
        ("open_docs", "/openapi.json"),
    ],
)
async def test_a_route_can_be_opened_by_its_own_switch(
    bank: Open, open_route: str, path: str
) -> None:
    _, http = await bank(settings=ApiSettings(**{open_route: True}))
    every = {"/v1/models", "/v1/models/toy", "/metrics", "/docs", "/openapi.json"}
    same = {p for p in every if (await http.get(p)).status_code == 200}
    assert path in same
    assert all(p.startswith("/v1/models") for p in same) == (open_route == "open_models")
    assert ("/metrics" in same) == (open_route == "open_metrics")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({}, "AUTH_MISSING_API_KEY"),
        ({"authorization": "Bearer "}, "AUTH_MISSING_API_KEY"),
        ({"authorization": "Bearer pv_nothing"}, "AUTH_INVALID_API_KEY"),
        ({"authorization": "Basic dTpw"}, "AUTH_INVALID_API_KEY"),
        ({"x-api-key": "pv_nothing"}, "AUTH_INVALID_API_KEY"),
    ],
)
async def test_a_wrong_key_is_a_401_before_the_body_is_read(
    bank: Open, sent: dict[str, str], code: str
) -> None:
    _, http = await bank()
    answer = await http.post("/v1/embeddings", content=b"not json", headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert ("Invalid API key" in answer.json()["detail"]) == (code == "AUTH_INVALID_API_KEY")
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key"])
async def test_a_key_opens_by_any_of_the_headers_that_clients_use(bank: Open, name: str) -> None:
    made, http = await bank()
    key = made.keys["acme"]
    sent = {name: bearer(key) if name == "authorization" else key.text}
    answer = await http.post("/v1/embeddings", json=BODY, headers=sent)
    assert answer.status_code == 200
    assert (await http.get("/v1/models", headers=sent)).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (BODY, "model"),
        ({"model": "tasked", "input": "a", "task": "retrieval.query"}, "task"),
    ],
)
async def test_what_a_tenant_may_not_use_is_a_403_that_names_it(
    bank: Open, body: dict[str, object], field: str
) -> None:
    made, http = await bank()
    answer = await http.post("/v1/embeddings", json=body, headers=made.headers("globex"))
    assert (answer.status_code, answer.json()["code"]) == (403, "AUTHZ_FORBIDDEN")
    assert answer.json()["error"]["param"] == field
    allowed = {"model": "tasked", "input": "a", "task": "separation"}
    answer = await http.post("/v1/embeddings", json=allowed, headers=made.headers("globex"))
    assert answer.status_code == 200


async def test_tokens_are_charged_to_the_last_one_before_the_engine(bank: Open) -> None:
    engine = HashEngine(8)
    made, http = await bank(engine, tokens_per_minute=2 * TOKENS)
    sent = made.headers("acme")
    for left in (TOKENS, 0):
        answer = await http.post("/v1/embeddings", json=BODY, headers=sent)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-tokens"] == str(2 * TOKENS)
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) - left in (0, 1)
    refused = await http.post("/v1/embeddings", json=BODY, headers=sent)
    assert (refused.status_code, refused.json()["code"]) == (429, "RATE_TOKEN_LIMIT_EXCEEDED")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers.get_list("retry-after") == [refused.headers["retry-after"]]
    assert int(refused.headers["retry-after-ms"]) <= 30_000
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert engine.calls == 2
    other = await http.post("/v1/embeddings", json=BODY, headers=made.headers("boss"))
    assert other.status_code == 200 and "x-ratelimit-limit-tokens" not in other.headers


async def test_a_month_that_is_used_up_is_not_worth_a_retry(bank: Open) -> None:
    made, http = await bank(monthly_tokens=TOKENS)
    sent = made.headers("acme")
    assert (await http.post("/v1/embeddings", json=BODY, headers=sent)).status_code == 200
    refused = await http.post("/v1/embeddings", json=BODY, headers=sent)
    assert refused.json()["code"] == "RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED"
    assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers


async def test_an_answer_that_was_not_decided_on_says_where_the_tenant_stands(bank: Open) -> None:
    made, http = await bank(requests_per_minute=5, tokens_per_minute=1000)
    wrong = await http.post("/v1/embeddings", json={"model": "toy"}, headers=made.headers("acme"))
    assert wrong.status_code == 422
    assert wrong.headers["x-ratelimit-remaining-requests"] == "5"
    assert wrong.headers["x-ratelimit-remaining-tokens"] == "1000"


async def test_a_failure_gives_tokens_back_but_not_the_request(bank: Open) -> None:
    engine = HashEngine(8, Unavailable("dead"))
    made, http = await bank(engine, requests_per_minute=3, tokens_per_minute=TOKENS)
    sent = made.headers("acme")
    for _ in range(2):
        answer = await http.post("/v1/embeddings", json=BODY, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    engine.error = None
    assert (await http.post("/v1/embeddings", json=BODY, headers=sent)).status_code == 200
    refused = await http.post("/v1/embeddings", json=BODY, headers=sent)
    assert refused.status_code == 429


async def test_a_caller_that_goes_away_owes_nothing(bank: Open) -> None:
    engine = StuckEngine()
    made, http = await bank(engine, concurrent_requests=1, tokens_per_minute=TOKENS)
    going = asyncio.create_task(
        http.post("/v1/embeddings", json=BODY, headers=made.headers("acme"))
    )
    await engine.asked.wait()
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    await engine.cancelled.wait()
    assert b'code="CLIENT_GONE"' in (made.telemetry.exposition() or b"")
    assert await made.settled() == {}


async def test_shadow_counts_and_refuses_nobody(bank: Open) -> None:
    made, http = await bank(shadow=True, requests_per_minute=1)
    for _ in range(3):
        answer = await http.post("/v1/embeddings", json=BODY, headers=made.headers("acme"))
        assert answer.status_code == 200


async def test_the_tenants_class_holds_where_no_header_asks(bank: Open) -> None:
    seen: list[str] = []

    class Spy(HashEngine):
        async def embed(self, prepared: Any, deadline: float) -> Any:
            seen.append(prepared.service_class)
            return await super().embed(prepared, deadline)

    made, http = await bank(Spy(8))
    body = {"model": "tasked", "input": "a", "task": "separation"}
    await http.post("/v1/embeddings", json=body, headers=made.headers("globex"))
    urgent = made.headers("globex", **{"x-service-class": "interactive"})
    await http.post("/v1/embeddings", json=body, headers=urgent)
    assert seen == ["bulk", "interactive"]


async def test_a_repeat_under_a_key_is_billed_once(bank: Open) -> None:
    made, http = await bank()
    sent = made.headers("acme", **{"idempotency-key": "order-1"})
    first, again = [await http.post("/v1/embeddings", json=BODY, headers=sent) for _ in range(2)]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    other = {"model": "toy", "input": "else"}
    assert (await http.post("/v1/embeddings", json=other, headers=sent)).status_code == 200
    owed = {("acme", "toy", "", "text"): TOKENS + 4 + 2}
    assert await made.settled() == owed
    assert billed_in(made.telemetry.exposition()) == owed


async def test_responses_ledger_and_counters_have_the_same_tokens(bank: Open) -> None:
    engine = HashEngine(8)
    made, http = await bank(engine, tokens_per_minute=8 * TOKENS)
    answered: dict[tuple[str, str, str, str], int] = {}
    statuses: set[int] = set()
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("acme", BODY),
        ("boss", {"model": "tasked", "input": "abc", "task": "retrieval.query"}),
        ("boss", {"model": "able", "input": [{"text": "a"}, {"image": "aaaa"}]}),
        ("acme", {"model": "nope", "input": "a"}),
        ("globex", BODY),
    ]
    for turn in range(12):
        engine.error = Unavailable("dead") if turn % 4 == 3 else None
        for tenant, body in bodies:
            answer = await http.post("/v1/embeddings", json=body, headers=made.headers(tenant))
            statuses.add(answer.status_code)
            if answer.status_code != 200:
                continue
            usage, told = answer.json()["usage"], answer.json()
            task = body.get("task") or ("retrieval.passage" if body["model"] == "tasked" else "")
            images = usage.get("image_tokens", 0)
            for modality, tokens in (("text", usage["total_tokens"] - images), ("image", images)):
                if tokens:
                    name = (tenant, str(told["model"]), str(task), modality)
                    answered[name] = answered.get(name, 0) + tokens
    assert statuses == {200, 403, 404, 429, 503}
    counters = billed_in(made.telemetry.exposition())
    ledger = await made.settled()
    assert reconcile({"responses": answered, "ledger": ledger, "counters": counters}) == []
    assert sum(answered.values()) > 0


async def test_a_broken_tenants_file_keeps_the_old_one_and_shows(bank: Open) -> None:
    made, http = await bank()
    made.file.write_text("tenants: [")
    directory: Any = made.directory
    for _ in range(3):
        directory.look()
    ready = await http.get("/ready")
    assert ready.status_code == 200 and "not YAML" in ready.json()["problems"]["tenants"]
    answer = await http.post("/v1/embeddings", json=BODY, headers=made.headers("acme"))
    assert answer.status_code == 200
    assert b"polyvec_tenants_file_ok 0.0" in (made.telemetry.exposition() or b"")


async def test_a_flood_on_a_budget_of_a_hundred_is_a_hundred_answers(bank: Open) -> None:
    made, http = await bank(monthly_tokens=100 * TOKENS)
    sent = made.headers("acme")
    flood = [http.post("/v1/embeddings", json=BODY, headers=sent) for _ in range(500)]
    statuses = [answer.status_code for answer in await asyncio.gather(*flood)]
    assert statuses.count(200) == 100 and statuses.count(429) == 400


async def test_no_key_is_ever_written_in_a_log(
    bank: Open, caplog: pytest.LogCaptureFixture
) -> None:
    made, http = await bank(HashEngine(8, KeyError("boom")))
    sent = made.headers("acme")
    await http.post("/v1/embeddings", json=BODY, headers=sent)
    assert caplog.records
    assert made.keys["acme"].text not in caplog.text
