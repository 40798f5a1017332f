"""What the dialects of reranking share: a body read into an ask, and a ranking as results.

A dialect names its fields as it likes (`Fields` maps them onto those of `NAMES`) and writes its own
body around `results`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from serving.api.fields import Fields, Refusal, refuse
from serving.api.inputs import read_inputs
from serving.api.models import find
from serving.calls import Call
from serving.models.spec import ModelSpec
from serving.ranking import SCORINGS, RankAsk, Ranking, Scoring, rank
from serving.service import Service
from serving.values import Fused, Image, Item, Pdf, Text, Usage

__all__ = ["NAMES", "Wanted", "rank_as_wanted", "read_ranking", "results", "usage_value"]

# Jina's names first; top_k is Voyage's, max_tokens_per_doc Cohere's.
NAMES = {
    "model": ("model",),
    "query": ("query",),
    "documents": ("documents",),
    "top_n": ("top_n", "top_k"),
    "return_documents": ("return_documents",),
    "return_embeddings": ("return_embeddings",),
    "truncate": ("truncation", "truncate"),
    "document_tokens": ("max_doc_length", "max_tokens_per_doc"),
    "scoring": ("scoring",),
    "instruction": ("instruction",),
    "max_pixels": ("max_pixels",),
}
# Decimals of a score, as the hosted API has them.
_DECIMALS = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """The body, read: `ask.model` is as the caller has it; what no model can do in `refusals`."""

    ask: RankAsk
    return_documents: bool = True
    refusals: tuple[Refusal, ...] = ()


def read_ranking(fields: Fields, most: int) -> Wanted:
    """The ranking that is asked for, of at most `most` documents.

    `InvalidInput` with every problem. Fields that a dialect does not have are absent.
    """
    ask = RankAsk(
        model=fields.needed_name("model"),
        query=_query(fields),
        documents=_documents(fields, most),
        top_n=fields.integer("top_n", 1),
        scoring=_scoring(fields),
        instruction=_instruction(fields),
        truncate=fields.flag("truncate", False),
        document_tokens=fields.integer("document_tokens", 1),
        max_pixels=fields.integer("max_pixels", 1),
        vectors=fields.flag("return_embeddings", False),
    )
    echo = fields.flag("return_documents", True)
    fields.check()
    return Wanted(ask, echo, tuple(fields.refusals))


async def rank_as_wanted(service: Service, call: Call, wanted: Wanted) -> tuple[ModelSpec, Ranking]:
    """The model that was meant, and its ranking. Errors are those of `rank`."""
    spec = find(service.catalog, wanted.ask.model)
    refuse(wanted.refusals, spec.id)
    return spec, await rank(service, call, replace(wanted.ask, model=spec.id))


def results(wanted: Wanted, ranking: Ranking) -> list[dict[str, object]]:
    """One object a document, the most relevant first, in Jina's words.

    A document is always an object: clients read `document.text`, whatever they sent.
    """
    found: list[dict[str, object]] = []
    for index in ranking.order:
        score = round(float(ranking.scores[index]), _DECIMALS)
        one: dict[str, object] = {"index": index, "relevance_score": score}
        if wanted.return_documents:
            one["document"] = _echo(wanted.ask.documents[index])
        if ranking.vectors is not None:
            one["embedding"] = ranking.vectors[index].tolist()
        found.append(one)
    return found


def usage_value(usage: Usage) -> dict[str, int]:
    """Tokens of all that the models read."""
    total = usage.total_tokens
    counts = {"prompt_tokens": total, "total_tokens": total}
    if usage.image_tokens:
        counts["image_tokens"] = usage.image_tokens
    return counts


def _query(fields: Fields) -> Text | Image:
    name, value = fields.first("query")
    wanted = 'must be one text or one image: a string, {"text"} or {"image"}'
    if type(value) is list:
        fields.problem(name, wanted, "input_type", value)
        return Text("")
    known = len(fields.refusals)
    items = read_inputs(fields, name, value, 1)
    if len(items) == 1 and isinstance(items[0], Text | Image):
        return items[0]
    if items and len(fields.refusals) == known:
        fields.problem(name, wanted, "input_type", value)
    return Text("")


def _documents(fields: Fields, most: int) -> tuple[Item, ...]:
    name, value = fields.first("documents")
    if value is not None and type(value) is not list:
        fields.problem(name, "must be a list of texts and images", "list_type", value)
        return ()
    items = read_inputs(fields, name, value, most)
    for index, item in enumerate(items):
        if isinstance(item, Pdf):
            message = "is a PDF, which is ranked page by page: give its pages as images"
            fields.problem(f"{name}.{index}", message, "input_type")
    return items


def _scoring(fields: Fields) -> Scoring | None:
    name, value = fields.first("scoring")
    for one in SCORINGS:
        if value == one:
            return one
    if value is not None:
        fields.problem(name, f"must be one of {', '.join(SCORINGS)}", "enum", value)
    return None


def _instruction(fields: Fields) -> str | None:
    name, value = fields.first("instruction")
    if value is None or type(value) is str:
        return value
    fields.problem(name, "must be a string", "string_type", value)
    return None


def _echo(item: Item) -> dict[str, object]:
    match item:
        case Text(text):
            return {"text": text}
        case Fused(parts):
            return {"content": [_echo(part) for part in parts]}
    return {"image": getattr(item, "source", "")}
