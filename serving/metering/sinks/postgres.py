"""postgres: another name for postgresql, which many a URL is written with."""

from __future__ import annotations

from serving.metering.sinks import UsageSink
from serving.metering.sinks.postgresql import open_sink as _open

__all__ = ["open_sink"]


def open_sink(url: str) -> UsageSink:
    """See `postgresql`."""
    return _open(url)
