"""What a tenant may use, and how much of it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from serving.errors import Forbidden
from serving.limits.limit import Limits
from serving.tenants.tenant import LOCAL, Tenant, allow


def test_a_tenant_without_lists_may_use_everything() -> None:
    allow(LOCAL, "any", "task")
    allow(Tenant("acme"), "any", None)


def test_another_model_is_forbidden_and_the_allowed_ones_are_named() -> None:
    acme = Tenant("acme", models=frozenset({"b", "a"}))
    allow(acme, "a", "x")
    with pytest.raises(Forbidden, match="'c'; it may use a, b") as refused:
        allow(acme, "c", None)
    assert refused.value.field == "model"


def test_another_task_is_forbidden_and_the_allowed_ones_are_named() -> None:
    acme = Tenant("acme", tasks=frozenset({"retrieval.query"}))
    allow(acme, "a", "retrieval.query")
    with pytest.raises(Forbidden, match=r"'code.query'; it may use retrieval.query") as refused:
        allow(acme, "a", "code.query")
    assert refused.value.field == "task"


def test_a_model_without_tasks_is_not_bound_by_them() -> None:
    allow(Tenant("acme", tasks=frozenset({"retrieval.query"})), "a", None)


def test_a_tenant_with_an_empty_list_may_use_none() -> None:
    with pytest.raises(Forbidden, match="may use none"):
        allow(Tenant("acme", models=frozenset()), "a", None)


def test_a_tenant_crosses_a_hop_and_can_be_a_key() -> None:
    acme = replace(LOCAL, id="acme", limits=Limits(models={"a": Limits(1)}))
    assert pickle.loads(pickle.dumps(acme)) == acme
    assert {acme: 1}[acme] == 1
