"""The ingress: the whole of `serving` in one process, with engines a hop away or beside it."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from deployments.accounts import open_accounts
from deployments.config import AppConfig, GatewayConfig, ModelConfig
from deployments.grpc import GrpcIngress
from deployments.loopback import FRONT, bind_as_asked, refuse_open_door
from deployments.measuring import finish, node_metrics, observing, telemetry_of
from deployments.remote import RemoteEngine, RemotePreparer, SplitPreparer, TaskEngines
from serving.api.app import ApiSettings, create_app
from serving.api.batch_lines import reader
from serving.api.batches import mount_batches
from serving.api.grpc.health import Health
from serving.api.grpc.servicer import Servicer
from serving.batches.desk import Batches
from serving.coalescing import Lane
from serving.engines import Engine, open_engine
from serving.errors import Unavailable
from serving.limits.gate import Gate
from serving.media.fetching import Fetched
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.preparing import Preparer, open_preparer
from serving.service import Served, Service
from serving.telemetry import SILENT, Telemetry, metrics

__all__ = ["Engines", "Gateway", "build_service"]

# Model id → task (None: every task not named) → the group's handle.
Engines = Mapping[str, Mapping[str | None, DeploymentHandle[Any]]]

# Characters that leave together to the Preprocessor; a longer job flies alone.
_PREPARE_LANE = Lane(flights=2, capacity=16_384)
_DRAIN_POLL_S = 0.02
# A request's tasks and futures are freed by reference; Python's 700 allocations between searches
# for cycles are three requests' worth.
_GC = (50_000, 20, 50)


def build_service(
    config: AppConfig,
    engines: Engines,
    preprocessor: DeploymentHandle[Any] | None,
    telemetry: Telemetry = SILENT,
) -> Service:
    """The service of `config`; a model that `engines` lacks is loaded into this process."""
    served = {}
    for model in config.models:
        handles = engines.get(model.id)
        spec = load_spec(model.entry(), weights=handles is None)
        served[spec.id] = Served(
            spec,
            _preparer(spec, config, preprocessor, telemetry),
            _engine(spec, model, config.gateway, handles, telemetry),
        )
    limits = config.limits
    names = {
        name: one.spec.id for one in served.values() for name in (one.spec.id, *one.spec.aliases)
    }
    accounts = open_accounts(config, names, telemetry)
    return Service(served, Gate(limits.requests, limits.tokens), limits.inputs, accounts)


def _preparer(
    spec: ModelSpec,
    config: AppConfig,
    preprocessor: DeploymentHandle[Any] | None,
    telemetry: Telemetry,
) -> Preparer:
    if preprocessor is None:
        return open_preparer(spec, config.media.options(), telemetry)
    away = RemotePreparer(preprocessor, _PREPARE_LANE, telemetry=telemetry, model=spec.id)
    if config.preprocessor.text == "deployment":
        return away
    return SplitPreparer(open_preparer(spec, config.media.options(), telemetry), away)


def _engine(
    spec: ModelSpec,
    model: ModelConfig,
    gateway: GatewayConfig,
    handles: Mapping[str | None, DeploymentHandle[Any]] | None,
    telemetry: Telemetry,
) -> Engine:
    if handles is None:
        return open_engine(model.engine, spec, model.options(), telemetry)
    lane = Lane(gateway.flights, gateway.flight_tokens)
    row = 4 * spec.multi.dimensions if spec.multi else 0
    remote: dict[str | None, Engine] = {
        task: RemoteEngine(
            handle,
            lane,
            4 * spec.dimensions,
            row,
            telemetry=telemetry,
            model=spec.id,
            sleeps=model.replicas.min == 0,
            adapters=spec.loadable,
        )
        for task, handle in handles.items()
    }
    return remote[None] if set(remote) == {None} else TaskEngines(remote)


class Gateway(GrpcIngress):
    """Serve's ingress deployment. With `engines` empty it is the whole service, fused."""

    def __init__(
        self,
        config: AppConfig,
        engines: Engines,
        preprocessor: DeploymentHandle[Any] | None = None,
    ) -> None:
        bind_as_asked()
        gc.set_threshold(*_GC)
        for host in _doors():
            refuse_open_door(config, host)
        names = [model.entry().id for model in config.models]
        self._telemetry = telemetry_of("gateway", names, observing(config))
        self._service = build_service(config, engines, preprocessor, self._telemetry)
        self._telemetry.watch(self._look)
        self._fused = not engines
        limits, public = config.limits, config.public
        settings = ApiSettings(
            body_bytes=limits.body_bytes,
            body_timeout_s=limits.body_timeout_s,
            request_timeout_s=limits.request_timeout_s,
            watch_disconnects=False,  # Serve cancels the request itself,
            writes_request_id=False,  # and echoes the id
            open_models=public.models,
            open_metrics=public.metrics,
            open_docs=public.docs,
            accept_token_ids=config.gateway.accept_token_ids,
        )
        scrape = node_metrics if config.metrics.enabled else None
        self._batches = _batches(config, self._service)
        mounts = []
        if self._batches is not None:
            source = Fetched(config.media.options()) if config.media.fetch else None
            self._batches.start()
            mounts.append(
                partial(mount_batches, batches=self._batches, settings=settings, source=source)
            )
        self._app = create_app(self._service, settings, scrape, mounts)
        self._servicer = Servicer(self._service, settings)
        self._health = Health(self._service, settings.probe_timeout_s)

    def __serve_build_asgi_app__(self) -> Any:  # Starlette's ASGIApp, of any framework
        return self._app

    async def drain(self, timeout_s: float) -> bool:
        """Refuse what comes, wait for what is under way; whether all of it was answered in time."""
        self._service.stop_taking()
        try:
            async with asyncio.timeout(timeout_s):
                if self._batches is not None:
                    await self._batches.stop(timeout_s)
                while self._service.under_way:  # noqa: ASYNC110 - the last request tells nobody
                    await asyncio.sleep(_DRAIN_POLL_S)
        except TimeoutError:
            return False
        return True

    async def check_health(self) -> None:
        """Serve's probe: an engine in this process is its health; remote ones have their own."""
        if not self._fused:
            return
        reasons = await self._service.failing()
        ready = self._telemetry.series(metrics.MODEL_READY)
        for spec in self._service.catalog.specs:
            ready.record(float(spec.id not in reasons), spec.id)
        if reasons:
            raise Unavailable("; ".join(f"{name}: {why}" for name, why in reasons.items()))

    def _look(self, telemetry: Telemetry) -> None:
        telemetry.series(metrics.REQUESTS_IN_FLIGHT).record(self._service.under_way)

    async def __del__(self) -> None:
        service = getattr(self, "_service", None)
        batches = getattr(self, "_batches", None)
        if batches is not None:
            await batches.close()
        if service is not None:
            await service.close()
            await finish(self._telemetry)


def _batches(config: AppConfig, service: Service) -> Batches | None:
    if not config.takes_batches:
        return None
    options = config.batches.options(config.limits)
    return Batches(
        service, service.accounts, reader(service, config.gateway.accept_token_ids), options
    )


def _doors() -> list[str]:
    """The hosts that Serve and, where `polyvec env` says so, HAProxy listen on."""
    client = _get_global_client()
    assert client is not None  # it raises where there is none
    front = os.environ.get(FRONT)
    return [client.http_config.host or "", *([front] if front else [])]
