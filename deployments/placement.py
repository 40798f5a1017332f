"""Which replica groups there are, and which one answers a task. Pure: no Ray, no checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployments.config import AppConfig, ModelConfig
from serving.models.spec import ModelSpec

__all__ = ["ReplicaGroup", "cpus_needed", "place"]


@dataclass(frozen=True, slots=True)
class ReplicaGroup:
    """Replicas that are alike: one model, and one of its tasks or (None) all of them."""

    name: str
    model: ModelConfig
    task: str | None = None


def place(config: AppConfig, specs: Mapping[str, ModelSpec]) -> tuple[ReplicaGroup, ...]:
    """The groups to deploy; `specs` by model id is asked only for models placed `per_task`."""
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


def cpus_needed(config: AppConfig, groups: Iterable[ReplicaGroup]) -> float:
    """Ray CPUs that the parts ask for, each at its largest."""
    cpus = config.gateway.cpus * config.gateway.replicas.max
    if config.preprocessor.text == "deployment":
        cpus += config.preprocessor.cpus * config.preprocessor.replicas.max
    for group in groups:
        cpus += group.model.cpus_per_replica * group.model.replicas.max
    return cpus
