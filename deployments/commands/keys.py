"""Make, list and revoke the API keys of a tenants file.

The running service reads a changed file by itself. A key is shown once, when it is made: the file
keeps a salted hash. To rotate a key, make a second one, move the clients to it, revoke the first.
Comments in the file do not survive an edit.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.table import Table

from deployments.commands._terminal import ERR, OUT, plain
from deployments.config import load_config
from serving.errors import InvalidConfig
from serving.tenants.editing import add_key, edit_file, list_keys, revoke_key

__all__ = ["arguments"]

_SPAN = re.compile(r"([0-9]{1,5})([dh])")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs, and which file."""
    where = argparse.ArgumentParser(add_help=False)
    one = where.add_mutually_exclusive_group(required=True)
    one.add_argument("--file", type=Path, metavar="FILE", help="the tenants file")
    one.add_argument("--config", type=Path, metavar="FILE", help="a config that names it")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    new = verbs.add_parser(
        "new",
        parents=[where],
        help="make a key",
        description="Make a key. The key alone is on stdout, so that it can be captured.",
    )
    new.add_argument("tenant", metavar="TENANT", help="the tenant's id")
    new.add_argument("--name", default="", help="what the key is for, for the list")
    new.add_argument("--plan", default="", help="the plan of a tenant that --create adds")
    when = "an ISO 8601 date or time (UTC where it has no offset), or a span from now: 30d, 12h"
    new.add_argument("--expires", metavar="WHEN", help=when)
    new.add_argument("--not-before", metavar="WHEN", help=when)
    new.add_argument(
        "--create", action="store_true", help="add the tenant, and the file, where there is none"
    )
    new.set_defaults(run=_new)

    shown = verbs.add_parser("list", parents=[where], help="every key and whether it counts")
    shown.set_defaults(run=_list)

    revoke = verbs.add_parser("revoke", parents=[where], help="let a key count no more")
    revoke.add_argument("id", metavar="ID", help="the key's id, as polyvec keys list shows it")
    revoke.set_defaults(run=_revoke)


def _new(args: argparse.Namespace) -> int:
    path, now = _file(args, made=args.create), datetime.now(UTC)
    not_before, expires = _when("--not-before", args.not_before, now), _expiry(args.expires, now)
    made = edit_file(
        path,
        lambda text: add_key(
            text,
            args.tenant,
            now,
            name=args.name,
            plan=args.plan,
            not_before=not_before,
            expires=expires,
            create=args.create,
        ),
    )
    sys.stdout.write(f"{made.secret}\n")
    until = f", until {_shown(expires)}" if expires else ""
    ERR.print(f"key {made.id} of {made.tenant}{until}; it is shown this once", markup=False)
    return 0


def _list(args: argparse.Namespace) -> int:
    path = _file(args)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as wrong:
        why = wrong.strerror if isinstance(wrong, OSError) else "not UTF-8"
        raise InvalidConfig(f"{path}: {why}") from None
    table = Table("tenant", "key", "state", "name", "created", "not before", "expires", box=None)
    for row in list_keys(text, datetime.now(UTC)):
        times = map(_shown, (row.created, row.not_before, row.expires))
        table.add_row(row.tenant, row.id, row.state, plain(row.name), *times)
    OUT.print(table)
    return 0


def _revoke(args: argparse.Namespace) -> int:
    edit_file(_file(args), lambda text: (revoke_key(text, args.id), None))
    ERR.print(f"key {args.id} is revoked", markup=False)
    return 0


def _file(args: argparse.Namespace, made: bool = False) -> Path:
    """The tenants file, which must be there unless it is to be `made`."""
    named = args.file or load_config(args.config)[0].tenants
    if named is None:
        raise InvalidConfig(f"{args.config} names no tenants file; its key is tenants")
    path = Path(named)
    if not made and not path.exists():
        raise InvalidConfig(f"{path}: no such file; keys new --create makes one")
    return path


def _expiry(word: str | None, now: datetime) -> datetime | None:
    expires = _when("--expires", word, now)
    if expires is not None and expires <= now:
        raise InvalidConfig(f"--expires: {word} has passed already")
    return expires


def _when(option: str, word: str | None, now: datetime) -> datetime | None:
    if word is None:
        return None
    try:
        if span := _SPAN.fullmatch(word):
            count = int(span[1])
            return now + (timedelta(days=count) if span[2] == "d" else timedelta(hours=count))
        at = datetime.fromisoformat(word)
    except (ValueError, OverflowError):
        raise InvalidConfig(
            f"{option}: {word!r} is no time; write 2027-01-31, 2027-01-31T12:00Z, 30d or 12h"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _shown(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%MZ}" if at else ""
