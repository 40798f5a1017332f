"""One Ray node on this machine, for as long as a command lasts: environment, ports, lifetimes."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from deployments.config import AppConfig
from deployments.grpc import grpc_options
from deployments.loopback import BIND, FRONT, LOOPBACK, haproxy_wrapper, refuse_open_door
from deployments.placement import cpus_needed, place, share_gpus, takes_images
from serving.errors import InvalidConfig, Unavailable

__all__ = ["Address", "LocalNode", "environment", "free_ports"]

_STORE_BYTES = 256 * 2**20
_IMAGE_STORE_BYTES = 2**30  # sixteen images of 20 megapixels; what is more is spilled to disk
_MESSAGE_BYTES = 64 * 2**20
_GRPC_BYTES = 2 * _MESSAGE_BYTES  # also of an answer, which may be larger than any request
_DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the front doors are; without a `grpc_port` there is none for gRPC."""

    host: str = LOOPBACK
    port: int = 8000
    grpc_port: int | None = None

    @property
    def url(self) -> str:
        """For a client on this machine."""
        return f"http://{self._near}:{self.port}"

    @property
    def grpc(self) -> str:
        """For a gRPC client on this machine, `host:port`."""
        return f"{self._near}:{self.grpc_port}"

    @property
    def _near(self) -> str:
        host = LOOPBACK if self.host in ("0.0.0.0", "::", "") else self.host
        return f"[{host}]" if ":" in host else host


def environment(folder: Path, address: Address) -> dict[str, str]:
    """What every process of a local Ray needs in its environment before it starts.

    Serve's throughput settings behind HAProxy (3 CPU-ms a request less than its Python proxy), and
    loopback for every socket but the front door: Ray keeps to it where it thinks that no cluster
    can be, the rest is `loopback.py`.
    """
    threads = str(min(4, len(os.sched_getaffinity(0))))
    metrics, stats, http, grpc = map(str, free_ports(4))
    return {
        BIND: LOOPBACK,
        FRONT: address.host,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 otherwise: a service is no background job
        "MALLOC_ARENA_MAX": "2",  # a heap for every thread keeps what it once held: a sixth
        # What Ray's daemons do when nothing happens; at the defaults it is a sixth of a core.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        "REPORTER_UPDATE_INTERVAL_MS": "60000",
        "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",  # nobody is shown what it would read:
        "LOG_NAME_UPDATE_INTERVAL_S": "86400",  # it looks for files a day later
        "RAY_metrics_report_interval_ms": "2000",  # a scrape is at most three seconds behind
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(_MESSAGE_BYTES),
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(_GRPC_BYTES),
        # Serve's proxies have no other place for code of ours.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.loopback.bind_as_asked",
        # A gateway that goes answers until HAProxy has forgotten it, which a busy machine delays.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # What answers none of three probes will not drain either, and others wait to do its work.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy_wrapper(folder, address.host, address.port)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_NBTHREAD": threads,
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": http,
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": grpc,
    }


def free_ports(count: int) -> list[int]:
    """So many of loopback's, none twice; `InvalidConfig` where there are not.

    Below those that a system gives away unasked: Ray starts dozens of servers meanwhile.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_768), 100 + count):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((LOOPBACK, port))
            found.append(port)
            if len(found) == count:
                return found
    raise InvalidConfig("too few ports between 20000 and 32767 are free")


@dataclass(slots=True)
class LocalNode:
    """A Ray node and Serve on it, for as long as the `with` block lasts.

    `say` hears what is being done. Leaving the block drains: what has been taken is answered, what
    comes is refused, and every process started here ends.
    """

    config: AppConfig
    address: Address
    fused: bool = False
    say: Callable[[str], None] = lambda line: None
    _folder: Path = field(init=False)
    _before: dict[str, str | None] = field(init=False, default_factory=dict)
    _handle: Any = field(init=False, default=None)

    def __enter__(self) -> LocalNode:
        refuse_open_door(self.config, self.address.host)
        _refuse_taken_ports(self.address)
        self._folder = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._drain()
        finally:
            self._stop()

    def _start(self) -> None:
        # Ray reads its environment when it is imported, in the processes it starts as in this one.
        # Serve's throughput settings want no user loop in a driver, so Serve is imported before.
        wanted = environment(self._folder, self.address)
        early = {k: v for k, v in wanted.items() if "THROUGHPUT" not in k}
        self._set(early)
        import ray
        from ray import serve

        self._set(wanted)
        # Read when Ray was first imported, which may have been before us.
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self.say("starting Ray")
        from deployments.app import read_specs

        specs = read_specs(self.config)
        groups = place(self.config, specs)
        needed = cpus_needed(self.config, groups, specs)
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, int(needed) + 1),
            include_dashboard=False,
            object_store_memory=_IMAGE_STORE_BYTES if takes_images(specs) else _STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(self._folder / "ray"),
        )
        gpus = ray.cluster_resources().get("GPU", 0.0)
        self.config = share_gpus(self.config, groups, gpus)
        self.say("starting Serve and HAProxy")
        # Serve itself keeps to loopback; HAProxy's front door is moved to the asked host.
        serve.start(
            http_options={"host": LOOPBACK, "port": self.address.port},
            grpc_options=grpc_options(self.address.grpc_port) if self.address.grpc_port else None,
            proxy_location="HeadOnly",
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        self._run()

    def _run(self) -> None:
        from ray import serve

        from deployments.app import build, build_fused

        self.say("loading the models")
        app = (build_fused if self.fused else build)(self.config)
        try:
            self._handle = serve.run(app, name="polyvec", route_prefix="/")
        except RuntimeError as failed:
            deployments = serve.status().applications["polyvec"].deployments.values()
            told = [one.message for one in deployments if one.message]
            raise Unavailable(_why("\n".join([str(failed), *told]))) from None

    def _drain(self) -> None:
        if self._handle is None:
            return
        self.say("draining")
        try:
            self._handle.broadcast("drain", _DRAIN_S).results(timeout_s=_DRAIN_S + 5)
        except Exception as failed:  # whatever a dying cluster raises: the stop goes on
            self.say(f"could not drain: {type(failed).__name__}")

    def _stop(self) -> None:
        import ray
        from ray import serve

        if ray.is_initialized():
            self.say("stopping")
            # Ray tells the driver of every call that the end of its controller cut off.
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                serve.shutdown()
                ray.shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(self._folder, ignore_errors=True)

    def _set(self, wanted: dict[str, str]) -> None:
        for name, value in wanted.items():
            self._before.setdefault(name, os.environ.get(name))
            os.environ[name] = value


def _refuse_taken_ports(address: Address) -> None:
    for port in filter(None, (address.port, address.grpc_port)):
        try:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address.host, port))
        except OSError as taken:
            reason = taken.strerror or str(taken)
            raise InvalidConfig(
                f"cannot listen on {address.host}:{port}: {reason.lower()}"
            ) from None


def _why(told: str) -> str:
    """The sentence of ours in what Serve says of a deployment that would not start."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("serving.errors.")]
    return ours[-1].split(": ", 1)[-1] if ours else lines[0]
