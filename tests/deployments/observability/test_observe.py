"""`make observe`: what it says where it cannot run, and a real Prometheus where it can."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.observability.observe import Refusal, configuration, main
from serving.telemetry.metrics import METRICS
from serving.telemetry.prometheus import PrometheusBackend
from tests.deployments.conftest import free_port
from tests.deployments.observability.expressions import panels, rules


@dataclass(slots=True)
class Shown:
    """A service without Ray, of which every metric grows with every scrape."""

    url: str
    scrapes: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@pytest.fixture
def service() -> Iterator[Shown]:
    backend = PrometheusBackend()
    series = [backend.child(metric, ("interactive",) * len(metric.labels)) for metric in METRICS]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/below/metrics"
            assert self.headers["authorization"] == "Bearer pv_a"
            for record in series:
                record(1)
            body = backend.exposition()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            shown.scrapes.release()

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shown = Shown(f"http://127.0.0.1:{server.server_port}/below/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield shown
        server.shutdown()
        thread.join()


def ask(own: str, expression: str) -> list[dict[str, Any]]:
    query = (
        expression.replace("$__rate_interval", "1m")
        .replace("$model", ".*")
        .replace("$tenant", ".*")
    )
    answer = httpx.get(f"{own}/api/v1/query", params={"query": query}, trust_env=False).json()
    assert answer["status"] == "success", (expression, answer)
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


@pytest.mark.slow
def test_a_real_prometheus_scrapes_evaluates_and_leaves_nothing(
    prometheus: str, service: Shown, tmp_path: Path
) -> None:
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "deployments.observability.observe"]
    running = subprocess.Popen(
        [*command, "--url", service.url, "--port", str(port)],
        env={**os.environ, "TMPDIR": str(tmp_path), "POLYVEC_API_KEY": "pv_a"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # By the fourth scrape the rules have seen two of them.
        assert all(service.scrapes.acquire(timeout=60) for _ in range(4))
        assert ask(own, 'up{job="polyvec"} == 1')
        assert ask(own, 'slo:polyvec_requests:rate5m{service_class="interactive"} > 0')
        for _, expression in panels():
            ask(own, expression)
        groups = httpx.get(f"{own}/api/v1/rules", trust_env=False).json()["data"]["groups"]
        evaluated = [rule for group in groups for rule in group["rules"]]
        assert [rule["health"] for rule in evaluated] == ["ok"] * len(rules())
    finally:
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert f"{own}/alerts" in said
    assert not list(tmp_path.iterdir())


def test_prometheus_takes_the_configuration(promtool: str, tmp_path: Path) -> None:
    file = tmp_path / "prometheus.yml"
    file.write_text(configuration("https://embeddings.example/v0", "pv_a"))
    done = subprocess.run([promtool, "check", "config", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [job] = yaml.safe_load(file.read_text())["scrape_configs"]
    assert (job["scheme"], job["metrics_path"]) == ("https", "/v0/metrics")
    assert job["authorization"] == {"credentials": "pv_a"}
    assert job["static_configs"] == [{"targets": ["embeddings.example"]}]


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://a", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Refusal, match="--url must be like"):
        configuration(url)


def test_without_prometheus_it_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 2
    assert "apt-get install --no-install-recommends prometheus" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(
    prometheus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
