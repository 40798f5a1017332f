"""The processor time of a server: every process that belongs to it, read from /proc.

A server is the process named by `--pid`, its descendants, and what has slipped out of that tree:
the rest of a session that a descendant leads, and processes of the same Ray session (Ray puts the
name of its session directory on its command lines), which a parent's death hands to init. The
measuring process, its own descendants and its ancestors are never counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "Reading", "affinity", "listener", "read", "serving_root", "tree"]

_TICKS = os.sysconf("SC_CLK_TCK")
_OURS = (b"polyvec", b"deployments.cli")  # the command, and the module behind it
_RAY_SESSION = re.compile(rb"session_\d{4}-\d\d-\d\d_[\d-]+_[\d_]+")


@dataclass(frozen=True, slots=True)
class Process:
    """A line of `/proc/PID/stat`: who it is, whose child, and the seconds it has used.

    `own_s` is its own user and system time; `reaped_s` that of children it has waited for, which
    is where the time of a process goes when it ends.
    """

    pid: int
    parent: int
    session: int
    started: int
    name: str
    own_s: float
    reaped_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The processes of a server at a moment."""

    processes: tuple[Process, ...]

    def since(self, earlier: Reading) -> float:
        """Seconds of user and system time that the server used between two readings.

        Counts processes that began since and, through their parents, those that ended.
        """
        before = {(p.pid, p.started): p for p in earlier.processes}
        after = {(p.pid, p.started): p for p in self.processes}
        grown = reaped = ended = 0.0
        for key, now in after.items():
            then = before.get(key)
            grown += now.own_s + now.reaped_s - (then.own_s + then.reaped_s if then else 0.0)
            reaped += now.reaped_s - (then.reaped_s if then else 0.0)
        for key, then in before.items():
            ended += then.own_s + then.reaped_s if key not in after else 0.0
        # What has ended is in its parent's reaped time from its first second on: what it had used
        # before the first reading is taken off again. If nobody waited for it, it is in neither.
        return grown - min(ended, reaped)

    def by_name(self) -> dict[str, int]:
        """How many processes of each name, most first."""
        names = [process.name for process in self.processes]
        return dict(sorted(((n, names.count(n)) for n in set(names)), key=lambda x: (-x[1], x[0])))

    def __str__(self) -> str:
        """`12 processes (ray::ServeReplica x 4, haproxy, ...)`, for a reader to see who counts."""
        parts = [f"{name} x {n}" if n > 1 else name for name, n in self.by_name().items()]
        return f"{len(self.processes)} processes ({', '.join(parts)})"


def read(root: int) -> Reading:
    """The server of this root process, now."""
    every = {process.pid: process for process in _every()}
    return Reading(tuple(every[pid] for pid in sorted(tree(root, every.values())) if pid in every))


def tree(root: int, every: Iterable[Process]) -> set[int]:
    """The pids of a server among all processes."""
    listed = list(every)
    members = {root} | _descendants({root}, listed)
    ours = _family(os.getpid(), listed)
    ours -= {root} if os.getpid() in members else members
    sessions = _ray_sessions(members)
    while True:
        led = {p.session for p in listed if p.session == p.pid and p.pid in members - {root}}
        more = {p.pid for p in listed if p.session in led or _is_of(p.pid, sessions)}
        grown = members | more | _descendants(more, listed)
        if grown == members:
            return members - ours
        members = grown


def affinity(processes: Iterable[Process]) -> dict[str, list[str]]:
    """Which cores the processes may run on: `{"0": ["raylet", ...], "0-1": [...]}`."""
    found: dict[str, list[str]] = {}
    for process in processes:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        allowed = re.search(r"(?m)^Cpus_allowed_list:\s*(\S+)", status)
        found.setdefault(allowed.group(1) if allowed else "?", []).append(process.name)
    return found


def listener(port: int) -> int | None:
    """The process that listens on a TCP port of this machine, or None where it cannot be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        lines = Path(table).read_text().splitlines()[1:] if Path(table).exists() else []
        for fields in (line.split() for line in lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for pid in _pids():
        try:
            handles = list(Path(f"/proc/{pid}/fd").iterdir())
            if any(os.readlink(handle) in inodes for handle in handles):
                return pid
        except OSError:  # gone meanwhile, or another user's
            continue
    return None


def serving_root(pid: int) -> int:
    """The command that started a listening process: its highest ancestor that is `polyvec serve`.

    Where there is none, as with another server, the process itself.
    """
    found = here = pid
    every = {process.pid: process for process in _every()}
    while here in every and here > 1:
        line = _command_line(here)
        if any(name in line for name in _OURS) and b"serve" in line.split(b"\0"):
            found = here
        here = every[here].parent
    return found


def _every() -> Iterable[Process]:
    for pid in _pids():
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        times = [int(field) / _TICKS for field in fields[11:15]]
        yield Process(
            pid=pid,
            parent=int(fields[1]),
            session=int(fields[3]),
            started=int(fields[19]),
            name=head.partition("(")[2],
            own_s=times[0] + times[1],
            reaped_s=times[2] + times[3],
        )


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _descendants(roots: set[int], every: list[Process]) -> set[int]:
    found: set[int] = set()
    layer = roots
    while layer:
        layer = {p.pid for p in every if p.parent in layer} - found
        found |= layer
    return found


def _family(pid: int, every: list[Process]) -> set[int]:
    parents = {process.pid: process.parent for process in every}
    found = {pid} | _descendants({pid}, every)
    while pid in parents:
        pid = parents[pid]
        found.add(pid)
    return found


def _ray_sessions(pids: Iterable[int]) -> set[bytes]:
    return {name for pid in pids for name in _RAY_SESSION.findall(_command_line(pid))}


def _is_of(pid: int, sessions: set[bytes]) -> bool:
    return bool(sessions) and not sessions.isdisjoint(_RAY_SESSION.findall(_command_line(pid)))


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
