"""Compare the ledger with the counters, and with what clients received.

Token by token. Exits 0 where they agree, 1 with a table of the differences where they do not.

Counters begin at zero with a process, the ledger does not. To compare from a common start:

  all of it         a new ledger and new processes: nothing more to say
  from here on      --save FILE now; later --baseline FILE takes off what there was. A process that
                    has ended since took its counts with it
  from a full hour  --from HOUR, and --baseline SCRAPE with Prometheus' text of that hour
  a longer past     --prometheus URL --from HOUR: it has seen processes come and go, except what
                    they counted after its last scrape

Compare while nothing is asked: a request that has been counted is in the ledger a moment later, and
what lies between two scrapes of Prometheus is on neither side of an hour.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.table import Table

from deployments.commands._counters import gained, samples, summed, text_of
from deployments.commands._ledger import add_ledger, ledger
from deployments.commands._terminal import ERR, OUT, plain
from serving.errors import InvalidConfig
from serving.metering.asking import asked
from serving.metering.questions import Question
from serving.metering.reconciling import Count, Label, counted, reconcile
from serving.telemetry.metrics import LEDGER_SPOOL
from serving.telemetry.recording import OTHER

__all__ = ["arguments"]

_DIMENSIONS = ("tenant", "model", "task", "modality")
_AGREE, _DISAGREE = 0, 1
_ALL = "*"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is compared, and from when on."""
    add_ledger(parser.add_mutually_exclusive_group())
    counters = parser.add_mutually_exclusive_group()
    counters.add_argument(
        "--metrics",
        action="append",
        default=[],
        metavar="URL|FILE",
        help="Prometheus' text, with or without ray_ in its names; once a node. An address is "
        "asked with the key of $POLYVEC_API_KEY",
    )
    counters.add_argument("--prometheus", metavar="URL", help="a Prometheus server; needs --from")
    parser.add_argument(
        "--responses",
        type=Path,
        metavar="FILE",
        help="what clients received: a line of JSON a response, with tenant, model, task, "
        "text_tokens and image_tokens; without the repeats under one Idempotency-Key",
    )
    parser.add_argument("--from", metavar="HOUR", help="a full hour (ISO 8601, UTC); default: ever")
    parser.add_argument("--to", metavar="HOUR", help="the first that is not meant; default: now")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="keep the counts, compare nothing"
    )
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="FILE",
        help="counts to take off: a file of --save, or scrapes as --metrics takes them",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    question = _question(args)
    with ledger(args) as (sink, _):
        counts: dict[str, Count] = {"ledger": counted(sink.usage(question))}
    waiting = 0
    if args.prometheus:
        until = min(question.until, datetime.now(UTC))
        counts["counters"] = summed(gained(args.prometheus, question.since, until))
    elif args.metrics:
        texts = {where: text_of(where) for where in args.metrics}
        counts["counters"] = _scraped(texts)
        spools = (samples(where, text, LEDGER_SPOOL) for where, text in texts.items())
        waiting = sum(events for spool in spools for _, events in spool)
    if args.save:
        _save(args.save, counts)
        return _AGREE
    before = _baseline(args.baseline)
    counts = {name: _less(count, before.get(name, {})) for name, count in counts.items()}
    if args.responses:
        counts["responses"] = _received(args.responses)
    return _verdict(counts, waiting)


def _question(args: argparse.Namespace) -> Question:
    """The hours of the ledger that are meant; refuses what cannot be put together."""
    if not (args.metrics or args.prometheus or args.responses):
        raise InvalidConfig("nothing to compare: give --metrics, --prometheus or --responses")
    if args.prometheus and (args.save or args.baseline):
        raise InvalidConfig("--save and --baseline go with --metrics; --prometheus has a past")
    given = vars(args)
    words = {name: given[name] for name in ("from", "to") if given[name] is not None}
    if args.prometheus and "from" not in words:
        raise InvalidConfig("--prometheus needs --from: a window begins somewhere")
    words = {"from": "1970-01-01", **words, "by": "tenant,model,task"}
    return asked(words, datetime.now(UTC))


