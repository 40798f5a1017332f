"""A closed-loop HTTP client that costs little: N connections, each asks again when answered."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import orjson

from loadtests.texts import texts

__all__ = ["SCENARIOS", "Connection", "Outcome", "Scenario", "Target", "drive", "percentile"]

_GRACE_S = 60.0  # for what is still under way at the end of a round


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked: `clients` connections, each `batch` texts of `tokens` tokens at a time."""

    clients: int
    batch: int
    tokens: int
    form: str

    @property
    def name(self) -> str:
        """For example `32 clients, 1 x 12 tokens, base64`."""
        who = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{who}, {self.batch} x {self.tokens} tokens, {self.form}"


SCENARIOS = tuple(
    Scenario(clients, batch, tokens, form)
    for clients, batch, tokens in ((1, 1, 12), (8, 1, 12), (32, 1, 12), (4, 32, 100))
    for form in ("float", "base64")
)


@dataclass(frozen=True, slots=True)
class Target:
    """A server: its address, with `/v1/embeddings` where it has no path, its model and its key."""

    url: str
    model: str
    key: str | None = None

    @property
    def host(self) -> str:
        """The machine to connect to."""
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        """The port to connect to."""
        return urlsplit(self.url).port or 80

    def request(self, inputs: list[str], form: str) -> bytes:
        """One request, head and body, as it goes over the wire."""
        asked = inputs[0] if len(inputs) == 1 else inputs
        body = {"model": self.model, "input": asked, "encoding_format": form}
        return self.whole(orjson.dumps(body))

    def whole(self, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """A request with that body, and further headers."""
        path = urlsplit(self.url).path.rstrip("/") or "/v1/embeddings"
        own = {"Authorization": f"Bearer {self.key}", **headers} if self.key else headers
        told = "".join(f"{name}: {value}\r\n" for name, value in own.items())
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{told}"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@dataclass(slots=True)
class Outcome:
    """What came of one round of one scenario; `errors` counts each kind, `odd` says what is off."""

    latencies_s: list[float] = field(default_factory=list)
    texts: int = 0
    wall_s: float = 0.0
    client_cpu_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    odd: set[str] = field(default_factory=set)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, between neighbours linearly."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._body: list[bytes] = []
        self._answered: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of it
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: more of it."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))

    def on_body(self, body: bytes) -> None:
        """httptools: more of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """httptools: the end of an answer."""
        status, body = self._parser.get_status_code(), b"".join(self._body)
        self._body = []
        if self._answered is not None and not self._answered.done():
            self._answered.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._transport = None
        self._fail(exc or ConnectionError("closed by the server"))

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)

    @property
    def open(self) -> bool:
        """Whether the server has not hung up."""
        return self._transport is not None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send, and wait for the status and the body of the answer."""
        if self._transport is None:
            raise ConnectionError("closed by the server")
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


async def drive(target: Target, scenario: Scenario, seconds: float, seed: int) -> Outcome:
    """Keep every client busy for `seconds`; what is under way then is waited for, and counts."""
    outcome = Outcome()
    supply = texts(scenario.tokens, seed)  # one supply: no two requests share a text
    cpu, started = time.process_time(), time.perf_counter()
    until = started + seconds
    clients = [_client(target, scenario, supply, until, outcome) for _ in range(scenario.clients)]
    try:
        async with asyncio.timeout(seconds + _GRACE_S):
            await asyncio.gather(*clients)
    except TimeoutError:
        outcome.errors[f"no answer within {_GRACE_S:.0f} s"] += 1
    outcome.wall_s = time.perf_counter() - started
    outcome.client_cpu_s = time.process_time() - cpu
    return outcome


async def _client(
    target: Target, scenario: Scenario, supply: Iterator[str], until: float, outcome: Outcome
) -> None:
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    first = True
    while time.perf_counter() < until:
        request = target.request(list(islice(supply, scenario.batch)), scenario.form)
        begun = time.perf_counter()
        try:
            if connection is None:
                _, connection = await loop.create_connection(Connection, target.host, target.port)
                begun = time.perf_counter()
            status, body = await connection.ask(request)
        except OSError as error:
            outcome.errors[f"{type(error).__name__}: {error}"] += 1
            connection = None
            await asyncio.sleep(0.05)  # a server that refuses is not to be asked in a tight loop
            continue
        if status != 200:
            outcome.errors[f"HTTP {status}: {body[:160].decode('utf-8', 'replace')}"] += 1
            continue
        outcome.latencies_s.append(time.perf_counter() - begun)
        outcome.texts += scenario.batch
        if first:  # reading every answer would cost more than sending the requests
            outcome.odd |= set(_oddities(body, scenario))
            first = False
    if connection is not None:
        connection.close()


def _oddities(body: bytes, scenario: Scenario) -> Iterator[str]:
    """What is not as asked for in an answer: how many vectors, their form, the tokens counted."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        yield "not a JSON object"
        return
    rows = answer.get("data", [])
    if len(rows) != scenario.batch:
        yield f"{len(rows)} vectors for {scenario.batch} texts"
    for row in rows[:1]:
        vector = row.get("embedding")
        if scenario.form == "base64" and isinstance(vector, str):
            width = len(base64.b64decode(vector)) // 4
        elif scenario.form == "float" and isinstance(vector, list):
            width = len(vector)
        else:
            yield f"asked for {scenario.form}, answered with a {type(vector).__name__}"
            width = 1
        if not width:
            yield "an empty vector"
    counted = answer.get("usage", {}).get("prompt_tokens")
    if counted != scenario.batch * scenario.tokens:
        yield f"the server counts {counted} tokens, of {scenario.batch * scenario.tokens} sent"
