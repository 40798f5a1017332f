"""A private PostgreSQL, for the tests that need a real one: its own data, its own socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

__all__ = ["Postgres", "find_postgres"]

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs, or None where there is none."""
    on_path = shutil.which("postgres")
    places = [*_PLACES, *([Path(on_path).parent] if on_path else [])]
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


class Postgres:
    """A server that can be stopped, paused and started again. It refuses to run as root."""

    def __init__(self) -> None:
        programs = find_postgres()
        if programs is None:
            pytest.skip("there is no PostgreSQL on this machine")
        self._programs = programs
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.folder = Path(tempfile.mkdtemp(prefix="polyvec-pg-", dir="/tmp"))  # short: a socket
        if self._user:
            shutil.chown(self.folder, "postgres", "postgres")
        self._server: subprocess.Popen[bytes] | None = None
        made = [str(programs / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres"]
        subprocess.run(
            [*made, "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
            **self._user,
        )
        self.start()

    def url(self, database: str = "postgres") -> str:
        """The address of a database of it."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def make(self, database: str) -> str:
        """A new, empty database; its address."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.url(database)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server = subprocess.Popen(
            [
                *(str(self._programs / "postgres"), "-D", str(self.folder / "data")),
                *("-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off"),
            ],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._user,
        )
        asked = [str(self._programs / "pg_isready"), "-q", "-h", str(self.folder)]
        while subprocess.run(asked, check=False).returncode:
            assert self._server.poll() is None, "the server has ended"

    def stop(self) -> None:
        """End it and every connection, at once; what was committed stays."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait()
            self._server = None

    def pause(self) -> None:
        """Stop every process of it where it is."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # a connection that has just ended
                process.suspend()

    def resume(self) -> None:
        """Let every process of it go on."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def resume_or_start(self) -> None:
        """Running again, whatever it was left as."""
        if self._server is None:
            self.start()
        else:
            self.resume()

    def close(self) -> None:
        """End it and remove its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        assert self._server is not None
        whole = psutil.Process(self._server.pid)
        return [whole, *whole.children(recursive=True)]
