"""A file of texts into a file of vectors, and on from where it stopped if it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import orjson

from serving.client.asking import Wanted
from serving.client.asynchronous import AsyncClient
from serving.client.journal import Journal
from serving.client.results import dtype_of
from serving.client.rows import RowId, Rows, Survey
from serving.client.showing import progress_of
from serving.errors import InvalidConfig, Refused

__all__ = ["Done", "embed_file"]

_BATCH_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Done:
    """What was written; `tokens` are those of all rows, whenever they were embedded."""

    rows: int
    width: int
    tokens: int


async def embed_file(
    client: AsyncClient,
    rows: Rows,
    out: Path,
    model: str,
    *,
    progress: bool = False,
    **wanted: Unpack[Wanted],
) -> Done:
    """A vector for every row, in `out`: `.npy`, with `NAME.ids.jsonl` beside it, or `.parquet`.

    Stopped at any moment and called again, it goes on: no row is lost or doubled, and none that
    was billed is billed again. Raises `InvalidConfig` for a file that cannot be read or written.
    """
    write = _writer(out)
    survey = rows.survey()
    dtype = dtype_of(wanted.get("encoding", "float"))
    plan = {
        "file": str(rows.path.resolve()),
        "state": survey.state,
        "fields": [rows.text, rows.id],
        "model": model,
        "wanted": wanted,
        "itemsize": dtype.itemsize,
    }
    with Journal(out, plan) as journal:
        show = progress_of(survey.rows, journal.rows, "rows") if progress else None
        with show or nullcontext(lambda count: None) as advance:
            rest = (row.item for row in islice(rows, journal.rows, None))
            asking = client.embed_each(rest, model, run=journal.run, first=journal.rows, **wanted)
            async with aclosing(asking) as parts:
                async for count, part in parts:
                    if len(part.vectors) != count:
                        raise Refused(f"{len(part.vectors)} vectors came for {count} rows")
                    journal.add(part.vectors, part.usage.total_tokens)
                    advance(count)
        if journal.rows != survey.rows or rows.survey() != survey:
            raise InvalidConfig(f"{rows.path} changed while it was read")
        unfinished = out.with_name(f"{out.name}.tmp")
        write(unfinished, rows, survey, journal, dtype)
        os.replace(unfinished, out)
        journal.done()
        return Done(journal.rows, journal.width, journal.tokens)


_Writer = Callable[[Path, Rows, Survey, Journal, np.dtype[Any]], None]


def _writer(out: Path) -> _Writer:
    if out.exists():
        raise InvalidConfig(f"{out} is there already; remove it, or name another")
    if not out.parent.is_dir():
        raise InvalidConfig(f"{out.parent} is no folder to write in")
    match out.suffix.lower():
        case ".npy":
            return _write_npy
        case ".parquet":
            try:
                import pyarrow  # noqa: F401 - so that its want is known before anything is asked
            except ImportError:
                raise InvalidConfig(
                    "a .parquet file needs pyarrow: pip install 'polyvec[parquet]', or name a .npy"
                ) from None
            return _write_parquet
    raise InvalidConfig(f"{out}: name a .npy or a .parquet file")


def _stored(journal: Journal, dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    return np.memmap(journal.part, dtype, mode="r", shape=(journal.rows, journal.width))


def _ids(rows: Rows) -> Iterator[RowId]:
    return (row.id for row in rows)


def _write_npy(
    to: Path, rows: Rows, survey: Survey, journal: Journal, dtype: np.dtype[Any]
) -> None:
    with to.open("wb") as file:
        np.save(file, _stored(journal, dtype))
    named = to.name.removesuffix(".tmp")
    with to.with_name(f"{named}.ids.jsonl").open("wb") as file:
        file.writelines(orjson.dumps(one) + b"\n" for one in _ids(rows))


def _write_parquet(
    to: Path, rows: Rows, survey: Survey, journal: Journal, dtype: np.dtype[Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = _stored(journal, dtype)
    identifiers = _ids(rows) if survey.integers else map(str, _ids(rows))
    kind = pa.int64() if survey.integers else pa.string()
    row = pa.list_(pa.from_numpy_dtype(dtype), journal.width)
    schema = pa.schema([("id", kind), ("embedding", row)])
    with pq.ParquetWriter(to, schema) as file:
        for start in range(0, journal.rows, _BATCH_ROWS):
            batch = vectors[start : start + _BATCH_ROWS]
            names = pa.array(islice(identifiers, len(batch)), kind)
            values = pa.FixedSizeListArray.from_arrays(pa.array(batch.ravel()), journal.width)
            file.write_batch(pa.record_batch([names, values.cast(row)], schema=schema))
