"""The models of a configuration: their names, where their files are, and how each is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, field_validator, model_validator

from deployments.config._frozen import Frozen, one_of
from serving.engines import ENGINES, AdapterOptions, DType, EngineOptions
from serving.models.catalog import Entry, find
from serving.models.families import FAMILIES
from serving.models.spec import TaskSpec

__all__ = ["AdaptersConfig", "ModelConfig", "ModelReplicas", "Replicas", "TaskConfig"]

# The engine that hands options on to the library behind it.
_TAKES_OPTIONS = "vllm"
# Of a GPU's memory, the part that an engine may have where it has the GPU for itself.
_GPU_MEMORY = 0.9


class Replicas(Frozen):
    """How many replicas of a part: Serve scales between `min` and `max`."""

    min: int = Field(1, ge=0, description="Replicas kept at all times.")
    max: int = Field(1, ge=1, description="Replicas at most.")
    max_surge_percent: int = Field(
        25,
        ge=0,
        le=100,
        description=(
            "Of them, rounded up: how many more there may be while a redeploy replaces them. "
            "With 0 a replica goes before the one that replaces it starts."
        ),
    )

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class ModelReplicas(Replicas):
    """Replicas of a model's groups, which follow their tokens: `deployments.autoscaling`.

    With `min` 0 a group sleeps when nothing is asked of it, and its first request waits.
    """

    target_latency_s: float = Field(1, gt=0, description="What interactive work may wait.")
    bulk_latency_s: float = Field(60, gt=0, description="What bulk work may wait.")
    start_s: float = Field(60, gt=0, description="What a start is thought to take at first.")
    down_delay_s: float = Field(300, gt=0, description="How long less must suffice before it is.")
    idle_s: float = Field(900, gt=0, description="How long nothing must be asked to sleep.")


class TaskConfig(Frozen):
    """A task added to those of the checkpoint: a name on the wire, a prompt prefix, a LoRA."""

    name: str = Field(min_length=1, description="The task's name on the wire.")
    prompt: str = Field("", description="Text put before every input.")
    aliases: tuple[str, ...] = Field((), description="Other names for the task.")
    adapter: str | None = Field(
        None,
        min_length=1,
        description="A LoRA in PEFT's layout: a directory, a hub id, or a URL (`s3://…`).",
    )


class AdaptersConfig(Frozen):
    """Adapters of `extra_tasks` that come and go; without this section all of them stay."""

    resident: int = Field(ge=1, description="How many a replica has at once.")
    loads_per_minute: int = Field(60, ge=1, description="How many it loads; others wait.")
    rank: int = Field(64, ge=1, description="The largest rank of them.")


class ModelConfig(Frozen):
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
    replicas: ModelReplicas = Field(
        default_factory=ModelReplicas, description="Replicas of each group."
    )
    cpus_per_replica: float = Field(1, gt=0, description="Ray CPUs, and compute threads.")
    gpus_per_replica: float | None = Field(
        None, ge=0, description="Ray GPUs; a fraction shares one. `polyvec serve` shares all out."
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="Further Ray resources; only nodes that have them serve."
    )
    max_tokens: int | None = Field(None, ge=1, description="A context below the checkpoint's.")
    dimensions: tuple[int, ...] | None = Field(
        None, description="Matryoshka sizes, where the checkpoint names none."
    )
    extra_tasks: tuple[TaskConfig, ...] = Field((), description="Tasks the checkpoint lacks.")
    adapters: AdaptersConfig | None = Field(
        None,
        description="Adapters of `extra_tasks` loaded when asked for, instead of at the start.",
    )
    batch_tokens: int | None = Field(None, ge=1, description="Tokens of a batch, padding included.")
    queue_tokens: int | None = Field(
        None, ge=1, description="Tokens that may wait in a replica; bulk fills half at most."
    )
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
        return one_of(value, ("auto", *ENGINES.names()))

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str | None) -> str | None:
        return value if value is None else one_of(value, FAMILIES.names())

    @model_validator(mode="after")
    def _has_source(self) -> ModelConfig:
        if self.source is None and find(self.id) is None:
            raise ValueError(f"{self.id!r} is not a known model, so it needs a source")
        return self

    @model_validator(mode="after")
    def _adapters_come_and_go(self) -> ModelConfig:
        if self.adapters is None:
            return self
        if not any(task.adapter for task in self.extra_tasks):
            raise ValueError("adapters is for extra_tasks with an adapter, and there are none")
        if self.placement == "per_task":
            raise ValueError("adapters that come and go need placement: shared")
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
            adapters=tuple((t.name, t.adapter) for t in self.extra_tasks if t.adapter),
            on_demand=self.adapters is not None,
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
            adapters=AdapterOptions(**self.adapters.model_dump()) if self.adapters else None,
            extra=extra,
        )
