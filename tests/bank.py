"""A whole service with tenants, quotas and a ledger in this process, and what its counters say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from serving.accounts import Accounts
from serving.engines import Engine
from serving.limits.limiter import Limiter
from serving.limits.stores.memory import MemoryStore
from serving.metering.meter import MeterOptions, open_meter
from serving.metering.questions import Question
from serving.metering.reconciling import counted
from serving.telemetry import Telemetry
from serving.telemetry.prometheus import PrometheusBackend
from serving.tenants import open_tenants
from serving.tenants.keys import Key, new_key
from tests.services import able, service, tasked, toy
from tests.tenants import bearer, entry, file_of
from tests.usage import at

__all__ = ["Bank", "billed_in"]


class Bank:
    """Two tenants with keys, a limiter, a ledger in SQLite and counters, over toy models."""

    def __init__(self, folder: Path, engine: Engine, shadow: bool, **plan: object) -> None:
        self.keys: dict[str, Key] = {name: new_key() for name in ("acme", "globex", "boss")}
        tenants: dict[str, Any] = {
            "acme": {"plan": "small", "keys": [entry(self.keys["acme"])]},
            "globex": {
                "models": ["tasked"],
                "tasks": ["separation"],
                "service_class": "bulk",
                "keys": [entry(self.keys["globex"])],
            },
            "boss": {"admin": True, "keys": [entry(self.keys["boss"])]},
        }
        file = folder / "tenants.yaml"
        file.write_text(file_of(tenants, {"small": plan}))
        self.file, self.ledger = file, f"sqlite://{folder / 'ledger.db'}"
        self.telemetry = Telemetry(PrometheusBackend())
        self.meter = open_meter(MeterOptions(self.ledger, str(folder / "spool"), flush_s=0.001))
        self.directory = open_tenants(file, telemetry=self.telemetry)
        self.accounts = Accounts(
            self.directory,
            Limiter(MemoryStore(), shadow=shadow),
            self.meter,
            telemetry=self.telemetry,
        )
        models = (toy(), tasked(), able())
        self.service = service(*models, engine=engine, accounts=self.accounts)

    def headers(self, tenant: str, **more: str) -> dict[str, str]:
        """What a client of that tenant sends."""
        return {"authorization": bearer(self.keys[tenant])} | more

    async def settled(self) -> dict[tuple[str, str, str, str], int]:
        """The ledger's count, with everything in it."""
        assert await asyncio.to_thread(self.meter.close)
        question = Question(at(0, 1), at(0, 1).replace(year=2100), ("tenant", "model", "task"))
        return counted(await asyncio.to_thread(self.meter.sink.usage, question))


def billed_in(exposition: bytes | None) -> dict[tuple[str, str, str, str], int]:
    """The counters of billed tokens; an empty task is `none` there."""
    found: dict[tuple[str, str, str, str], int] = {}
    for family in text_string_to_metric_families((exposition or b"").decode()):
        if family.name == "polyvec_billed_tokens":
            for _, labels, value, *_ in family.samples:
                task = "" if labels["task"] == "none" else labels["task"]
                name = (labels["tenant"], labels["model"], task, labels["modality"])
                found[name] = int(value)
    return {name: count for name, count in found.items() if count}
