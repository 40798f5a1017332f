"""The smoke command: what it asks of a service, and how it ends when an answer is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from deployments.smoke import main
from serving.api.app import ApiSettings, create_app
from tests.services import listening
from tests.services import service as embedding

URL = ["--url", "http://polyvec.test"]
MODEL = {"id": "mini", "aliases": ["m"], "default_dimensions": 2, "tasks": [], "default_task": None}
GOOD: dict[str, object] = {
    "/live": {"status": "ok"},
    "/ready": {"status": "ok"},
    "/v1/models": {"data": [MODEL]},
    "/v1/embeddings": {"data": [{"embedding": [0.6, 0.8]}]},
}

_INFINITE = '{"data": [{"embedding": [1e999, 0]}]}'

Service = Callable[[httpx.Request], httpx.Response]


def service(**other: object) -> tuple[Service, list[httpx.Request]]:
    """Answers as a healthy service does, but for the paths in `other`; and what it was asked."""
    asked: list[httpx.Request] = []
    answers = GOOD | {"/" + path.replace("_", "/"): answer for path, answer in other.items()}

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        body = answers[request.url.path]
        if isinstance(body, httpx.Response | Exception):
            if isinstance(body, Exception):
                raise body
            return body
        return httpx.Response(200, json=body)

    return answer, asked


def run(answer: Service, *words: str) -> int:
    return main([*URL, *words], httpx.MockTransport(answer))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYVEC_API_KEY", raising=False)


def test_a_service_that_embeds_passes(capsys: pytest.CaptureFixture[str]) -> None:
    answer, asked = service()
    assert run(answer) == 0
    assert [request.url.path for request in asked] == list(GOOD)
    assert "mini, 2 dimensions, unit length" in capsys.readouterr().out


async def test_the_real_routes_pass() -> None:
    async with listening(create_app(embedding(), ApiSettings())) as port:
        assert await asyncio.to_thread(main, ["--url", f"http://127.0.0.1:{port}"]) == 0


def test_the_key_of_the_environment_goes_with_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POLYVEC_API_KEY", "pv-secret\n")
    answer, asked = service()
    assert run(answer) == 0
    assert {request.headers["authorization"] for request in asked} == {"Bearer pv-secret"}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"ready": httpx.Response(503, text="mini: loading")}, "/ready: 503 mini: loading"),
        ({"live": httpx.ConnectError("nobody listens")}, "/live: nobody listens"),
        ({"v1_models": {"data": []}}, "no models are listed"),
        ({"v1_models": httpx.Response(401, text="no key")}, "/v1/models: 401 no key"),
        ({"v1_models": httpx.Response(200, text="<html>")}, "/v1/models: the answer is not JSON"),
        ({"v1_embeddings": {"data": []}}, "no vector"),
        ({"v1_embeddings": {"data": [{"embedding": [0.6, 0.9]}]}}, "and not 1"),
        ({"v1_embeddings": httpx.Response(200, text=_INFINITE)}, "is inf, and not 1"),
        ({"v1_embeddings": {"data": [{"embedding": [1.0]}]}}, "1 dimensions; the listing says 2"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_1(
    other: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(service(**other)[0]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_model_is_chosen_by_name_or_because_it_embeds() -> None:
    reranker = {"id": "rank", "output_modalities": ["scores"]}
    answer, asked = service(v1_models={"data": [reranker, MODEL]})
    assert run(answer) == 0
    assert json.loads(asked[-1].content)["model"] == "mini"
    assert run(answer, "--model", "m") == 0
    assert run(answer, "--model", "other") == 1


def test_a_model_that_has_no_default_task_is_asked_for_its_first() -> None:
    answer, asked = service(v1_models={"data": [MODEL | {"tasks": ["retrieval", "code"]}]})
    assert run(answer) == 0
    assert json.loads(asked[-1].content)["task"] == "retrieval"


@pytest.mark.parametrize("words", [[], ["--url", "localhost:8000"], [*URL, "--timeout", "soon"]])
def test_words_that_are_not_understood_are_exit_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_a_key_that_no_header_can_hold_is_the_users_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POLYVEC_API_KEY", "schlüssel")
    assert run(service()[0]) == 2
