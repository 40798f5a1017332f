"""Every dialect's parser: any JSON is answered or refused by name, and shared paths are shared."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.api.dialects import routes
from serving.api.routes import Route, grouped
from serving.service import Service
from tests.services import able, client, service, toy

POSTS = [route for route in routes() if route.method == "POST"]
NAMES = sorted(
    {name for route in POSTS if route.request for name in route.request.model_fields}
    | {"content", "text", "image", "image_url", "role", "type", "url", "group"}
)
JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**64 - 1)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text()
    | some.sampled_from(["able", "toy", "float", "base64", "data:image/png;base64,AAAA"]),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(some.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)


def ask(served: Service, path: str, body: dict[str, object]) -> httpx.Response:
    return asyncio.run(client(served).post(path, content=orjson.dumps(body)))


@pytest.mark.parametrize("route", POSTS, ids=lambda route: route.operation_id)
def test_any_json_is_answered_or_refused_as_described(route: Route) -> None:
    http = client(service(able(), toy()))
    assert route.request is not None
    known = sorted(route.request.model_fields)
    whole = [{**example, "model": "able"} for example in route.examples.values()]

    @settings(derandomize=True, database=None, deadline=None, max_examples=60)
    @given(
        some.sampled_from(whole or [{"model": "able"}]),
        some.dictionaries(some.sampled_from(known), JSON, max_size=4),
        some.sets(some.sampled_from(known), max_size=1),
    )
    def holds(example: dict[str, object], changed: dict[str, object], without: set[str]) -> None:
        body = {name: one for name, one in (example | changed).items() if name not in without}
        answer = asyncio.run(http.post(route.path, content=orjson.dumps(body)))
        assert answer.status_code in (200, 400, 404, 422), answer.text
        assert len(answer.content) < 10_000 or answer.status_code == 200
        if answer.status_code != 200:
            problem = answer.json()
            assert problem["detail"] and problem["code"].startswith("INPUT_")
            assert ("errors" in problem) == (answer.status_code == 422)

    holds()


def test_of_a_path_exactly_one_dialect_takes_what_nobody_claims() -> None:
    one = POSTS[0]
    claiming = replace(one, claims=lambda body: "mine" in body)
    assert grouped([one, claiming])[one.method, one.path] == [claiming, one]
    for wrong in ([one, one], [claiming]):
        with pytest.raises(ValueError, match=one.operation_id):
            grouped(wrong)


@pytest.mark.parametrize(
    ("path", "body", "keys"),
    [
        ("/v1/embeddings", {"input": "a"}, {"object", "model", "data", "usage"}),
        (
            "/v1/embeddings",
            {"input": "a", "output_dtype": None},
            {"object", "model", "data", "usage"},
        ),
        ("/v1/embeddings", {"messages": [{"content": "a"}]}, {"object", "model", "data", "usage"}),
        ("/rerank", {"query": "a", "documents": ["b"]}, {"id", "model", "usage", "results"}),
        ("/rerank", {"query": "a", "texts": ["b"]}, {"index", "score"}),
        ("/", {"query": "a", "texts": ["b"]}, {"index", "score"}),
        ("/tokenize", {"prompt": "a"}, {"count", "max_model_len", "tokens", "token_strs"}),
        ("/tokenize", {"inputs": "a"}, {"id", "text", "special", "start", "stop"}),
    ],
)
def test_a_shared_path_answers_in_the_dialect_of_the_body(
    path: str, body: dict[str, object], keys: set[str]
) -> None:
    found = ask(service(able()), path, {"model": "able"} | body).json()
    while isinstance(found, list):
        found = found[0]
    assert set(found) == keys


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v2/embed", {"texts": ["a"], "output_dimension": 5}, "output_dimension"),
        ("/v2/embed", {"texts": ["a"], "output_dimension": "x"}, "output_dimension"),
        ("/v2/embed", {"texts": ["a"], "input_type": "x"}, "input_type"),
        ("/v2/embed", {"texts": ["a"], "truncate": "START"}, "truncate"),
        ("/v2/embed", {"texts": "a"}, "texts"),
        ("/v2/embed", {"texts": ["a"], "images": ["b"]}, "texts"),
        ("/v2/embed", {}, "texts"),
        ("/v2/embed", {"texts": ["a", 5]}, "texts.1"),
        ("/v2/embed", {"images": ["a"]}, "images.0"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["x"]}, "embedding_types"),
        ("/v1/embeddings", {"input": "a", "output_dtype": "x"}, "output_dtype"),
        (
            "/v1/embeddings",
            {"input": "a", "output_dtype": None, "output_dimension": 5},
            "output_dimension",
        ),
        ("/v1/multimodalembeddings", {"inputs": [{"content": []}]}, "inputs.0.content"),
        (
            "/v1/multimodalembeddings",
            {"inputs": [{"content": [{"video_url": "x"}]}]},
            "inputs.0.content.0.video_url",
        ),
        ("/embed", {}, "inputs"),
        ("/embed", {"inputs": ["a", 5]}, "inputs.1"),
        ("/embed", {"inputs": "a", "prompt_name": "x"}, "prompt_name"),
        ("/embed", {"inputs": "a", "truncation_direction": "left"}, "truncation_direction"),
        ("/embed_all", {"inputs": "a"}, "model"),
        ("/embed_sparse", {"inputs": "a"}, "model"),
        ("/rerank", {"query": "a", "texts": "b"}, "texts"),
        ("/rerank", {"query": "a", "texts": ["b", {"image": "x"}]}, "texts.1"),
        ("/tokenize", {"inputs": "a", "add_special_tokens": False}, "add_special_tokens"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/pooling", {"messages": [{"content": 5}]}, "messages.0.content.0"),
        ("/pooling", {"input": "a", "task": "classify"}, "task"),
        ("/score", {"queries": ["a", "b"], "documents": ["c"]}, "queries"),
        ("/score", {"text_1": "a", "text_2": 5}, "text_2"),
        (
            "/score",
            {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 3},
            "truncate_prompt_tokens",
        ),
    ],
)
def test_an_error_has_the_dialects_own_name_of_the_field(
    path: str, body: dict[str, object], field: str
) -> None:
    answer = ask(service(toy()), path, {"model": "toy"} | body)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["param"] == field, answer.text
