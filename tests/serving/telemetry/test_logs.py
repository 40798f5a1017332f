"""The log: one object a line, whose request it was, and nothing secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from serving.telemetry.logs import (
    JsonFormatter,
    about,
    configure_logging,
    name,
    name_tenant,
    named,
    redact,
)
from serving.tenants.keys import new_key

NAME = "polyvec.test.logs"


class Log:
    """A logger and the lines it wrote."""

    def __init__(self, form: Any) -> None:
        self.stream = io.StringIO()
        configure_logging("DEBUG", form, self.stream, NAME)
        self.log = logging.getLogger(f"{NAME}.room")

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    yield
    logging.getLogger(NAME).handlers.clear()


@pytest.fixture
def log() -> Log:
    return Log("json")


def test_a_record_is_one_json_object(log: Log) -> None:
    log.log.warning("a %s\nof two lines", "message", extra={"tokens": 7})
    [found] = log.objects()
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": f"{NAME}.room",
        "message": "a message\nof two lines",
        "tokens": 7,
    }


def test_the_request_and_its_tenant_are_said(log: Log) -> None:
    with about("r1"):
        log.log.info("before")
        name_tenant("acme")
        log.log.info("within")
        with about("r2", "umbra"):
            log.log.info("another")
    log.log.info("after")
    said = [(o.get("request_id"), o.get("tenant")) for o in log.objects()]
    assert said == [("r1", None), ("r1", "acme"), ("r2", "umbra"), (None, None)]


async def test_tasks_keep_their_own_request(log: Log) -> None:
    async def serve(number: int) -> None:
        with about(f"r{number}", f"t{number}"):
            await asyncio.sleep(0)
            log.log.info("%d", number)

    await asyncio.gather(*(serve(number) for number in range(10)))
    assert len(log.objects()) == 10
    for found in log.objects():
        assert found["request_id"] == f"r{found['message']}"
        assert found["tenant"] == f"t{found['message']}"


def test_an_error_has_its_type_its_place_and_where_it_came_from(log: Log) -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError:
        log.log.exception("failed")
    [found] = log.objects()
    assert (found["error"]["type"], found["error"]["message"]) == ("ValueError", "outer")
    assert "test_logs.py" in found["error"]["stack"]
    assert "KeyError, and then" in found["error"]["stack"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_key_is_ever_logged(form: str) -> None:
    log, key = Log(form), new_key()
    log.log.info("by %s and Authorization: Bearer %s", key.text, "sk-of-another-service")
    log.log.info("as an extra", extra={"sent": f"Bearer {key.text}", "more": [key.text]})
    try:
        raise ValueError(f"no such key: {key.text}")
    except ValueError:
        log.log.exception("failed")
    written = log.stream.getvalue()
    assert key.text[13:] not in written and "sk-of-another" not in written
    assert key.id in written


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_long_foreign_message_is_cut(form: str) -> None:
    log = Log(form)
    try:
        raise ValueError("the input was " + "secret text " * 1000)
    except ValueError:
        log.log.exception("x" * 100_000)
    assert log.stream.getvalue().count("secret text") < 30
    assert len(log.stream.getvalue()) < 20_000


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_message_can_forge_a_line(form: str) -> None:
    log = Log(form)
    log.log.info("one\r\n2026 ERROR two\u2028three\x1b[2J")
    assert len(log.stream.getvalue().splitlines()) == 1
    assert "\x1b" not in log.stream.getvalue()


def test_what_json_cannot_say_is_still_logged(log: Log) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError

        def __repr__(self) -> str:
            return "rude"

    misfit = logging.makeLogRecord({"msg": "%d", "args": ("no number",)})
    assert json.loads(JsonFormatter().format(misfit))["message"] == "%d ('no number',)"
    log.log.info("odd", extra={"a": float("nan"), "b": {1, 2}, "c": "\ud800", "d": 2**90})
    log.log.info("rude", extra={"it": Rude()})
    odd, rude = log.objects()
    assert (odd["a"], odd["c"], odd["d"]) == ("nan", "\ud800", 2**90)
    assert rude["it"] == "rude"


def test_the_text_names_the_request_too() -> None:
    log = Log("text")
    with about("r1", "acme"):
        log.log.info("hello")
    [line] = log.lines()
    assert line.endswith(f"INFO    {NAME}.room: hello [r1 acme]")


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, starts in ((Terminal(), "2"), (io.StringIO(), "{")):
        configure_logging("INFO", "auto", stream, NAME)
        logging.getLogger(NAME).info("hello")
        assert stream.getvalue().startswith(starts)


def test_configuring_twice_writes_once() -> None:
    first, second = Log("json"), Log("json")
    second.log.info("once")
    assert first.lines() == []
    assert len(second.lines()) == 1


def test_redacting_leaves_other_text_alone() -> None:
    text = "the bearer of this, pv_short and a request r-1"
    assert redact("pv_4fGh8Kq2Lm" + "A" * 38) == "pv_4fGh8Kq2Lm…"
    assert redact(text).startswith("the bearer ") and "pv_short and a request r-1" in redact(text)


async def test_a_task_that_is_named_stays_so_to_its_end_and_no_other(log: Log) -> None:
    async def work(request: str) -> tuple[str, str]:
        name(request, f"of {request}")
        await asyncio.sleep(0)
        log.log.info("here")
        return named()

    found = await asyncio.gather(*(asyncio.create_task(work(one)) for one in ("a", "b")))
    assert found == [("a", "of a"), ("b", "of b")]
    assert named() == ("", "")
    assert [line["request_id"] for line in log.objects()] == ["a", "b"]
