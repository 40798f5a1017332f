"""Money: exact, in decimals, rounded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.errors import InvalidConfig
from serving.metering.prices import Charge, Prices, charges, total
from serving.metering.questions import Question, Totals, UsageRow
from serving.metering.sinks import UsageSink, open_sink
from serving.metering.tables import as_csv, columns, rows
from tests.usage import at, event

PRICES = Prices.parse(
    {"minilm": {"text": "0.02"}, "clip": {"text": "0.018", "image": "0.1"}}, "EUR", places=4
)
QUESTION = Question(at(0, day=1), at(23), ("day", "tenant"))


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[UsageSink]:
    sink = open_sink(f"sqlite://{tmp_path}/usage.db")
    sink.write(
        [
            event("a", text_tokens=1_000_000),
            event("b", text_tokens=500_000, image_tokens=3_000_000, model="clip"),
            event("c", text_tokens=1, tenant="zorn"),
            event("d", text_tokens=7, tenant="zorn", model="unpriced"),
        ]
    )
    yield sink
    sink.close()


def test_a_million_tokens_cost_the_price() -> None:
    assert PRICES.cost("minilm", Totals(text_tokens=1_000_000)) == Decimal("0.02")
    assert PRICES.cost("clip", Totals(text_tokens=1, image_tokens=1)) == Decimal("1.18e-7")


def test_what_has_no_price_has_no_amount_and_nothing_costs_nothing() -> None:
    assert PRICES.cost("minilm", Totals(image_tokens=1)) is None
    assert PRICES.cost("nobody", Totals(text_tokens=1)) is None
    assert PRICES.cost("nobody", Totals(requests=3)) == 0
    assert Prices.parse({"*": {"text": "1"}}).cost("any", Totals(text_tokens=5)) is not None


@settings(derandomize=True, database=None, deadline=None)
@given(
    some.lists(some.integers(0, 2**63 - 1), max_size=20),
    some.decimals(0, 10**6, places=12),
)
def test_sums_are_exact(tokens: list[int], price: Decimal) -> None:
    prices = Prices.parse({"m": {"text": str(price)}})
    parts = [
        Charge(UsageRow(Totals(text_tokens=n)), prices.cost("m", Totals(text_tokens=n)))
        for n in tokens
    ]
    amount = total(parts).amount
    assert amount is not None
    assert Fraction(amount) == sum(tokens) * Fraction(price) / 1_000_000


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0.00005", "0.0000"),
        ("0.00015", "0.0002"),
        ("0.000050001", "0.0001"),
        ("1e9", "1" + 9 * "0"),
    ],
)
def test_a_tie_is_rounded_to_the_even_digit(amount: str, shown: str) -> None:
    assert PRICES.shown(Decimal(amount)).startswith(shown)


def test_a_total_rounds_the_exact_sum_and_not_rounded_parts() -> None:
    parts = [Charge(UsageRow(Totals()), Decimal("0.00004"))] * 5
    assert PRICES.shown(total(parts).amount) == "0.0002"


@pytest.mark.parametrize(
    "wrong", [0.02, 1, None, "a", "-1", "NaN", "Infinity", "1e-30", "0" * 30 + "1" * 21]
)
def test_an_amount_that_is_no_plain_decimal_string_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidConfig, match=r"prices\.m\.text"):
        Prices.parse({"m": {"text": wrong}})


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"prices\.m\.audio.*text, image"):
        Prices.parse({"m": {"audio": "1"}})


def test_rows_are_charged_by_model_whatever_they_are_grouped_by(sink: UsageSink) -> None:
    acme, zorn = charges(sink, QUESTION, PRICES)
    assert acme.row.tenant == "acme"
    assert acme.row.model is None
    assert acme.row.totals == Totals(2, 0, 2, 1_500_000, 3_000_000)
    assert acme.amount == Decimal("0.02") + Decimal("0.009") + Decimal("0.3")
    assert zorn.amount is None  # a part of it has no price
    by_model = charges(sink, replace(QUESTION, by=("model",)), PRICES)
    assert [(c.row.model, c.amount is None) for c in by_model] == [
        ("clip", False),
        ("minilm", False),
        ("unpriced", True),
    ]


def test_rows_are_words_and_csv(sink: UsageSink) -> None:
    found = charges(sink, QUESTION, PRICES)
    assert columns(QUESTION, PRICES)[:2] == ["day", "tenant"]
    assert columns(QUESTION, PRICES)[-1] == "EUR"
    assert rows(QUESTION, found, PRICES)[0] == [
        *("2026-01-31", "acme", "2", "0", "2", "1500000", "3000000", "0.3290")
    ]
    csv = as_csv(QUESTION, found, PRICES)
    assert csv.splitlines()[2] == "2026-01-31,zorn,2,0,2,8,0,"
    assert csv.endswith("\r\n")
    hourly = replace(QUESTION, by=("hour",))
    assert rows(hourly, charges(sink, hourly, PRICES))[0][0] == "2026-01-31T12:00Z"
