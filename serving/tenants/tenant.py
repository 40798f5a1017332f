"""Who is asking, and what is theirs to ask: values only, and the one question put to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from serving.errors import Forbidden
from serving.values import ServiceClass

__all__ = ["LOCAL", "RESERVED", "Names", "Plan", "Quota", "Tenant", "allow"]

Names: TypeAlias = frozenset[str]

# Ids that mean something else where tenants are counted: see `serving.telemetry.metrics`.
RESERVED = ("none", "other")


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a tenant may use: None is no limit, 0 nothing at all. Months are those of UTC."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    images_per_minute: int | None = None
    monthly_tokens: int | None = None

    def over(self, other: Quota) -> Quota:
        """The numbers of this one where it has any, and of `other` where it has none."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return Quota(**{k: getattr(other, k) if v is None else v for k, v in mine.items()})


@dataclass(frozen=True, slots=True)
class Plan:
    """A name, the numbers for all models together, and the numbers of single models.

    A number of a single model stands in the place of the general one for requests to that model;
    what a model's quota leaves out (None) stays with the general one.
    """

    name: str = ""
    quota: Quota = field(default_factory=Quota)
    models: Mapping[str, Quota] = field(default_factory=dict, hash=False)

    def quota_for(self, model: str) -> Quota:
        """The numbers that hold for a request to `model`."""
        own = self.models.get(model)
        return self.quota if own is None else own.over(self.quota)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who sent a request. `plan` has the tenant's own overrides in it already.

    `models` (public ids) and `tasks` are what may be used; None is everything. `key_id` is the id
    of the key that was shown, never the key, and empty for the local tenant.
    """

    id: str
    name: str = ""
    plan: Plan = field(default_factory=Plan)
    models: Names | None = None
    tasks: Names | None = None
    service_class: ServiceClass = "interactive"
    admin: bool = False
    key_id: str = ""


# The one tenant of a service without a tenants file, which serves the loopback only.
LOCAL = Tenant(id="local", name="Local", plan=Plan("unlimited"), admin=True)


def allow(tenant: Tenant, model: str, task: str | None) -> None:
    """Nothing, or `Forbidden` where the tenant may not use this model (its id) or this task.

    A request without a task, as for a model that has none, is not bound by the tenant's tasks.
    """
    if tenant.models is not None and model not in tenant.models:
        raise Forbidden(
            f"this API key may not use the model {model!r}; it may use {_list(tenant.models)}",
            "model",
        )
    if tenant.tasks is not None and task is not None and task not in tenant.tasks:
        raise Forbidden(
            f"this API key may not use the task {task!r}; it may use {_list(tenant.tasks)}", "task"
        )


def _list(names: Names) -> str:
    listed: Sequence[str] = sorted(names)
    return ", ".join(listed) or "none"
