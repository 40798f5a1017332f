"""Token ids as inputs, and the tokens of texts."""

from __future__ import annotations

import httpx
import pytest

from serving import __version__
from serving.api.app import ApiSettings
from serving.service import Service
from tests.services import MODEL, HashEngine, able, client, minilm, service
from tests.serving.api.test_bad_input import is_error

IDS = [101, 7592, 102]


@pytest.fixture
def served() -> Service:
    return service(minilm()[0], able())


async def post(served: Service, path: str, body: object, accept: bool = True) -> httpx.Response:
    async with client(served, ApiSettings(accept_token_ids=accept)) as http:
        return await http.post(path, json=body)


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/embeddings", "input"), ("/embed", "inputs"), ("/pooling", "input")]
)
async def test_they_are_taken_where_the_settings_say_so(
    served: Service, path: str, field: str
) -> None:
    by_text = (await post(served, path, {"model": MODEL, field: ["hello"]})).json()
    for value in ([IDS], IDS):
        by_ids = (await post(served, path, {"model": MODEL, field: value})).json()
        assert _vectors(by_ids) == _vectors(by_text)
    refused = await post(served, path, {"model": MODEL, field: [IDS]}, accept=False)
    assert "token ids" in str(is_error(refused, 422, "INPUT_INVALID")["detail"])


def _vectors(answer: object) -> object:
    return answer["data"] if isinstance(answer, dict) else answer


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([[]], "input.0"),
        ([IDS, ["a"]], "input.1"),
        ([IDS, [-1]], "input.1"),
        ([IDS, [2**31]], "input.1"),
        ([IDS, [True]], "input.1"),
        ([IDS, [30522]], "input.1"),
        ([IDS, "hello"], "input.0"),
        ([1, "a"], "input"),
    ],
)
async def test_what_are_no_token_ids_is_named(served: Service, value: object, field: str) -> None:
    refused = await post(served, "/v1/embeddings", {"model": MODEL, "input": value})
    problems = is_error(refused, 422, "INPUT_INVALID")["errors"]
    assert problems[0]["field"] == field  # type: ignore[index]


async def test_they_are_no_chunks_of_a_document(served: Service) -> None:
    body = {"model": "able", "input": [IDS], "late_chunking": True}
    refused = await post(served, "/v1/embeddings", body)
    assert "texts only" in str(is_error(refused, 422, "INPUT_INVALID")["detail"])


async def test_the_tokens_of_texts_are_told_and_nothing_is_embedded() -> None:
    engine = HashEngine(384)
    served = service(minilm()[0], engine=engine)
    answer = await post(served, "/tokenize", {"inputs": ["hello", ""]})
    first, second = answer.json()
    assert [(one["id"], one["text"], one["special"]) for one in first] == [
        (101, "[CLS]", True),
        (7592, "hello", False),
        (102, "[SEP]", True),
    ]
    assert len(second) == 2
    answer = await post(served, "/tokenize", {"prompt": "hello"})
    assert answer.json() == {"count": 3, "max_model_len": 256, "tokens": IDS, "token_strs": None}
    answer = await post(served, "/tokenize", {"prompt": "hello", "return_token_strs": True})
    assert answer.json()["token_strs"] == ["[CLS]", "hello", "[SEP]"]
    refused = await post(served, "/tokenize", {"prompt": "dog " * 300})
    assert "302" in str(is_error(refused, 400, "INPUT_TOKEN_LIMIT_EXCEEDED")["detail"])
    assert engine.calls == 0


async def test_what_the_first_model_is() -> None:
    async with client(service(minilm()[0])) as http:
        told = (await http.get("/info")).json()
    assert told["served_model_name"] == MODEL
    assert (told["max_input_length"], told["max_client_batch_size"]) == (256, 2048)
    assert told["model_type"] == {"embedding": {"pooling": "mean"}}
    assert told["version"] == __version__
