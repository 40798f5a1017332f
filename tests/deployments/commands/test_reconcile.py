"""`polyvec reconcile`: ledger, counters and responses agree, or a table says where they do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import psutil
import pytest

from deployments.cli import main
from serving.metering.events import UsageEvent
from serving.metering.reconciling import counted
from serving.metering.sinks import open_sink
from serving.telemetry import Telemetry
from serving.telemetry.metrics import BILLED_TOKENS, LEDGER_SPOOL
from serving.telemetry.prometheus import PrometheusBackend
from tests.deployments.commands.conftest import EVENTS, fill
from tests.postgres import Postgres
from tests.usage import event

Captured = pytest.CaptureFixture[str]
FRESH = event("fresh", time=datetime.now(UTC).timestamp(), text_tokens=40)


def telemetry(events: Sequence[UsageEvent], tenants: int = 100) -> Telemetry:
    """The counters of a process that billed these events."""
    made = Telemetry(PrometheusBackend(), tenants=tenants)
    count(made, events)
    return made


def count(counters: Telemetry, events: Sequence[UsageEvent]) -> None:
    series = counters.series(BILLED_TOKENS)
    for one in events:
        series.record(one.text_tokens, one.tenant, one.model, one.task, "text")
        series.record(one.image_tokens, one.tenant, one.model, one.task, "image")


def text(counters: Telemetry) -> str:
    exposition = counters.exposition()
    assert exposition is not None
    return exposition.decode()


def in_ray(words: str, worker: str) -> str:
    """The same text as Ray's agent writes it: `ray_` before a name, labels of its own."""
    more = f'{{Component="core_worker",SessionName="s",WorkerId="{worker}",'
    return words.replace("polyvec_", "ray_polyvec_").replace("_total{", f"_total{more}")


def scrape(folder: Path, words: str, name: str = "scrape") -> str:
    path = folder / f"{name}.txt"
    path.write_text(words)
    return str(path)


def compared(*words: str) -> int:
    return main(["reconcile", *words])


def refused(capsys: Captured, *words: str) -> str:
    assert compared(*words) == 2
    return " ".join(capsys.readouterr().err.split())


def rows(capsys: Captured) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def write(url: str, *events: UsageEvent) -> None:
    sink = open_sink(url)
    sink.write(events)
    sink.close()


def responses(folder: Path, events: Sequence[UsageEvent]) -> str:
    path = folder / "responses.jsonl"
    lines = [
        {
            "tenant": one.tenant,
            "model": one.model,
            "task": one.task or None,
            "text_tokens": one.text_tokens,
            "image_tokens": one.image_tokens,
            "id": one.id,
        }
        for one in events
        if one.status == 200
    ]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return str(path)


def test_all_three_agree_and_the_exit_code_is_0(url: str, tmp_path: Path, capsys: Captured) -> None:
    own = scrape(tmp_path, text(telemetry(EVENTS)))
    received = responses(tmp_path, EVENTS)
    assert compared("--ledger", url, "--metrics", own, "--responses", received) == 0
    assert capsys.readouterr().out == "ledger, counters, responses agree: 1000597 tokens\n"


def test_postgresql_is_compared_as_well(
    postgres: Postgres, tmp_path: Path, capsys: Captured
) -> None:
    own = scrape(tmp_path, text(telemetry(EVENTS)))
    assert compared("--ledger", fill(postgres.make("reconcile")), "--metrics", own) == 0


