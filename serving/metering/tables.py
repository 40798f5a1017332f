"""Usage for people and spreadsheets: plain rows of words, and the same as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from serving.metering.prices import Charge, Prices
from serving.metering.questions import DIMENSIONS, Question

__all__ = ["as_csv", "columns", "rows"]

_SUMS = ("requests", "errors", "items", "text_tokens", "image_tokens")


def columns(question: Question, prices: Prices | None = None) -> list[str]:
    """The names of the columns; that of the money is its currency."""
    time = [name for name in ("hour", "day") if name in question.by]
    return [*time, *question.dimensions, *_SUMS, *([prices.currency] if prices else [])]


def rows(
    question: Question, found: Sequence[Charge], prices: Prices | None = None
) -> list[list[str]]:
    """A row of words for each of the ledger's. Hours are `2026-01-31T13:00Z`, days `2026-01-31`."""
    return [_row(question, charge, prices) for charge in found]


def as_csv(question: Question, found: Sequence[Charge], prices: Prices | None = None) -> str:
    """RFC 4180: a line of names, a line a row, CRLF."""
    written = io.StringIO()
    csv.writer(written).writerows([columns(question, prices), *rows(question, found, prices)])
    return written.getvalue()


def _row(question: Question, charge: Charge, prices: Prices | None) -> list[str]:
    row, shown = charge.row, []
    if question.bucket_s is not None:
        pattern = "%Y-%m-%dT%H:%MZ" if "hour" in question.by else "%Y-%m-%d"
        shown.append("total" if row.start is None else row.start.strftime(pattern))
    shown += [str(getattr(row, name) or "") for name in DIMENSIONS if name in question.by]
    shown += [str(getattr(row.totals, name)) for name in _SUMS]
    return shown + ([prices.shown(charge.amount)] if prices else [])
