"""Usage asked for in words, those of a query string or a command line, to a `Question`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from serving.errors import InvalidInput
from serving.metering.questions import Question

__all__ = ["BY_DEFAULT", "asked"]

BY_DEFAULT = "day,model"
_NAME = 256  # characters


def asked(words: Mapping[str, str], now: datetime) -> Question:
    """The question that `from`, `to`, `by`, `model` and `tenant` put; each may be missing.

    Times are ISO 8601 and full hours, in UTC where they have no offset; by default from the first
    of this month (UTC) to the next full hour. `by` is a comma list, which may be empty. Raises
    `InvalidInput`, which names the field and the choices.
    """
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    since, until = _moment(words, "from"), _moment(words, "to")
    by = words.get("by", BY_DEFAULT)
    return Question(
        since=since or hour.replace(day=1, hour=0),
        until=until or hour + timedelta(hours=1),
        by=tuple(dict.fromkeys(name.strip() for name in by.split(","))) if by else (),
        tenant=_name(words, "tenant"),
        model=_name(words, "model"),
    )


def _moment(words: Mapping[str, str], field: str) -> datetime | None:
    word = words.get(field)
    if word is None:
        return None
    try:
        at = datetime.fromisoformat(word)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{field} must be a time of ISO 8601, such as 2026-01-31 or 2026-01-31T13:00Z", field
        ) from None


def _name(words: Mapping[str, str], field: str) -> str | None:
    word = words.get(field)
    if word is not None and not (word.isprintable() and 0 < len(word) <= _NAME):
        raise InvalidInput(f"{field} must be a name of 1 to {_NAME} visible characters", field)
    return word
