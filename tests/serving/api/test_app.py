"""Paths, headers, probes and what happens when something of ours fails."""

from __future__ import annotations

import json
import logging
import re

import httpx
import pytest
from starlette.types import Message

from serving.api.app import ApiSettings, create_app
from serving.api.dialects import routes
from serving.api.routes import grouped
from serving.errors import (
    InputTooLarge,
    MediaInvalid,
    MediaUnreachable,
    Overloaded,
    Refused,
    Unavailable,
)
from serving.limits.gate import Gate
from tests.services import MODEL, HashEngine, StuckEngine, client, service, toy

BODY = {"model": "toy", "input": "a"}


async def test_a_request_id_of_the_callers_comes_back(http: httpx.AsyncClient) -> None:
    for path, method in (("/v1/embeddings", "POST"), ("/v1/models", "GET"), ("/nowhere", "GET")):
        answer = await http.request(method, path, headers={"x-request-id": "mine-1"})
        assert answer.headers.get_list("x-request-id") == ["mine-1"]


@pytest.mark.parametrize("sent", [None, "", "two words", "x" * 129, "höflich".encode()])
async def test_another_request_id_is_made(http: httpx.AsyncClient, sent: str | None) -> None:
    headers = {} if sent is None else {"x-request-id": sent}
    ids = {
        (await http.post("/v1/embeddings", json=BODY, headers=headers)).headers["x-request-id"]
        for _ in range(3)
    }
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


async def test_request_ids_are_left_to_a_server_that_writes_them() -> None:
    async with client(service(toy()), ApiSettings(writes_request_id=False)) as http:
        answer = await http.post("/v1/embeddings", json={}, headers={"x-request-id": "mine"})
        assert "x-request-id" not in answer.headers
        assert answer.json()["request_id"] == "mine"
        assert "x-request-id" not in (await http.get("/live")).headers


async def test_the_time_is_told_by_stage(http: httpx.AsyncClient) -> None:
    headers = (await http.post("/v1/embeddings", json=BODY)).headers
    assert int(headers["openai-processing-ms"]) >= 1
    stages = re.findall(r"(\w+);dur=\d+\.\d\d", headers["server-timing"])
    assert stages == ["prepare", "queue", "infer", "encode", "total"]


async def test_an_answer_is_never_compressed(http: httpx.AsyncClient) -> None:
    for coding in ("identity", "gzip, br"):
        answer = await http.post("/v1/embeddings", json=BODY, headers={"accept-encoding": coding})
        assert "content-encoding" not in answer.headers
        assert int(answer.headers["content-length"]) == len(answer.content)


