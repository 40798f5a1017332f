"""The measure of the ledger runs and measures something."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests import ledger


def test_it_prints_a_row_for_each_ledger_and_each_state(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    more = f"sqlite://{tmp_path}/more.db"
    monkeypatch.setattr("sys.argv", ["ledger", "--events", "300", "--rate", "1e6", "--url", more])
    assert ledger.main() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1].strip() for line in lines if "|" in line]
    assert rows.count("sqlite") == 2
    assert {"jsonl", "ledger up", "ledger away"} <= set(rows)


def test_every_event_is_measured_as_a_new_one(tmp_path: Path) -> None:
    new, again, cpu = ledger.sink_rate(f"jsonl://{tmp_path}/usage.jsonl", 400)
    assert min(new, again, cpu) > 0
    assert len((tmp_path / "usage.jsonl").read_bytes().splitlines()) == 400
