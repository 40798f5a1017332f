"""What a ledger that stops, a disk that is full and a process that is killed cost: real ones."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.metering.meter import Meter, MeterOptions, open_meter
from serving.metering.questions import Question, Totals
from serving.metering.sinks import open_sink
from tests.house.source import ROOT
from tests.postgres import Postgres
from tests.usage import NOON, Watcher, at, event, events

ALL = Question(at(0, day=1), at(23, day=31), ())
_numbers = itertools.count()


def options(folder: Path, url: str, **changes: object) -> MeterOptions:
    said: dict[str, object] = {"flush_s": 0.005, "retry_s": 0.02, "retry_max_s": 0.1, **changes}
    return MeterOptions(url=url, spool=str(folder / "spool"), **said)  # type: ignore[arg-type]


def totals(url: str) -> Totals:
    """Everything in a ledger."""
    sink = open_sink(url)
    rows = sink.usage(ALL)
    sink.close()
    return rows[0].totals if rows else Totals()


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """An empty ledger in a PostgreSQL that the test may stop or pause."""
    yield postgres.make(f"faults{next(_numbers)}")
    postgres.resume_or_start()


def record(meter: Meter, count: int, start: int = 0) -> None:
    for i in range(start, start + count):
        meter.record(event(i, time=NOON + i % 3600))


def test_a_postgresql_that_stops_for_ten_minutes_under_load_loses_nothing(
    postgres: Postgres, url: str, tmp_path: Path
) -> None:
    watcher = Watcher()
    meter = open_meter(options(tmp_path, url), watcher)
    record(meter, 500)
    watcher.wait("written", 500)
    postgres.stop()
    record(meter, 30_000, start=500)  # ten minutes of 50 requests a second, without the minutes
    watcher.wait("failed", 2000)
    assert meter.spooled() == 30_000
    assert (meter.written(), meter.dropped()) == (500, 0)
    postgres.start()
    watcher.wait("written", 30_500)
    assert meter.close(60)
    assert totals(url) == Totals(30_500, 0, 30_500, 305_000, 0)
    assert watcher.results["dropped"] == 0


def test_a_postgresql_that_is_paused_holds_up_nobody(
    postgres: Postgres, url: str, tmp_path: Path
) -> None:
    watcher = Watcher()
    meter = open_meter(options(tmp_path, url), watcher)
    record(meter, 100)
    watcher.wait("written", 100)
    postgres.pause()
    record(meter, 5000, start=100)
    _, spooled = watcher.wait_for_standing()
    assert spooled == 5000
    assert not meter.close(0.2)  # nor does it hold up the process's end
    postgres.resume()
    delivering = Watcher()
    again = open_meter(options(tmp_path, url, adopt_s=0.02), delivering)
    delivering.wait("written", 4500)  # one batch was under way, and came to its end
    assert again.close(60)
    assert totals(url).requests == 5100


def test_a_postgresql_that_comes_and_goes_counts_each_event_once(
    postgres: Postgres, url: str, tmp_path: Path
) -> None:
    meter = open_meter(options(tmp_path, url, batch_events=40), Watcher())
    ends = threading.Event()
    recorded = itertools.count()

    def load() -> None:
        while not ends.is_set():
            record(meter, 20, start=next(recorded) * 20)
            ends.wait(0.005)

    loading = threading.Thread(target=load)
    loading.start()
    for _ in range(3):
        postgres.stop()
        postgres.start()
    ends.set()
    loading.join()
    assert meter.close(60)
    assert totals(url).requests == next(recorded) * 20


def test_a_gateway_starts_while_postgresql_is_down(
    postgres: Postgres, url: str, tmp_path: Path
) -> None:
    postgres.stop()
    watcher = Watcher()
    meter = open_meter(options(tmp_path, url), watcher)
    record(meter, 10)
    watcher.wait("failed", 10)
    postgres.start()
    watcher.wait("written", 10)
    assert meter.close()


KILLED = """
import itertools, os, sys
from serving.metering.meter import MeterOptions, open_meter
from tests.usage import event
folder, flush_s, flush_events = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
open(f"{folder}/file", "w").close()  # where a folder should be: a ledger that is away
meter = open_meter(MeterOptions(url=f"sqlite://{folder}/file/x.db", spool=f"{folder}/spool",
                                flush_s=flush_s, flush_events=flush_events))
synced, append = 0, meter._spool.append
def told(lines):
    global synced
    append(lines)
    synced += len(lines)
    os.write(1, b"synced %d\\n" % synced)
meter._spool.append = told
for i in itertools.count():
    word = sys.stdin.readline() if i >= int(sys.argv[4]) else "go"
    if not word:
        break
    meter.record(event(i))
    os.write(1, b"recorded %d\\n" % (i + 1))
