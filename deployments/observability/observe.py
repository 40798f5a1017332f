"""`make observe`: Prometheus on this machine, with our rules, against a service that runs already.

`python -m deployments.observability.observe --url http://127.0.0.1:8000` runs the `prometheus` of
the operating system on loopback, keeps its data in a folder of its own, and takes both away at
Ctrl-C. Where `GET /metrics` needs a key, that is the one of $POLYVEC_API_KEY.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml

__all__ = ["Refusal", "configuration", "main"]

_HERE = Path(__file__).resolve().parent
_LOOPBACK = "127.0.0.1"
_SECONDS = 5  # between two scrapes, and two looks at the rules
_READY_S = 30.0
_USER_ERROR, _INTERRUPTED = 2, 130


class Refusal(Exception):
    """`Refusal(sentence)`: Prometheus cannot be run, and what to do about it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C or SIGTERM; 2 where it cannot begin, 1 where Prometheus ends by itself."""
    args = _parser().parse_args(arguments)
    try:
        return _observe(args.url, args.port)
    except Refusal as refusal:
        _say(str(refusal))
        return _USER_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED


def configuration(url: str, key: str = "") -> str:
    """Prometheus' configuration for the service at `url`; `Refusal` where that is no address.

    A service without Ray has names without `ray_`; the relabel rule gives it those of the rules.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Refusal(f"--url must be like http://127.0.0.1:8000, and is {url!r}")
    job = {
        "job_name": "polyvec",
        "scheme": parts.scheme,
        "metrics_path": f"{parts.path.rstrip('/')}/metrics",
        "static_configs": [{"targets": [parts.netloc]}],
        **({"authorization": {"credentials": key}} if key else {}),
        "metric_relabel_configs": [
            {
                "source_labels": ["__name__"],
                "regex": "(polyvec_.+)",
                "target_label": "__name__",
                "replacement": "ray_$1",
            }
        ],
    }
    every = f"{_SECONDS}s"
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": every, "evaluation_interval": every},
            "rule_files": [str(_HERE / "rules.yml")],
            "scrape_configs": [job],
        }
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make observe", description="Prometheus with Polyvec's rules, until Ctrl-C."
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service to look at")
    parser.add_argument("--port", type=int, default=9090, help="Prometheus' own port")
    return parser


def _observe(url: str, port: int) -> int:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        raise Refusal(
            "Prometheus is not installed, or not in PATH. On Debian and Ubuntu:\n"
            "  apt-get install --no-install-recommends prometheus\n"
            "  systemctl disable --now prometheus   # the service that comes with it is not needed"
        )
    written = configuration(url, os.environ.get("POLYVEC_API_KEY", "").strip())
    _refuse_taken(port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="polyvec-observe-"))
    try:
        (folder / "prometheus.yml").write_text(written)
        return _run(prometheus, folder, url, f"http://{_LOOPBACK}:{port}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(prometheus: str, folder: Path, url: str, own: str) -> int:
    command = [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={own.removeprefix('http://')}",
        "--log.level=warn",
    ]
    # A session of its own: Ctrl-C comes to us, and we end it.
    running = subprocess.Popen(command, start_new_session=True)
    try:
        _await(running, own)
        _say(f"Prometheus scrapes {url.rstrip('/')}/metrics every {_SECONDS} s; Ctrl-C ends it\n")
        _say(f"  {own}/alerts   what fires, or would soon")
        _say(f"  {own}/targets  whether the service answers (401: set POLYVEC_API_KEY)")
        _say(f"  {own}/graph    any expression, such as sum(rate(ray_polyvec_requests_total[1m]))")
        _say(f"\nGrafana shows more: import {_HERE / 'dashboard.json'}, with {own} as its source.")
        return 1 if running.wait() else 0
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _await(running: subprocess.Popen[bytes], own: str) -> None:
    until = time.monotonic() + _READY_S
    with httpx.Client(trust_env=False) as http:
        while time.monotonic() < until:
            if running.poll() is not None:
                raise Refusal("Prometheus ended as it began; its own words are above")
            try:
                if http.get(f"{own}/-/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise Refusal(f"Prometheus was not ready within {_READY_S:g} s")


def _refuse_taken(port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_LOOPBACK, port))
    except (OSError, OverflowError) as taken:
        raise Refusal(
            f'cannot listen on {_LOOPBACK}:{port} ({taken}); another port: ARGS="--port 9091"'
        ) from None


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    raise SystemExit(main())
