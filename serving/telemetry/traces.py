"""Traces, by OpenTelemetry, where somebody collects them; else nothing, at no cost.

    traces.configure("http://collector:4318", "gateway")
    with traces.span("embed", {"gen_ai.request.model": "m"}, parent=traceparent) as span:
        span.set(...)

Spans nest within a task. A hop is crossed with `inject` on one side and `parent` on the other, in
W3C's traceparent. The library's own variables hold, OTEL_TRACES_SAMPLER and
OTEL_EXPORTER_OTLP_HEADERS among them. The provider is ours alone: Ray and vLLM have theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from serving.telemetry._tracer import Tracer

__all__ = ["Attributes", "Span", "configure", "embeddings", "inject", "span", "stop"]

Attributes: TypeAlias = Mapping[str, str | int | float | bool | tuple[str, ...]]
Kind: TypeAlias = Literal["internal", "server"]

# Version 00, https://www.w3.org/TR/trace-context/#traceparent-header; zeros alone are no id.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_tracer: Tracer | None = None


class Span(Protocol):
    """A piece of work under way."""

    def set(self, attributes: Attributes) -> None:
        """Say more of it."""
        ...

    def failed(self, kind: str) -> None:
        """It ends in an error of that machine code."""
        ...


class _Nothing(AbstractContextManager["_Nothing"]):
    """The span of those who collect none."""

    def __exit__(self, *error: object) -> None:
        pass

    def set(self, attributes: Attributes) -> None:
        pass

    def failed(self, kind: str) -> None:
        pass


_NOTHING = _Nothing()
_NONE: Attributes = {}


def configure(endpoint: str | None, process: str, exporter: SpanExporter | None = None) -> None:
    """Collect spans from now on: over OTLP/HTTP to `endpoint`, or by `exporter`.

    Neither: none are. `process` is what this one is in the graph. `InvalidConfig` where the extra
    `otel` is not installed.
    """
    global _tracer
    stop()
    if endpoint or exporter:
        from serving.telemetry._tracer import Tracer, over_http

        _tracer = Tracer(exporter or over_http(endpoint or ""), process)


def stop() -> None:
    """Send what is not sent yet, and collect no more. May take seconds."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.stop()


def span(
    name: str, attributes: Attributes = _NONE, parent: str = "", kind: Kind = "internal"
) -> AbstractContextManager[Span]:
    """A span for as long as the block lasts: of `parent` (a traceparent), else of the task's span.

    An error that leaves the block is its error; only its type is told. A `parent` that is not well
    formed counts as none.
    """
    if _tracer is None:
        return _NOTHING
    return _tracer.span(name, attributes, parent if _TRACEPARENT.fullmatch(parent) else "", kind)


def inject() -> str:
    """The task's span as a traceparent; "" where there is none."""
    return "" if _tracer is None else _tracer.current()


def embeddings(
    model: str, tokens: int, dimensions: int | None = None, form: str | None = None
) -> Attributes:
    """What OpenTelemetry's conventions for generative AI (1.41, development) say of a request."""
    found: dict[str, str | int | tuple[str, ...]] = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "polyvec",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": tokens,
    }
    if dimensions is not None:
        found["gen_ai.embeddings.dimension.count"] = dimensions
    if form is not None:
        found["gen_ai.request.encoding_formats"] = (form,)
    return found
