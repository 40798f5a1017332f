"""Every RPC over a real channel: what it answers, and that it is what HTTP answers."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.api.settings import ApiSettings
from serving.protos import embeddings_pb2 as pb
from serving.protos.embeddings_pb2_grpc import EmbeddingsServiceStub
from serving.service import Service
from tests.services import MODEL, able, client, minilm, service, tasked, toy
from tests.serving.api.grpcs import channel, details, embed, inputs, stub, trailers, vectors


@pytest.fixture
def served() -> Service:
    """The default model, one with tasks, a toy and one that does all."""
    return service(minilm()[0], tasked(), toy(aliases=("org/toy",)), able())


@pytest.fixture
async def rpc(served: Service) -> AsyncIterator[EmbeddingsServiceStub]:
    async with stub(served) as one:
        yield one


@pytest.fixture
async def http(served: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with client(served) as one:
        yield one


async def test_vectors_and_usage_are_those_of_http(
    rpc: EmbeddingsServiceStub, http: httpx.AsyncClient
) -> None:
    body = {"model": MODEL, "input": ["a cat", ""], "embedding_type": "base64"}
    over_http = (await http.post("/v1/embeddings", json=body)).json()
    answer = await rpc.Embed(embed("a cat", "", model=MODEL))
    packed = [one.vectors[0].packed for one in answer.data]
    assert packed == [base64.b64decode(one["embedding"]) for one in over_http["data"]]
    assert answer.usage.total_tokens == over_http["usage"]["total_tokens"] == 6
    assert [one.index for one in answer.data] == [0, 1]
    assert answer.model == over_http["model"]


async def test_every_number_type_is_packed_as_http_counts_it(
    rpc: EmbeddingsServiceStub, http: httpx.AsyncClient
) -> None:
    kinds = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}
    body = {"model": "toy", "input": "a", "embedding_type": [*kinds]}
    [over_http] = (await http.post("/v1/embeddings", json=body)).json()["data"]
    [one] = (await rpc.Embed(embed("a", embedding_types=[*kinds]))).data
    assert [vector.type for vector in one.vectors] == [*kinds]
    for vector in one.vectors:
        assert vector.dimensions == 8
        numbers = np.frombuffer(vector.packed, kinds[vector.type])
        np.testing.assert_allclose(numbers, over_http["embedding"][vector.type], rtol=1e-6)


async def test_floats_come_as_numbers_where_those_are_asked_for(
    rpc: EmbeddingsServiceStub,
) -> None:
    packed = vectors(await rpc.Embed(embed("a")))
    [one] = (await rpc.Embed(embed("a", float_values=True))).data
    np.testing.assert_array_equal(np.array(one.vectors[0].values, np.float32), packed[0])
    assert not one.vectors[0].packed


async def test_a_long_answer_is_whole_and_in_order(rpc: EmbeddingsServiceStub) -> None:
    texts = [f"text {number}" for number in range(600)]
    answer = await rpc.Embed(embed(*texts, model=MODEL))
    alone = await rpc.Embed(embed(texts[-1], model=MODEL))
    np.testing.assert_array_equal(vectors(answer)[-1], vectors(alone)[0])
    assert vectors(answer).shape == (600, 384)


async def test_tasks_roles_and_sizes_are_asked_for_by_name(rpc: EmbeddingsServiceStub) -> None:
    by_task = await rpc.Embed(embed("a", model="tasked", task="retrieval.query", dimensions=2))
    by_role = await rpc.Embed(embed("a", model="tasked", input_type="query", dimensions=2))
    passage = await rpc.Embed(embed("a", model="tasked", dimensions=2))
    assert vectors(by_task).shape == (1, 2)
    assert by_task.data == by_role.data
    assert by_task.usage.total_tokens == by_role.usage.total_tokens == passage.usage.total_tokens


async def test_multi_vectors_tokens_and_sparse_weights_are_given(
    rpc: EmbeddingsServiceStub,
) -> None:
    wanted = {"return_multivector": True, "return_tokenized_input": True, "return_sparse": True}
    answer = await rpc.Embed(embed("ab", "", model="able", **wanted))
    [one, other] = [embedding.multi_vectors[0] for embedding in answer.data]
    assert (one.num_vectors, other.num_vectors, one.dimensions) == (4, 2, 3)
    assert len(one.packed) == 4 * 4 * 3
    assert list(one.tokens) == ["\x01", "a", "b", "\x02"]
    assert not answer.data[0].vectors
    sparse = answer.data[0].sparse_vector
    assert list(sparse.ids) == [1, 2, ord("a"), ord("b")]
    np.testing.assert_allclose(sparse.weights, [1 / (1 + token) for token in sparse.ids])


async def test_a_vector_comes_beside_a_multi_vector_where_it_is_asked_for(
    rpc: EmbeddingsServiceStub,
) -> None:
    wanted = {"return_multivector": True, "return_dense": True}
    [one] = (await rpc.Embed(embed("ab", model="able", **wanted))).data
    assert len(one.vectors) == len(one.multi_vectors) == 1


async def test_images_documents_and_fused_parts_are_inputs(rpc: EmbeddingsServiceStub) -> None:
    image = pb.Image(data=b"not looked at here")
    fused = pb.Fused(parts=[pb.Part(text="a"), pb.Part(image=image)])
    request = pb.EmbedRequest(model="able", inputs=[pb.Input(image=image), pb.Input(fused=fused)])
    answer = await rpc.Embed(request)
    assert answer.usage.image_tokens == 6
    assert answer.usage.total_tokens == answer.usage.text_tokens + 6
    pdf = pb.EmbedRequest(model="able", inputs=[pb.Input(pdf=pb.Pdf(url="https://x/y.pdf"))])
    assert [page.index for page in (await rpc.Embed(pdf)).data] == [0, 1]


async def test_texts_fused_alone_are_one_text(rpc: EmbeddingsServiceStub) -> None:
    fused = pb.Fused(parts=[pb.Part(text="a"), pb.Part(text="b")])
    answer = await rpc.Embed(pb.EmbedRequest(model="toy", inputs=[pb.Input(fused=fused)]))
    assert answer.data == (await rpc.Embed(embed("a\nb"))).data


async def test_token_ids_are_taken_where_the_server_is_told_to(served: Service) -> None:
    ids = pb.Input(token_ids=pb.TokenIds(ids=[101, 1037, 4937, 102]))
    async with stub(served, ApiSettings(accept_token_ids=True)) as rpc:
        by_ids = await rpc.Embed(pb.EmbedRequest(model=MODEL, inputs=[ids]))
        by_text = await rpc.Embed(embed("a cat", model=MODEL))
        assert by_ids.data == by_text.data and by_ids.usage == by_text.usage
        empty = pb.EmbedRequest(model=MODEL, inputs=[pb.Input(token_ids=pb.TokenIds())])
        with pytest.raises(grpc.aio.AioRpcError, match="at least one"):
            await rpc.Embed(empty)


async def test_everything_wrong_with_a_request_is_told_at_once(
    rpc: EmbeddingsServiceStub,
) -> None:
    wrong = [
        pb.Input(),
        pb.Input(token_ids=pb.TokenIds(ids=[1, 2])),
        pb.Input(image=pb.Image()),
        pb.Input(fused=pb.Fused(parts=[pb.Part()])),
        pb.Input(fused=pb.Fused()),
    ]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rpc.Embed(pb.EmbedRequest(model="able", inputs=wrong))
    told = details(refused.value)["BadRequest"]
    assert [one.field for one in told.field_violations] == [
        "inputs.0",
        "inputs.1.token_ids",
        "inputs.2.image",
        "inputs.3.fused.parts.0",
        "inputs.4.fused.parts",
    ]
    assert "token ids" in told.field_violations[1].description


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (embed(model="toy"), "inputs"),
        (embed(*["a"] * 2049), "inputs"),
        (embed("a", embedding_types=["float", "base64"]), "options.embedding_types.1"),
        (embed("a", dimensions=3), "dimensions"),
        (embed("a", task="nothing", model="tasked"), "task"),
        (embed("a", max_pixels=1), "max_pixels"),
        (embed("a", return_multivector=True), "return_multivector"),
        (embed("word " * 400, model=MODEL), "inputs"),
    ],
)
async def test_a_request_that_cannot_be_served_names_the_field(
    rpc: EmbeddingsServiceStub, request_: pb.EmbedRequest, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rpc.Embed(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = details(refused.value)["BadRequest"].field_violations
    assert violation.field == field


async def test_tokens_are_counted_as_they_would_be_billed(rpc: EmbeddingsServiceStub) -> None:
    counted = await rpc.CountTokens(pb.CountTokensRequest(model=MODEL, inputs=inputs("a cat", "")))
    billed = await rpc.Embed(embed("a cat", "", model=MODEL))
    assert counted.usage == billed.usage
    assert counted.usage.total_tokens == 6


async def test_models_are_what_http_says_of_them(
    rpc: EmbeddingsServiceStub, http: httpx.AsyncClient
) -> None:
    over_http = {one["id"]: one for one in (await http.get("/v1/models")).json()["data"]}
    models = {one.id: one for one in (await rpc.ListModels(pb.ListModelsRequest())).models}
    assert list(models) == list(over_http)
    for name, model in models.items():
        said = over_http[name]
        assert model.max_input_tokens == said["max_model_len"]
        assert list(model.matryoshka_dimensions) == said["matryoshka_dimensions"]
        assert list(model.tasks) == said["tasks"]
        assert (model.default_task or None) == said["default_task"]
        assert list(model.input_modalities) == said["input_modalities"]
        assert (model.multivector_dimensions or None) == said["multivector_dimensions"]
        assert model.created.seconds == said["created"]
    found = await rpc.GetModel(pb.GetModelRequest(model="jina-ai/org/toy"))
    assert found.model == models["toy"]


async def test_documents_are_ranked_as_over_http(rpc: EmbeddingsServiceStub) -> None:
    documents = inputs("a kitten naps", "interest rates rose", "the cat sleeps")
    request = pb.RerankRequest(model=MODEL, query=pb.Input(text="a kitten naps"), top_n=2)
    request.documents.extend(documents)
    request.return_documents = request.return_embeddings = True
    answer = await rpc.Rerank(request)
    assert len(answer.results) == 2
    best = answer.results[0]
    assert best.index == 0 and best.relevance_score == pytest.approx(1, abs=1e-6)
    assert best.document == documents[0]
    assert len(best.embedding.packed) == 4 * 384
    [embedded] = (await rpc.Embed(embed("a kitten naps", model=MODEL))).data
    np.testing.assert_allclose(
        np.frombuffer(best.embedding.packed, "<f4"),
        np.frombuffer(embedded.vectors[0].packed, "<f4"),
        atol=1e-6,
    )
    together = inputs("a kitten naps", *(one.text for one in documents))
    counted = await rpc.CountTokens(pb.CountTokensRequest(model=MODEL, inputs=together))
    assert answer.usage == counted.usage


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "documents"),
        ({"documents": inputs("a"), "scoring": "best"}, "scoring"),
        ({"documents": inputs("a"), "scoring": "maxsim"}, "scoring"),
        ({"documents": inputs("a"), "top_n": 0}, "top_n"),
        ({"documents": inputs("a"), "instruction": "x"}, "instruction"),
        ({"documents": [pb.Input()]}, "documents.0"),
    ],
)
async def test_a_ranking_that_cannot_be_made_names_the_field(
    rpc: EmbeddingsServiceStub, wanted: dict[str, object], field: str
) -> None:
    request = pb.RerankRequest(model="toy", query=pb.Input(text="a"), **wanted)  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rpc.Rerank(request)
    [violation] = details(refused.value)["BadRequest"].field_violations
    assert violation.field == field


async def test_a_query_is_a_text_or_an_image(rpc: EmbeddingsServiceStub) -> None:
    query = pb.Input(pdf=pb.Pdf(url="https://x/y.pdf"))
    with pytest.raises(grpc.aio.AioRpcError, match="query must be a text or an image"):
        await rpc.Rerank(pb.RerankRequest(model="toy", query=query, documents=inputs("a")))


async def test_inputs_are_classified_by_labels(rpc: EmbeddingsServiceStub) -> None:
    labels = ["weather", "a kitten naps"]
    answer = await rpc.Classify(
        pb.ClassifyRequest(model=MODEL, inputs=inputs("a kitten naps"), labels=labels)
    )
    [one] = answer.data
    assert one.prediction == "a kitten naps"
    assert [score.label for score in one.predictions] == labels
    assert sum(score.score for score in one.predictions) == pytest.approx(1)
    assert one.score == max(score.score for score in one.predictions)
    assert answer.usage.total_tokens > 0


def group(name: str, *labels: str) -> pb.LabelGroup:
    return pb.LabelGroup(name=name, labels=labels)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "labels must have 1 to 512 labels"),
        ({"labels": [""]}, "labels must be a list of labels"),
        ({"labels": map(str, range(513))}, "labels must have 1 to 512 labels"),
        ({"labels": ["x", "x"]}, "labels must not have a label twice"),
        ({"groups": [group("a")]}, "groups.a must have 1 to 64 labels"),
        ({"groups": [group(str(n), "x") for n in range(9)]}, "groups must have 1 to 8 groups"),
        ({"groups": [group("a", "x"), group("a", "y")]}, "groups must not have a name twice"),
        ({"groups": [group("a", "x")], "labels": ["x"]}, "cannot be given beside labels"),
    ],
)
async def test_labels_are_some_and_each_is_there_once(
    rpc: EmbeddingsServiceStub, asked: dict[str, Any], said: str
) -> None:
    request = pb.ClassifyRequest(model="toy", inputs=inputs("a"), **asked)
    with pytest.raises(grpc.aio.AioRpcError, match=said) as error:
        await rpc.Classify(request)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_pdf_is_not_classified(rpc: EmbeddingsServiceStub) -> None:
    pdf = pb.Input(pdf=pb.Pdf(url="https://x/y.pdf"))
    with pytest.raises(grpc.aio.AioRpcError, match="is a PDF; give a text"):
        await rpc.Classify(
            pb.ClassifyRequest(model="toy", inputs=[*inputs("a"), pdf], labels=["x"])
        )


async def test_the_callers_request_id_comes_back(rpc: EmbeddingsServiceStub) -> None:
    call = rpc.Embed(embed("a"), metadata=[("x-request-id", "mine-1")])
    assert (await call).request_id == "mine-1"
    assert trailers(await call.trailing_metadata())["x-request-id"] == "mine-1"


async def test_a_message_beyond_the_bounds_is_refused(served: Service) -> None:
    async with stub(served, ApiSettings(body_bytes=1000)) as rpc:
        with pytest.raises(grpc.aio.AioRpcError, match="1000 bytes") as refused:
            await rpc.Embed(embed("a" * 2000))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc.Embed(embed("a" * 100_000))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await rpc.Embed(embed("a"))).usage.total_tokens == 3


async def test_the_services_are_found_by_reflection(served: Service) -> None:
    async with channel(served) as one:
        mirror = reflection_pb2_grpc.ServerReflectionStub(one)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = [said async for said in mirror.ServerReflectionInfo(iter([asked]))]
    names = {one.name for one in answer.list_services_response.service}
    assert {"embeddings.v1.EmbeddingsService", "grpc.health.v1.Health"} <= names
