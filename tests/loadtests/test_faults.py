"""Answers held against the ledger, and one fault for real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.faults.books import Asked, Row, judged, table, usual_s

FAULT = 10.0


def asked(event: str, sent: float, took: float | None = 0.1, tokens: int = 5) -> Asked:
    return Asked(event, sent, None if took is None else sent + took, tokens)


def billed(requests: list[Asked]) -> list[Row]:
    return [Row(one.event, one.tokens, 200) for one in requests]


def calm() -> list[Asked]:
    return [asked(f"e{number}", float(number)) for number in range(20)]


def test_a_run_in_which_nothing_happened_is_sound() -> None:
    found = judged(calm(), billed(calm()), FAULT, slow_s=0.5)
    assert (found.sent, found.answered, found.lost, found.unbilled, found.twice) == (
        20,
        20,
        0,
        0,
        0,
    )
    assert found.recovered_s == 0
    assert found.sound(unsynced_s=0)


def test_what_was_never_answered_is_lost() -> None:
    requests = [*calm(), asked("gone", 11, None)]
    found = judged(requests, billed(calm()), FAULT, slow_s=0.5)
    assert found.lost == 1
    assert not found.sound(unsynced_s=0)


def test_a_repeat_that_is_answered_is_not_lost() -> None:
    again = asked("again", 11.5, 2.0)
    again.trouble.append("503 SERVICE_UNAVAILABLE")
    requests = [*calm(), again]
    found = judged(requests, billed(requests), FAULT, slow_s=0.5)
    assert (found.retried, found.slow, found.lost) == (1, 1, 0)
    assert found.recovered_s == pytest.approx(1.5)
    assert found.worst_s == pytest.approx(2.0)
    assert found.trouble == {"503 SERVICE_UNAVAILABLE": 1}


def test_an_event_of_no_answer_is_billed_twice() -> None:
    rows = [*billed(calm()), Row("again-under-another-id", 5, 200)]
    assert judged(calm(), rows, FAULT, slow_s=0.5).twice == 1


def test_other_tokens_than_were_answered_are_billed_wrongly() -> None:
    rows = [*billed(calm()[1:]), Row("e0", 10, 200)]
    assert judged(calm(), rows, FAULT, slow_s=0.5).twice == 1


def test_failures_on_record_bill_nobody() -> None:
    rows = [*billed(calm()), Row("failed", 0, 503)]
    assert judged(calm(), rows, FAULT, slow_s=0.5).twice == 0


def test_only_what_was_on_no_disk_may_be_unbilled() -> None:
    requests = calm()
    last = judged(requests, billed([r for r in requests if r.event != "e9"]), 9.2, slow_s=0.5)
    assert last.unbilled == 1
    assert last.sound(unsynced_s=0.2)
    earlier = judged(requests, billed([r for r in requests if r.event != "e5"]), 9.2, slow_s=0.5)
    assert not earlier.sound(unsynced_s=0.2)


def test_slow_is_three_times_what_was_usual() -> None:
    requests = [asked(f"e{number}", float(number), 0.4) for number in range(9)]
    assert usual_s(requests, FAULT) == pytest.approx(1.2)
    assert usual_s(calm(), FAULT) == 0.5


def test_the_table_names_what_is_broken() -> None:
    found = judged([asked("gone", 11, None)], [], FAULT, slow_s=0.5)
    assert table({"gateway": (found, 3.0, False)}).endswith("| BROKEN |")


@pytest.mark.ray
@pytest.mark.slow
def test_a_gateway_that_is_killed_costs_nobody_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.faults", "gateway", "--before", "3", "--after", "3"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, unbilled" in done.stdout
    assert "billed twice 0" in done.stdout
