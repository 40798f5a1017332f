"""Where a server saturates is read off the steps; slopes come with their doubt."""

from __future__ import annotations

import asyncio
import random

import pytest

from loadtests.client import Target
from loadtests.drift import drift
from loadtests.openloop import Pool, Step, offer
from loadtests.saturate import most, saturation, worst_beyond
from loadtests.soak import allowed


def step(rate: float, answered: int, tokens: int) -> Step:
    return Step(rate, seconds=10.0, sent=round(10 * rate), answered=answered, tokens=tokens)


STEPS = [step(50, 500, 5000), step(100, 990, 9900), step(150, 1200, 12000), step(300, 900, 11400)]


def test_saturation_is_the_lowest_rate_that_was_not_kept_up_with() -> None:
    found = saturation(STEPS)
    assert found is not None
    assert found.rate == 150
    assert saturation(STEPS[:2]) is None


def test_what_is_left_beyond_is_counted_in_tokens() -> None:
    assert most(STEPS).tokens_per_s == 1200
    assert worst_beyond(STEPS) == 1140


async def _answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every third request is refused, and every fifth connection is cut."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            break
        number = int(head.split(b"/")[1].split()[0])
        if number % 5 == 4:
            break
        body = b'{"usage":{"total_tokens":7}}'
        word = b"503 No" if number % 3 == 2 else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (word, len(body), body))
    writer.close()


async def test_every_request_ends_as_one_of_three() -> None:
    server = await asyncio.start_server(_answering, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        pool = Pool(Target(f"http://127.0.0.1:{port}", "m"))
        requests = [b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(30)]
        found = await offer(pool, requests, rate=300)
        pool.close()
    assert found.sent == 30
    assert (len(found.latencies_s), found.refused) == (16, 8)
    assert found.failed.total() == 6
    assert found.tokens == 7 * found.answered


def wandering(slope: float, seed: int) -> tuple[list[float], list[float]]:
    """Two hours, a sample every five seconds, each much like the one before it."""
    chance, noise, values = random.Random(seed), 0.0, []
    seconds = [5.0 * number for number in range(1440)]
    for at in seconds:
        noise = 0.95 * noise + chance.gauss(0, 0.5)
        values.append(300 + slope * at / 3600 + noise + (40 * min(1, at / 900)))
    return seconds, values


@pytest.mark.parametrize("seed", range(5))
def test_a_process_that_only_warms_up_is_flat(seed: int) -> None:
    found = drift(*wandering(0.0, seed))
    assert found is not None
    assert found.word(allowed("MiB", found.level)) == "flat"


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_of_twenty_mib_an_hour_is_seen(seed: int) -> None:
    found = drift(*wandering(20.0, seed))
    assert found is not None
    assert found.word(allowed("MiB", found.level)) == "grows"
    assert found.low < 20 < found.high


def test_too_few_samples_say_nothing() -> None:
    assert drift([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]) is None


def test_a_short_run_is_in_doubt() -> None:
    seconds, values = wandering(3.0, 1)
    found = drift(seconds[200:260], values[200:260])
    assert found is not None
    assert found.word(0.5) == "unclear"
