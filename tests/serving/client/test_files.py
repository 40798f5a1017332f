"""A file of texts to a file of vectors: ids, formats, refusals, and going on after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from serving.api.app import ApiSettings, create_app
from serving.api.grpc.server import serve_grpc
from serving.client import AsyncClient, Bounds, Retries
from serving.client.files import embed_file
from serving.client.journal import Journal
from serving.client.rows import Rows
from serving.errors import InvalidConfig, InvalidInput, Unavailable
from serving.service import Service
from serving.values import Floats, Prepared, Vectors
from tests.bank import Bank
from tests.services import HashEngine, listening, service, toy

TEXTS = [f"text {number}" for number in range(20)]


class Failing(HashEngine):
    """Answers so many times, and fails from then on."""

    def __init__(self, answers: int) -> None:
        super().__init__(8)
        self.answers = answers

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        if self.calls >= self.answers:
            self.error = Unavailable("gone")
        return await super().embed(prepared, deadline)


async def embedded(
    served: Service, rows: Rows, out: Path, key: str | None = None, **wanted: object
) -> None:
    async with listening(create_app(served, ApiSettings())) as port:
        url = f"http://127.0.0.1:{port}"
        bounds, retries = Bounds(inputs=3, concurrency=2), Retries(attempts=1)
        async with AsyncClient(url, key, bounds=bounds, retries=retries) as client:
            await embed_file(client, rows, out, "toy", **wanted)  # type: ignore[arg-type]


async def reference(texts: list[str]) -> Floats:
    async with serve_grpc(service(toy()), "127.0.0.1:0") as port:
        client = AsyncClient(f"grpc://127.0.0.1:{port}")
        found = await client.embed(texts, "toy")
        await client.close()
    return found.vectors


def write(folder: Path, *texts: str) -> Rows:
    file = folder / "texts.txt"
    file.write_text("".join(f"{text}\n" for text in texts))
    return Rows(file)


def write_objects(folder: Path, *objects: object) -> Rows:
    file = folder / "rows.jsonl"
    file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in objects))
    return Rows(file)


async def test_a_text_file_becomes_an_array_with_a_row_a_line(tmp_path: Path) -> None:
    texts = [*TEXTS, "", "the last"]
    out = tmp_path / "out.npy"
    await embedded(service(toy()), write(tmp_path, *texts), out)
    np.testing.assert_array_equal(np.load(out), await reference(texts))
    ids = (tmp_path / "out.npy.ids.jsonl").read_text().split()
    assert ids == [str(number) for number in range(22)]
    assert sorted(os.listdir(tmp_path)) == ["out.npy", "out.npy.ids.jsonl", "texts.txt"]


async def test_objects_keep_their_ids_in_parquet(tmp_path: Path) -> None:
    rows = write_objects(tmp_path, {"id": "b", "text": "two"}, {"id": 7, "text": "one"})
    out = tmp_path / "out.parquet"
    await embedded(service(toy()), rows, out)
    table = pq.read_table(out)
    assert table["id"].to_pylist() == ["b", "7"]
    expected = await reference(["two", "one"])
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), expected)


async def test_whole_numbers_stay_numbers(tmp_path: Path) -> None:
    rows = write_objects(tmp_path, {"id": 9, "text": "a"}, {"text": "b"})
    out = tmp_path / "out.parquet"
    await embedded(service(toy()), rows, out, encoding="int8")
    table = pq.read_table(out)
    assert table["id"].to_pylist() == [9, 1]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: int8>[8]"


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
async def test_a_run_that_failed_goes_on_where_it_stopped(tmp_path: Path, suffix: str) -> None:
    rows, out = write(tmp_path, *TEXTS), tmp_path / f"out.{suffix}"
    with pytest.raises(Unavailable):
        await embedded(service(toy(), engine=Failing(4)), rows, out)
    assert not out.exists()
    engine = HashEngine(8)
    await embedded(service(toy(), engine=engine), rows, out)
    assert engine.calls < len(TEXTS) / 3
    found = np.load(out) if suffix == "npy" else pq.read_table(out)["embedding"].to_pylist()
    np.testing.assert_array_equal(np.array(found, np.float32), await reference(TEXTS))


async def test_what_was_torn_is_cut_off(tmp_path: Path) -> None:
    rows, out = write(tmp_path, *TEXTS), tmp_path / "out.npy"
    with pytest.raises(Unavailable):
        await embedded(service(toy(), engine=Failing(3)), rows, out)
    with (tmp_path / "out.npy.part").open("ab") as part:
        part.write(b"half a row")
    with (tmp_path / "out.npy.progress").open("ab") as progress:
        progress.write(b'{"rows":')
    await embedded(service(toy()), rows, out)
    np.testing.assert_array_equal(np.load(out), await reference(TEXTS))


async def test_no_row_is_billed_twice_over_a_stop(tmp_path: Path) -> None:
    made = Bank(tmp_path, Failing(4), False)
    rows, out = write(tmp_path, *TEXTS), tmp_path / "out.npy"
    key = made.keys["acme"].text
    with pytest.raises(Unavailable):
        await embedded(made.service, rows, out, key)
    # As if the kill had come before the journal was written, after the server had answered.
    journal = tmp_path / "out.npy.progress"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    engine = HashEngine(8)
    again = service(toy(), engine=engine, accounts=made.accounts)
    await embedded(again, rows, out, key)
    assert await made.settled() == {
        ("acme", "toy", "", "text"): sum(len(text) + 2 for text in TEXTS)
    }
    await made.service.close()


@pytest.mark.parametrize("changed", [{"dimensions": 4}, {"task": "x"}, {"encoding": "int8"}])
async def test_another_run_does_not_go_on_with_it(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    rows, out = write(tmp_path, *TEXTS), tmp_path / "out.npy"
    with pytest.raises(Unavailable):
        await embedded(service(toy(), engine=Failing(1)), rows, out)
    with pytest.raises(InvalidConfig, match=r"another run: .*changed"):
        await embedded(service(toy()), rows, out, **changed)


async def test_a_file_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    rows, out = write(tmp_path, *TEXTS), tmp_path / "out.npy"
    with pytest.raises(Unavailable):
        await embedded(service(toy(), engine=Failing(1)), rows, out)
    with pytest.raises(InvalidConfig, match="state changed"):
        await embedded(service(toy()), write(tmp_path, *TEXTS, "more"), out)


def test_two_at_once_do_not_write_the_same(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path / "out.npy", {"itemsize": 4}) for _ in range(2))
    with first, pytest.raises(InvalidConfig, match="another process"):
        second.__enter__()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ('{"text": "a"}\n{"text"', "line 2 is not JSON"),
        ('{"text": "a"}\n\n[1]', "line 3 is not a JSON object"),
        ('{"text": 1}', "no text that is a string"),
        ('{"id": 1.5, "text": "a"}', "id must be"),
    ],
)
async def test_a_bad_row_is_told_before_anything_is_asked(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    engine = HashEngine(8)
    with pytest.raises(InvalidConfig, match=words):
        await embedded(service(toy(), engine=engine), Rows(file), tmp_path / "out.npy")
    assert engine.calls == 0


@pytest.mark.parametrize("name", ["out.csv", "none/out.npy", "texts.txt"])
async def test_an_output_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfig, match=r"out\.csv|none|already"):
        await embedded(service(toy()), write(tmp_path, "a"), tmp_path / name)


async def test_without_pyarrow_the_want_of_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidConfig, match="needs pyarrow"):
        await embedded(service(toy()), write(tmp_path, "a"), tmp_path / "out.parquet")


class Gated(HashEngine):
    """Answers so many times; the next call says that it has come, and waits for ever."""

    def __init__(self, answers: int) -> None:
        super().__init__(8)
        self.answers, self.reached = answers, asyncio.Event()

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        if self.calls >= self.answers:
            self.reached.set()
            await asyncio.Event().wait()
        return await super().embed(prepared, deadline)


async def test_the_command_goes_on_after_it_was_killed(tmp_path: Path) -> None:
    engine = Gated(3)
    rows = write_objects(tmp_path, *({"id": f"r{i}", "text": t} for i, t in enumerate(TEXTS)))
    out = tmp_path / "out.parquet"
    async with listening(create_app(service(toy(), engine=engine), ApiSettings())) as port:
        words = ["-m", "deployments.cli", "embed", "--url", f"http://127.0.0.1:{port}"]
        words += ["--out", str(out), "--batch", "3", "--concurrency", "2", str(rows.path)]
        command = await asyncio.create_subprocess_exec(sys.executable, *words)
        await engine.reached.wait()
        command.send_signal(signal.SIGKILL)
        await command.wait()
        assert not out.exists()
        kept = (tmp_path / "out.parquet.progress").read_bytes()
        engine.answers, before = 1000, engine.calls
        command = await asyncio.create_subprocess_exec(sys.executable, *words)
        assert await command.wait() == 0
        assert kept.count(b"\n") >= 2
        assert engine.calls - before < 7  # of seven parts, those before the kill are kept
    table = pq.read_table(out)
    assert table["id"].to_pylist() == [f"r{number}" for number in range(20)]
    found = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(found, await reference(TEXTS))


async def test_errors_of_the_service_are_told_as_they_are(tmp_path: Path) -> None:
    rows, out = write(tmp_path, "a"), tmp_path / "out.npy"
    with pytest.raises(InvalidInput, match="its sizes: 8"):
        await embedded(service(toy()), rows, out, dimensions=3)
    with pytest.raises(InvalidInput, match="one of float"):
        await embedded(service(toy()), rows, out, encoding="float16")
