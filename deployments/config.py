"""One typed, frozen object behind a Serve `args:` block; unknown keys are refused by their path.

Numbers of a rollout live here, never facts of a model: those are read from its checkpoint.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serving.engines import ENGINES, DType, EngineOptions
from serving.errors import InvalidConfig
from serving.media import MediaOptions
from serving.models.catalog import DEFAULT, Entry, find
from serving.models.families import FAMILIES
from serving.models.spec import TaskSpec

__all__ = [
    "AppConfig",
    "GatewayConfig",
    "LimitsConfig",
    "MediaConfig",
    "ModelConfig",
    "PreprocessorConfig",
    "Replicas",
    "TaskConfig",
    "load_config",
    "parse_config",
]


# The engine that hands options on to the library behind it.
_TAKES_OPTIONS = "vllm"
# Of a GPU's memory, the part that an engine may have where it has the GPU for itself.
_GPU_MEMORY = 0.9


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Replicas(_Frozen):
    """How many replicas of a part: Serve scales between `min` and `max` on queued tokens."""

    min: int = Field(1, ge=0, description="Replicas kept at all times.")
    max: int = Field(1, ge=1, description="Replicas at most.")

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class TaskConfig(_Frozen):
    """A task added to those of the checkpoint: a name on the wire and a prompt prefix."""

    name: str = Field(min_length=1, description="The task's name on the wire.")
    prompt: str = Field("", description="Text put before every input.")
    aliases: tuple[str, ...] = Field((), description="Other names for the task.")


class ModelConfig(_Frozen):
    """One model: its public names, where its files are, and how it is run."""

    id: str = Field(min_length=1, description="The public id; a known id needs no source.")
    aliases: tuple[str, ...] = Field((), description="Other names a request may use.")
    family: str | None = Field(None, description="A file in serving/models/families; recognised.")
    source: str | None = Field(
        None, description="A directory, a hub id, or package:NAME; known ids have one."
    )
    revision: str | None = Field(None, description="A hub revision, best a commit, to pin.")
    licence: str | None = Field(None, description="Shown in /v1/models; read from the checkpoint.")
    engine: str = Field("auto", description="auto, or a file in serving/engines.")
    dtype: DType = Field("auto", description="auto is bfloat16 where the hardware multiplies it.")
    placement: Literal["shared", "per_task"] = Field(
        "shared", description="One group of replicas for all tasks, or one for each."
    )
    replicas: Replicas = Field(default_factory=Replicas, description="Replicas of each group.")
    cpus_per_replica: float = Field(1, gt=0, description="Ray CPUs, and compute threads.")
    gpus_per_replica: float | None = Field(
        None, ge=0, description="Ray GPUs; a fraction shares one. `polyvec serve` shares all out."
    )
    max_tokens: int | None = Field(None, ge=1, description="A context below the checkpoint's.")
    dimensions: tuple[int, ...] | None = Field(
        None, description="Matryoshka sizes, where the checkpoint names none."
    )
    extra_tasks: tuple[TaskConfig, ...] = Field((), description="Tasks the checkpoint lacks.")
    batch_tokens: int | None = Field(None, ge=1, description="Tokens of a batch, padding included.")
    queue_tokens: int | None = Field(None, ge=1, description="Tokens that may wait in a replica.")
    max_pixels: int | None = Field(None, ge=1, description="Larger images are made smaller.")
    image_token_multiplier: int | None = Field(
        None, ge=1, description="Tokens charged for one of an image's; the checkpoint's is 1."
    )
    engine_options: dict[str, object] = Field(
        default_factory=dict, description="Options of vLLM's own, by its names."
    )

    @field_validator("engine")
    @classmethod
    def _known_engine(cls, value: str) -> str:
        return _one_of(value, ("auto", *ENGINES.names()))

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str | None) -> str | None:
        return value if value is None else _one_of(value, FAMILIES.names())

    @model_validator(mode="after")
    def _has_source(self) -> ModelConfig:
        if self.source is None and find(self.id) is None:
            raise ValueError(f"{self.id!r} is not a known model, so it needs a source")
        return self

    @model_validator(mode="after")
    def _options_are_taken(self) -> ModelConfig:
        if self.engine_options and self.engine != _TAKES_OPTIONS:
            raise ValueError(
                f"engine {self.engine} takes no engine_options; engine {_TAKES_OPTIONS} does"
            )
        return self

    def entry(self) -> Entry:
        """What the models room is asked for: the catalog's entry, and what was said here."""
        known = find(self.id)
        base = known or Entry(id=self.id, source=self.source or self.id)
        if self.source is not None:  # what is known of the files is only of the known source's
            base = replace(base, revision=None, family=None)
        tasks = tuple(TaskSpec(t.name, t.prompt, t.aliases) for t in self.extra_tasks)
        return Entry(
            id=base.id if known and self.source is None else self.id,
            source=self.source or base.source,
            aliases=tuple(dict.fromkeys((*self.aliases, *base.aliases))),
            family=self.family or base.family,
            revision=self.revision or base.revision,
            licence=self.licence or base.licence,
            max_tokens=self.max_tokens or base.max_tokens,
            matryoshka=self.dimensions if self.dimensions is not None else base.matryoshka,
            extra_tasks=(*base.extra_tasks, *tasks),
            max_pixels=self.max_pixels or base.max_pixels,
            image_token_multiplier=self.image_token_multiplier or base.image_token_multiplier,
        )

    @property
    def gpus(self) -> float:
        """Ray GPUs of a replica; none where none are said."""
        return self.gpus_per_replica or 0.0

    def options(self) -> EngineOptions:
        """What the engine is told; vLLM on a part of a GPU has that part of its memory."""
        extra = dict(self.engine_options)
        if self.engine in ("auto", _TAKES_OPTIONS) and 0 < self.gpus < 1:
            extra.setdefault("gpu_memory_utilization", _GPU_MEMORY * self.gpus)
        return EngineOptions(
            dtype=self.dtype,
            batch_tokens=self.batch_tokens,
            queue_tokens=self.queue_tokens,
            threads=max(1, int(self.cpus_per_replica)),
            extra=extra,
        )