"""


class Victim:
    """A process that records events until it is killed; it says what it recorded and synced."""

    def __init__(self, folder: Path, flush_s: float, flush_events: int, count: int) -> None:
        arguments = [str(folder), str(flush_s), str(flush_events), str(count)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.said = {"recorded": 0, "synced": 0}

    def read_until(self, word: str, count: int) -> None:
        """Until it has said that of so many events."""
        assert self._process.stdout is not None
        while self.said[word] < count:
            self._take(self._process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL; everything it had said by then is taken in."""
        self._process.send_signal(signal.SIGKILL)
        assert self._process.stdout is not None
        for line in self._process.stdout:  # not communicate(), which skips what is buffered here
            self._take(line)
        self._process.communicate()

    def _take(self, line: str) -> None:
        word, count = line.split()
        self.said[word] = int(count)


def recovered(folder: Path) -> list[int]:
    """The ids that the next process brings into the ledger."""
    url = f"sqlite://{folder}/usage.db"
    meter = open_meter(options(folder, url))
    assert meter.close(30)
    sink = open_sink(url)
    page = sink.page("all", 1_000_000)  # type: ignore[attr-defined]
    sink.close()
    return [int(entry.id) for _, entry in page]


@pytest.mark.parametrize("after", [1, 400, 3000])
def test_a_killed_process_loses_only_what_it_had_not_synced(tmp_path: Path, after: int) -> None:
    victim = Victim(tmp_path, flush_s=0.01, flush_events=500, count=10**9)
    victim.read_until("synced", after)
    victim.kill()
    found = recovered(tmp_path)
    # The first ones without a gap, and every one whose sync had come to its end.
    assert found == list(range(len(found)))
    assert victim.said["synced"] <= len(found)
    # It may have recorded one more and been killed before it could say so.
    assert len(found) <= victim.said["recorded"] + 1


def test_an_event_alone_is_synced_though_no_other_follows(tmp_path: Path) -> None:
    victim = Victim(tmp_path, flush_s=0.01, flush_events=500, count=1)
    victim.read_until("synced", 1)
    victim.kill()
    assert recovered(tmp_path) == [0]


def test_so_many_events_are_synced_without_waiting_for_the_time(tmp_path: Path) -> None:
    victim = Victim(tmp_path, flush_s=3600, flush_events=25, count=25)
    victim.read_until("synced", 25)
    victim.kill()
    assert recovered(tmp_path) == list(range(25))


def test_the_bound_is_real_what_waits_for_its_sync_is_lost(tmp_path: Path) -> None:
    victim = Victim(tmp_path, flush_s=3600, flush_events=25, count=24)
    victim.read_until("recorded", 24)
    victim.kill()
    assert recovered(tmp_path) == []


FULL = """
import logging, resource, sys
from serving.metering.meter import MeterOptions, open_meter
from tests.usage import Watcher, event
folder, frees = sys.argv[1], sys.argv[2] == "frees"
logging.basicConfig()
watcher = Watcher()
meter = open_meter(MeterOptions(url=f"jsonl://{folder}/usage.jsonl", spool=f"{folder}/spool",
                                flush_s=0.005, retry_s=0.01, retry_max_s=0.02), watcher)
for i in range(4):
    meter.record(event(i))
watcher.wait("written", 4)
resource.setrlimit(resource.RLIMIT_FSIZE, (1600, resource.RLIM_INFINITY))
for i in range(4, 100):
    meter.record(event(i))
watcher.wait("failed", 200)
assert meter.spooled() == 96, meter.spooled()
if frees:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    watcher.wait("written", 100)
print(meter.close(5), meter.written(), meter.dropped())
"""


@pytest.mark.parametrize(("then", "said"), [("frees", "True 100 0"), ("stays", "False 4 96")])
def test_a_full_disk_keeps_events_in_memory_and_what_is_lost_in_the_end_is_said(
    tmp_path: Path, then: str, said: str
) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path), then]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == said, done.stderr
    assert "the spool takes nothing" in done.stderr
    if then == "frees":
        found = open_sink(f"jsonl://{tmp_path}/usage.jsonl").usage(ALL)
        assert found[0].totals.requests == 100
        assert "dropped" not in done.stderr
    else:
        assert "CRITICAL" in done.stderr
        assert "requests=96" in done.stderr
        assert "text_tokens=960" in done.stderr


def test_the_events_of_two_processes_at_once_are_all_there(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/usage.db"
    one, two = (open_meter(options(tmp_path, url)) for _ in range(2))
    for i, entry in enumerate(events(400)):
        (one if i % 2 else two).record(entry)
        (one if i % 5 else two).record(entry)  # and some by both
    assert one.close(30)
    assert two.close(30)
    assert totals(url).requests == 400
    assert one.written() + two.written() == 400
    assert one.duplicates() + two.duplicates() == 400
