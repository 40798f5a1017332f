"""Tokens to money, in decimals: every product and sum is exact, and is rounded once, when shown.

Rounding is half to even (IEEE 754's and most ledgers' default): a tie goes to the even digit, so
that many small amounts are not pushed one way. A total is the rounded sum of the exact amounts,
never the sum of rounded ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

from serving.errors import InvalidConfig
from serving.metering.questions import Question, Totals, UsageRow
from serving.metering.sinks import UsageSink

__all__ = ["ANY_MODEL", "Charge", "Price", "Prices", "charges", "total"]

ANY_MODEL = "*"
_MILLION = -6
# Beyond any product of a 64-bit count and a price; an inexact result would be an error.
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, by what they are tokens of; None is no price."""

    text: Decimal | None = None
    image: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """A price list: by model id, or `*` for the models it does not name.

    Shown amounts have `places` decimals.
    """

    models: Mapping[str, Price]
    currency: str = "USD"
    places: int = 6

    @classmethod
    def parse(
        cls, models: Mapping[str, Mapping[str, object]], currency: str = "USD", places: int = 6
    ) -> Prices:
        """From config such as `{"some-model": {"text": "0.02", "image": "0.05"}}`.

        Amounts are strings, per million tokens: a YAML number would have been a float on its way.
        Raises `InvalidConfig`, which names the key.
        """
        read: dict[str, Price] = {}
        for model, amounts in models.items():
            for modality in amounts:
                if modality not in ("text", "image"):
                    raise InvalidConfig(
                        f"prices.{model}.{modality}: unknown key; the keys are text, image"
                    )
            read[model] = Price(
                **{name: _amount(f"prices.{model}.{name}", raw) for name, raw in amounts.items()}
            )
        return cls(read, currency, places)

    def cost(self, model: str, totals: Totals) -> Decimal | None:
        """The exact amount for these tokens of a model; None where some of them have no price."""
        price = self.models.get(model) or self.models.get(ANY_MODEL) or Price()
        amount = Decimal(0)
        for tokens, each in ((totals.text_tokens, price.text), (totals.image_tokens, price.image)):
            if tokens and each is None:
                return None
            if tokens and each is not None:
                part = _EXACT.multiply(Decimal(tokens), each)
                amount = _EXACT.add(amount, _EXACT.scaleb(part, _MILLION))
        return amount

    def shown(self, amount: Decimal | None) -> str:
        """An amount as it is shown: rounded half to even, "" where there is no price."""
        if amount is None:
            return ""
        step = Decimal(1).scaleb(-self.places)
        return f"{amount.quantize(step, ROUND_HALF_EVEN, Context(prec=100)):f}"


@dataclass(frozen=True, slots=True)
class Charge:
    """A row of usage and its exact amount; None where some of its tokens have no price."""

    row: UsageRow
    amount: Decimal | None


def charges(sink: UsageSink, question: Question, prices: Prices) -> list[Charge]:
    """The question's rows with their amounts. Blocks; raises `Unavailable`.

    Prices are by model, so the ledger is asked by model too, and the rows are then put together.
    """
    by = tuple(dict.fromkeys((*question.by, "model")))
    found: dict[UsageRow, Charge] = {}
    for row in sink.usage(replace(question, by=by)):
        amount = prices.cost(row.model or "", row.totals)
        group = replace(row, totals=Totals(), model=row.model if "model" in question.by else None)
        before = found.get(group)
        if before is not None:
            row = replace(row, totals=before.row.totals + row.totals)
            amount = _sum([before.amount, amount])
        found[group] = Charge(replace(group, totals=row.totals), amount)
    return list(found.values())


def total(rows: Sequence[Charge]) -> Charge:
    """All rows as one, with the exact sum of their amounts."""
    everything = sum((row.row.totals for row in rows), Totals())
    return Charge(UsageRow(everything), _sum([row.amount for row in rows]))


def _sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    whole = Decimal(0)
    for amount in amounts:
        if amount is None:
            return None
        whole = _EXACT.add(whole, amount)
    return whole


def _amount(key: str, raw: object) -> Decimal:
    if not isinstance(raw, str):
        raise InvalidConfig(f'{key}: write the amount as a string, such as "0.02"')
    try:
        amount = Decimal(raw)
    except InvalidOperation:
        raise InvalidConfig(f"{key}: {raw!r} is not a decimal number") from None
    _, digits, exponent = amount.as_tuple()
    if not amount.is_finite() or amount < 0:
        raise InvalidConfig(f"{key}: {raw!r} must be a finite amount of at least 0")
    if len(digits) > 20 or not -20 <= int(exponent) <= 20:
        raise InvalidConfig(f"{key}: {raw!r} has more digits than a price has")
    return amount