class GatewayConfig(_Frozen):
    """The ingress: authenticates, plans, tokenizes short text, answers."""

    replicas: Replicas = Field(default_factory=Replicas, description="Gateway replicas.")
    cpus: float = Field(1, gt=0, description="Ray CPUs of a gateway.")
    flights: int = Field(1, ge=1, description="Coalesced calls under way to one group at a time.")
    flight_tokens: int = Field(
        1024, ge=1, description="Tokens that leave together; a larger job flies alone."
    )


class PreprocessorConfig(_Frozen):
    """Where texts are tokenized, and how many do it; images are always a hop away."""

    text: Literal["gateway", "deployment"] = Field(
        "gateway", description="In the gateway's process, or a hop away."
    )
    replicas: Replicas = Field(default_factory=Replicas, description="Preprocessor replicas.")
    cpus: float = Field(1, gt=0, description="Ray CPUs of a preprocessor.")


class MediaConfig(_Frozen):
    """What images and documents may come in, and how they are decoded: `serving.media`."""

    image_bytes: int = Field(8 * 2**20, ge=1, description="Bytes of an encoded image.")
    pdf_bytes: int = Field(8 * 2**20, ge=1, description="Bytes of a PDF.")
    pixels: int = Field(200_000_000, ge=1, description="Pixels of a decoded image; more is a bomb.")
    pages: int = Field(100, ge=1, description="Pages of a PDF.")
    page_dpi: int = Field(144, ge=1, description="Dots an inch at which a page is rendered.")
    fetch: bool = Field(False, description="Whether images may be given by their address.")
    allow: tuple[str, ...] = Field(
        (), description="Networks and host names that may be fetched though they are not global."
    )
    timeout_s: float = Field(8, gt=0, description="Seconds that a fetch may take.")
    connect_timeout_s: float = Field(3, gt=0, description="Seconds of them for a connection.")
    redirects: int = Field(3, ge=0, description="Redirects that a fetch follows.")
    fast: bool = Field(False, description="Let the JPEG decoder shrink, which changes vectors.")
    threads: int = Field(2, ge=1, description="Images decoded at a time in a process.")

    def options(self) -> MediaOptions:
        """What the media room is told."""
        return MediaOptions(**self.model_dump())


