"""Which replica groups there are, and which one answers a task. Pure: no Ray, no checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployments.config import AppConfig, ModelConfig
from serving.models.spec import ModelSpec

__all__ = [
    "ReplicaGroup",
    "cpus_needed",
    "place",
    "share_gpus",
    "takes_images",
    "wants_preprocessor",
]


@dataclass(frozen=True, slots=True)
class ReplicaGroup:
    """Replicas that are alike: one model, and one of its tasks or (None) all of them."""

    name: str
    model: ModelConfig
    task: str | None = None


def place(config: AppConfig, specs: Mapping[str, ModelSpec]) -> tuple[ReplicaGroup, ...]:
    """The groups to deploy; `specs` is by the config's model ids."""
    return tuple(group for model in config.models for group in _groups(model, specs))


def _groups(model: ModelConfig, specs: Mapping[str, ModelSpec]) -> Iterable[ReplicaGroup]:
    name = f"Replica:{model.id}"
    if model.placement == "shared":
        return (ReplicaGroup(name, model),)
    spec = specs[model.id]
    tasks = [task.name for task in spec.tasks]
    if spec.default_task is None:
        return (ReplicaGroup(name, model), *(ReplicaGroup(f"{name}:{t}", model, t) for t in tasks))
    return tuple(ReplicaGroup(f"{name}:{task}", model, task) for task in tasks)


def wants_preprocessor(config: AppConfig, specs: Mapping[str, ModelSpec]) -> bool:
    """Whether there is a Preprocessor: where it is asked for, or a model takes images."""
    return takes_images(specs) or config.preprocessor.text == "deployment"


def takes_images(specs: Mapping[str, ModelSpec]) -> bool:
    """Whether any model does."""
    return any("image" in spec.modalities for spec in specs.values())


def cpus_needed(
    config: AppConfig, groups: Iterable[ReplicaGroup], specs: Mapping[str, ModelSpec]
) -> float:
    """Ray CPUs that the parts ask for, each at its largest."""
    cpus = config.gateway.cpus * config.gateway.replicas.max
    if wants_preprocessor(config, specs):
        cpus += config.preprocessor.cpus * config.preprocessor.replicas.max
    for group in groups:
        cpus += group.model.cpus_per_replica * group.model.replicas.max
    return cpus


def share_gpus(config: AppConfig, groups: Iterable[ReplicaGroup], gpus: float) -> AppConfig:
    """A machine's GPUs shared alike by the replicas of which the config does not say how many.

    A whole one each where that suffices, else equal parts of one. The noop engine needs none.
    """
    every = list(groups)
    free = gpus - sum(group.model.gpus * group.model.replicas.max for group in every)
    takers = sum(group.model.replicas.max for group in every if _takes_a_gpu(group.model))
    if free < 1 or not takers:
        return config
    share = 1 / max(1, math.ceil(takers / math.floor(free)))
    models = tuple(
        model.model_copy(update={"gpus_per_replica": share}) if _takes_a_gpu(model) else model
        for model in config.models
    )
    return config.model_copy(update={"models": models})


def _takes_a_gpu(model: ModelConfig) -> bool:
    return model.gpus_per_replica is None and model.engine != "noop"
