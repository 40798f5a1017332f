"""Spans by OpenTelemetry's SDK: what they say, whose children they are, and where they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from serving.errors import Overloaded
from serving.telemetry import logs, traces
from serving.telemetry.carrying import carried, taken_up

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """What was exported, once `traces.stop` has been called."""
    exporter = InMemorySpanExporter()
    traces.configure(None, "test", exporter)
    yield exporter
    traces.stop()


def parents(exporter: InMemorySpanExporter) -> dict[str, str | None]:
    """Every span's parent, by their names."""
    spans = exporter.get_finished_spans()
    names = {one.context.span_id: one.name for one in spans if one.context}
    return {one.name: names[one.parent.span_id] if one.parent else None for one in spans}


def test_a_span_of_a_caller_is_the_child_of_the_callers(exporter: InMemorySpanExporter) -> None:
    with traces.span("POST /v1/embeddings", parent=TRACEPARENT, kind="server") as span:
        span.set(traces.embeddings("m", 12, 256, "base64"))
    traces.stop()
    [found] = exporter.get_finished_spans()
    assert found.context is not None and found.parent is not None
    assert f"{found.context.trace_id:032x}" == TRACE
    assert f"{found.parent.span_id:016x}" == PARENT
    assert found.kind is SpanKind.SERVER
    assert dict(found.attributes or {}) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "polyvec",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.embeddings.dimension.count": 256,
        "gen_ai.request.encoding_formats": ("base64",),
    }
    assert found.resource.attributes["service.name"] == "polyvec"
    assert found.resource.attributes["polyvec.process"] == "test"


def test_what_is_injected_here_is_the_parent_there(exporter: InMemorySpanExporter) -> None:
    with traces.span("here"):
        crossing = traces.inject()
    assert traces.inject() == ""
    with traces.span("there", parent=crossing), traces.span("inner"):
        pass
    traces.stop()
    assert parents(exporter) == {"here": None, "there": "here", "inner": "there"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"{TRACEPARENT}-more",
    ],
)
def test_a_bad_traceparent_begins_a_trace_of_its_own(
    exporter: InMemorySpanExporter, header: str
) -> None:
    with traces.span("alone", parent=header):
        pass
    traces.stop()
    assert exporter.get_finished_spans()[0].parent is None


def test_a_caller_that_does_not_sample_is_followed(exporter: InMemorySpanExporter) -> None:
    with traces.span("unsampled", parent=f"00-{TRACE}-{PARENT}-00"):
        assert traces.inject().startswith(f"00-{TRACE}-")
    traces.stop()
    assert exporter.get_finished_spans() == ()


def test_an_error_is_told_by_its_code_alone(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(Overloaded), traces.span("refused"):
        raise Overloaded("a secret input", 1.0)
    traces.stop()
    [found] = exporter.get_finished_spans()
    assert found.status.status_code is StatusCode.ERROR
    assert found.attributes is not None and found.attributes["error.type"] == Overloaded.code
    assert "secret" not in found.to_json()


async def test_spans_of_two_tasks_do_not_mix(exporter: InMemorySpanExporter) -> None:
    async def work(name: str) -> None:
        with traces.span(name):
            await asyncio.sleep(0)
            with traces.span(f"inside {name}"):
                await asyncio.sleep(0)

    await asyncio.gather(work("a"), work("b"))
    traces.stop()
    assert parents(exporter) == {"a": None, "inside a": "a", "b": None, "inside b": "b"}


def test_nothing_is_collected_where_nobody_asks() -> None:
    traces.configure(None, "test")
    with traces.span("x", parent=TRACEPARENT) as span:
        span.set({"a": 1})
        span.failed("CODE")
        assert traces.inject() == ""


async def test_a_request_crosses_a_hop_with_its_log_and_its_trace(
    exporter: InMemorySpanExporter,
) -> None:
    with logs.about("an id", "a tenant"), traces.span("here"):
        carrier = carried()

    async def beyond() -> tuple[str, str]:
        with traces.span("there", parent=taken_up(carrier)):
            return logs.named()

    assert await asyncio.create_task(beyond()) == ("an id", "a tenant")
    assert logs.named() == ("", "")
    traces.stop()
    assert parents(exporter) == {"here": None, "there": "here"}


def test_of_no_request_nothing_is_carried() -> None:
    assert carried() is None
    assert taken_up(None) == ""
    assert logs.named() == ("", "")


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A receiver of OTLP over HTTP: its address, and what it was sent."""
    got: list[ExportTraceServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_spans_arrive_at_a_collector(
    collector: tuple[str, list[ExportTraceServiceRequest]], path: str
) -> None:
    address, got = collector
    traces.configure(address + path, "gateway")
    with traces.span("POST /v1/embeddings", parent=TRACEPARENT):
        pass
    traces.stop()
    [span] = [
        span
        for request in got
        for of_resource in request.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    ]
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == (
        "POST /v1/embeddings",
        TRACE,
        PARENT,
    )
