"""The embedding functions of chromadb, Milvus and LanceDB, unchanged."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.clients.conftest import MODEL, SEEING, TASKED, TEXTS


def test_chroma(url: str, right: Callable[..., None]) -> None:
    functions = pytest.importorskip("chromadb.utils.embedding_functions")
    jina = functions.JinaEmbeddingFunction(
        api_key="any", model_name=TASKED, task="retrieval.passage", normalized=True
    )
    jina._api_url = f"{url}/v1/embeddings"
    right(jina(TEXTS[:3]), TEXTS[:3])
    seeing = functions.JinaEmbeddingFunction(api_key="any", model_name=SEEING)
    seeing._api_url = f"{url}/v1/embeddings"
    found = seeing([np.zeros((4, 4, 3), np.uint8), "a text"])
    assert np.shape(found) == (2, 8)
    openai = functions.OpenAIEmbeddingFunction(
        api_key="any", model_name=MODEL, api_base=f"{url}/v1"
    )
    right(openai(TEXTS[:3]), TEXTS[:3])


def test_milvus(url: str, right: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    dense = pytest.importorskip("milvus_model.dense.jinaai")
    reranker = pytest.importorskip("milvus_model.reranker.jinaai")
    monkeypatch.setattr(dense, "API_URL", f"{url}/v1/embeddings")
    monkeypatch.setattr(reranker, "API_URL", f"{url}/v1/rerank")
    function = dense.JinaEmbeddingFunction(model_name=TASKED, api_key="any")
    assert function.dim == 384
    right(function.encode_documents(TEXTS[:3]), TEXTS[:3])
    right(function.encode_queries(TEXTS[:1]), TEXTS[:1])
    rank = reranker.JinaRerankFunction(model_name=MODEL, api_key="any")
    found = rank("Where is the cat?", TEXTS[:3], top_k=2)
    assert [one.text for one in found] == [TEXTS[0], TEXTS[2]]


def test_lancedb(url: str, right: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    jina = pytest.importorskip("lancedb.embeddings.jinaai")
    monkeypatch.setattr(jina, "API_URL", f"{url}/v1/embeddings")
    monkeypatch.setenv("JINA_API_KEY", "any")
    jina.JinaEmbeddings._session = None
    texts = jina.JinaEmbeddings.create(name=MODEL)
    right(texts.compute_source_embeddings(TEXTS[:3]), TEXTS[:3])
    right(texts.compute_query_embeddings(TEXTS[0]), TEXTS[:1])
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(picture, "PNG")
    seeing = jina.JinaEmbeddings.create(name=SEEING)
    assert np.shape(seeing.compute_source_embeddings([picture.getvalue()])) == (1, 8)
