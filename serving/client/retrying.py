"""Errors of a server as ours, and whether and when to ask again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving import errors
from serving.errors import DeadlinePassed, LimitExceeded, PolyvecError, Refused, Unavailable

__all__ = ["SLACK_S", "Retries", "error_of"]

SLACK_S = 5.0
"""Beyond a request's time, for the server to say itself that it is over."""

# Statuses that may be others' doing and not the request's: a timeout, a gateway, an overload.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Retries:
    """`attempts` in all, waiting what the server says, else twice as long each time.

    A server that says to wait longer than `longest_s` is believed, and the error is raised.
    """

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 60.0

    def pause_s(self, error: PolyvecError, attempt: int, chance: float) -> float | None:
        """Seconds to wait after the attempt of that number, from 1; None: do not ask again.

        `chance` is from 0 to 1, so that clients that failed together do not come back together.
        """
        if attempt >= self.attempts or error.status not in _PASSING:
            return None
        if isinstance(error, LimitExceeded) and error.retry_after_s is None:
            return None
        told = error.retry_after_s
        backoff = min(self.longest_s, self.first_s * 2.0 ** (attempt - 1)) * (0.5 + chance / 2)
        if told is None:
            return backoff
        if told > self.longest_s:
            return None
        # The server's word is when the first of all who wait fits in again.
        return told + chance * min(told, self.first_s)


def error_of(
    status: int, code: str, message: str, field: str | None, retry_after_s: float | None
) -> PolyvecError:
    """The error that a server tells of, as it was raised there; by its status where it is new."""
    kind = _KINDS.get(code)
    if kind is None:
        kind = _BY_STATUS.get(status, Refused if status < 500 else PolyvecError)
    if issubclass(kind, LimitExceeded):
        return kind(message, field, retry_after_s)
    if issubclass(kind, Unavailable):
        return kind(message) if retry_after_s is None else kind(message, retry_after_s)
    return kind(message, field) if issubclass(kind, Refused) else kind(message)


_KINDS: Mapping[str, type[PolyvecError]] = {
    kind.code: kind for kind in (getattr(errors, name) for name in errors.__all__)
}
_BY_STATUS: Mapping[int, type[PolyvecError]] = {
    502: Unavailable,
    503: Unavailable,
    504: DeadlinePassed,
}
