"""What the client is made of: splitting, pauses, errors by their code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import errors
from serving.client.retrying import Retries, error_of
from serving.client.splitting import Bounds, split
from serving.errors import InvalidInput, Overloaded, PolyvecError, TokenRateExceeded, Unavailable
from serving.values import Pdf, Text


@given(st.lists(st.text(max_size=20)), st.integers(1, 5), st.integers(1, 30))
def test_nothing_is_lost_or_moved_by_splitting(texts: list[str], most: int, size: int) -> None:
    bounds = Bounds(inputs=most, bytes=size)
    parts = list(split(map(Text, texts), bounds))
    assert [one.text for part in parts for one in part] == texts  # type: ignore[union-attr]
    for part in parts:
        assert 1 <= len(part) <= most
        bytes_ = sum(len(one.text.encode()) for one in part)  # type: ignore[union-attr]
        assert len(part) == 1 or bytes_ <= size


def test_a_document_is_alone() -> None:
    parts = split([Text("a"), Pdf("x"), Text("b"), Text("c")], Bounds())
    assert [len(part) for part in parts] == [1, 1, 2]


def test_a_pause_is_what_the_server_says() -> None:
    retries = Retries(first_s=0.5, longest_s=60)
    assert retries.pause_s(Overloaded("full", 7.0), 1, chance=0.0) == 7.0
    assert retries.pause_s(TokenRateExceeded("full", None, 59.0), 1, chance=1.0) == 59.5
    assert retries.pause_s(TokenRateExceeded("full", None, 61.0), 1, chance=0.0) is None
    assert retries.pause_s(TokenRateExceeded("full", None, None), 1, chance=0.0) is None


def test_pauses_grow_where_the_server_says_nothing() -> None:
    retries = Retries(attempts=5, first_s=1.0, longest_s=3.0)
    broken = PolyvecError("broken")
    assert [retries.pause_s(broken, n, chance=1.0) for n in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert retries.pause_s(broken, 1, chance=0.0) == 0.5
    assert retries.pause_s(broken, 5, chance=1.0) is None


def test_what_is_the_callers_fault_is_not_asked_again() -> None:
    assert Retries().pause_s(InvalidInput("no", "input"), 1, chance=0.0) is None


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_comes_back_as_itself(name: str) -> None:
    kind = getattr(errors, name)
    found = error_of(kind.status, kind.code, "why", "field", 2.5)
    assert type(found) is kind and found.message == "why"
    assert found.retry_after_s in (None, 2.5)


@pytest.mark.parametrize(
    ("status", "kind"), [(418, errors.Refused), (503, Unavailable), (500, PolyvecError)]
)
def test_an_unknown_error_is_known_by_its_status(status: int, kind: type[PolyvecError]) -> None:
    assert type(error_of(status, "NEW", "why", None, None)) is kind
