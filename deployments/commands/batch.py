"""Hand a file of lines to a running service, and fetch what came of it when it is done.

FILE is JSONL, a request a line: {"custom_id": "1", "body": {"input": "a text"}}. The service works
on it in its own time, and goes on after a restart. The key is that of $POLYVEC_API_KEY.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from deployments.commands._http import API_KEY, parsed
from deployments.commands._terminal import ERR, OUT
from serving.errors import InvalidConfig, Refused, Unavailable

__all__ = ["arguments"]

_JSONL = {"content-type": "application/jsonl"}
_WITHIN_S = 60.0
_LOOK_S = 2.0
_ENDS = ("completed", "failed", "expired", "cancelled")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--url", required=True, metavar="URL", help="the service, such as http://host:8000"
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    submit = verbs.add_parser(
        "submit", parents=[where], help="hand in a file; its id alone is on stdout"
    )
    submit.add_argument("file", type=Path, metavar="FILE", help="lines to embed")
    submit.add_argument("--model", required=True, metavar="ID", help="the model")
    submit.add_argument("--task", help="the task of lines that name none")
    submit.add_argument("--dimensions", type=int, metavar="N", help="a Matryoshka size")
    submit.add_argument("--encoding", metavar="TYPE", help="float, base64, int8, binary …")
    submit.set_defaults(run=_submit)

    for name, run, words in (
        ("status", _status, "how a batch stands"),
        ("cancel", _cancel, "begin nothing more of a batch"),
        ("fetch", _fetch, "wait for a batch to end, and write what came of it"),
    ):
        verb = verbs.add_parser(name, parents=[where], help=words)
        verb.add_argument("id", metavar="ID", help="the batch")
        verb.set_defaults(run=run)
        if name == "fetch":
            verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="the output")
            verb.add_argument("--errors", type=Path, metavar="FILE", help="the lines that failed")


def _submit(args: argparse.Namespace) -> int:
    wanted = {
        "model": args.model,
        "task": args.task,
        "dimensions": args.dimensions,
        "embedding_type": args.encoding,
    }
    params = {name: str(value) for name, value in wanted.items() if value is not None}
    try:
        file = args.file.open("rb")
    except OSError as wrong:
        raise InvalidConfig(f"{args.file}: {wrong.strerror}") from None
    with file:
        status = _asked(args.url, "POST", "embeddings", params=params, headers=_JSONL, content=file)
    sys.stdout.write(f"{status['batch_id']}\n")
    ERR.print(f"{_stats(status)['total']} lines handed in", markup=False)
    return 0


def _status(args: argparse.Namespace) -> int:
    _show(_asked(args.url, "GET", _part(args.id)))
    return 0


def _cancel(args: argparse.Namespace) -> int:
    _show(_asked(args.url, "DELETE", _part(args.id)))
    return 0


def _fetch(args: argparse.Namespace) -> int:
    """0 where every line is in the output; 1 where some are not."""
    status = _asked(args.url, "GET", _part(args.id))
    while status["status"] not in _ENDS:
        time.sleep(_LOOK_S)
        with suppress(Unavailable):  # a restart, say, which the batch survives
            status = _asked(args.url, "GET", _part(args.id))
    _download(args.url, f"{_part(args.id)}/output", args.out)
    stats = _stats(status)
    if args.errors is not None:
        _download(args.url, f"{_part(args.id)}/errors", args.errors)
    _show(status)
    return 0 if stats["completed"] == stats["total"] else 1


def _download(url: str, path: str, out: Path) -> None:
    """Write it beside its place first: a file of that name is whole."""
    part = out.with_name(f"{out.name}.part")
    try:
        with _answer(url, "GET", path) as answer, part.open("wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)
        part.replace(out)
    except OSError as wrong:
        raise InvalidConfig(f"{out}: {wrong.strerror}") from None


def _asked(url: str, method: str, path: str, **more: Any) -> Mapping[str, object]:
    """The status that is answered."""
    with _answer(url, method, path, **more) as answer:
        status = parsed(url, answer.read())
    if "batch_id" not in status:
        raise Refused(f"{url} answers, but not with a batch")
    return status


@contextmanager
def _answer(url: str, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
    """A 200, to be read. Errors are those of `_http.fetch`."""
    at = f"{url.rstrip('/')}/v1/batch/{path}"
    key = os.environ.get(API_KEY)
    headers = {**more.pop("headers", {}), **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        with httpx.stream(method, at, headers=headers, timeout=_WITHIN_S, **more) as answer:
            if answer.status_code >= 500:
                raise Unavailable(f"{at} answers {answer.status_code}: {answer.reason_phrase}")
            if answer.status_code != 200:
                said = parsed(at, answer.read()).get("detail")
                raise Refused(f"{at} answers {answer.status_code}: {said}")
            yield answer
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as wrong:
        raise InvalidConfig(f"{url!r} is no address that can be asked: {wrong}") from None
    except httpx.HTTPError as error:
        raise Unavailable(f"{at} does not answer: {error or type(error).__name__}") from None


def _part(word: str) -> str:
    return quote(word, safe="")


def _stats(status: Mapping[str, object]) -> Mapping[str, object]:
    stats = status.get("stats")
    return stats if isinstance(stats, dict) else {}


def _show(status: Mapping[str, object]) -> None:
    stats = _stats(status)
    OUT.print(
        f"{status['batch_id']}: {status['status']}, {stats.get('completed')} of"
        f" {stats.get('total')} lines done, {stats.get('failed')} failed,"
        f" {stats.get('total_tokens')} tokens; until {status.get('expires_at')}",
        markup=False,
    )
    if status.get("error"):
        OUT.print(str(status["error"]), markup=False)