async def test_a_path_that_is_not_there(http: httpx.AsyncClient) -> None:
    for path in ("/v1/embedding", "/v1/embeddings/", "/v1/", "/v1//embeddings"):
        answer = await http.post(path, json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_a_method_that_a_path_has_not(http: httpx.AsyncClient) -> None:
    for method, path, allowed in (
        ("GET", "/v1/embeddings", "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
    ):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("error", [Overloaded("full", 0.25), Unavailable("dead", 2.5)])
async def test_not_now_says_when(error: Unavailable, caplog: pytest.LogCaptureFixture) -> None:
    async with client(service(toy(), engine=HashEngine(8, error))) as http:
        answer = await http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (503, error.code)
    assert answer.headers["retry-after"] == {0.25: "1", 2.5: "3"}[error.args[1]]
    assert answer.headers["retry-after-ms"] == {0.25: "250", 2.5: "2500"}[error.args[1]]
    logged = [one for one in caplog.records if one.levelname == "WARNING"]
    assert bool(logged) is not isinstance(error, Overloaded)  # refusals come by the hundred


async def test_an_overloaded_gateway_refuses_at_once() -> None:
    gate = Gate(1, 1000)
    async with client(service(toy(), gate=gate)) as http:
        with gate.request():
            answer = await http.post("/v1/embeddings", json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_OVERLOADED")
        assert (await http.post("/v1/embeddings", json=BODY)).status_code == 200


async def test_an_input_that_does_not_fit_the_memory_is_the_callers_to_change() -> None:
    error = InputTooLarge("input 0 does not fit", "input.0")
    async with client(service(toy(), engine=HashEngine(8, error))) as http:
        answer = await http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, "input.0")


@pytest.mark.parametrize("kind", [MediaInvalid, MediaUnreachable])
async def test_an_image_that_cannot_be_read_is_a_problem_of_its_field(kind: type[Refused]) -> None:
    error = kind("input.0 is no image", "input.0")
    async with client(service(toy(), engine=HashEngine(8, error))) as http:
        answer = await http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (422, kind.code)
    [problem] = answer.json()["errors"]
    assert (problem["field"], problem["message"]) == ("input.0", "input.0 is no image")


async def test_what_nobody_foresaw_is_a_500_without_a_word_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client(service(toy(), engine=HashEngine(8, KeyError("secret")))) as http:
        answer = await http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert answer.headers["x-request-id"] in record.getMessage()
    assert record.exc_info is not None


async def test_what_nobody_foresaw_behind_fastapi_is_the_same_500(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = service(toy())
    monkeypatch.setattr(served, "unready", lambda: 1 / 0)
    async with client(served) as http:
        answer = await http.get("/ready")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert answer.headers["x-request-id"] in caplog.text
    assert "division" not in answer.text


async def test_a_request_that_takes_too_long_is_ended() -> None:
    engine = StuckEngine()
    async with client(service(toy(), engine=engine), ApiSettings(request_timeout_s=0.02)) as http:
        answer = await http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (504, "SERVICE_TIMEOUT")
    assert engine.cancelled.is_set()


async def test_a_caller_may_ask_for_less_time_but_not_for_more() -> None:
    settings = ApiSettings(request_timeout_s=0.1)
    for asked in ("5", "1000000"):
        async with client(service(toy(), engine=StuckEngine()), settings) as http:
            answer = await http.post(
                "/v1/embeddings", json=BODY, headers={"x-request-timeout-ms": asked}
            )
        assert answer.status_code == 504


async def test_the_service_class_is_the_headers() -> None:
    classes = []

    class Noting(HashEngine):
        async def embed(self, prepared, deadline):  # type: ignore[no-untyped-def]
            classes.append(prepared.service_class)
            return await super().embed(prepared, deadline)

    async with client(service(toy(), engine=Noting(8))) as http:
        for sent in ({}, {"x-service-class": "bulk"}, {"x-service-class": "interactive"}):
            await http.post("/v1/embeddings", json=BODY, headers=sent)
    assert classes == ["interactive", "bulk", "interactive"]


async def test_it_is_live_whatever_the_models_do() -> None:
    async with client(service(toy(), engine=HashEngine(8, Unavailable("dead")))) as http:
        assert (await http.get("/live")).json() == {"status": "ok"}


async def test_it_is_ready_when_every_model_answers(http: httpx.AsyncClient) -> None:
    assert (await http.get("/ready")).json() == {"status": "ok"}
    health = (await http.get("/health")).json()
    assert health == {
        "status": "ok",
        "models": {MODEL: "ok", "tasked": "ok", "toy": "ok", "able": "ok"},
    }


async def test_it_is_not_ready_with_the_reasons_until_then() -> None:
    async with client(service(toy(), engine=HashEngine(8, Unavailable("is loading")))) as http:
        ready, health = await http.get("/ready"), await http.get("/health")
    assert (ready.status_code, ready.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert ready.json()["reasons"] == {"toy": "is loading"}
    assert ready.json()["detail"] == "not ready: toy: is loading"
    assert ready.headers["retry-after"] == "1"
    assert health.status_code == 200
    assert health.json() == {"status": "degraded", "models": {"toy": "is loading"}}


async def test_a_check_without_an_answer_is_a_failed_check() -> None:
    settings = ApiSettings(probe_timeout_s=0.01)
    async with client(service(toy(), engine=StuckEngine()), settings) as http:
        ready = await http.get("/ready")
    assert ready.status_code == 503
    assert "within 0.01 seconds" in ready.json()["reasons"]["toy"]


async def test_probes_answer_head(http: httpx.AsyncClient) -> None:
    for path in ("/live", "/ready", "/health"):
        assert (await http.head(path)).status_code == 200


async def test_models_have_the_fields_of_openai_jina_and_vllm(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == [MODEL, "tasked", "toy", "able"]
    default, tasked, _, able = listed["data"]
    assert default["object"] == "model"
    assert default["dimensions"] == 384
    assert default["max_model_len"] == default["context_length"] == 256
    assert default["license"] == default["licence"] == "apache-2.0"
    assert tasked["matryoshka_dimensions"] == [2, 4, 8]
    assert tasked["tasks"] == ["retrieval.query", "retrieval.passage", "separation"]
    assert tasked["late_chunking"] is tasked["sparse"] is False
    assert default["max_pixels"] is default["multivector_dimensions"] is None
    assert able["late_chunking"] is able["sparse"] is True
    assert (able["input_modalities"], able["least_dimensions"]) == (["text", "image"], 2)
    assert (able["multivector_dimensions"], able["image_token_multiplier"]) == (3, 1)
    assert (able["min_pixels"], able["max_pixels"]) == (784, 7840)


@pytest.mark.parametrize("name", ["toy", "org/toy", "jina-ai/toy", "org%2Ftoy"])
async def test_a_model_by_any_name(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.get(f"/v1/models/{name}")).json()["id"] == "toy"


async def test_a_model_that_is_not_there(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/models/jina-ai/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "INPUT_MODEL_NOT_FOUND")


async def test_the_documentation_needs_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "://" not in page.text
    assert not re.search(r"(src|href)=", page.text.replace('href="openapi.json"', ""))


async def test_lifespan_is_answered() -> None:
    app = create_app(service(toy()), ApiSettings())
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    answered = []

    async def receive() -> Message:
        return next(asked)

    async def send(message: Message) -> None:
        answered.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert answered == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_fastapi_alone_answers_the_same() -> None:
    app = create_app(service(toy()), ApiSettings())
    for one in (app, app.fastapi):
        transport = httpx.ASGITransport(one)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            answer = await http.post("/v1/embeddings", json=BODY)
            assert answer.json()["model"] == "toy"


async def test_a_root_path_is_taken_off() -> None:
    app = create_app(service(toy()), ApiSettings())
    transport = httpx.ASGITransport(app, root_path="/api")
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        assert (await http.post("/api/v1/embeddings", json=BODY)).status_code == 200
        assert (await http.get("/api/v1/models")).status_code == 200


async def test_the_description_has_every_example_and_a_chapter_for_each_client(
    http: httpx.AsyncClient,
) -> None:
    described = (await http.get("/openapi.json")).json()
    chapters = [tag["name"] for tag in described["tags"]]
    assert chapters[0] == "Embeddings"
    assert {"Cohere", "Voyage", "vLLM", "text-embeddings-inference"} < set(chapters)
    operations = [one for path in described["paths"].values() for one in path.values()]
    assert {tag for one in operations for tag in one["tags"]} <= set(chapters)
    for (method, path), some in grouped(routes()).items():
        if some[-1].request:
            body = described["paths"][path][method.lower()]["requestBody"]
            content = body["content"]["application/json"]
            assert set(content["examples"]) == {name for one in some for name in one.examples}
            assert len(content["examples"]) == sum(len(one.examples) for one in some)


async def test_the_description_is_json_that_names_every_path(http: httpx.AsyncClient) -> None:
    described = json.loads((await http.get("/openapi.json")).text)
    assert set(described["paths"]) == {route.path for route in routes()} | {
        "/v1/models",
        "/v1/models/{model_id}",
        "/v1/usage",
        "/live",
        "/ready",
        "/health",
        "/metrics",
    }
