"""Who may ask and what they owe: routes without a key, quotas, ledger, prices, exports, metrics."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import datetime

from pydantic import Field, field_validator

from deployments.config._frozen import Frozen, one_of
from serving.errors import InvalidConfig
from serving.limits.guard import OnStoreError
from serving.limits.options import QuotaOptions
from serving.metering.exports.cloudevents import CloudEventsOptions
from serving.metering.exports.stripe import StripeMeter, StripeOptions
from serving.metering.meter import MeterOptions
from serving.metering.outbox import MEASURES, Measure
from serving.metering.prices import Prices
from serving.telemetry.logs import Form

__all__ = [
    "CloudEventsConfig",
    "ExportsConfig",
    "LedgerConfig",
    "LogsConfig",
    "MetricsConfig",
    "PricesConfig",
    "PublicConfig",
    "QuotasConfig",
    "StripeConfig",
    "StripeMeterConfig",
    "TracesConfig",
    "expanded",
]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# A gateway that was killed gives no place back; its requests have ended by then.
_HOLD_S = 30.0
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def expanded(text: str, key: str) -> str:
    """`text` with every `${NAME}` from the environment of the process that asks.

    So that passwords stay out of configurations. `InvalidConfig` for a name that is not set.
    """

    def value(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            raise InvalidConfig(f"{key}: the environment has no {found[1]}") from None

    return _VARIABLE.sub(value, text)


class PublicConfig(Frozen):
    """Routes that need no key though there are tenants. The probes never need one."""

    models: bool = Field(False, description="GET /v1/models and /v1/models/{id}.")
    metrics: bool = Field(False, description="GET /metrics.")
    docs: bool = Field(False, description="GET /docs and /openapi.json.")


class QuotasConfig(Frozen):
    """Where use is counted, and what holds when it cannot be: `serving.limits.options`."""

    store: str | None = Field(
        None,
        description="memory://, cluster://, redis:// or rediss://; by default what the number of "
        "gateways needs: memory:// for one, cluster:// for several.",
    )
    on_store_error: OnStoreError = Field("local", description="open, closed or local.")
    shadow: bool = Field(False, description="Count, and refuse nobody.")
    timeout_s: float = Field(0.25, gt=0, description="Seconds a request waits for the store.")
    connections: int = Field(16, ge=1, description="Connections to the store, a gateway.")

    def options(self, gateways: int, request_timeout_s: float) -> QuotaOptions:
        """What the limits room is told, for so many gateways."""
        default = "memory://" if gateways == 1 else "cluster://"
        return QuotaOptions(
            store=expanded(self.store or default, "quotas.store"),
            on_store_error=self.on_store_error,
            shadow=self.shadow,
            timeout_s=self.timeout_s,
            connections=self.connections,
            hold_s=request_timeout_s + _HOLD_S,
        )


class LedgerConfig(Frozen):
    """Where usage is written, and how: `serving.metering.meter`."""

    url: str = Field("sqlite:///", description="sqlite:///, postgresql:// or jsonl:///.")
    spool: str = Field("", description="A folder on disk; one of the machine's by default.")
    flush_s: float = Field(0.05, gt=0, description="An event is synced to disk within so long.")
    flush_events: int = Field(500, ge=1, description="So many are synced at once.")
    queue_events: int = Field(100_000, ge=1, description="Events in memory while the disk refuses.")
    batch_events: int = Field(200, ge=1, description="Events of one transaction.")
    segment_bytes: int = Field(1 << 20, ge=4096, description="Size of a file of the spool.")
    retry_s: float = Field(0.1, gt=0, description="Seconds before a write is tried again.")
    retry_max_s: float = Field(10.0, gt=0, description="The longest of such waits.")
    adopt_s: float = Field(5.0, gt=0, description="How often spools of dead gateways are sought.")

    def options(self) -> MeterOptions:
        """What the metering room is told."""
        return MeterOptions(**self.model_dump() | {"url": expanded(self.url, "ledger.url")})


class PricesConfig(Frozen):
    """What a million tokens cost. Amounts are strings, for a number would be a float."""

    currency: str = Field("USD", min_length=1, description="A code such as USD.")
    places: int = Field(6, ge=0, le=20, description="Decimals of a shown amount.")
    models: dict[str, dict[str, str]] = Field(
        description='By model id, or "*": text and image, such as {"*": {"text": "0.02"}}.'
    )

    def prices(self) -> Prices:
        """The price list; `InvalidConfig` names a wrong key."""
        return Prices.parse(self.models, self.currency, self.places)


class CloudEventsConfig(Frozen):
    """Every event as a CloudEvent over HTTP, in OpenMeter's shape."""

    url: str = Field(description="Takes the POST.")
    headers: dict[str, str] = Field(default_factory=dict, description="Such as authorization.")
    source: str = Field("polyvec", description="The events' source.")
    type: str = Field("embeddings", description="What the receiver's meters are matched by.")
    batch: int = Field(100, ge=1, description="Events of a POST.")
    timeout_s: float = Field(10, gt=0, description="Seconds that a POST may take.")

    def options(self) -> CloudEventsOptions:
        """What the export is told."""
        where = CloudEventsOptions(**self.model_dump())
        path = "exports.cloudevents"
        headers = {
            name: expanded(value, f"{path}.headers.{name}") for name, value in self.headers.items()
        }
        return replace(where, url=expanded(self.url, f"{path}.url"), headers=headers)


class StripeMeterConfig(Frozen):
    """A meter at Stripe."""

    event_name: str = Field(min_length=1, description="As Stripe has it.")
    measure: Measure = Field("tokens", description=f"One of {', '.join(MEASURES)}.")
    models: tuple[str, ...] | None = Field(None, description="Only of these models.")


class StripeConfig(Frozen):
    """Hourly sums to Stripe's meters."""

    key: str = Field(description="The secret key, best as ${NAME} from the environment.")
    meters: tuple[StripeMeterConfig, ...] = Field(description="What is sent.")
    customers: dict[str, str] = Field(description="Tenant id to Stripe customer.")
    since: datetime = Field(description="No hour that began before is sent.")
    grace_s: float = Field(300, ge=0, description="Seconds after an hour before it is sent.")
    url: str = Field("https://api.stripe.com", description="For a stand-in of Stripe.")

    def options(self) -> StripeOptions:
        """What the export is told."""
        return StripeOptions(
            key=expanded(self.key, "exports.stripe.key"),
            meters=tuple(StripeMeter(**meter.model_dump()) for meter in self.meters),
            customers=self.customers,
            since=self.since.timestamp(),
            grace_s=self.grace_s,
            url=self.url,
        )


class ExportsConfig(Frozen):
    """Where usage goes on to, from a ledger in SQL."""

    cloudevents: CloudEventsConfig | None = Field(None, description="To OpenMeter and the like.")
    stripe: StripeConfig | None = Field(None, description="To Stripe.")


class MetricsConfig(Frozen):
    """What is counted for Prometheus."""

    enabled: bool = Field(True, description="Whether anything is.")
    tenants: int = Field(100, ge=0, description="Tenants with series of their own.")


class LogsConfig(Frozen):
    """The log of every process of the service."""

    level: str = Field("INFO", description="The least level that is written.")
    form: Form = Field("auto", description="json, text, or auto: text on a terminal only.")

    @field_validator("level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        return one_of(value.upper(), _LEVELS)


class TracesConfig(Frozen):
    """OpenTelemetry traces, with the extra `otel`."""

    endpoint: str | None = Field(None, description="An OTLP receiver over HTTP; none, no traces.")
