"""The tenants file: what may stand in it, checked strictly, and what it says of each key.

plans:
  free: {requests_per_minute: 60, tokens_per_minute: 100000, concurrent_requests: 2,
         images_per_minute: 30, monthly_tokens: 10000000,
         models: {jina-embeddings-v4: {tokens_per_minute: 20000}}}
tenants:
  acme:
    name: Acme Ltd
    plan: free
    limits: {requests_per_minute: 120}      # in the place of the plan's; null lifts it
    models: [jina-embeddings-v4]            # left out: every model
    tasks: [retrieval.query]                # left out: every task
    keys:
      - {id: 4fGh8Kq2Lm, hash: hs256$…, expires: 2027-01-01T00:00:00Z}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from serving.complaints import complaints
from serving.errors import InvalidConfig
from serving.limits.limit import LARGEST, Limits
from serving.tenants.keys import is_hash
from serving.tenants.tenant import RESERVED, Names, Tenant
from serving.values import ServiceClass

__all__ = ["KeyEntry", "TenantEntry", "TenantsFile", "parse_tenants", "read_yaml"]

_TENANT_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_KEY_ID = r"^[0-9A-Za-z]{4,32}$"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def _moment(value: object) -> object:
    """A point in time of YAML: without a zone it is UTC, and a date is its first moment."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


_Moment = Annotated[datetime, BeforeValidator(_moment)]
# 0 is nothing at all.
_Count = Annotated[int, Field(ge=0, le=LARGEST)]


class _Numbers(_Strict):
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    concurrent_requests: _Count | None = None
    images_per_minute: _Count | None = None
    monthly_tokens: _Count | None = None

    def given(self) -> dict[str, int | None]:
        """The numbers that were written, a null among them."""
        return {k: getattr(self, k) for k in self.model_fields_set if k in _Numbers.model_fields}


class _PlanEntry(_Numbers):
    models: dict[str, _Numbers] = Field(default_factory=dict)


class KeyEntry(_Strict):
    """A key's hash, and when it counts: from `not_before` up to `expires`, unless `disabled`."""

    id: str = Field(pattern=_KEY_ID)
    hash: str
    name: str = ""
    created: _Moment | None = None
    not_before: _Moment | None = None
    expires: _Moment | None = None
    disabled: bool = False

    @model_validator(mode="after")
    def _sound(self) -> KeyEntry:
        if not is_hash(self.hash):
            raise ValueError("hash is not one that polyvec keys new makes")
        if self.not_before and self.expires and self.not_before >= self.expires:
            raise ValueError("expires is not after not_before")
        return self


class TenantEntry(_Strict):
    """One tenant as the file has it; an empty plan is one without limits."""

    name: str = ""
    plan: str = ""
    limits: _PlanEntry = Field(default_factory=_PlanEntry)
    models: list[str] | None = None
    tasks: list[str] | None = None
    service_class: ServiceClass = "interactive"
    admin: bool = False
    disabled: bool = False
    keys: list[KeyEntry] = Field(default_factory=list)


class TenantsFile(_Strict):
    """The whole file. At least one tenant, so that a file cut short locks nobody out."""

    plans: dict[str, _PlanEntry] = Field(default_factory=dict)
    tenants: dict[str, TenantEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> TenantsFile:
        seen: dict[str, str] = {}
        for name, tenant in self.tenants.items():
            if re.fullmatch(_TENANT_ID, name) is None or name in RESERVED:
                raise ValueError(
                    f"tenants.{name}: an id has up to 63 of a-z, 0-9, dot, dash and underscore, "
                    f"and is not {' or '.join(RESERVED)}"
                )
            if tenant.plan and tenant.plan not in self.plans:
                choices = ", ".join(self.plans) or "none"
                raise ValueError(
                    f"tenants.{name}.plan: no plan {tenant.plan!r}; the plans are {choices}"
                )
            for key in tenant.keys:
                if key.id in seen:
                    raise ValueError(
                        f"tenants.{name}.keys: {seen[key.id]} has a key {key.id} already"
                    )
                seen[key.id] = name
        return self

    def tenant(self, name: str, key_id: str, names: Mapping[str, str]) -> Tenant:
        """The value of a tenant; `names` gives a served model's id for any of its names."""
        entry = self.tenants[name]
        return Tenant(
            id=name,
            name=entry.name or name,
            plan=entry.plan,
            limits=self._limits(entry, names),
            models=None if entry.models is None else _named(entry.models, names),
            tasks=None if entry.tasks is None else frozenset(entry.tasks),
            service_class=entry.service_class,
            admin=entry.admin,
            key_id=key_id,
        )

    def _limits(self, entry: TenantEntry, names: Mapping[str, str]) -> Limits:
        plan = self.plans.get(entry.plan, _PlanEntry())
        models: dict[str, dict[str, Any]] = {}  # keywords of `Limits`
        for source in (plan, entry.limits):
            for model, numbers in source.models.items():
                models.setdefault(names.get(model, model), {}).update(numbers.given())
        own = {model: Limits(**numbers) for model, numbers in models.items()}
        shared: dict[str, Any] = plan.given() | entry.limits.given()
        return Limits(**shared, models=own)


def _named(models: list[str], names: Mapping[str, str]) -> Names:
    return frozenset(names.get(model, model) for model in models)


class _Loader(yaml.CSafeLoader):
    """Safe YAML in which a mapping has every key once: a second one would hide the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    twice = f"{key.value!r} stands twice"
                    raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> object:
    """What a YAML text says; `InvalidConfig` where it is none or says a key twice."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as wrong:
        place = f" (line {wrong.problem_mark.line + 1})" if wrong.problem_mark else ""
        raise InvalidConfig(f"not YAML: {wrong.problem}{place}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as wrong:
        raise InvalidConfig(f"not YAML: {str(wrong).splitlines()[0]}") from None


def parse_tenants(text: str) -> TenantsFile:
    """The checked file; `InvalidConfig` names every wrong key by its path, never a key's hash."""
    raw = read_yaml(text)
    if not isinstance(raw, dict):
        found = "is empty" if raw is None else "is not"
        raise InvalidConfig(f"a tenants file is a mapping of plans and tenants; this one {found}")
    try:
        return TenantsFile.model_validate(raw)
    except ValidationError as wrong:
        raise InvalidConfig(complaints(wrong, TenantsFile)) from None
