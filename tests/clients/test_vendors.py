"""cohere, voyageai and litellm, unchanged."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.clients.conftest import MODEL, SEEING, TEXTS


def test_cohere(url: str, right: Callable[..., None]) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="any", base_url=url)
    answer = client.embed(
        model=MODEL,
        texts=TEXTS[:3],
        input_type="search_document",
        embedding_types=["float", "ubinary", "int8"],
    )
    right(answer.embeddings.float_, TEXTS[:3])
    bits = np.unpackbits(np.array(answer.embeddings.ubinary, np.uint8), axis=1)
    assert (bits == (np.array(answer.embeddings.float_) > 0)).all()
    assert np.shape(answer.embeddings.int8) == (3, 384)
    assert answer.meta.billed_units.input_tokens > 0
    ranked = client.rerank(model=MODEL, query="Where is the cat?", documents=TEXTS[:3], top_n=2)
    assert [one.index for one in ranked.results] == [0, 2]
    with pytest.raises(cohere.NotFoundError) as missing:
        client.embed(model="x", texts=["a"], input_type="search_query", embedding_types=["float"])
    assert "there is no model" in missing.value.body["message"]


def test_voyage(url: str, right: Callable[..., None]) -> None:
    voyage = pytest.importorskip("voyageai")
    client = voyage.Client(api_key="any", base_url=f"{url}/v1")
    plain = client.embed(TEXTS[:3], model=MODEL, input_type="document")
    right(plain.embeddings, TEXTS[:3])
    assert plain.total_tokens > 0
    bits = client.embed(TEXTS[:3], model=MODEL, output_dtype="ubinary").embeddings
    assert (
        np.unpackbits(np.array(bits, np.uint8), axis=1) == (np.array(plain.embeddings) > 0)
    ).all()
    numbers = client.embed(TEXTS[:3], model=MODEL, output_dtype="int8").embeddings
    assert -127 <= np.min(numbers) < 0 < np.max(numbers) <= 127
    picture = Image.new("RGB", (4, 4), "red")
    mixed = client.multimodal_embed([["red", picture], ["a text"]], model=SEEING)
    assert np.shape(mixed.embeddings) == (2, 8)
    assert mixed.image_pixels > 0 and mixed.total_tokens > mixed.text_tokens
    ranked = client.rerank("Where is the cat?", TEXTS[:3], model=MODEL, top_k=2)
    assert [one.index for one in ranked.results] == [0, 2]
    with pytest.raises(voyage.error.APIError, match="there is no model"):
        client.embed(["a"], model="x")


def test_litellm(url: str, right: Callable[..., None]) -> None:
    litellm = pytest.importorskip("litellm")
    for provider, base in (
        ("openai", f"{url}/v1"),
        ("hosted_vllm", f"{url}/v1"),
        ("jina_ai", f"{url}/v1"),
        ("voyage", f"{url}/v1/embeddings"),
        ("cohere", f"{url}/v2/embed"),
    ):
        answer = litellm.embedding(
            model=f"{provider}/{MODEL}", input=TEXTS[:3], api_base=base, api_key="any"
        )
        right([_floats(one["embedding"]) for one in answer.data], TEXTS[:3])
        assert answer.usage.total_tokens > 0
    for provider in ("jina_ai", "cohere", "hosted_vllm"):
        ranked = litellm.rerank(
            model=f"{provider}/{MODEL}",
            query="Where is the cat?",
            documents=TEXTS[:3],
            top_n=2,
            api_base=url,
            api_key="any",
        )
        assert [one["index"] for one in ranked.results] == [0, 2]


def test_litellm_async_and_images(url: str) -> None:
    litellm = pytest.importorskip("litellm")
    picture = f"data:image/png;base64,{base64.b64encode(b'x').decode()}"
    answer = asyncio.run(
        litellm.aembedding(
            model=f"jina_ai/{SEEING}", input=[picture, "a"], api_base=f"{url}/v1", api_key="any"
        )
    )
    assert np.shape([one["embedding"] for one in answer.data]) == (2, 8)


def _floats(embedding: object) -> object:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return embedding
