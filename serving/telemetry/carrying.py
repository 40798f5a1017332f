"""Whose request it is, in a shape that crosses a hop: for the log and the trace beyond it."""

from __future__ import annotations

from typing import TypeAlias

from serving.telemetry import logs, traces

__all__ = ["Carrier", "carried", "taken_up"]

Carrier: TypeAlias = tuple[str, str, str]
"""The request's id, its tenant's, and the span under way as W3C's traceparent; "" where unknown."""


def carried() -> Carrier | None:
    """Of the task that asks; None where it is of no request."""
    request, tenant = logs.named()
    trace = traces.inject()
    return (request, tenant, trace) if request or trace else None


def taken_up(carrier: Carrier | None) -> str:
    """Log for that request from here to the end of this task; its traceparent."""
    if carrier is None:
        return ""
    request, tenant, trace = carrier
    logs.name(request, tenant)
    return trace
