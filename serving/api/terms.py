"""What a caller says beside the request itself: how long it waits, how urgent it is, once only."""

from __future__ import annotations

from collections.abc import Mapping

from serving.errors import InvalidInput
from serving.values import ServiceClass

__all__ = ["allowed_s", "idempotency_key", "service_class"]

_CLASSES: dict[bytes | None, ServiceClass | None] = {
    None: None,
    b"interactive": "interactive",
    b"bulk": "bulk",
}
_LONGEST_KEY = 255


def allowed_s(headers: Mapping[bytes, bytes], most_s: float) -> float:
    """Seconds that the request may take: `x-request-timeout-ms`, but at most `most_s`."""
    sent = headers.get(b"x-request-timeout-ms")
    if sent is None:
        return most_s
    if not sent.isdigit() or len(sent) > 12 or int(sent) < 1:
        raise InvalidInput(
            "x-request-timeout-ms must be a whole number of milliseconds, at least 1",
            "x-request-timeout-ms",
        )
    return min(most_s, int(sent) / 1000)


def service_class(headers: Mapping[bytes, bytes]) -> ServiceClass | None:
    """`x-service-class`, or None where it is not said."""
    sent = headers.get(b"x-service-class")
    if sent not in _CLASSES:
        raise InvalidInput("x-service-class must be interactive or bulk", "x-service-class")
    return _CLASSES[sent]


def idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    """`idempotency-key`, or None where there is none."""
    sent = headers.get(b"idempotency-key")
    if sent is not None and not 1 <= len(sent) <= _LONGEST_KEY:
        name = "idempotency-key"
        raise InvalidInput(f"{name} must have 1 to {_LONGEST_KEY} characters", name)
    return None if sent is None else sent.decode("latin-1")
