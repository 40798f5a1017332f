"""One HTTP exchange in raw ASGI: a body in, one response out, every error as the one error body.

FastAPI is left out of it on purpose: its middleware stack, routing and validation cost several
times what reading and answering a short text does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from serving.accounts import Accounts
from serving.api.body import ClientGone, read_body
from serving.api.rendering import (
    Headers,
    error_body,
    error_headers,
    key_of,
    request_id,
    timing_headers,
)
from serving.api.settings import ApiSettings
from serving.api.terms import allowed_s, idempotency_key, service_class
from serving.calls import Call
from serving.errors import BodyTimeout, LimitExceeded, Overloaded, PolyvecError
from serving.limits.headers import rate_headers
from serving.telemetry import traces
from serving.telemetry.logs import about, name_tenant
from serving.values import Stages

__all__ = ["Exchange", "Reply", "Verb"]

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a verb answers: a JSON body, and where the time went."""

    body: bytes
    stages: Stages
    encode_s: float = 0.0


Verb = Callable[[Call], Coroutine[None, None, Reply]]


class Exchange:
    """An ASGI app around one verb, whose route is `endpoint`."""

    def __init__(
        self, verb: Verb, endpoint: str, accounts: Accounts, settings: ApiSettings
    ) -> None:
        self._verb, self._endpoint = verb, endpoint
        self._accounts, self._settings = accounts, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask who it is, read the body, run the verb, answer; nobody where the client has gone."""
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call = Call(request_id(headers.get(b"x-request-id")).decode(), self._endpoint)
        name = f"{scope['method']} {self._endpoint}"
        parent = headers.get(b"traceparent", b"").decode("latin-1")
        with about(call.id), traces.span(name, parent=parent, kind="server") as span:
            try:
                status, body, own = await self._answer(call, headers, receive, began, span)
            except (ClientGone, asyncio.CancelledError) as gone:
                self._accounts.gone(call, time.perf_counter() - began)
                if isinstance(gone, ClientGone):
                    return
                raise
            if call.decision is not None:
                own += rate_headers(call.decision)
            if call.repeated:
                own.append((b"idempotent-replayed", b"true"))
            if self._settings.writes_request_id:
                own.append((b"x-request-id", call.id.encode()))
            await _send(send, status, own, body)

    async def _answer(
        self,
        call: Call,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        began: float,
        span: traces.Span,
    ) -> tuple[int, bytes, Headers]:
        """Status, body and headers; what the call owes is counted when this returns."""
        accounts, error = self._accounts, _unexpected()
        try:
            reply = await self._reply(call, headers, receive)
        except ClientGone:
            raise
        except PolyvecError as known:
            # One line for each of many refusals would cost a third of refusing them; metrics count.
            if known.status >= 500 and not isinstance(known, Overloaded):
                log.warning("%s %s: %s", call.id, known.code, known.message)
            error = known
        except Exception:
            log.exception("%s failed", call.id)
        else:
            total_s = time.perf_counter() - began
            await accounts.answered(call, total_s, reply.stages, reply.encode_s)
            span.set(traces.embeddings(call.model, call.usage.total_tokens, call.dimensions))
            return 200, reply.body, timing_headers(reply.stages, reply.encode_s, total_s)
        if call.decision is None and not isinstance(error, LimitExceeded):
            call.decision = await accounts.standing(call)
        total_s = time.perf_counter() - began
        accounts.failed(call, error, total_s)
        span.failed(error.code)
        own = error_headers(error) + timing_headers(Stages(), 0.0, total_s)
        if isinstance(error, BodyTimeout):
            own.append((b"connection", b"close"))
        return error.status, error_body(error, call.id.encode()), own

    async def _reply(self, call: Call, headers: Mapping[bytes, bytes], receive: Receive) -> Reply:
        settings = self._settings
        call.tenant = self._accounts.identify(*key_of(headers))
        name_tenant(call.tenant.id)
        call.deadline = time.monotonic() + allowed_s(headers, settings.request_timeout_s)
        call.service_class = service_class(headers)
        call.idempotency_key = idempotency_key(headers)
        call.body = await read_body(receive, headers, settings.body_bytes, settings.body_timeout_s)
        work = self._verb(call)
        if settings.watch_disconnects:
            return await _while_connected(receive, work)
        return await work


def _unexpected() -> PolyvecError:
    return PolyvecError("something failed on our side; the log has it under this request's id")


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _while_connected(receive: Receive, work: Awaitable[_Result]) -> _Result:
    """The work's result. Where the client hangs up first: the work is cancelled, `ClientGone`."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone:
            task.uncancel()
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
