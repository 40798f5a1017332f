"""What is remembered of refusals, and that it has an end. The rest is seen through a limiter."""

from __future__ import annotations

from serving.limits.decision import Charge, Outcome, Spending, decide
from serving.limits.limit import Bucket
from serving.limits.refusals import Refusals

BUCKET = Bucket("requests", 1, "requests")
ONE = (Charge(BUCKET, 1),)


def refuse(refusals: Refusals, tenant: str, wait_ms: int | None) -> None:
    spending = Spending(tenant, ONE)
    refusals.note(spending, decide(spending, 5, [Outcome(0, 60_000, wait_ms)]))


def test_a_million_tenants_are_not_remembered() -> None:
    refusals = Refusals(lambda: 0.0)
    for number in range(10_001):
        refuse(refusals, str(number), 1000)
    assert 0 < len(refusals) <= 10_000
    assert refusals.find("10000", ONE) is not None


def test_what_holds_for_long_is_asked_again_after_a_second() -> None:
    now = [100.0]
    refusals = Refusals(lambda: now[0])
    for tenant, wait_ms in [("a", None), ("b", 60_000)]:
        refuse(refusals, tenant, wait_ms)
        now[0] += 0.999
        assert refusals.find(tenant, ONE) is not None
        now[0] += 0.001
        assert refusals.find(tenant, ONE) is None
    assert len(refusals) == 0


def test_an_admission_is_not_remembered() -> None:
    refusals = Refusals(lambda: 0.0)
    refuse(refusals, "a", 0)
    assert len(refusals) == 0
