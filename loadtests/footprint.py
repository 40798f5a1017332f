"""What the processes of a server hold: memory, file descriptors, and Ray's object store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests import processes

__all__ = ["Held", "footprint", "object_store_bytes"]

_MIB = 2**20
_PRIVATE = re.compile(r"(?m)^Private_(?:Clean|Dirty):\s+(\d+) kB")
# A raylet's own words for its session's folder and for its node, whose agent's port is there.
_RAYLET = re.compile(r"--raylet_socket_name=(\S+)/sockets/\S+ .*--node_id=(\w+)")
_SCRIPT = re.compile(r"(\w+\.py)\b")
_USED = re.compile(r"(?m)^ray_object_store_used_memory(?:\{[^}]*\})? (\S+)$")


@dataclass(frozen=True, slots=True)
class Held:
    """By one process: memory that nobody else has, and open files."""

    pid: int
    name: str
    mib: float
    files: int


def footprint(root: int) -> list[Held]:
    """Of every process of the server of this root process that lives, now."""
    return list(_held(root))


def object_store_bytes(root: int) -> float:
    """In use on the server's nodes, as their agents tell; 0 where there is none."""
    lines = (_command_line(process.pid) for process in processes.read(root).processes)
    nodes = {found.groups() for line in lines if (found := _RAYLET.search(line))}
    ports = [(Path(folder) / f"metrics_export_port_{node}").read_text() for folder, node in nodes]
    texts = (httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text for port in ports)
    return sum(float(used) for text in texts for used in _USED.findall(text))


def _held(root: int) -> Iterator[Held]:
    for process in processes.read(root).processes:
        folder = Path(f"/proc/{process.pid}")
        try:
            private = _PRIVATE.findall((folder / "smaps_rollup").read_text())
            files = len(os.listdir(folder / "fd"))
        except OSError:  # it has ended
            continue
        kib = sum(map(int, private))
        yield Held(process.pid, _named(process), kib * 1024 / _MIB, files)


def _named(process: processes.Process) -> str:
    """What Ray calls a process of its own, else its script, else the program's name."""
    line = _command_line(process.pid)
    if line.startswith("ray::"):
        return line.strip()[:48]
    script = _SCRIPT.search(line) if process.name.startswith("python") else None
    return script[1] if script else process.name


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode("utf-8", "replace")
