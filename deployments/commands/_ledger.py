"""The ledger that a command reads: where it is, and what its tokens cost."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.config import AppConfig, load_config
from deployments.config.accounts import LedgerConfig
from serving.errors import InvalidConfig
from serving.metering.prices import Prices
from serving.metering.sinks import UsageSink, file_of, open_sink

__all__ = ["add_ledger", "ledger"]


def add_ledger(parser: argparse._MutuallyExclusiveGroup) -> None:
    """`--config` and `--ledger`, one of which says where it is."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the ledger and the prices of this config"
    )
    parser.add_argument(
        "--ledger",
        metavar="URL",
        help="a ledger: sqlite:///, postgresql://, jsonl:// (default: that of an empty config)",
    )


@contextmanager
def ledger(args: argparse.Namespace) -> Iterator[tuple[UsageSink, Prices | None]]:
    """The ledger, to be read, and the prices. Raises `InvalidConfig` where there is none."""
    config = load_config(args.config)[0] if args.config else AppConfig()
    kept = LedgerConfig(url=args.ledger) if args.ledger else config.ledger
    if kept is None:
        raise InvalidConfig(f"{args.config} keeps no ledger")
    url = kept.options().url
    # A sink makes the file that it does not find, which is not what a reader wants.
    if url.startswith(("sqlite:", "jsonl:")) and not file_of(url, "").exists():
        raise InvalidConfig(f"there is no ledger at {file_of(url, '')}")
    sink = open_sink(url)
    try:
        yield sink, config.prices.prices() if config.prices else None
    finally:
        sink.close()
