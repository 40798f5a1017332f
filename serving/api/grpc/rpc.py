"""The life of one RPC, or of one message of a stream: who asks, for how long, how it ended.

An error is answered by setting the context and returning an empty message, never by raising: Ray
Serve drops the trailers of an RPC that raises, and sends a traceback where no code is set.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from serving.accounts import Accounts
from serving.api.grpc.status import DETAILS, brief, code_of, details
from serving.api.rendering import Headers, error_headers, key_of, request_id, timing_headers
from serving.api.settings import ApiSettings
from serving.api.terms import allowed_s, idempotency_key, service_class
from serving.calls import Call
from serving.errors import BodyTooLarge, LimitExceeded, PolyvecError
from serving.limits.headers import rate_headers
from serving.telemetry.logs import about, name_tenant
from serving.values import Stages

__all__ = ["Context", "Ended", "Metadata", "Rpcs", "Said", "Trailers", "Verb", "metadata_of"]

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
Metadata: TypeAlias = Mapping[bytes, bytes]
Trailers: TypeAlias = Sequence[tuple[str, str | bytes]]


class Context(Protocol):
    """What an RPC is asked of and told, of grpc.aio's `ServicerContext` and of Ray Serve's."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """What the client sent beside its message."""
        ...

    def set_code(self, code: grpc.StatusCode) -> None:
        """How the RPC ends."""
        ...

    def set_details(self, details: str) -> None:
        """Why, for a person."""
        ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        """What is sent after the message."""
        ...


@dataclass(frozen=True, slots=True)
class Said(Generic[M]):
    """What a verb answers: a message, and where the time went."""

    message: M
    stages: Stages = field(default_factory=Stages)
    encode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended(Generic[M]):
    """How it went: a message or an error, and the trailers of either."""

    call: Call
    message: M | None
    error: PolyvecError | None
    trailers: Trailers

    def tell(self, context: Context, empty: M) -> M:
        """What to return from the RPC's method, once the context knows."""
        told: list[tuple[str, str | bytes]] = list(self.trailers)
        if self.error is not None:
            context.set_code(code_of(self.error))
            context.set_details(brief(self.error.message))
            told.append((DETAILS, details(self.error, self.call)))
        context.set_trailing_metadata(told)
        return empty if self.message is None else self.message


Verb: TypeAlias = Callable[[Call], Awaitable[Said[M]]]


def metadata_of(context: Context) -> Metadata:
    """The client's metadata as header fields, the way that HTTP has them."""
    sent = context.invocation_metadata() or ()
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode("utf-8", "replace")
        for name, value in sent
    }


class Rpcs:
    """Runs verbs, each as one call that is accounted for exactly once."""

    def __init__(self, accounts: Accounts, settings: ApiSettings) -> None:
        self._accounts, self._settings = accounts, settings

    async def unary(
        self,
        name: str,
        request: Message,
        context: Context,
        verb: Verb[M],
        empty: M,
        *,
        guarded: bool = True,
    ) -> M:
        """The message that the RPC `name` returns; the context has the rest.

        One that is not guarded needs no key.
        """
        metadata = metadata_of(context)
        call = Call(request_id(metadata.get(b"x-request-id")).decode(), f"grpc/{name}")
        left_s = _left_s(context)
        ended = await self.run(call, metadata, request, verb, left_s=left_s, guarded=guarded)
        return ended.tell(context, empty)

    async def run(
        self,
        call: Call,
        metadata: Metadata,
        request: Message,
        verb: Verb[M],
        *,
        left_s: float | None = None,
        guarded: bool = True,
    ) -> Ended[M]:
        """What the verb says, or its error; a cancelled one is counted as gone.

        `left_s` are the seconds of the client's own deadline, where it is known.
        """
        began = time.perf_counter()
        with about(call.id):
            try:
                if guarded:
                    self._identify(call, metadata)
                self._read_terms(call, metadata, request, left_s)
                said = await verb(call)
                await self._stand(call)
                total_s = time.perf_counter() - began
                await self._accounts.answered(call, total_s, said.stages, said.encode_s)
            except asyncio.CancelledError:
                self._accounts.gone(call, time.perf_counter() - began)
                raise
            except Exception as error:
                return await self._failed(call, error, began)
            own = timing_headers(said.stages, said.encode_s, total_s)
            return Ended(call, said.message, None, _trailers(call, own))

    async def refusal(self, call: Call, metadata: Metadata) -> Ended[Any] | None:
        """Why the caller is not let in, which is then counted; None where it is."""
        try:
            self._identify(call, metadata)
        except PolyvecError as error:
            return await self._failed(call, error, time.perf_counter())
        return None

    def _identify(self, call: Call, metadata: Metadata) -> None:
        call.tenant = self._accounts.identify(*key_of(metadata))
        name_tenant(call.tenant.id)

    def _read_terms(
        self, call: Call, metadata: Metadata, request: Message, left_s: float | None
    ) -> None:
        settings = self._settings
        most_s = settings.request_timeout_s
        if left_s is not None:
            most_s = min(most_s, left_s)
        call.deadline = time.monotonic() + allowed_s(metadata, most_s)
        call.service_class = service_class(metadata)
        call.idempotency_key = call.idempotency_key or idempotency_key(metadata)
        if request.ByteSize() > settings.body_bytes:
            raise BodyTooLarge(
                f"the message is larger than the {settings.body_bytes} bytes that one may have"
            )
        if call.idempotency_key is not None:
            call.body = request.SerializeToString(deterministic=True)

    async def _failed(self, call: Call, error: Exception, began: float) -> Ended[Any]:
        if not isinstance(error, PolyvecError):
            log.error("%s failed", call.id, exc_info=error)
            error = PolyvecError(
                "something failed on our side; the log has it under this request's id"
            )
        elif error.status >= 500:
            log.warning("%s %s: %s", call.id, error.code, error.message)
        try:
            if not isinstance(error, LimitExceeded):  # which has its own
                await self._stand(call)
        finally:
            total_s = time.perf_counter() - began
            self._accounts.failed(call, error, total_s)
        own = error_headers(error) + timing_headers(Stages(), 0.0, total_s)
        return Ended(call, None, error, _trailers(call, own))

    async def _stand(self, call: Call) -> None:
        if call.decision is None:
            call.decision = await self._accounts.standing(call)


def _trailers(call: Call, own: Headers) -> Trailers:
    if call.decision is not None:
        own += rate_headers(call.decision)
    if call.repeated:
        own.append((b"idempotent-replayed", b"true"))
    own.append((b"x-request-id", call.id.encode()))
    return [(name.decode(), value.decode()) for name, value in own]


def _left_s(context: Context) -> float | None:
    """Seconds until the client gives up; Ray Serve's context knows of none, and cancels then."""
    ask = getattr(context, "time_remaining", None)
    return None if ask is None else ask()
