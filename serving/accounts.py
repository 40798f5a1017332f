"""Who may ask, what they have left, and what they owe: tenants, quotas, ledger and metrics in one.

A wire asks `identify` first, and says how a request ended with exactly one of `answered`, `failed`
and `gone`; the service asks `arrive` and `charge` in between. Tokens are one number in all
of it: those of `Call.usage`, counted where they were made.
"""

from __future__ import annotations

import asyncio
import time

from serving.calls import Call
from serving.errors import LimitExceeded, Unavailable
from serving.limits.decision import Decision
from serving.limits.limiter import Admission, Limiter
from serving.limits.refusing import decision_of
from serving.limits.stores.memory import MemoryStore
from serving.metering.events import UsageEvent, event_id
from serving.metering.exports import Exports
from serving.metering.meter import Meter
from serving.metering.prices import Prices
from serving.metering.sinks import UsageSink
from serving.telemetry import SILENT, Telemetry
from serving.telemetry.requests import Asked, RequestMetrics
from serving.tenants import Tenant, TenantDirectory, open_tenants
from serving.values import Stages, Usage

__all__ = ["Accounts"]

_NO_STAGES = Stages()


class Accounts:
    """The books of one gateway. With nothing given: one local tenant, no limits, no ledger."""

    def __init__(
        self,
        tenants: TenantDirectory | None = None,
        limiter: Limiter | None = None,
        meter: Meter | None = None,
        prices: Prices | None = None,
        exports: Exports | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._tenants = tenants or open_tenants(None)
        self._limiter = limiter or Limiter(MemoryStore())
        self._meter, self._exports = meter, exports
        self.prices, self.telemetry = prices, telemetry
        self._metrics = RequestMetrics(telemetry)

    @property
    def ledger(self) -> UsageSink | None:
        """Where usage is written, if it is."""
        return None if self._meter is None else self._meter.sink

    def identify(self, authorization: bytes | None, api_key: bytes | None = None) -> Tenant:
        """The tenant of a request, by its headers. Raises `MissingKey` or `InvalidKey`."""
        return self._tenants.identify(authorization, api_key)

    def recall(self, tenant: str, key_id: str) -> Tenant:
        """The tenant of a key that was shown before, as both are now. Raises `InvalidKey`."""
        return self._tenants.recall(tenant, key_id)

    def kept(self, since: float) -> bool:
        """Whether what was answered by then, a `time.time()`, is billed though we are killed."""
        return self._meter is None or self._meter.synced(since)

    def arrive(self, call: Call) -> None:
        """Raise the refusal that is known already, before anything is done for the call."""
        self._limiter.arrive(call.tenant.id, call.tenant.limits, call.model)

    def charge(self, call: Call) -> Admission:
        """What to enter while the call is embedded; entering raises a `LimitExceeded`."""
        tenant, tokens = call.tenant, call.usage.total_tokens
        return self._limiter.admit(tenant.id, tenant.limits, call.model, tokens, call.images)

    async def standing(self, call: Call) -> Decision | None:
        """What the call's tenant has left, for a call that was never decided on."""
        tenant = call.tenant
        try:
            return await self._limiter.standing(tenant.id, tenant.limits, call.model)
        except Unavailable:
            return None

    async def answered(
        self, call: Call, seconds: float, stages: Stages = _NO_STAGES, encode_s: float = 0.0
    ) -> None:
        """The call gets what it asked for, now; what it owes is counted and written down."""
        if call.idempotency_key is not None and call.admitted:
            call.repeated = not await self._first(call)
        asked = _asked(call)
        self._metrics.answered(asked, seconds)
        if not call.admitted:  # it had nothing to embed
            return
        self._metrics.staged(call.model, stages, encode_s)
        if not call.repeated:
            self._metrics.billed(asked, call.usage, call.items)
        self._record(call, _event_id(call), 200, call.usage, seconds)

    def failed(self, call: Call, error: Exception, seconds: float) -> None:
        """The call was answered with an error. It owes nothing; a failure of ours is on record."""
        if isinstance(error, LimitExceeded):
            call.decision = decision_of(error)
        self._metrics.failed(_asked(call), error, seconds)
        if call.admitted:
            identifier = event_id(call.id, call.tenant.id, call.endpoint)
            status = int(getattr(error, "status", 500))
            self._record(call, identifier, status, Usage(), seconds)

    def gone(self, call: Call, seconds: float) -> None:
        """The caller hung up before the answer. It owes nothing."""
        self._metrics.gone(_asked(call), seconds)

    def problems(self) -> dict[str, str]:
        """What is wrong though requests are answered, by part; empty when nothing is."""
        problem = self._tenants.state().problem
        return {"tenants": problem} if problem else {}

    async def close(self) -> None:
        """Bring what is owed into the ledger, within its time, and let go of everything."""
        await self._limiter.close()
        for part in (self._exports, self._meter, self._tenants):
            if part is not None:
                await asyncio.to_thread(part.close)

    async def _first(self, call: Call) -> bool:
        try:
            return await self._limiter.claim(call.tenant.id, _event_id(call))
        except Unavailable:  # the ledger knows a repeat all the same
            return True

    def _record(
        self, call: Call, identifier: str, status: int, usage: Usage, seconds: float
    ) -> None:
        if self._meter is None:
            return
        self._meter.record(
            UsageEvent(
                id=identifier,
                tenant=call.tenant.id,
                key_id=call.tenant.key_id,
                model=call.model,
                task=call.task,
                modality=call.modality,
                text_tokens=usage.text_tokens,
                image_tokens=usage.image_tokens,
                items=call.items,
                dimensions=call.dimensions,
                status=status,
                duration_s=seconds,
                time=time.time(),
            )
        )


def _asked(call: Call) -> Asked:
    return Asked(call.endpoint, call.tenant.id, call.model, call.task, call.wanted_class)


def _event_id(call: Call) -> str:
    tenant, key = call.tenant.id, call.idempotency_key
    return event_id(call.id, tenant, call.endpoint, key, call.body if key else b"")
