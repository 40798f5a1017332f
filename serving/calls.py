"""One request on its way through the house: what it is from the start, and what is learnt of it.

The one noun that changes. A refusal has to be counted, and its caller told where it stands, with
whatever was known by then; so the wire makes a `Call`, the service writes into it as it goes, and
at the end the wire hands it back to be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from serving.limits.decision import Decision
from serving.tenants import Tenant
from serving.values import Job, Prepared, ServiceClass, Text, TokenIds, Usage, parts_of

__all__ = ["NOBODY", "Call", "Modality"]

Modality: TypeAlias = Literal["text", "image", "mixed"]

NOBODY = Tenant("")
"""Whose a request is until its key has been looked at."""


@dataclass(slots=True, eq=False)
class Call:
    """A request; `endpoint` is the route's own path or `grpc/Method`.

    `deadline` is a `time.monotonic()`. `service_class` is what the caller asked for; None is the
    tenant's own. `admitted` says that the quotas have charged it, `repeated` that a request with
    the same `Idempotency-Key` has been billed already.
    """

    id: str
    endpoint: str
    tenant: Tenant = NOBODY
    deadline: float = 0.0
    service_class: ServiceClass | None = None
    body: bytes = b""
    idempotency_key: str | None = None

    model: str = ""
    task: str = ""
    modality: Modality = "text"
    items: int = 0
    images: int = 0
    dimensions: int = 0
    usage: Usage = field(default_factory=Usage)
    decision: Decision | None = None
    admitted: bool = False
    repeated: bool = False

    @property
    def wanted_class(self) -> ServiceClass:
        """The caller's choice of class, else the tenant's."""
        return self.service_class or self.tenant.service_class

    def planned(self, jobs: list[Job]) -> None:
        """Note what the jobs are: the task is that of the last, which has most of the inputs."""
        self.task = jobs[-1].task or ""
        parts = (part for job in jobs for item in job.items for part in parts_of(item))
        self.modality = _modality([type(part) in (Text, TokenIds) for part in parts])

    def prepared(self, every: list[Prepared]) -> None:
        """Note what is owed."""
        self.usage = sum((one.usage for one in every), Usage())
        self.items = sum(one.vectors for one in every)
        self.images = sum(len(one.pixels) for one in every)


def _modality(texts: Sequence[bool]) -> Modality:
    return "text" if all(texts) else "mixed" if any(texts) else "image"