def test_a_difference_is_a_row_and_the_exit_code_is_1(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    own = scrape(tmp_path, text(telemetry([*EVENTS, FRESH])))
    received = responses(tmp_path, EVENTS[:1])
    assert compared("--ledger", url, "--metrics", own, "--responses", received) == 1
    assert rows(capsys) == [
        ["tenant", "model", "task", "modality", "ledger", "counters", "responses"],
        ["acme", "minilm", "-", "text", "1000000", "1000040", "1000000"],
        ["acme", "minilm", "code", "image", "90", "90", "0"],
        ["acme", "minilm", "code", "text", "500", "500", "0"],
        ["zorn", "clip", "-", "text", "7", "7", "0"],
    ]


def test_the_scrapes_of_several_nodes_are_added_up(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    one = in_ray(text(telemetry(EVENTS[:2])), "w1") + in_ray(text(telemetry(EVENTS[2:3])), "w2")
    two = in_ray(text(telemetry(EVENTS[3:])), "w3")
    words = [scrape(tmp_path, one, "one"), scrape(tmp_path, two, "two")]
    assert compared("--ledger", url, "--metrics", words[0], "--metrics", words[1]) == 0


def test_a_node_that_is_scraped_twice_is_refused(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    one = in_ray(text(telemetry(EVENTS)), "w1")
    words = [scrape(tmp_path, one, "one"), scrape(tmp_path, one, "two")]
    told = refused(capsys, "--ledger", url, "--metrics", words[0], "--metrics", words[1])
    assert "the counters of the process w1 come twice; scrape each node once" in told


def test_only_what_came_after_a_saved_baseline_counts(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    before = str(tmp_path / "before.json")
    counters = telemetry(EVENTS[2:])  # the process is younger than the ledger
    own = scrape(tmp_path, text(counters))
    assert compared("--ledger", url, "--metrics", own, "--save", before) == 0
    assert compared("--ledger", url, "--metrics", own) == 1
    write(url, FRESH)
    count(counters, [FRESH])
    own = scrape(tmp_path, text(counters))
    capsys.readouterr()
    assert compared("--ledger", url, "--metrics", own, "--baseline", before) == 0
    assert capsys.readouterr().out == "ledger, counters agree: 40 tokens\n"


def test_a_scrape_of_a_full_hour_is_a_baseline_too(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    counters = telemetry(EVENTS[:1])
    before = scrape(tmp_path, text(counters), "before")
    count(counters, EVENTS[1:])
    now = scrape(tmp_path, text(counters))
    words = ["--ledger", url, "--metrics", now, "--baseline", before]
    assert compared(*words, "--from", "2026-01-31T10:00") == 0
    assert compared(*words) == 1


def test_tenants_that_the_counters_do_not_name_are_compared_as_one(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    own = scrape(tmp_path, text(telemetry(EVENTS, tenants=1)))
    assert compared("--ledger", url, "--metrics", own) == 0
    assert "compared with every tenant as one" in capsys.readouterr().err
    own = scrape(tmp_path, text(telemetry([*EVENTS, FRESH], tenants=1)))
    assert compared("--ledger", url, "--metrics", own) == 1
    assert rows(capsys)[1] == ["*", "minilm", "-", "text", "1000000", "1000040"]


def test_events_still_in_the_spool_are_a_reason(url: str, tmp_path: Path, capsys: Captured) -> None:
    counters = telemetry([*EVENTS, FRESH])
    counters.series(LEDGER_SPOOL).record(1)
    assert compared("--ledger", url, "--metrics", scrape(tmp_path, text(counters))) == 1
    assert "1 events were not yet in the ledger" in capsys.readouterr().err


def test_a_process_that_ended_shows_as_a_difference(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    before = str(tmp_path / "before.json")
    own = scrape(tmp_path, text(telemetry(EVENTS)))
    assert compared("--ledger", url, "--metrics", own, "--save", before) == 0
    own = scrape(tmp_path, text(telemetry([])))
    assert compared("--ledger", url, "--metrics", own, "--baseline", before) == 1
    assert rows(capsys)[1] == ["acme", "minilm", "-", "text", "0", "-1000000"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to compare: give --metrics, --prometheus or --responses"),
        (["--metrics", "/no/such/file"], "/no/such/file: No such file"),
        (["--metrics", "{broken}"], "is not Prometheus' text"),
        (["--metrics", "{half}"], "1.5 billed tokens; they come whole"),
        (["--metrics", "http://127.0.0.1:1/metrics"], "http://127.0.0.1:1/metrics does not answer"),
        (["--responses", "{broken}"], "line 1 is no object with tenant, model, task"),
        (["--metrics", "{empty}", "--baseline", "{wrong}"], "is no file of --save"),
        (["--metrics", "{empty}", "--baseline", "{wrong}", "--baseline", "{half}"], "one file of"),
        (["--metrics", "{empty}", "--from", "2026-01-01T00:30"], "from must be a full hour"),
        (["--prometheus", "http://127.0.0.1:1"], "--prometheus needs --from"),
        (
            ["--prometheus", "http://127.0.0.1:1", "--from", "2026-01-01", "--baseline", "{half}"],
            "--save and --baseline go with --metrics",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    words: list[str], sentence: str, url: str, tmp_path: Path, capsys: Captured
) -> None:
    files = {
        "empty": "",
        "broken": "polyvec_billed_tokens_total{tenant=\n",
        "half": 'polyvec_billed_tokens_total{tenant="a",model="m",task="",modality="text"} 1.5\n',
        "wrong": "{}]",
    }
    paths = {name: scrape(tmp_path, words, name) for name, words in files.items()}
    told = refused(capsys, "--ledger", url, *(word.format(**paths) for word in words))
    assert sentence in told
    assert "Traceback" not in told


class Target:
    """A process that is scraped; `counters` may be exchanged, as by a restart."""

    def __init__(self, counters: Telemetry) -> None:
        self.counters = counters
        self._scraped = threading.Condition()
        self._scrapes = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = text(outer.counters).encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                with outer._scraped:
                    outer._scrapes += 1
                    outer._scraped.notify_all()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def wait(self) -> None:
        """Until what is there now has been scraped and stored: the next but one has begun."""
        with self._scraped:
            until = self._scrapes + 3
            assert self._scraped.wait_for(lambda: self._scrapes >= until, timeout=60)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """The address of a real Prometheus that scrapes the target five times a second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no Prometheus on this machine")
    jobs = [{"job_name": "polyvec", "static_configs": [{"targets": [target]}]}]
    config = {"global": {"scrape_interval": "200ms"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_bytes(orjson.dumps(config))  # JSON is YAML
    log = (folder / "prometheus.log").open("wb")
    process = subprocess.Popen(
        [
            program,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            "--web.listen-address=127.0.0.1:0",
        ],
        stdout=log,
        stderr=log,
        env={**os.environ, "GOMAXPROCS": "1"},
    )
    try:
        yield f"http://127.0.0.1:{port_of(process)}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def port_of(process: subprocess.Popen[bytes]) -> int:
    """The port that the process chose; pytest's own timeout is the bound."""
    while process.poll() is None:
        for found in psutil.Process(process.pid).net_connections("inet"):
            if found.status == psutil.CONN_LISTEN:
                assert isinstance(found.laddr.port, int)
                return found.laddr.port
    raise AssertionError("Prometheus has ended")


def test_a_prometheus_has_counted_exactly_over_a_restart(tmp_path: Path, capsys: Captured) -> None:
    url = f"sqlite://{tmp_path}/usage.db"
    now = datetime.now(UTC)
    since = now.replace(minute=0, second=0, microsecond=0).isoformat()
    made = [event(i, time=now.timestamp(), text_tokens=1000 + i) for i in range(7)]
    write(url, *made)
    target = Target(telemetry(made[:3]))
    try:
        with prometheus(tmp_path, target.address) as address:
            target.wait()
            count(target.counters, made[3:5])
            target.wait()
            target.counters = telemetry(made[5:])
            target.wait()
            words = ["--ledger", url, "--prometheus", address, "--from", since]
            assert compared(*words) == 0, capsys.readouterr()
            total = sum(counted(made).values())
            assert capsys.readouterr().out == f"ledger, counters agree: {total} tokens\n"
            write(url, event("more", time=now.timestamp()))
            assert compared(*words) == 1
    finally:
        target.close()


def test_a_prometheus_is_asked_piece_by_piece_and_from_what_was_there_before(
    tmp_path: Path, capsys: Captured
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no Prometheus on this machine")
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since, until = hour - timedelta(hours=15), hour - timedelta(hours=2)
    # A process from an hour before on, 10 tokens each 4 minutes, which begins anew after 8 hours;
    # what it had counted before `since` does not count, nor what it counted after `until`.
    began = since - timedelta(hours=1)
    lines, inside = ["# TYPE ray_polyvec_billed_tokens counter"], 0
    for step in range(16 * 15):
        at = began + timedelta(minutes=4 * step)
        value = 10 * (step + 1) if step < 9 * 15 else 10 * (step + 1 - 9 * 15)
        inside += 10 * (since < at <= until)
        labels = 'WorkerId="w",tenant="acme",model="minilm",task="none",modality="text"'
        lines.append(f"ray_polyvec_billed_tokens_total{{{labels}}} {value} {at.timestamp():.0f}")
    path = tmp_path / "past.txt"
    path.write_text("\n".join([*lines, "# EOF", ""]))
    made = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(path), f"{tmp_path}/data"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    url = f"sqlite://{tmp_path}/usage.db"
    write(url, event("a", time=since.timestamp() + 1, text_tokens=inside))
    with prometheus(tmp_path, "127.0.0.1:1") as address:
        words = ["--from", since.isoformat(), "--to", until.isoformat()]
        code = compared("--ledger", url, "--prometheus", address, *words)
        assert (code, capsys.readouterr().out) == (0, f"ledger, counters agree: {inside} tokens\n")
