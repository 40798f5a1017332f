"""What the house says of itself: metrics, all of them in one table, and the log.

telemetry = Telemetry(PrometheusBackend(), models=("all-MiniLM-L6-v2",))
requests = telemetry.series(metrics.REQUESTS)
requests.record(1, tenant.id, model, task, "/v1/embeddings", "200", "OK")
"""

from __future__ import annotations

from serving.telemetry.recording import SILENT, Backend, Record, Series, Telemetry

__all__ = ["SILENT", "Backend", "Record", "Series", "Telemetry"]
