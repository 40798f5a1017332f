"""What `/v1/rerank` and `/v1/classify` read and write, and that both are as they are described."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel

from serving.api import classifying, reranking
from serving.api.app import ApiSettings, create_app
from serving.api.dialects.rerank import ROUTES
from serving.api.fields import Fields, ranked
from serving.api.reranking import Wanted, read_ranking
from serving.api.reranking_schemas import ClassifyRequest, RerankRequest
from serving.errors import InvalidInput
from serving.models.spec import ModelSpec, Pairwise
from serving.values import Fused, Image, Text
from tests.services import able, client, minilm, service, toy

DATA = "data:image/png;base64,AAAA"


def reranker() -> ModelSpec:
    pairwise = Pairwise("", "{query} {document}", "", instruction="relevant")
    return toy(id="Qwen3-Reranker-0.6B", dimensions=1, reranker=pairwise)


MODELS = (minilm()[0], able(aliases=("jina-embeddings-v4",)), reranker(), toy())
EXAMPLES = [
    pytest.param(route, body, id=f"{route.operation_id} {title}")
    for route in ROUTES
    for title, body in route.examples.items()
]


def read(**body: object) -> Wanted:
    known = {"model": "toy", "query": "q", "documents": ["a"]}
    return read_ranking(Fields(known | body, ranked(reranking.NAMES)), 8)


def described(name: str) -> dict[str, Any]:
    document = create_app(service(*MODELS), ApiSettings()).fastapi.openapi()
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


@pytest.mark.parametrize(("route", "body"), EXAMPLES)
async def test_an_example_is_valid_and_is_answered_as_described(route: Any, body: Any) -> None:
    jsonschema_rs.validate(described(route.request.__name__), body)
    async with client(service(*MODELS)) as http:
        answer = await http.post(route.path, json=body)
    assert answer.status_code == 200, answer.text
    jsonschema_rs.validate(described(route.response.__name__), answer.json())


@pytest.mark.parametrize(
    ("names", "request_model", "others"),
    [
        (reranking.NAMES, RerankRequest, set()),
        (classifying.NAMES, ClassifyRequest, {"classifier_id"}),
    ],
)
def test_every_name_of_every_field_is_described_and_nothing_else(
    names: dict[str, tuple[str, ...]], request_model: type[BaseModel], others: set[str]
) -> None:
    known = {name for several in names.values() for name in several}
    assert set(request_model.model_fields) == known - others


@pytest.mark.parametrize(
    ("query", "item"),
    [
        ("q", Text("q")),
        ("", Text("")),
        ({"text": "q"}, Text("q")),
        ({"image": "x"}, Image("x")),
        ({"url": "https://example.com/a.png"}, Image("https://example.com/a.png")),
        (DATA, Image(DATA)),
    ],
)
def test_a_query_is_one_text_or_one_image(query: object, item: object) -> None:
    assert read(query=query).ask.query == item


@pytest.mark.parametrize(
    "query", [["q"], {"pdf": "x"}, {"content": ["a", {"image": "x"}]}, 3, None, {}]
)
def test_any_other_query_is_refused(query: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(query=query)
    assert (caught.value.field or "").partition(".")[0] == "query"


def test_documents_are_texts_images_and_both_in_one() -> None:
    both = {"content": [{"text": "a"}, {"image": "x"}]}
    found = read(documents=["a", {"text": "b"}, {"image": "x"}, DATA, both]).ask.documents
    fused = Fused((Text("a"), Image("x")))
    assert found == (Text("a"), Text("b"), Image("x"), Image(DATA), fused)


def test_more_documents_than_fit_one_request_are_refused() -> None:
    with pytest.raises(InvalidInput, match="documents has 9 items; at most 8 fit one request"):
        read(documents=["a"] * 9)


def test_fields_of_cohere_and_voyage_are_those_of_jina() -> None:
    wanted = read(top_k="3", max_tokens_per_doc=4096, truncate=True)
    assert (wanted.ask.top_n, wanted.ask.document_tokens, wanted.ask.truncate) == (3, 4096, True)


def test_null_is_as_good_as_absent() -> None:
    names = [name for several in reranking.NAMES.values() for name in several]
    nulls = dict.fromkeys(set(names) - {"model", "query", "documents"})
    assert read(**nulls) == read()


def test_an_instruction_may_be_long() -> None:
    assert read(instruction="why " * 200).ask.instruction == "why " * 200


async def test_an_embedding_request_for_a_reranker_says_where_to_ask() -> None:
    async with client(service(*MODELS)) as http:
        body = {"model": "Qwen3-Reranker-0.6B", "input": "a"}
        answer = await http.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert "ranks documents by a query (POST /v1/rerank)" in answer.json()["detail"]


async def test_a_reranker_that_gives_no_vectors_gives_no_embeddings() -> None:
    body = {"model": "Qwen3-Reranker-0.6B", "query": "q", "documents": ["a"]}
    async with client(service(*MODELS)) as http:
        answer = await http.post("/v1/rerank", json=body | {"return_embeddings": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "return_embeddings")


async def test_scores_have_eight_decimals() -> None:
    body = {"model": "toy", "query": "q", "documents": ["a", "b", "c"]}
    async with client(service(*MODELS)) as http:
        answer = await http.post("/v1/rerank", json=body)
    scores = [one["relevance_score"] for one in answer.json()["results"]]
    assert scores == sorted(scores, reverse=True) == [round(score, 8) for score in scores]
