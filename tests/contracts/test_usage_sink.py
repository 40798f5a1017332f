"""The promises of `UsageSink`, kept by every file in `serving/metering/sinks/`."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from serving.errors import InvalidConfig, InvalidInput, Unavailable
from serving.metering.events import UsageEvent
from serving.metering.questions import Question, Totals, answer, summed
from serving.metering.sinks import SINKS, EventRefused, UsageSink, Written, open_sink
from tests.house.source import ROOT
from tests.postgres import Postgres
from tests.usage import NOON, at, event, events

EVER = Question(at(0, day=1), at(23), ("hour", "tenant", "model", "task", "modality"))
ALL = Question(at(0, day=1), at(23), ())

Fresh = Callable[[], str]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=SINKS.names())
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """The URL of an empty ledger, another one each time."""
    if request.param.startswith("postgres"):
        server: Postgres = request.getfixturevalue("postgres")
        scheme = f"{request.param}://"
        return lambda: server.make(f"l{next(_numbers)}").replace("postgresql://", scheme)
    return lambda: f"{request.param}://{tmp_path}/{next(_numbers)}/ledger"


@pytest.fixture
def url(fresh: Fresh) -> str:
    return fresh()


@pytest.fixture
def sink(url: str) -> Iterator[UsageSink]:
    sink = open_sink(url)
    yield sink
    sink.close()


def test_new_events_and_repeats_are_told_apart(sink: UsageSink) -> None:
    assert sink.write(events(10)) == Written(new=10, duplicates=0)
    assert sink.write(events(10, start=5)) == Written(new=5, duplicates=5)
    assert sink.write(events(3) + events(3)) == Written(new=0, duplicates=6)
    assert sink.write([]) == Written(0, 0)


def test_of_two_events_of_one_id_the_first_counts(sink: UsageSink) -> None:
    assert sink.write([event("a", text_tokens=5), event("a", text_tokens=7)]) == Written(1, 1)
    assert sink.write([event("a", text_tokens=9)]) == Written(0, 1)
    assert sink.usage(ALL)[0].totals.text_tokens == 5


def test_a_batch_of_any_size_is_written(sink: UsageSink) -> None:
    assert sink.write(events(1700)) == Written(1700, 0)
    assert sink.usage(ALL)[0].totals.requests == 1700


def test_an_empty_ledger_has_no_rows(sink: UsageSink) -> None:
    assert sink.usage(ALL) == []
    assert sink.usage(EVER) == []


def test_every_sum_is_kept(sink: UsageSink) -> None:
    sink.write(
        [
            event("a", text_tokens=3, image_tokens=70, items=2, modality="mixed"),
            event("b", text_tokens=0, items=1, status=503, modality="mixed"),
        ]
    )
    [row] = sink.usage(EVER)
    assert row.totals == Totals(2, errors=1, items=3, text_tokens=3, image_tokens=70)
    assert (row.start, row.tenant, row.model) == (at(12), "acme", "minilm")
    assert (row.task, row.modality) == ("", "mixed")


def test_counts_beyond_32_bits_are_kept(sink: UsageSink) -> None:
    sink.write([event(i, text_tokens=2**40) for i in range(3)])
    assert sink.usage(ALL)[0].totals.text_tokens == 3 * 2**40


def several(sink: UsageSink) -> None:
    sink.write(
        [
            event("a", time=at(9, day=30).timestamp(), text_tokens=1),
            event("b", time=at(23, day=30).timestamp() + 3599.999999, text_tokens=2),
            event("c", time=at(0).timestamp(), text_tokens=4, tenant="Zorn"),
            event("d", time=at(12).timestamp(), text_tokens=8, model="clip", task="code"),
            event("e", time=at(12).timestamp(), text_tokens=16, model="clip", task="query"),
        ]
    )


def test_usage_is_grouped_by_day_or_hour(sink: UsageSink) -> None:
    several(sink)
    days = sink.usage(Question(at(0, day=1), at(23), ("day",)))
    assert [(r.start, r.totals.text_tokens) for r in days] == [(at(0, 30), 3), (at(0), 28)]
    hours = sink.usage(Question(at(0, day=1), at(23), ("hour",)))
    assert [r.start for r in hours] == [at(9, 30), at(23, 30), at(0), at(12)]
    assert {r.tenant for r in hours} == {None}


def test_usage_is_grouped_by_names(sink: UsageSink) -> None:
    several(sink)
    rows = sink.usage(Question(at(0, day=1), at(23), ("task", "tenant")))
    found = [(r.tenant, r.task, r.totals.text_tokens) for r in rows]
    assert found == [("Zorn", "", 4), ("acme", "", 3), ("acme", "code", 8), ("acme", "query", 16)]


def test_usage_is_narrowed_to_a_time_a_tenant_and_a_model(sink: UsageSink) -> None:
    several(sink)
    assert sink.usage(Question(at(9, 30), at(0), ()))[0].totals.text_tokens == 3
    assert sink.usage(Question(at(10, 30), at(12), ()))[0].totals.text_tokens == 6
    assert sink.usage(Question(at(0, 1), at(23), (), tenant="Zorn"))[0].totals.text_tokens == 4
    assert sink.usage(Question(at(0, 1), at(23), (), model="clip"))[0].totals.text_tokens == 24
    assert sink.usage(Question(at(0, 1), at(23), ("day",), tenant="nobody")) == []


def test_hours_are_those_of_utc_whatever_the_question_is_in(sink: UsageSink) -> None:
    several(sink)
    zone = timezone(timedelta(hours=5))
    narrow = Question(at(23, 30).astimezone(zone), at(0).astimezone(zone), ("day",))
    [row] = sink.usage(narrow)
    assert (row.start, row.totals.text_tokens) == (at(0, 30), 2)


def test_another_process_finds_what_was_written(sink: UsageSink, url: str) -> None:
    sink.write(events(5))
    again = open_sink(url)
    assert again.write(events(6)) == Written(1, 5)
    again.close()
    assert sink.usage(ALL)[0].totals.requests == 6


def test_a_closed_sink_opens_again_where_it_is_needed(sink: UsageSink) -> None:
    sink.write(events(1))
    sink.close()
    assert sink.write(events(2)) == Written(1, 1)


def test_several_writers_at_once_count_each_event_once(fresh: Fresh) -> None:
    url = fresh()  # nothing there yet: all of them make the tables

    def write(turn: int) -> int:
        sink = open_sink(url)
        batches = [events(20, start) for start in range(0, 200, 20)]
        new = sum(sink.write(b).new for b in batches[turn:] + batches[:turn])
        sink.close()
        return new

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 200
    sink = open_sink(url)
    assert sink.usage(ALL)[0].totals == Totals(200, items=200, text_tokens=2000)
    sink.close()


WRITER = """
import sys
from serving.metering.sinks import open_sink
from tests.usage import events
sink = open_sink(sys.argv[1])
print(sum(sink.write(events(10, start)).new for start in range(0, 300, 10)))
"""


def test_several_processes_at_once_count_each_event_once(fresh: Fresh) -> None:
    url = fresh()
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert sum(int(writer.communicate()[0]) for writer in writers) == 300
    sink = open_sink(url)
    assert sink.usage(ALL)[0].totals.requests == 300
    sink.close()


def test_an_event_that_can_never_be_taken_is_refused_and_takes_nothing_with_it(
    sink: UsageSink,
) -> None:
    with pytest.raises(EventRefused):
        sink.write([event("a"), event("b", model="\ud800")])
    assert sink.usage(ALL) == []
    assert sink.write([event("a")]) == Written(1, 0)


_pool = [
    event(i, time=NOON + i % 3 * 3600, tenant=f"t{i % 2}", text_tokens=i, status=200 + i % 2 * 300)
    for i in range(12)
]


@settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(some.lists(some.lists(some.sampled_from(_pool), max_size=8), max_size=6))
def test_totals_are_those_of_the_distinct_events_in_any_order_however_often(
    fresh: Fresh, batches: list[list[UsageEvent]]
) -> None:
    sink = open_sink(fresh())
    written = [sink.write(batch) for batch in batches]
    replayed = [sink.write(batch) for batch in reversed(batches)]
    distinct = {e.id: e for batch in batches for e in batch}
    assert sum(w.new for w in written) == len(distinct)
    assert sum(w.new for w in replayed) == 0
    assert sum(w.duplicates for w in written) == sum(map(len, batches)) - len(distinct)
    assert sink.usage(EVER) == answer(EVER, summed(distinct.values()).items())
    sink.close()


@pytest.mark.parametrize("scheme", ["sqlite", "jsonl"])
def test_a_ledger_that_is_not_there_is_unavailable_until_it_is(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "place").write_text("a file where a folder should be")
    sink = open_sink(f"{scheme}://{tmp_path}/place/ledger")
    with pytest.raises(Unavailable):
        sink.write(events(1))
    with pytest.raises(Unavailable):
        sink.usage(ALL)
    (tmp_path / "place").unlink()
    assert sink.write(events(1)) == Written(1, 0)
    sink.close()


def test_a_line_that_a_killed_writer_cut_short_is_removed_from_a_jsonl_ledger(
    tmp_path: Path,
) -> None:
    file = tmp_path / "usage.jsonl"
    sink = open_sink(f"jsonl://{file}")
    sink.write(events(2))
    with file.open("ab") as torn:
        torn.write(file.read_bytes()[:40])
    assert sink.write(events(3)) == Written(1, 2)
    again = open_sink(f"jsonl://{file}")
    assert again.usage(ALL)[0].totals.requests == 3
    assert file.read_bytes().count(b"\n") == 3


def test_nothing_is_touched_before_it_is_used(tmp_path: Path) -> None:
    for scheme in ("sqlite", "jsonl"):
        open_sink(f"{scheme}://{tmp_path}/ledger").close()
    open_sink("postgresql://nobody@127.0.0.1:1/none").close()
    assert list(tmp_path.iterdir()) == []


def test_a_url_names_a_file_or_the_default_of_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYVEC_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///", "sqlite://", f"sqlite://{tmp_path}/a%20b.db", "sqlite://near.db"):
        sink = open_sink(url)
        sink.write(events(1))
        sink.close()
    made = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.db")}
    assert made == {"state/usage.db", "a b.db", "near.db"}


@pytest.mark.parametrize("url", ["mysql://x", "sqlite", "sqlite:x", "", "postgresql://[bad"])
def test_a_url_that_is_no_ledger_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"ledger\.url"):
        open_sink(url)


def test_a_wrong_question_is_refused_by_its_field() -> None:
    for wrong, field in [
        (lambda: Question(at(1), at(1)), "from"),
        (lambda: Question(at(1) + timedelta(minutes=1), at(2)), "from"),
        (lambda: Question(at(1), at(2).replace(tzinfo=None)), "to"),
        (lambda: Question(at(1), at(2), ("week",)), "by"),
        (lambda: Question(at(1), at(2), ("day", "hour")), "by"),
    ]:
        with pytest.raises(InvalidInput) as error:
            wrong()
        assert error.value.field == field
