"""The log: a JSON object a line, or plain text for a terminal. No inputs, and never a key.

Who logs need not know for whom: `about` says the request and its tenant for everything that is
logged inside it, in its own task and those begun there.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO, TypeAlias

__all__ = [
    "Form",
    "JsonFormatter",
    "TextFormatter",
    "about",
    "configure_logging",
    "name",
    "name_tenant",
    "named",
    "redact",
]

Form: TypeAlias = Literal["auto", "json", "text"]

_request: ContextVar[str] = ContextVar("polyvec_request", default="")
_tenant: ContextVar[str] = ContextVar("polyvec_tenant", default="")

_LONGEST, _LONGEST_FOREIGN = 8192, 300
_SECRETS = re.compile(r"\b(pv_[0-9A-Za-z]{10})[0-9A-Za-z]+|(\bBearer\s+)[^\s\"',;]+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_THEIRS = ("_", "vllm_")  # what Ray and vLLM add to every record


@contextmanager
def about(request_id: str, tenant: str = "") -> Iterator[None]:
    """What is logged in this block is about that request and that tenant (its id)."""
    request, whose = _request.set(request_id), _tenant.set(tenant)
    try:
        yield
    finally:
        _request.reset(request)
        _tenant.reset(whose)


def name(request_id: str, tenant: str = "") -> None:
    """As `about`, to the end of this task."""
    _request.set(request_id)
    _tenant.set(tenant)


def named() -> tuple[str, str]:
    """The request and the tenant that this task logs for; "" where there is none."""
    return _request.get(), _tenant.get()


def name_tenant(tenant: str) -> None:
    """Say whose request this is, where that is known only later: until the end of `about`."""
    _tenant.set(tenant)


def redact(text: str) -> str:
    """The text without API keys (their public ids stay) and without bearer tokens."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2]}…", text)


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, message, request_id, tenant, error, extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if request := _request.get():
            line["request_id"] = request
        if tenant := _tenant.get():
            line["tenant"] = tenant
        for name, value in vars(record).items():
            if name not in _OWN and name not in line and not name.startswith(_THEIRS):
                line[name] = _plain(value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            kind, said = type(error).__name__, _said(error)
            line["error"] = {"type": kind, "message": said, "stack": _stack(error)}
        return json.dumps(line, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """One line for a person: time, level, logger, message, request; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line and the traceback, if any; control characters of a message are written out."""
        message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], _message(record))
        text = f"{_time(record)} {record.levelname:<7} {record.name}: {message}"
        about_whom = " ".join(filter(None, (_request.get(), _tenant.get())))
        if about_whom:
            text += f" [{about_whom}]"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f"\n{_stack(error)}{type(error).__name__}: {_said(error)}"
        return text


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it is known again."""


def configure_logging(
    level: str = "INFO", form: Form = "auto", stream: TextIO | None = None, logger: str = ""
) -> None:
    """Write what `logger` (the root) and those below it log to `stream` (stderr).

    `auto` is text where the stream is a terminal, else JSON. Called again, it begins anew; handlers
    of others stay.
    """
    stream = sys.stderr if stream is None else stream
    plain = form == "text" or (form == "auto" and hasattr(stream, "isatty") and stream.isatty())
    handler = _Handler(stream)
    handler.setFormatter(TextFormatter() if plain else JsonFormatter())
    target = logging.getLogger(logger or None)
    for old in [one for one in target.handlers if isinstance(one, _Handler)]:
        target.removeHandler(old)
    target.addHandler(handler)
    target.setLevel(level.upper())


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return _short(record.getMessage())
    except (TypeError, ValueError, KeyError):  # arguments that do not fit; the line is worth more
        return _short(f"{record.msg} {record.args}")


def _short(text: str, longest: int = _LONGEST) -> str:
    text = redact(text)
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def _said(error: BaseException) -> str:
    """What an error says: its beginning only, since foreign ones may repeat their input."""
    try:
        return _short(str(error), _LONGEST_FOREIGN)
    except Exception:  # whatever a foreign class does in its __str__
        return ""


def _stack(error: BaseException) -> str:
    """Where it happened, and the errors it came from, without what they say."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{_stack(before)}{type(before).__name__}, and then\n{frames}" if before else frames


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _short(value if isinstance(value, str) else repr(value))
