"""Show what was used, and what it costs where prices are configured.

It reads the ledger of a config, a ledger by its URL, or asks a running service, with the key of
$POLYVEC_API_KEY: one tenant's key for its own usage, an admin's for everybody's. Times are full
hours of ISO 8601, in UTC where they have no offset.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Column, Table

from deployments.commands._http import fetch, parsed
from deployments.commands._ledger import add_ledger, ledger
from deployments.commands._terminal import OUT, plain
from serving.errors import Refused
from serving.metering.asking import BY_DEFAULT, asked
from serving.metering.prices import Prices, charges, total
from serving.metering.questions import BY, Question
from serving.metering.tables import as_csv, columns, rows

__all__ = ["arguments"]

_WORDS = ("from", "to", "by", "tenant", "model")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where usage is read, and which."""
    where = parser.add_mutually_exclusive_group()
    add_ledger(where)
    where.add_argument("--url", metavar="URL", help="a running service, such as http://host:8000")
    parser.add_argument("--from", metavar="HOUR", help="default: the first of this month")
    parser.add_argument("--to", metavar="HOUR", help="the first not shown; default: the next")
    parser.add_argument(
        "--by", help=f"a comma list of {', '.join(BY)} (default {BY_DEFAULT}); '' for one row"
    )
    parser.add_argument("--tenant", metavar="ID", help="one tenant (default all)")
    parser.add_argument("--model", metavar="ID", help="one model (default all)")
    parser.add_argument("--csv", action="store_true", help="CSV instead of a table")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    given = vars(args)
    words = {name: given[name] for name in _WORDS if given[name] is not None}
    question = asked(words, datetime.now(UTC))
    if args.url:
        _ask(args, words, question)
    else:
        _read(args, question)
    return 0


def _read(args: argparse.Namespace, question: Question) -> None:
    with ledger(args) as (sink, prices):
        found = charges(sink, question, prices or Prices({}))
    if args.csv:
        sys.stdout.write(as_csv(question, found, prices))
        return
    names, listed = columns(question, prices), rows(question, found, prices)
    _show(question, names, listed, rows(question, [total(found)], prices)[0])


def _ask(args: argparse.Namespace, words: Mapping[str, str], question: Question) -> None:
    url = f"{args.url.rstrip('/')}/v1/usage"
    if args.csv:
        sys.stdout.write(fetch(url, {**words, "format": "csv"}).decode())
        return
    report: Any = parsed(url, fetch(url, words))
    try:
        names, keys = columns(question), columns(question)
        if "currency" in report:  # the name of the column; in JSON it is always the amount
            names, keys = [*names, report["currency"]], [*keys, "amount"]
        listed = [_cells(row, keys) for row in report["data"]]
        _show(question, names, listed, _cells(report["total"], keys))
    except (KeyError, TypeError, AttributeError):
        raise Refused(f"{url} answers, but not with usage") from None


def _cells(row: Mapping[str, object], keys: Sequence[str]) -> list[str]:
    return ["" if row.get(key) is None else str(row[key]) for key in keys]


def _show(
    question: Question, names: Sequence[str], listed: Sequence[list[str]], totals: list[str]
) -> None:
    words = len(question.dimensions) + (question.bucket_s is not None)
    headings = [
        Column(plain(name), justify="left" if index < words else "right", no_wrap=index >= words)
        for index, name in enumerate(names)
    ]
    table = Table(*headings, box=None)
    for row in listed:
        table.add_row(*map(plain, row))
    table.add_section()
    first = ["total"] if words else []
    table.add_row(*first, *map(plain, totals[len(first) :]), style="bold")
    OUT.print(f"{question.since:%Y-%m-%d %H:%MZ} to {question.until:%Y-%m-%d %H:%MZ}")
    OUT.print(table)
