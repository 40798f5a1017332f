"""Embed texts in this process, or a file through a running service.

With --url, TEXT is one file: JSON objects with an id and a text where it is named .jsonl, else a
text a line. A run that was stopped goes on where it was. The key is that of $POLYVEC_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import orjson

from deployments.commands._checkpoints import add_models, checked, model_of
from deployments.commands._remote import add_remote, embed_remote
from deployments.config import ModelConfig
from serving.engines import EngineOptions, open_engine
from serving.errors import InvalidConfig
from serving.models.catalog import DEFAULT
from serving.values import Ask, Floats, Output, Text

__all__ = ["arguments"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Texts, and what is wanted of them."""
    parser.add_argument("text", nargs="+", metavar="TEXT", help="a text; - reads lines from stdin")
    add_models(parser)
    parser.add_argument("--task", help="one of the model's tasks")
    parser.add_argument("--dimensions", type=int, help="a Matryoshka size of the model")
    parser.add_argument("--truncate", action="store_true", help="cut texts that are too long")
    add_remote(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.url is not None:
        return embed_remote(args)
    texts = [line.rstrip("\n") for line in sys.stdin] if args.text == ["-"] else args.text
    models = [model_of(word) for word in args.model] or [ModelConfig(id=DEFAULT)]
    if len(models) > 1:
        raise InvalidConfig("--model: embed takes one model")
    ask = Ask(
        model=models[0].id,
        items=tuple(Text(text) for text in texts),
        task=args.task,
        output=Output(args.dimensions),
        truncate=args.truncate,
    )
    for index, row in enumerate(asyncio.run(_vectors(models[0], ask))):
        line = {"index": index, "embedding": row}
        sys.stdout.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
    return 0


async def _vectors(model: ModelConfig, ask: Ask) -> Floats:
    from serving.jobs import plan
    from serving.media import MediaOptions
    from serving.preparing import open_preparer

    spec = checked(model)
    preparer = open_preparer(spec, MediaOptions())
    prepared = await preparer.prepare(plan(spec, ask, len(ask.items)))
    engine = open_engine(model.engine, spec, EngineOptions(dtype=model.dtype))
    try:
        return (await engine.embed(prepared, float("inf"))).array
    finally:
        await engine.close()
