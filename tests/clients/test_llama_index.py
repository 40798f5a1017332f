"""llama-index, unchanged: Jina's embeddings and reranker, OpenAI-like, and TEI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from tests.clients.conftest import MODEL, TASKED, TEXTS


def test_jina_embedding(url: str, right: Callable[..., None]) -> None:
    jina = pytest.importorskip("llama_index.embeddings.jinaai")
    embedding = jina.JinaEmbedding(api_key="any", model=TASKED, task="retrieval.passage")
    embedding._api.api_url = f"{url}/v1/embeddings"  # it has a base_url and does not use it
    right(embedding.get_text_embedding_batch(TEXTS[:3]), TEXTS[:3])
    embedding._api.api_key = "any"
    found = asyncio.run(embedding.aget_text_embedding(TEXTS[0]))
    right([found], TEXTS[:1])


@pytest.mark.parametrize("encoding", ["binary", "ubinary"])
def test_jina_embedding_in_bits(
    url: str, vectors: Callable[[list[str]], object], encoding: str
) -> None:
    jina = pytest.importorskip("llama_index.embeddings.jinaai")
    embedding = jina.JinaEmbedding(
        api_key="any", model=TASKED, task="text-matching", encoding_documents=encoding
    )
    embedding._api.api_url = f"{url}/v1/embeddings"
    found = np.array(embedding.get_text_embedding_batch(TEXTS[:3]))
    assert (found == (np.asarray(vectors(TEXTS[:3])) > 0)).mean() > 0.999  # a bit for every number


def test_jina_rerank(url: str) -> None:
    jina = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    schema = pytest.importorskip("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text)) for text in TEXTS[:3]]
    reranker = jina.JinaRerank(api_key="any", model=MODEL, top_n=2, base_url=f"{url}/v1")
    found = reranker.postprocess_nodes(nodes, query_str="Where is the cat?")
    assert [one.node.text for one in found] == [TEXTS[0], TEXTS[2]]


def test_openai_like(url: str, right: Callable[..., None]) -> None:
    like = pytest.importorskip("llama_index.embeddings.openai_like")
    embedding = like.OpenAILikeEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key="any")
    right(embedding.get_text_embedding_batch(TEXTS[:3]), TEXTS[:3])
    right([asyncio.run(embedding.aget_query_embedding(TEXTS[0]))], TEXTS[:1])


def test_text_embeddings_inference(url: str, right: Callable[..., None]) -> None:
    tei = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    embedding = tei.TextEmbeddingsInference(model_name=MODEL, base_url=url)
    right(embedding.get_text_embedding_batch(TEXTS[:3]), TEXTS[:3])
