"""The metrics of a tenants file, read from the directory's state at every poll."""

from __future__ import annotations

from serving.telemetry import Telemetry, metrics
from serving.tenants.directory import TenantDirectory, TenantsState

__all__ = ["observe"]


def observe(directory: TenantDirectory, telemetry: Telemetry) -> None:
    """Let `telemetry` say how the file stands: whether it is good, how often it was read."""
    told = TenantsState()

    def look(telemetry: Telemetry) -> None:
        nonlocal told
        state = directory.state()
        telemetry.series(metrics.TENANTS_FILE_OK).record(float(state.problem is None))
        telemetry.series(metrics.TENANTS_FILE_LOADED).record(state.loaded_at)
        telemetry.series(metrics.TENANTS_KNOWN).record(state.tenants)
        telemetry.series(metrics.TENANTS_KEYS).record(state.keys)
        loads = telemetry.series(metrics.TENANTS_FILE_LOADS)
        loads.record(state.loads - told.loads, "loaded")
        loads.record(state.failures - told.failures, "refused")
        told = state

    telemetry.watch(look)
