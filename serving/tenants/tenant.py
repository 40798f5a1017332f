"""Who is asking, and what is theirs to ask: values only, and the one question put to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from serving.errors import Forbidden
from serving.limits.limit import Limits
from serving.values import ServiceClass

__all__ = ["LOCAL", "RESERVED", "Names", "Tenant", "allow"]

Names: TypeAlias = frozenset[str]

# Ids that mean something else where tenants are counted: see `serving.telemetry.metrics`.
RESERVED = ("none", "other")


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who sent a request. `limits` are those of its `plan`, with the tenant's own in their place.

    `models` (public ids) and `tasks` are what may be used; None is everything. `key_id` is the id
    of the key that was shown, never the key, and empty for the local tenant.
    """

    id: str
    name: str = ""
    plan: str = ""
    limits: Limits = field(default_factory=Limits, hash=False)
    models: Names | None = None
    tasks: Names | None = None
    service_class: ServiceClass = "interactive"
    admin: bool = False
    key_id: str = ""


# The one tenant of a service without a tenants file, which serves the loopback only.
LOCAL = Tenant(id="local", name="Local", plan="unlimited", admin=True)


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
