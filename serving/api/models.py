"""What a caller may know of a model: OpenAI's, Jina's and vLLM's fields in one entry."""

from __future__ import annotations

from serving.errors import ModelNotFound
from serving.models.catalog import Catalog
from serving.models.spec import ModelSpec

__all__ = ["entry", "find", "listing"]

_ORGANISATION = "jina-ai/"


def find(catalog: Catalog, name: str) -> ModelSpec:
    """The model of that id or alias, also as `jina-ai/NAME`; `ModelNotFound` naming the models."""
    try:
        return catalog.spec(name)
    except ModelNotFound:
        if not name.startswith(_ORGANISATION):
            raise
        return catalog.spec(name.removeprefix(_ORGANISATION))


def entry(spec: ModelSpec) -> dict[str, object]:
    """One model. mteb reads `max_model_len`; Jina's and OpenRouter's clients `context_length`."""
    vision, multi = spec.vision, spec.multi
    return {
        "id": spec.id,
        "object": "model",
        "created": spec.created,
        "owned_by": "polyvec",
        "name": spec.id,
        "hugging_face_id": _hub_id(spec),
        "aliases": list(spec.aliases),
        "revision": spec.revision,
        "license": spec.licence,
        "licence": spec.licence,
        "input_modalities": list(spec.modalities),
        "output_modalities": ["rerank"] if spec.reranker else ["embeddings"],
        "context_length": spec.max_tokens,
        "max_model_len": spec.max_tokens,
        "dimensions": spec.dimensions,
        "default_dimensions": spec.default_dimensions or spec.dimensions,
        "matryoshka_dimensions": [*spec.matryoshka, spec.dimensions],
        "least_dimensions": spec.least_dimensions,
        "multivector_dimensions": multi.dimensions if multi else None,
        "sparse": spec.sparse is not None,
        "late_chunking": spec.late_chunking,
        "min_pixels": vision.min_pixels if vision else None,
        "max_pixels": vision.max_pixels if vision else None,
        "image_token_multiplier": vision.token_multiplier if vision else None,
        "tasks": [task.name for task in spec.tasks],
        "default_task": spec.default_task,
    }


def listing(catalog: Catalog) -> dict[str, object]:
    """Every model, in the catalog's order."""
    return {"object": "list", "data": [entry(spec) for spec in catalog.specs]}


def _hub_id(spec: ModelSpec) -> str | None:
    """`owner/name` where the source is one; a path or a package has none."""
    owner, slash, name = spec.source.partition("/")
    return spec.source if slash and owner not in ("", ".", "..", "~") and "/" not in name else None
