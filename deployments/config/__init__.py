"""One typed, frozen object behind a Serve `args:` block; unknown keys are refused by their path.

Numbers of a rollout live here, never facts of a model: those are read from its checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from deployments.config._frozen import Frozen
from deployments.config.accounts import (
    ExportsConfig,
    LedgerConfig,
    LogsConfig,
    MetricsConfig,
    PricesConfig,
    PublicConfig,
    QuotasConfig,
    TracesConfig,
)
from deployments.config.models import ModelConfig, ModelReplicas, Replicas, TaskConfig
from deployments.config.parts import (
    BatchesConfig,
    GatewayConfig,
    LimitsConfig,
    MediaConfig,
    PreprocessorConfig,
)
from serving.complaints import complaints
from serving.errors import InvalidConfig
from serving.models.catalog import DEFAULT

__all__ = [
    "AppConfig",
    "BatchesConfig",
    "GatewayConfig",
    "LimitsConfig",
    "MediaConfig",
    "ModelConfig",
    "ModelReplicas",
    "PreprocessorConfig",
    "Replicas",
    "TaskConfig",
    "load_config",
    "parse_config",
]


class AppConfig(Frozen):
    """The whole service."""

    models: tuple[ModelConfig, ...] = Field(
        default_factory=lambda: (ModelConfig(id=DEFAULT),),
        min_length=1,
        description="The models served.",
    )
    gateway: GatewayConfig = Field(default_factory=GatewayConfig, description="The ingress.")
    preprocessor: PreprocessorConfig = Field(
        default_factory=PreprocessorConfig, description="Tokenization."
    )
    media: MediaConfig = Field(default_factory=MediaConfig, description="Images and documents.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="Bounds.")
    batches: BatchesConfig = Field(default_factory=BatchesConfig, description="Batches.")
    tenants: str | None = Field(
        None, description="A YAML file of tenants; without it one local tenant, on loopback only."
    )
    tenants_reload_s: float = Field(2, gt=0, description="How often the file is looked at.")
    public: PublicConfig = Field(default_factory=PublicConfig, description="Routes without a key.")
    quotas: QuotasConfig = Field(default_factory=QuotasConfig, description="Where use is counted.")
    ledger: LedgerConfig | None = Field(
        default_factory=LedgerConfig, description="Where usage is written; null: nowhere."
    )
    prices: PricesConfig | None = Field(None, description="What tokens cost.")
    exports: ExportsConfig = Field(
        default_factory=ExportsConfig, description="Where usage goes on."
    )
    metrics: MetricsConfig = Field(default_factory=MetricsConfig, description="For Prometheus.")
    logs: LogsConfig = Field(default_factory=LogsConfig, description="What is logged.")
    traces: TracesConfig = Field(default_factory=TracesConfig, description="OpenTelemetry.")

    @model_validator(mode="after")
    def _distinct(self) -> AppConfig:
        seen: set[str] = set()
        for model in self.models:
            entry = model.entry()
            for name in (entry.id, *entry.aliases):
                if name in seen:
                    raise ValueError(f"models: two models are called {name!r}")
                seen.add(name)
        return self

    @model_validator(mode="after")
    def _payable(self) -> AppConfig:
        if self.prices is not None:
            try:
                self.prices.prices()
            except InvalidConfig as wrong:
                raise ValueError(wrong.message) from None
        if self.ledger is None and (self.exports.cloudevents or self.exports.stripe):
            raise ValueError("exports: they need a ledger, and ledger is null")
        return self

    @property
    def takes_batches(self) -> bool:
        """Whether there are batches: gateways that share no folder would not know each other's."""
        if self.batches.enabled is None:
            return self.gateways == 1 or self.batches.folder is not None
        return self.batches.enabled

    @property
    def gateways(self) -> int:
        """Gateways at most."""
        return self.gateway.replicas.max


def parse_config(raw: object) -> AppConfig:
    """A checked config from parsed YAML; `InvalidConfig` names every wrong key by its path.

    A whole Serve config file is understood too: its first application's `args`.
    """
    if raw is None:
        raw = {}
    if isinstance(raw, dict) and "applications" in raw:
        raw = _args_of(raw)
    try:
        return AppConfig.model_validate(raw)
    except ValidationError as wrong:
        raise InvalidConfig(complaints(wrong, AppConfig, "config")) from None


def load_config(path: Path) -> tuple[AppConfig, dict[str, Any]]:
    """The config in a YAML file and, where it is a Serve config, its `http_options`.

    Among those is the `grpc_port` of its `grpc_options`, or None.

    A relative `tenants` is taken to lie beside the file.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise InvalidConfig(f"{path}: {wrong.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as wrong:
        raise InvalidConfig(f"{path} is not YAML: {str(wrong).splitlines()[0]}") from None
    http: dict[str, Any] = {}
    if isinstance(raw, dict) and "applications" in raw:
        http = dict(raw.get("http_options") or {})
        http |= {"grpc_port": (raw.get("grpc_options") or {}).get("port")}
    try:
        config = parse_config(raw)
    except InvalidConfig as wrong:
        raise InvalidConfig(f"{path}: {wrong.message}") from None
    if config.tenants is not None:  # Ray's processes work in folders of their own
        beside = (path.parent / config.tenants).resolve()
        config = config.model_copy(update={"tenants": str(beside)})
    return config, http


def _args_of(raw: dict[str, Any]) -> object:
    applications = raw["applications"]
    if not isinstance(applications, list) or len(applications) != 1:
        raise InvalidConfig("applications: a Polyvec config has exactly one application")
    if not isinstance(applications[0], dict):
        raise InvalidConfig("applications.0: must be a mapping with import_path and args")
    return applications[0].get("args") or {}
