"""Search text files in two stages, in this process, without a server.

First the paragraphs whose vectors lie closest to the question's, by a model that embeds; then a
reranker reads the question with each of these, and has the last word.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table

from deployments.commands._checkpoints import checked, model_of
from deployments.commands._terminal import ERR, OUT, plain
from deployments.config import ModelConfig
from serving.engines import EngineOptions, open_engine
from serving.errors import InvalidConfig
from serving.media import MediaOptions
from serving.models.catalog import DEFAULT
from serving.preparing import open_preparer
from serving.values import Text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serving.ranking import Ranking
    from serving.service import Service

__all__ = ["Passage", "arguments", "passages"]

# Of one batch: the engine's queue holds it, and so does a line's worth of patience.
_AT_ONCE = 256
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph, and where it begins: `file:line`."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class _Hit:
    passage: Passage
    score: float
    recalled: int


def arguments(parser: argparse.ArgumentParser) -> None:
    """A question, texts, and a model for each stage."""
    model = "ID[=SOURCE]"
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("file", nargs="+", metavar="FILE", help="a text file; - reads stdin")
    parser.add_argument("--model", default=DEFAULT, metavar=model, help="embeds, for the recall")
    parser.add_argument("--reranker", metavar=model, help="reads what was recalled")
    parser.add_argument("--recall", type=int, default=50, metavar="N", help="passages to rerank")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="passages to show")
    parser.set_defaults(run=_run)


def passages(text: str, name: str) -> Iterator[Passage]:
    """The paragraphs of a text: what stands between blank lines, each on one line."""
    numbered = enumerate(text.splitlines(), start=1)
    for blank, lines in groupby(numbered, key=lambda line: not line[1].strip()):
        if not blank:
            block = list(lines)
            yield Passage(" ".join(line.strip() for _, line in block), f"{name}:{block[0][0]}")


def _run(args: argparse.Namespace) -> int:
    every = [passage for name in args.file for passage in passages(_read(name), name)]
    if not every:
        raise InvalidConfig(f"there is no text in {', '.join(args.file)}")
    if min(args.recall, args.top) < 1:
        raise InvalidConfig("--recall and --top must be at least 1")
    hits = asyncio.run(_search(args, every))
    table = Table("score", "recalled", Column("where", no_wrap=True), "passage", box=None)
    for hit in hits[: args.top]:
        text = hit.passage.text
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        where = plain(hit.passage.where)
        table.add_row(f"{hit.score:.4f}", str(hit.recalled), where, plain(shown))
    OUT.print(table)
    return 0


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidConfig(f"{name} cannot be read: {reason}") from None


async def _search(args: argparse.Namespace, every: Sequence[Passage]) -> list[_Hit]:
    recalled: list[_Hit] = []
    async with _served(model_of(args.model)) as service:
        for start in range(0, len(every), _AT_ONCE):
            batch = every[start : start + _AT_ONCE]
            found = await _ranked(service, args.question, batch)
            recalled += [_Hit(batch[at], float(found.scores[at]), 0) for at in found.order]
    recalled.sort(key=lambda hit: -hit.score)
    first = [
        _Hit(hit.passage, hit.score, place)
        for place, hit in enumerate(recalled[: args.recall], start=1)
    ]
    if args.reranker is None:
        return first
    async with _served(model_of(args.reranker)) as service:
        found = await _ranked(service, args.question, [hit.passage for hit in first])
    return [
        _Hit(first[at].passage, float(found.scores[at]), first[at].recalled) for at in found.order
    ]


@asynccontextmanager
async def _served(model: ModelConfig) -> AsyncIterator[Service]:
    """A service of one model, loaded here."""
    from serving.limits.gate import Gate
    from serving.service import Served, Service

    spec = checked(model)
    engine = open_engine(model.engine, spec, EngineOptions(dtype=model.dtype))
    served = Served(spec, open_preparer(spec, MediaOptions()), engine)
    service = Service({spec.id: served}, Gate(1, sys.maxsize), sys.maxsize)
    try:
        yield service
    finally:
        await service.close()


async def _ranked(service: Service, question: str, some: Sequence[Passage]) -> Ranking:
    from serving.calls import Call
    from serving.ranking import RankAsk, rank

    [spec] = service.catalog.specs
    began = time.perf_counter()
    documents = tuple(Text(passage.text) for passage in some)
    ask = RankAsk(spec.id, Text(question), documents, truncate=True)
    found = await rank(service, Call("search", "search", deadline=float("inf")), ask)
    ERR.print(
        f"{spec.id}: {len(some)} passages, {found.usage.total_tokens} tokens,"
        f" {time.perf_counter() - began:.1f} s",
        markup=False,
    )
    return found
