"""The tenants file: what is read out of it, and how it is refused."""

from __future__ import annotations

from itertools import count

import pytest

from serving.errors import InvalidConfig
from serving.limits.limit import LARGEST, Limits
from serving.tenants.keys import hash_key, new_key
from serving.tenants.schema import parse_tenants
from tests.tenants import entry, file_of, moment

PLANS = {
    "free": {
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "models": {"big": {"tokens_per_minute": 100}},
    }
}


def test_the_smallest_file_is_one_tenant_with_one_key() -> None:
    key = new_key()
    tenant = parse_tenants(file_of({"acme": {"keys": [entry(key)]}})).tenant("acme", key.id, {})
    assert (tenant.id, tenant.name, tenant.key_id) == ("acme", "acme", key.id)
    assert tenant.models is None and tenant.tasks is None and not tenant.admin
    assert tenant.limits == Limits()


def test_everything_that_is_said_of_a_tenant_arrives() -> None:
    said = {
        "name": "Acme Ltd",
        "plan": "free",
        "models": ["a", "b"],
        "tasks": ["retrieval.query"],
        "service_class": "bulk",
        "admin": True,
    }
    tenant = parse_tenants(file_of({"acme": said}, PLANS)).tenant("acme", "", {})
    assert (tenant.name, tenant.service_class, tenant.admin) == ("Acme Ltd", "bulk", True)
    assert tenant.models == {"a", "b"} and tenant.tasks == {"retrieval.query"}
    assert tenant.plan == "free"
    big = {"big": Limits(tokens_per_minute=100)}
    assert tenant.limits == Limits(60, 1000, models=big)


def test_a_tenants_limits_go_before_its_plans_and_a_null_lifts_one() -> None:
    limits = {
        "requests_per_minute": None,
        "images_per_minute": 5,
        "models": {"big": {"requests_per_minute": 1}, "other": {"monthly_tokens": 7}},
    }
    file = parse_tenants(file_of({"acme": {"plan": "free", "limits": limits}}, PLANS))
    models = {"big": Limits(1, 100), "other": Limits(monthly_tokens=7)}
    wanted = Limits(tokens_per_minute=1000, images_per_minute=5, models=models)
    assert file.tenant("acme", "", {}).limits == wanted


def test_a_model_may_go_by_any_of_its_names() -> None:
    limits = {"models": {"alias": {"monthly_tokens": 7}}}
    file = parse_tenants(file_of({"acme": {"models": ["alias", "unserved"], "limits": limits}}))
    tenant = file.tenant("acme", "", {"alias": "real", "real": "real"})
    assert tenant.models == {"real", "unserved"}
    assert tenant.limits.models == {"real": Limits(monthly_tokens=7)}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2027-01-01", "2027-01-01T00:00:00Z"),
        ("2027-01-01T12:00:00", "2027-01-01T12:00:00Z"),
        ("2027-01-01T12:00:00+02:00", "2027-01-01T10:00:00Z"),
        ('"2027-01-01T12:00:00Z"', "2027-01-01T12:00:00Z"),
    ],
)
def test_a_moment_without_a_zone_is_in_utc(written: str, meant: str) -> None:
    key = new_key()
    text = f"tenants: {{a: {{keys: [{{id: {key.id}, hash: '{hash_key(key.text)}', "
    [found] = parse_tenants(f"{text}expires: {written}}}]}}}}").tenants["a"].keys
    assert found.expires == moment(meant)


KEY = entry(new_key())
BACKWARDS = {"not_before": "2027-01-01", "expires": "2026-01-01"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this one is empty"),
        ("[]", "is a mapping"),
        ("tenants: {}", "tenants: dictionary should have at least 1 item"),
        ("plans: {}", "tenants: field required"),
        ("tenants:\n{a: [\n}", r"not YAML: .* \(line 3\)"),
        ("tenants: {a: {}, a: {}}", "'a' stands twice"),
        ("tenants: {a: {expires: 2026-13-45}}", "not YAML: month must be in 1..12"),
        ("tenants: {a: {}}\n? [b]\n: 1", "not YAML: found unhashable key"),
        ("tenant: {a: {}}", "tenant: unknown key; did you mean tenants?"),
        (file_of({"a": "x"}), "tenants.a: should be a mapping; the keys are name, plan,"),
        (
            file_of({"a": {"keys": ["x"]}}),
            "tenants.a.keys.0: should be a mapping; the keys are id,",
        ),
        ("[a]", "a tenants file is a mapping of plans and tenants; this one is not"),
        (file_of({"a": {"plann": "x"}}), "tenants.a.plann: unknown key; did you mean plan?"),
        (file_of({"keys": {"plann": "x"}}), "tenants.keys.plann: unknown key; did you mean plan?"),
        (
            file_of({"a": {"keys": [{**KEY, "expire": "x"}]}}),
            "tenants.a.keys.0.expire: unknown key; did you mean expires?",
        ),
        (
            file_of({"a": {"limits": {"models": {"m": {"rpm": 1}}}}}),
            "tenants.a.limits.models.m.rpm: unknown key; the keys are requests_per_minute",
        ),
        (file_of({"a": {}}, {"free": {"burst": 1}}), "plans.free.burst: unknown key"),
        (file_of({"a": {"plan": "gold"}}, PLANS), "tenants.a.plan: no plan 'gold'; .* are free"),
        (file_of({"a": {}}, {"p": {"tokens_per_minute": "60"}}), "plans.p.tokens_per_minute"),
        (file_of({"a": {}}, {"p": {"tokens_per_minute": -1}}), "plans.p.tokens_per_minute"),
        (file_of({"a": {}}, {"p": {"monthly_tokens": 10**12}}), "plans.p.monthly_tokens"),
        (file_of({"a": {"admin": "yes"}}), "tenants.a.admin"),
        (file_of({"a": {"service_class": "slow"}}), "tenants.a.service_class"),
        (file_of({"Acme Ltd": {}}), "tenants.Acme Ltd: an id has"),
        (file_of({"other": {}}), "tenants.other: an id has"),
        ("tenants: {1: {}}", "tenants.1"),
        (
            file_of({"a": {"keys": [KEY]}, "b": {"keys": [KEY]}}),
            "tenants.b.keys: a has a key .* already",
        ),
        (file_of({"a": {"keys": [{"id": "aaaaaaaaaa", "hash": "x"}]}}), "keys.0: hash is not one"),
        (
            file_of({"a": {"keys": [{**KEY, **BACKWARDS}]}}),
            "tenants.a.keys.0: expires is not after not_before",
        ),
    ],
    ids=count(),  # the same in every process of the tests, though keys are drawn anew
)
def test_a_wrong_file_is_refused_by_the_path_of_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        parse_tenants(text)


def test_a_refusal_shows_no_hash() -> None:
    key = new_key()
    wrong = hash_key(key.text) + "0"
    with pytest.raises(InvalidConfig) as refused:
        parse_tenants(file_of({"a": {"keys": [{"id": key.id, "hash": wrong, "name": 5}]}}))
    assert wrong[40:] not in str(refused.value)


def test_the_largest_number_is_the_one_that_the_limits_take() -> None:
    for number in (0, LARGEST):
        parse_tenants(file_of({"a": {}}, {"p": {"monthly_tokens": number}}))
    with pytest.raises(InvalidConfig):
        parse_tenants(file_of({"a": {}}, {"p": {"monthly_tokens": LARGEST + 1}}))