class LimitsConfig(_Frozen):
    """Bounds of one gateway: beyond them a request is refused at once."""

    body_bytes: int = Field(32 * 2**20, ge=1024, description="Bytes of a request body.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a body may take to arrive.")
    request_timeout_s: float = Field(60, gt=0, description="Seconds a request may take.")
    inputs: int = Field(2048, ge=1, description="Inputs of one request.")
    requests: int = Field(1024, ge=1, description="Requests under way.")
    tokens: int = Field(2**20, ge=1, description="Tokens under way.")


class AppConfig(_Frozen):
    """The whole service. `tenants` and `ledger` are reserved: null until those rooms are built."""

    models: tuple[ModelConfig, ...] = Field(
        default_factory=lambda: (ModelConfig(id=DEFAULT),),
        min_length=1,
        description="The models served.",
    )
    gateway: GatewayConfig = Field(default_factory=GatewayConfig, description="The ingress.")
    preprocessor: PreprocessorConfig = Field(
        default_factory=PreprocessorConfig, description="Tokenization."
    )
    media: MediaConfig = Field(default_factory=MediaConfig, description="Images and documents.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="Bounds.")
    tenants: None = Field(None, description="Reserved: one local tenant, loopback only.")
    ledger: None = Field(None, description="Reserved: usage is in the responses.")

    @model_validator(mode="after")
    def _distinct(self) -> AppConfig:
        seen: set[str] = set()
        for model in self.models:
            entry = model.entry()
            for name in (entry.id, *entry.aliases):
                if name in seen:
                    raise ValueError(f"models: two models are called {name!r}")
                seen.add(name)
        return self


def _one_of(value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    return value


def parse_config(raw: object) -> AppConfig:
    """A checked config from parsed YAML; `InvalidConfig` names every wrong key by its path.

    A whole Serve config file is understood too: its first application's `args`.
    """
    if raw is None:
        raw = {}
    if isinstance(raw, dict) and "applications" in raw:
        raw = _args_of(raw)
    try:
        return AppConfig.model_validate(raw)
    except ValidationError as wrong:
        raise InvalidConfig("; ".join(_sentence(e) for e in wrong.errors())) from None


def load_config(path: Path) -> tuple[AppConfig, dict[str, Any]]:
    """The config in a YAML file and, where it is a Serve config, its `http_options`."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise InvalidConfig(f"{path}: {wrong.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as wrong:
        raise InvalidConfig(f"{path} is not YAML: {str(wrong).splitlines()[0]}") from None
    http = raw.get("http_options") if isinstance(raw, dict) and "applications" in raw else None
    try:
        return parse_config(raw), dict(http or {})
    except InvalidConfig as wrong:
        raise InvalidConfig(f"{path}: {wrong.message}") from None


def _args_of(raw: dict[str, Any]) -> object:
    applications = raw["applications"]
    if not isinstance(applications, list) or len(applications) != 1:
        raise InvalidConfig("applications: a Polyvec config has exactly one application")
    if not isinstance(applications[0], dict):
        raise InvalidConfig("applications.0: must be a mapping with import_path and args")
    return applications[0].get("args") or {}


def _sentence(error: Any) -> str:  # pydantic's ErrorDetails
    path = ".".join(str(part) for part in error["loc"]) or "config"
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{_meant(error['loc'])}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower() + message[1:]}"


def _meant(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = AppConfig
    for part in location[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            if inner is None:
                return ""
            model = inner
    close = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; the keys are {', '.join(model.model_fields)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:  # a type as Python spells it
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model_in(a))), None)
