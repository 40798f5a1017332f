"""The health protocol, as a kubelet and a client's load balancing ask it."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub

from serving.api.grpc.health import Health
from serving.api.settings import ApiSettings
from serving.errors import Unavailable
from tests.services import HashEngine, StuckEngine, service, toy
from tests.serving.api.grpcs import channel

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
OURS = "embeddings.v1.EmbeddingsService"


@pytest.mark.parametrize("name", ["", "ready", OURS])
async def test_a_service_whose_models_answer_is_served(name: str) -> None:
    async with channel(service(toy())) as one:
        said = await HealthStub(one).Check(pb.HealthCheckRequest(service=name))
    assert said.status == SERVING


async def test_a_model_that_does_not_answer_makes_it_unready_and_not_dead() -> None:
    engine = HashEngine(8, Unavailable("loading"))
    async with channel(service(toy(), engine=engine)) as one:
        listed = await HealthStub(one).List(pb.HealthListRequest())
    found = {name: said.status for name, said in listed.statuses.items()}
    assert found == {"": NOT_SERVING, "ready": NOT_SERVING, OURS: NOT_SERVING, "live": SERVING}


async def test_a_check_that_takes_too_long_is_a_failed_one() -> None:
    async with channel(service(toy(), engine=StuckEngine()), ApiSettings(probe_timeout_s=0)) as one:
        said = await HealthStub(one).Check(pb.HealthCheckRequest())
    assert said.status == NOT_SERVING


async def test_an_unknown_service_is_not_found() -> None:
    async with channel(service(toy())) as one:
        with pytest.raises(grpc.aio.AioRpcError, match=OURS) as refused:
            await HealthStub(one).Check(pb.HealthCheckRequest(service="other"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_tells_every_change() -> None:
    engine = HashEngine(8)
    health = Health(service(toy(), engine=engine), timeout_s=1, look_s=0)
    watch = health.Watch(pb.HealthCheckRequest(), context=None)  # type: ignore[arg-type]
    assert (await anext(watch)).status == SERVING
    engine.error = Unavailable("gone")
    assert (await anext(watch)).status == NOT_SERVING
    engine.error = None
    assert (await anext(watch)).status == SERVING
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_watch_of_an_unknown_service_says_that_it_is_unknown() -> None:
    async with channel(service(toy())) as one:
        watch = HealthStub(one).Watch(pb.HealthCheckRequest(service="other"))
        assert (await anext(aiter(watch))).status == pb.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
