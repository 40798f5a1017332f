"""Counts that agree, and the places where they do not."""

from __future__ import annotations

from pathlib import Path

from serving.metering.questions import Question
from serving.metering.reconciling import Difference, counted, reconcile
from serving.metering.sinks import open_sink
from tests.usage import at, event


def test_tokens_are_counted_by_their_own_modality() -> None:
    mixed = event("a", modality="mixed", image_tokens=90, task="code")
    assert counted([mixed, event("b"), event("c")]) == {
        ("acme", "minilm", "code", "text"): 10,
        ("acme", "minilm", "code", "image"): 90,
        ("acme", "minilm", "", "text"): 20,
    }
    assert counted([event("d", text_tokens=0)]) == {}


def test_a_ledgers_rows_count_as_its_events_do(tmp_path: Path) -> None:
    events = [event(i, model=f"m{i % 2}", image_tokens=i) for i in range(5)]
    sink = open_sink(f"sqlite://{tmp_path}/usage.db")
    sink.write(events + events)
    rows = sink.usage(Question(at(0, 1), at(23), ("hour", "tenant", "model", "task", "modality")))
    assert reconcile({"responses": counted(events), "ledger": counted(rows)}) == []
    sink.close()


def test_a_difference_says_where_and_how_much() -> None:
    same = ("acme", "minilm", "", "text")
    gone = ("zorn", "minilm", "code", "image")
    found = reconcile(
        {"ledger": {same: 5}, "responses": {same: 5, gone: 7}, "counters": {same: 5, gone: 7}}
    )
    assert found == [Difference(*gone, {"ledger": 0, "responses": 7, "counters": 7})]
    assert str(found[0]) == "zorn minilm code image tokens: ledger 0, responses 7, counters 7"


def test_nothing_and_a_zero_agree() -> None:
    assert reconcile({"a": {("t", "m", "", "text"): 0}, "b": {}}) == []
