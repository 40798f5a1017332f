"""The books of a gateway as its configuration wants them, and the keeper of `cluster://`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from deployments.config import AppConfig
from deployments.config.accounts import ExportsConfig
from serving.accounts import Accounts
from serving.limits.limiter import Limiter
from serving.limits.options import open_limiter
from serving.limits.stores import Call, StoreUnavailable
from serving.limits.stores.cluster import Keeper
from serving.metering.exports import Exporter, Exports
from serving.metering.exports.cloudevents import CloudEvents
from serving.metering.exports.stripe import Stripe
from serving.metering.meter import Meter, open_meter
from serving.metering.outbox import ledger_of
from serving.telemetry import Telemetry, metrics
from serving.telemetry.observers import ExportMetrics, LedgerMetrics, QuotaMetrics
from serving.tenants import open_tenants

__all__ = ["keeper", "open_accounts"]

_NAME, _NAMESPACE = "polyvec-quotas", "polyvec"
# A gateway waits so long for the keeper to be there; without it, `on_store_error` holds.
_START_S = 30.0


def open_accounts(config: AppConfig, names: Mapping[str, str], telemetry: Telemetry) -> Accounts:
    """Tenants, limiter, ledger and exports, running; `names` has a model's id for all its names.

    `InvalidConfig` for what cannot be; stores and ledgers that are down are no obstacle.
    """
    path = Path(config.tenants) if config.tenants is not None else None
    meter = _meter(config, telemetry)
    return Accounts(
        open_tenants(path, names, config.tenants_reload_s, telemetry),
        _limiter(config, telemetry),
        meter,
        config.prices.prices() if config.prices else None,
        _exports(config.exports, meter, telemetry),
        telemetry,
    )


def _limiter(config: AppConfig, telemetry: Telemetry) -> Limiter:
    options = config.quotas.options(config.gateways, config.limits.request_timeout_s)
    call = keeper() if options.store.startswith("cluster:") else None
    took = telemetry.series(metrics.RATE_LIMIT_STORE_DURATION).bind()
    return open_limiter(options, observer=QuotaMetrics(telemetry), took=took, call=call)


def _meter(config: AppConfig, telemetry: Telemetry) -> Meter | None:
    if config.ledger is None:
        return None
    return open_meter(config.ledger.options(), LedgerMetrics(telemetry))


def _exports(config: ExportsConfig, meter: Meter | None, telemetry: Telemetry) -> Exports | None:
    if meter is None or not (config.cloudevents or config.stripe):
        return None
    ledger = ledger_of(meter.sink)
    exporters: list[Exporter] = []
    if config.cloudevents is not None:
        exporters.append(CloudEvents(ledger, config.cloudevents.options()))
    if config.stripe is not None:
        exporters.append(Stripe(ledger, config.stripe.options()))
    exports = Exports(ledger, exporters, observer=ExportMetrics(telemetry))
    exports.start()
    return exports


def keeper() -> Call:
    """How a gateway asks the one keeper of the cluster, which the first to come starts.

    It outlives gateways and is started again, empty, where it dies.
    """
    actor: Any = ray.remote(Keeper)  # Ray types actors for classes that it decorates itself
    handle = actor.options(
        name=_NAME,
        namespace=_NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
    ).remote()
    ray.wait([handle.__ray_ready__.remote()], timeout=_START_S)

    async def call(verb: str, *arguments: object) -> object:
        try:
            return await handle.call.remote(verb, *arguments)
        except RayError as error:
            reason = type(error).__name__
            raise StoreUnavailable(f"the keeper of quotas does not answer: {reason}") from None

    return call
