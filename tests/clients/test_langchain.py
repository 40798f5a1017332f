"""langchain-community's Jina classes, unchanged: texts, images, reranking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clients.conftest import MODEL, SEEING, TEXTS


def test_jina_embeddings(
    url: str, right: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jina = pytest.importorskip("langchain_community.embeddings.jina")
    monkeypatch.setattr(jina, "JINA_API_URL", f"{url}/v1/embeddings")
    texts = jina.JinaEmbeddings(jina_api_key="any", model_name=MODEL)
    right(texts.embed_documents(TEXTS))
    right([texts.embed_query(TEXTS[0])], TEXTS[:1])
    picture = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(picture)
    images = jina.JinaEmbeddings(jina_api_key="any", model_name=SEEING)
    found = images.embed_images([str(picture), "https://example.com/a.png"])
    assert np.shape(found) == (2, 8)
    with pytest.raises(RuntimeError, match="there is no model"):
        jina.JinaEmbeddings(jina_api_key="any", model_name="x").embed_query("a")


def test_jina_rerank(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jina = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    monkeypatch.setattr(jina, "JINA_API_URL", f"{url}/v1/rerank")
    reranker = jina.JinaRerank(jina_api_key="any", model=MODEL)
    found = reranker.rerank(TEXTS[:3], "Where is the cat?", top_n=2)
    assert [one["index"] for one in found] == [0, 2]
    assert found[0]["relevance_score"] > found[1]["relevance_score"]
