"""Ledgers of earlier versions are brought up to date, once, and newer ones are left alone."""

from __future__ import annotations

import itertools
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from serving.errors import Unavailable
from serving.metering.questions import Question
from serving.metering.sinks import Written, open_sink
from serving.metering.sinks._schema import STEPS, migrate
from tests.postgres import Postgres
from tests.usage import NOON, at, event, events, raw

_numbers = itertools.count()
ALL = Question(at(0, day=1), at(23), ())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/usage.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.make(f"schema{next(_numbers)}")


def older(url: str, version: int) -> None:
    """Tables as the program of that version left them, with one event and its sums in them."""
    seq = "INTEGER PRIMARY KEY AUTOINCREMENT"
    if url.startswith("postgresql"):
        seq = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"

    def run(statement: str, values: object) -> list[tuple[object, ...]]:
        return raw(url, statement.replace("%s", str(version)))

    migrate(run, seq, STEPS[:version])
    raw(
        url,
        "INSERT INTO usage_event (id, tenant, key_id, model, task, modality, text_tokens,"
        " image_tokens, items, dimensions, status, duration_us, time_us) VALUES"
        f" ('0', 'acme', 'k', 'minilm', '', 'text', 10, 0, 1, 384, 200, 1, {int(NOON) * 10**6})",
    )
    raw(
        url,
        "INSERT INTO usage_hour VALUES"
        f" ({int(NOON)}, 'acme', 'minilm', '', 'text', 1, 0, 1, 10, 0)",
    )


@pytest.mark.parametrize("version", range(1, len(STEPS)))
def test_an_older_ledger_keeps_what_it_has_and_gets_what_it_lacks(url: str, version: int) -> None:
    older(url, version)
    sink = open_sink(url)
    assert sink.usage(ALL)[0].totals.requests == 1
    assert sink.write(events(3)) == Written(2, 1)
    assert sink.usage(ALL)[0].totals.text_tokens == 30
    assert raw(url, "SELECT version FROM usage_schema") == [(len(STEPS),)]
    assert raw(url, "SELECT COUNT(*) FROM usage_outbox") == [(0,)]
    sink.close()


def test_an_older_ledger_is_brought_up_by_one_of_several(url: str) -> None:
    older(url, 1)

    def write(number: int) -> int:
        sink = open_sink(url)
        new = sink.write([event(f"new-{number}")]).new
        sink.close()
        return new

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 4
    assert raw(url, "SELECT version FROM usage_schema") == [(len(STEPS),)]


def test_a_ledger_of_a_newer_program_is_left_as_it_is(url: str) -> None:
    sink = open_sink(url)
    sink.write(events(1))
    raw(url, f"UPDATE usage_schema SET version = {len(STEPS) + 1}")
    again = open_sink(url)
    with pytest.raises(Unavailable, match="update"):
        again.write(events(2))
    assert raw(url, "SELECT COUNT(*) FROM usage_event") == [(1,)]
    again.close()
    sink.close()


def test_a_ledger_whose_tables_went_away_is_made_again(url: str) -> None:
    sink = open_sink(url)
    sink.write(events(1))
    for table in ("usage_schema", "usage_event", "usage_hour", "usage_export", "usage_outbox"):
        raw(url, f"DROP TABLE {table}")
    with pytest.raises(Unavailable):
        sink.write(events(1))
    assert sink.write(events(1)) == Written(1, 0)
    sink.close()


def test_who_may_only_read_a_postgresql_ledger_reads_it(postgres: Postgres) -> None:
    url = postgres.make("readers")
    writer = open_sink(url)
    writer.write([event()])
    writer.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    reader = open_sink(url.replace("postgres@", "reader@"))
    [row] = reader.usage(Question(at(12), at(13), ("model",)))
    assert (row.model, row.totals.text_tokens) == ("minilm", 10)
    with pytest.raises(Unavailable):
        reader.write([event("another")])
    reader.close()


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    # SQLite itself refuses at once here: it fears a deadlock
    other = sqlite3.connect(tmp_path / "usage.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(open_sink(f"sqlite://{tmp_path}/usage.db").write, events(3))
        with pytest.raises(TimeoutError):
            written.result(timeout=0.3)
        other.execute("COMMIT")
        assert written.result(timeout=60) == Written(3, 0)
    other.close()
