"""A load test as one HTML file that needs nothing else: verdict, table, plots."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from datetime import UTC, datetime

from loadtests.budgets import Check, class_of
from loadtests.plots import plots
from loadtests.tally import Cell, Tally, quantile

__all__ = ["written"]

_STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5d6878; --line: #d9dee6; --good: #1a7f4b;
        --bad: #b3261e }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 2.5rem auto;
       max-width: 62rem; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
p.about { color: var(--soft); margin: .2rem 0 1.4rem }
.verdict { font-weight: 600 } .kept { color: var(--good) } .broken { color: var(--bad) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th { text-align: right; color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line) }
td { text-align: right; border-bottom: 1px solid var(--line) } th, td { padding: .3rem .6rem }
th:first-child, td:first-child { text-align: left } tr.all td { font-weight: 600 }
figure { margin: 0 } figure svg { width: 100%; height: auto }
"""
_COLUMNS = (
    "kind", "class", "requests", "answered", "refused", "failed", "req/s", "tokens/s",
    "p50 s", "p95 s", "p99 s",
)  # fmt: skip


def written(about: Sequence[str], tally: Tally, checks: Sequence[Check]) -> str:
    """The page; `about` says what was tested."""
    seconds = len(tally.span)
    when = datetime.fromtimestamp(tally.span.start, UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = " · ".join(html.escape(one) for one in [*about, when, f"{seconds} s"] if one)
    kept = all(check.kept for check in checks)
    verdict = ("kept", "Every budget was kept.") if kept else ("broken", "A budget was broken.")
    rows = "".join(_row(kind, class_of(kind), _cell(tally, kind), seconds) for kind in tally.kinds)
    rows += _row("all", "", tally.total(), seconds)
    pictures = (f"<h2>{name}</h2><figure>{svg}</figure>" for name, svg in plots(tally))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>Load test</title><style>{_STYLE}</style>"
        f"<h1>Load test</h1><p class=about>{said}</p>"
        f'<p class="verdict {verdict[0]}">{verdict[1]}</p>'
        + _table(("budget", "allowed", "found", ""), "".join(map(_check, checks)))
        + f"<h2>By kind</h2>{_table(_COLUMNS, rows)}"
        + "".join(pictures)
        + "</html>\n"
    )


def _cell(tally: Tally, kind: str) -> Cell:
    return tally.total(lambda _, one: one == kind)


def _table(columns: Sequence[str], rows: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _check(check: Check) -> str:
    word = "kept" if check.kept else "broken"
    cells = f"<td>{check.name}</td><td>{check.allowed:g}</td><td>{_number(check.found)}</td>"
    return f"<tr>{cells}<td class={word}>{word}</td></tr>"


def _row(kind: str, service_class: str, cell: Cell, seconds: int) -> str:
    counts = (cell.requests, cell.answered, cell.refused, cell.failed)
    rates = (cell.answered / max(1, seconds), cell.tokens / max(1, seconds))
    times = (quantile(cell, share) for share in (0.5, 0.95, 0.99))
    words = [html.escape(kind), service_class, *(f"{one:,}" for one in counts)]
    words += [f"{rates[0]:,.1f}", f"{rates[1]:,.0f}", *map(_number, times)]
    name = " class=all" if kind == "all" else ""
    return f"<tr{name}>{''.join(f'<td>{word}</td>' for word in words)}</tr>"


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
