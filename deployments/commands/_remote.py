"""`polyvec embed --url`: a file of texts through a running service, to a file of vectors."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from deployments.commands._http import API_KEY
from deployments.commands._terminal import ERR, OUT
from serving.client import AsyncClient, Bounds, Wanted
from serving.client.files import Done, embed_file
from serving.client.rows import Rows
from serving.errors import InvalidConfig

__all__ = ["add_remote", "embed_remote"]


def add_remote(parser: argparse.ArgumentParser) -> None:
    """What is only for a running service."""
    group = parser.add_argument_group("through a running service, a file at a time")
    group.add_argument("--url", metavar="URL", help="such as http://host:8000 or grpc://host:9000")
    group.add_argument("--out", type=Path, metavar="FILE", help="a .npy or .parquet file to write")
    group.add_argument("--encoding", default="float", help="float, int8, uint8, binary or ubinary")
    group.add_argument("--id-field", default="id", metavar="NAME", help="of a JSONL row's id")
    group.add_argument("--text-field", default="text", metavar="NAME", help="of its text")
    group.add_argument("--concurrency", type=int, default=4, metavar="N", help="requests at once")
    group.add_argument("--batch", type=int, default=256, metavar="N", help="rows of a request")


def embed_remote(args: argparse.Namespace) -> int:
    """Embed the one file that is named, or the rest of it."""
    if len(args.text) != 1 or args.out is None or len(args.model) > 1:
        raise InvalidConfig("--url: name one file, --out FILE, and at most one --model")
    for name in ("concurrency", "batch"):
        if getattr(args, name) < 1:
            raise InvalidConfig(f"--{name} must be at least 1")
    try:
        done = asyncio.run(_embed(args))
    except KeyboardInterrupt:
        ERR.print("stopped; the same command goes on from here")
        raise
    OUT.print(f"{done.rows} rows of {done.width}, {done.tokens} tokens: {args.out}", markup=False)
    return 0


async def _embed(args: argparse.Namespace) -> Done:
    wanted: Wanted = {"encoding": args.encoding, "service_class": "bulk"}
    if args.task is not None:
        wanted["task"] = args.task
    if args.dimensions is not None:
        wanted["dimensions"] = args.dimensions
    if args.truncate:
        wanted["truncate"] = True
    bounds = Bounds(inputs=args.batch, concurrency=args.concurrency)
    rows = Rows(Path(args.text[0]), args.text_field, args.id_field)
    async with AsyncClient(args.url, os.environ.get(API_KEY), bounds=bounds) as client:
        model = args.model[0] if args.model else await _only_model(client)
        return await embed_file(client, rows, args.out, model, progress=ERR.is_terminal, **wanted)


async def _only_model(client: AsyncClient) -> str:
    models = [one.id for one in await client.models()]
    if len(models) == 1:
        return models[0]
    raise InvalidConfig(f"--model: the service has {', '.join(models)}; name one")
