"""haystack's components for Jina, OpenAI and Cohere, unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clients.conftest import MODEL, SEEING, TASKED, TEXTS


def test_jina_embedders(url: str, right: Callable[..., None], tmp_path: Path) -> None:
    jina = pytest.importorskip("haystack_integrations.components.embedders.jina")
    haystack = pytest.importorskip("haystack")
    key = haystack.utils.Secret.from_token("any")
    where = {"api_key": key, "base_url": f"{url}/v1/embeddings"}
    one = jina.JinaTextEmbedder(model=MODEL, **where).run(TEXTS[0])
    right([one["embedding"]], TEXTS[:1])
    assert one["meta"]["usage"]["total_tokens"] > 0
    documents = [haystack.Document(content=text) for text in TEXTS[:3] * 20]  # two batches
    embedder = jina.JinaDocumentEmbedder(
        model=TASKED, task="retrieval.passage", progress_bar=False, **where
    )
    many = embedder.run(documents)
    right([found.embedding for found in many["documents"][:3]], TEXTS[:3])
    picture = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(picture)
    seeing = jina.JinaDocumentImageEmbedder(model=SEEING, **where)
    document = haystack.Document(content="red", meta={"file_path": str(picture)})
    assert np.shape(seeing.run([document])["documents"][0].embedding) == (8,)


def test_jina_ranker(url: str) -> None:
    jina = pytest.importorskip("haystack_integrations.components.rankers.jina")
    haystack = pytest.importorskip("haystack")
    ranker = jina.JinaRanker(
        model=MODEL, api_key=haystack.utils.Secret.from_token("any"), base_url=f"{url}/v1/rerank"
    )
    documents = [haystack.Document(content=text) for text in TEXTS[:3]]
    found = ranker.run(query="Where is the cat?", documents=documents, top_k=2)["documents"]
    assert [one.content for one in found] == [TEXTS[0], TEXTS[2]]


def test_openai_embedders(url: str, right: Callable[..., None]) -> None:
    haystack = pytest.importorskip("haystack")
    embedders = pytest.importorskip("haystack.components.embedders")
    key = haystack.utils.Secret.from_token("any")
    text = embedders.OpenAITextEmbedder(model=MODEL, api_key=key, api_base_url=f"{url}/v1")
    right([text.run(TEXTS[0])["embedding"]], TEXTS[:1])


def test_cohere_embedders(url: str, right: Callable[..., None]) -> None:
    cohere = pytest.importorskip("haystack_integrations.components.embedders.cohere")
    haystack = pytest.importorskip("haystack")
    key = haystack.utils.Secret.from_token("any")
    text = cohere.CohereTextEmbedder(model=MODEL, api_key=key, api_base_url=url)
    right([text.run(TEXTS[0])["embedding"]], TEXTS[:1])
    many = cohere.CohereDocumentEmbedder(
        model=MODEL, api_key=key, api_base_url=url, progress_bar=False
    )
    documents = [haystack.Document(content=text) for text in TEXTS[:3]]
    right([one.embedding for one in many.run(documents)["documents"]], TEXTS[:3])
