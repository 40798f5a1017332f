"""The processor time of a tree of processes, on real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.processes import Process, Reading, affinity, listener, read, serving_root, tree

PARENT = """
import subprocess, sys, time
for line in sys.stdin:
    kind, seconds = line.split()
    code = "import time\\nwhile time.process_time() < %s: pass\\n" % seconds
    if kind == "wait":
        subprocess.run([sys.executable, "-c", code])
    else:
        child = subprocess.Popen([sys.executable, "-c", code + "input()"], stdin=subprocess.PIPE,
                                 start_new_session=kind == "session")
        while True:
            used = open("/proc/%d/stat" % child.pid).read().rpartition(")")[2].split()[11:13]
            if sum(map(int, used)) >= float(seconds) * 100 - 3:
                break
            time.sleep(0.005)  # or this parent's own time would be what is measured
    print("done", flush=True)
"""


@contextmanager
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process that makes children, waited for or left running, when told to."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        tell(child, "wait 0")
        try:
            yield child
        finally:
            for process in read(child.pid).processes:
                os.kill(process.pid, 9)


def tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin
    assert child.stdout
    print(line, file=child.stdin, flush=True)
    assert child.stdout.readline() == "done\n"


def test_a_child_that_came_and_went_is_counted() -> None:
    with parent() as root:
        before = read(root.pid)
        tell(root, "wait 0.3")
        assert 0.28 <= read(root.pid).since(before) < 1.0


def test_a_child_that_stays_is_counted_once() -> None:
    with parent() as root:
        before = read(root.pid)
        tell(root, "stay 0.3")
        tell(root, "session 0.3")
        middle = read(root.pid)
        assert len(middle.processes) == 3
        assert 0.55 <= middle.since(before) < 1.5
        assert read(root.pid).since(middle) < 0.2


def test_our_own_time_is_not_the_servers() -> None:
    with parent() as root:
        before = read(root.pid)
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        assert read(root.pid).since(before) < 0.1
        assert os.getpid() not in {process.pid for process in read(root.pid).processes}


def at(pid: int, own_s: float, reaped_s: float = 0.0) -> Process:
    return Process(pid, 1, pid, pid, "p", own_s, reaped_s)


def test_what_ended_is_found_in_its_parent_and_counted_from_the_first_reading() -> None:
    before = Reading((at(1, 1.0), at(2, 5.0)))
    after = Reading((at(1, 1.5, reaped_s=5.25),))
    assert after.since(before) == 0.75


def test_what_ended_unseen_takes_nothing_away() -> None:
    assert Reading((at(1, 1.5),)).since(Reading((at(1, 1.0), at(2, 5.0)))) == 0.5


def test_a_tree_follows_the_sessions_that_its_members_lead() -> None:
    def of(pid: int, parent: int, session: int) -> Process:
        return Process(pid, parent, session, 0, "p", 0, 0)

    # 1e8 and up: no such pids, so that no command line is read for them.
    shell, root, daemon, orphan, stranger = (100_000_000 + n for n in range(5))
    every = [
        of(shell, 1, shell),
        of(root, shell, shell),
        of(daemon, root, daemon),
        of(orphan, 1, daemon),
        of(stranger, shell, shell),
    ]
    assert tree(root, every) == {root, daemon, orphan}


def test_affinity_names_the_cores() -> None:
    cores = affinity(read(os.getpid()).processes)
    assert sum(map(len, cores.values())) >= 1


def test_a_listening_socket_leads_to_its_process() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert listener(listening.getsockname()[1]) == os.getpid()
    assert serving_root(os.getpid()) == os.getpid()


_SERVER = """
import subprocess, sys
listening = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); "
listening += "print(s.getsockname()[1], flush=True); time.sleep(60)"
subprocess.run([sys.executable, "-c", listening], check=False)
"""


@pytest.mark.parametrize("name", ["/bin/polyvec", "deployments.cli"])
def test_the_command_behind_a_listening_socket_is_found(name: str) -> None:
    words = [sys.executable, "-c", _SERVER, name, "serve"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        pid = listener(int(command.stdout.readline()))
        try:
            assert pid is not None and pid != command.pid
            assert serving_root(pid) == command.pid
        finally:
            command.kill()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
