"""Names to models."""

from __future__ import annotations

import pytest

from serving.errors import InvalidConfig, ModelNotFound
from serving.models.catalog import DEFAULT, KNOWN, Catalog, find
from serving.models.families import FAMILIES
from serving.models.spec import ModelSpec


def spec(name: str, *aliases: str) -> ModelSpec:
    return ModelSpec(name, "f", "/", "s", dimensions=2, max_tokens=3, aliases=aliases)


A, B = spec("a", "org/a"), spec("b")


def test_a_model_is_found_by_its_id_and_by_its_aliases() -> None:
    catalog = Catalog([A, B])
    assert catalog.specs == (A, B)
    assert (catalog.spec("a"), catalog.spec("org/a"), catalog.spec("b")) == (A, A, B)


@pytest.mark.parametrize("name", ["A", "c", "", "org/b"])
def test_an_unknown_model_is_answered_with_those_there_are(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Catalog([A, B]).spec(name)
    assert caught.value.message == f"there is no model {name!r}; there are a, b"
    assert caught.value.field == "model"


@pytest.mark.parametrize("other", [spec("a"), spec("c", "a"), spec("org/a")])
def test_two_models_of_one_name_are_refused(other: ModelSpec) -> None:
    with pytest.raises(InvalidConfig, match="names both a and "):
        Catalog([A, other])


def test_the_default_is_known_under_its_full_name() -> None:
    assert find(DEFAULT) is find(f"sentence-transformers/{DEFAULT}") is KNOWN[0]
    assert find("nothing") is None


def test_no_two_known_models_share_a_name() -> None:
    names = [name for entry in KNOWN for name in (entry.id, *entry.aliases)]
    assert len(set(names)) == len(names)


PUBLISHED = {
    "jinaai/jina-embeddings-v4": ("jina_v4", "qwen-research", 40),
    "jinaai/jina-embeddings-v5-text-small": ("jina_v5_text", "cc-by-nc-4.0", 40),
    "jinaai/jina-embeddings-v5-text-nano": ("jina_v5_text", "cc-by-nc-4.0", 40),
    "jinaai/jina-embeddings-v3": ("jina_v3", "cc-by-nc-4.0", 40),
    "jinaai/jina-embeddings-v3-hf": ("jina_v3", "cc-by-nc-4.0", 0),
    "Qwen/Qwen3-Embedding-0.6B": ("qwen3_embedding", "apache-2.0", 0),
    "Qwen/Qwen3-Embedding-4B": ("qwen3_embedding", "apache-2.0", 0),
    "Qwen/Qwen3-Embedding-8B": ("qwen3_embedding", "apache-2.0", 0),
    "Qwen/Qwen3-Reranker-0.6B": ("qwen3_reranker", "apache-2.0", 0),
    "Qwen/Qwen3-Reranker-4B": ("qwen3_reranker", "apache-2.0", 0),
    "Qwen/Qwen3-Reranker-8B": ("qwen3_reranker", "apache-2.0", 0),
    "jinaai/jina-reranker-m0": ("jina_reranker_m0", "cc-by-nc-4.0", 40),
    "jinaai/jina-reranker-v3": ("jina_reranker_v3", "cc-by-nc-4.0", 40),
    "BAAI/bge-m3": ("bge_m3", "mit", 0),
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_published_model_is_known_by_its_short_name(source: str) -> None:
    entry = find(source.partition("/")[2])
    assert entry is find(source)
    assert entry is not None
    found = entry.family, entry.licence, len(entry.revision or "")
    assert (entry.source, found) == (source, PUBLISHED[source])


def test_every_known_model_has_a_licence_to_show() -> None:
    """Trap 28."""
    assert all(entry.licence for entry in KNOWN)


def test_every_family_that_is_named_is_there() -> None:
    assert {entry.family for entry in KNOWN if entry.family} <= set(FAMILIES.names())