def _scraped(texts: Mapping[str, str]) -> dict[Label, int]:
    return summed(one for where, text in texts.items() for one in samples(where, text))


def _save(path: Path, counts: Mapping[str, Count]) -> None:
    rows = {name: [[*label, n] for label, n in count.items()] for name, count in counts.items()}
    try:
        path.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    except OSError as wrong:
        raise InvalidConfig(f"{path}: {wrong.strerror}") from None
    ERR.print(f"{path} has the counts of now; give it as --baseline later", markup=False)


def _baseline(files: Sequence[str]) -> dict[str, dict[Label, int]]:
    """What was there before, by the count's name: a file of --save has the ledger's too."""
    texts = {where: text_of(where) for where in files}
    saved = [where for where, text in texts.items() if text.startswith("{")]
    if not saved:
        return {"counters": _scraped(texts)} if texts else {}
    if len(texts) > 1:
        raise InvalidConfig("--baseline takes one file of --save, or scrapes")
    try:
        return {
            name: {(str(a), str(b), str(c), str(d)): int(n) for a, b, c, d, n in rows}
            for name, rows in orjson.loads(texts[saved[0]]).items()
        }
    except (ValueError, TypeError, AttributeError):
        raise InvalidConfig(f"{saved[0]} is no file of --save") from None


def _less(count: Count, before: Count) -> dict[Label, int]:
    return {label: count.get(label, 0) - before.get(label, 0) for label in {**count, **before}}


def _received(path: Path) -> dict[Label, int]:
    count: dict[Label, int] = {}
    for number, line in enumerate(text_of(str(path)).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            name = (row["tenant"], row["model"], row.get("task") or "")
            tokens = {"text": row.get("text_tokens", 0), "image": row.get("image_tokens", 0)}
            if not all(type(one) is str for one in name):
                raise TypeError
            for modality, many in tokens.items():
                label = (*name, modality)
                count[label] = count.get(label, 0) + int(many or 0)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InvalidConfig(
                f"{path}: line {number} is no object with tenant, model, task, text_tokens and "
                "image_tokens"
            ) from None
    return count


def _verdict(counts: dict[str, Count], waiting: int) -> int:
    counts = _comparable(counts)
    found = reconcile(counts)
    if not found:
        [tokens] = {sum(count.values()) for count in counts.values()}
        OUT.print(f"{', '.join(counts)} agree: {tokens} tokens")
        return _AGREE
    table = Table(*_DIMENSIONS, *counts, box=None)
    for row in found:
        said = (str(row.counts[name]) for name in counts)
        table.add_row(*map(plain, (row.tenant, row.model, row.task or "-", row.modality)), *said)
    OUT.print(table)
    if waiting:
        ERR.print(f"{waiting} events were not yet in the ledger; try again when there are none")
    return _DISAGREE


def _comparable(counts: dict[str, Count]) -> dict[str, Count]:
    """Counters name so many tenants and no more, the rest is `other`: then all are one."""
    folded = [
        index
        for index, name in enumerate(_DIMENSIONS)
        if any(label[index] == OTHER for label in counts.get("counters", {}))
    ]
    for index in folded:
        name = _DIMENSIONS[index]
        ERR.print(f"the counters do not tell every {name} apart: compared with every {name} as one")
        counts = {name: _as_one(count, index) for name, count in counts.items()}
    return counts


def _as_one(count: Count, index: int) -> dict[Label, int]:
    whole: dict[Label, int] = {}
    for label, tokens in count.items():
        words = list(label)
        words[index] = _ALL
        tenant, model, task, modality = words
        label = (tenant, model, task, modality)
        whole[label] = whole.get(label, 0) + tokens
    return whole
