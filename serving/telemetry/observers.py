"""What the quotas and the ledger tell, as metrics.

The rooms lie above this one and name their observers as Protocols; these fit them.
"""

from __future__ import annotations

from serving.telemetry import metrics
from serving.telemetry.recording import Telemetry

__all__ = ["ExportMetrics", "LedgerMetrics", "QuotaMetrics"]


class QuotaMetrics:
    """A `serving.limits.observing.Observer`."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._decisions = telemetry.series(metrics.RATE_LIMIT_DECISIONS)
        self._failures = telemetry.series(metrics.RATE_LIMIT_STORE_FAILURES)
        self._up = telemetry.series(metrics.RATE_LIMIT_STORE_UP)
        self._lost = telemetry.series(metrics.RATE_LIMIT_LOST)
        self._up.record(1)

    def decided(self, tenant: str, verdict: str, bucket: str | None, by: str) -> None:
        """One more decision."""
        self._decisions.record(1, tenant, bucket or "", verdict, by)

    def store(self, up: bool, reason: str) -> None:
        """The store answers again, or has failed once more; the reason is for the log."""
        self._up.record(float(up))
        if not up:
            self._failures.record(1)

    def lost(self, tenant: str) -> None:
        """Something could not be given back."""
        self._lost.record(1)


class LedgerMetrics:
    """A `serving.metering.meter.MeterObserver`."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._events = telemetry.series(metrics.LEDGER_EVENTS)
        self._lag = telemetry.series(metrics.LEDGER_LAG)
        self._spool = telemetry.series(metrics.LEDGER_SPOOL)
        self._seconds = telemetry.series(metrics.LEDGER_WRITE_DURATION).bind()

    def counted(self, result: str, events: int) -> None:
        """What became of so many events."""
        self._events.record(events, result)

    def wrote(self, seconds: float) -> None:
        """A write took so long."""
        self._seconds(seconds)

    def standing(self, lag_s: float, spooled: int) -> None:
        """How far the ledger is behind."""
        self._lag.record(lag_s)
        self._spool.record(spooled)


class ExportMetrics:
    """A `serving.metering.exports.ExportObserver`."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._events = telemetry.series(metrics.EXPORTED_EVENTS)
        self._lag = telemetry.series(metrics.EXPORT_LAG)

    def exported(self, exporter: str, result: str, events: int) -> None:
        """So many were sent, or one try failed."""
        self._events.record(events, exporter, result)

    def behind(self, exporter: str, seconds: float) -> None:
        """How far an exporter is behind."""
        self._lag.record(seconds, exporter)
