"""Ids: the same for a repeat under a key, otherwise never twice."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from datetime import UTC, datetime

from serving.metering.events import event_id
from tests.usage import NOON, event

_FORK = """
import os
from serving.metering.events import event_id
child = os.fork()
os.write(1, event_id("mine", "acme", "/v1/embeddings").encode() + b" ")
if child:
    os.waitpid(child, 0)
"""


def test_a_repeat_under_a_key_has_the_same_id() -> None:
    first = event_id("req-1", "acme", "/v1/embeddings", "key", b"body")
    assert first == event_id("req-2", "acme", "/v1/embeddings", "key", b"body")
    assert re.fullmatch(r"idem-[0-9a-f]{32}", first)


def test_another_tenant_endpoint_key_or_body_has_another_id() -> None:
    ids = {
        event_id("r", "acme", "/v1/embeddings", "key", b"body"),
        event_id("r", "zorn", "/v1/embeddings", "key", b"body"),
        event_id("r", "acme", "/v1/other", "key", b"body"),
        event_id("r", "acme", "/v1/embeddings", "key2", b"body"),
        event_id("r", "acme", "/v1/embeddings", "key", b"another"),
        event_id("r", "acmek", "/v1/embeddings", "ey", b"body"),
    }
    assert len(ids) == 6


def test_without_a_key_the_callers_choice_of_a_request_id_makes_nothing_one() -> None:
    ids = {event_id("mine", "acme", "/v1/embeddings") for _ in range(100)}
    assert len(ids) == 100
    assert all(name.startswith("mine-") for name in ids)


def test_neither_a_seed_nor_a_fork_brings_an_id_again() -> None:
    ids = set()
    for _ in range(2):
        random.seed(0)
        ids.add(event_id("mine", "acme", "/v1/embeddings"))
    assert len(ids) == 2
    forked = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, check=True)
    assert len(set(forked.stdout.split())) == 2


def test_an_empty_key_is_a_key() -> None:
    assert event_id("a", "t", "e", "") == event_id("b", "t", "e", "")


def test_the_hour_and_the_time_are_to_the_microsecond() -> None:
    last = event(time=NOON - 0.0000006)  # rounds into the hour before noon
    assert last.time_us == int(NOON) * 10**6 - 1
    assert last.hour == int(NOON) - 3600
    assert event(time=NOON - 0.0000004).hour == int(NOON)
    assert event(time=NOON).at == datetime(2026, 1, 31, 12, tzinfo=UTC)
