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

from serving.api.body import ClientGone, read_body
from serving.api.rendering import Headers, error_body, error_headers, request_id, timing_headers
from serving.api.settings import ApiSettings
from serving.errors import BodyTimeout, InvalidInput, PolyvecError
from serving.values import ServiceClass, Stages

__all__ = ["Call", "Exchange", "Reply", "Verb"]

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_CLASSES: dict[bytes | None, ServiceClass] = {
    None: "interactive",
    b"interactive": "interactive",
    b"bulk": "bulk",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has arrived whole; `deadline` is a `time.monotonic()`."""

    body: bytes
    deadline: float
    service_class: ServiceClass = "interactive"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a verb answers: a JSON body, and where the time went."""

    body: bytes
    stages: Stages
    encode_s: float = 0.0


Verb = Callable[[Call], Coroutine[None, None, Reply]]


class Exchange:
    """An ASGI app around one verb."""

    def __init__(self, verb: Verb, settings: ApiSettings) -> None:
        self._verb, self._settings = verb, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, run the verb, answer. Nobody is answered where the client has gone."""
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request = request_id(headers.get(b"x-request-id"))
        status, own = 200, []
        stages, encode_s = Stages(), 0.0
        try:
            reply = await self._reply(headers, receive)
            body, stages, encode_s = reply.body, reply.stages, reply.encode_s
        except ClientGone:
            return
        except PolyvecError as error:
            if error.status >= 500:
                log.warning("%s %s: %s", request.decode(), error.code, error.message)
            status, body, own = error.status, error_body(error, request), error_headers(error)
            if isinstance(error, BodyTimeout):
                own.append((b"connection", b"close"))
        except Exception:
            log.exception("%s failed", request.decode())
            status, body = 500, error_body(_unexpected(), request)
        own += timing_headers(stages, encode_s, time.perf_counter() - began)
        if self._settings.writes_request_id:
            own.append((b"x-request-id", request))
        await _send(send, status, own, body)

    async def _reply(self, headers: Mapping[bytes, bytes], receive: Receive) -> Reply:
        settings = self._settings
        deadline = time.monotonic() + _allowed_s(headers, settings.request_timeout_s)
        service_class = _service_class(headers)
        body = await read_body(receive, headers, settings.body_bytes, settings.body_timeout_s)
        work = self._verb(Call(body, deadline, service_class))
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


def _allowed_s(headers: Mapping[bytes, bytes], most_s: float) -> float:
    sent = headers.get(b"x-request-timeout-ms")
    if sent is None:
        return most_s
    if not sent.isdigit() or len(sent) > 12 or int(sent) < 1:
        raise InvalidInput(
            "x-request-timeout-ms must be a whole number of milliseconds, at least 1",
            "x-request-timeout-ms",
        )
    return min(most_s, int(sent) / 1000)


def _service_class(headers: Mapping[bytes, bytes]) -> ServiceClass:
    found = _CLASSES.get(headers.get(b"x-service-class"))
    if found is None:
        raise InvalidInput("x-service-class must be interactive or bulk", "x-service-class")
    return found


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
