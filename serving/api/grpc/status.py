"""Errors as gRPC has them: a code, a sentence, and `google.rpc` details beside them.

All of it travels in trailers, of which a client takes some 8 kB: whatever can be long is cut.
"""

from __future__ import annotations

import math

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from serving.calls import Call
from serving.errors import InvalidInput, LimitExceeded, PolyvecError
from serving.limits.refusing import decision_of

__all__ = ["DETAILS", "brief", "code_of", "details", "retry_ms"]

DETAILS = "grpc-status-details-bin"
"""The trailer that has `details`."""

_DOMAIN = "polyvec"
_LONGEST = 600  # of a message's bytes, each of which percent-encoding may make three of
_LONGEST_PROBLEM, _MOST_PROBLEMS = 160, 8

# By the status that the error has over HTTP (api.md 6).
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: PolyvecError) -> grpc.StatusCode:
    """The status code of an error; INTERNAL where it is ours alone."""
    return _CODES.get(error.status, grpc.StatusCode.INTERNAL)


def brief(text: str, most: int = _LONGEST) -> str:
    """The text, cut where it has more than `most` bytes."""
    sent = text.encode("utf-8", "replace")
    if len(sent) <= most:
        return sent.decode()
    return sent[:most].decode("utf-8", "ignore") + "…"


def retry_ms(error: PolyvecError) -> int | None:
    """Milliseconds after which the same request may succeed; None where no wait helps."""
    if error.retry_after_s is None or error.status not in (429, 503):
        return None
    return max(1, math.ceil(error.retry_after_s * 1000))


def details(error: PolyvecError, call: Call) -> bytes:
    """A `google.rpc.Status` with everything that is known of why."""
    facts: list[Message] = [
        ErrorInfo(
            reason=error.code,
            domain=_DOMAIN,
            metadata={"request_id": call.id, **({"model": call.model} if call.model else {})},
        )
    ]
    wait = retry_ms(error)
    if wait is not None:
        seconds, rest = divmod(wait, 1000)
        facts.append(RetryInfo(retry_delay=Duration(seconds=seconds, nanos=rest * 1_000_000)))
    if isinstance(error, LimitExceeded):
        facts.append(QuotaFailure(violations=[_violation(error, call)]))
    if error.field is not None:
        facts.append(BadRequest(field_violations=_problems(error)))
    packed = []
    for fact in facts:
        packed.append(Any())
        packed[-1].Pack(fact)
    code, _ = code_of(error).value
    written: bytes = Status(
        code=code, message=brief(error.message), details=packed
    ).SerializeToString()
    return written


def _violation(error: LimitExceeded, call: Call) -> QuotaFailure.Violation:
    decision = decision_of(error)
    refusal = decision.refusal if decision is not None else None
    return QuotaFailure.Violation(
        subject=f"tenant:{call.tenant.id}",
        description=brief(error.message, _LONGEST_PROBLEM),
        quota_metric=refusal.bucket.name if refusal is not None else "",
        quota_value=refusal.bucket.limit if refusal is not None else 0,
    )


def _problems(error: PolyvecError) -> list[BadRequest.FieldViolation]:
    found = [(error.field or "", error.message)]
    if isinstance(error, InvalidInput):
        found = [(field, message) for field, message, _, _ in error.problems]
    return [
        BadRequest.FieldViolation(
            field=brief(field, _LONGEST_PROBLEM), description=brief(message, _LONGEST_PROBLEM)
        )
        for field, message in found[:_MOST_PROBLEMS]
    ]
