"""OpenTelemetry's SDK behind the façade of `traces`; imported only where traces are collected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes, AttributeValue

from serving import __version__
from serving.errors import InvalidConfig

__all__ = ["Tracer", "over_http"]

_PATH = "/v1/traces"
_KINDS = {"internal": trace.SpanKind.INTERNAL, "server": trace.SpanKind.SERVER}
_w3c = TraceContextTextMapPropagator()


def over_http(endpoint: str) -> SpanExporter:
    """To a collector: its address, with or without the path."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise InvalidConfig("traces need OpenTelemetry's exporter: install polyvec[otel]") from None
    base = endpoint.rstrip("/")
    return OTLPSpanExporter(base if base.endswith(_PATH) else base + _PATH)


class Tracer:
    """Spans of one process, sent in batches by a thread of the SDK's."""

    def __init__(self, exporter: SpanExporter, process: str) -> None:
        about = {"service.name": "polyvec", "service.version": __version__}
        resource = Resource.create({**about, "polyvec.process": process})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("polyvec", __version__)

    @contextmanager
    def span(self, name: str, attributes: Attributes, parent: str, kind: str) -> Iterator[_Span]:
        """See `traces.span`."""
        context = _w3c.extract({"traceparent": parent}) if parent else None
        with self._tracer.start_as_current_span(
            name,
            context,
            kind=_KINDS[kind],
            attributes=attributes,
            record_exception=False,  # its text may repeat the input
            set_status_on_exception=False,
        ) as under_way:
            one = _Span(under_way)
            try:
                yield one
            except BaseException as error:
                one.failed(str(getattr(error, "code", type(error).__name__)))
                raise

    def current(self) -> str:
        """See `traces.inject`."""
        carrier: dict[str, str] = {}
        _w3c.inject(carrier)
        return carrier.get("traceparent", "")

    def stop(self) -> None:
        """See `traces.stop`."""
        self._provider.shutdown()


class _Span:
    def __init__(self, under_way: trace.Span) -> None:
        self._under_way = under_way

    def set(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._under_way.set_attributes(attributes)

    def failed(self, kind: str) -> None:
        self._under_way.set_attribute("error.type", kind)
        self._under_way.set_status(trace.StatusCode.ERROR)
