"""What a load test must keep to, and whether it did. Pure.

p95.interactive=0.5    seconds that 95 of 100 answers of a class take at most
errors=0.001           share of requests that may fail; a refusal is no failure
refused=0.05           share of requests that may be refused
tokens_per_s=2000      tokens answered a second at least
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loadtests.mixes import KINDS
from loadtests.tally import Tally, quantile

__all__ = ["CLASSES", "DEFAULT", "Check", "checked", "class_of", "parse"]

CLASSES = ("interactive", "bulk")
DEFAULT = ("errors=0.001", "p95.interactive=2", "p95.bulk=30")
_SHARES = ("errors", "refused")
_KNOWN = (*_SHARES, "tokens_per_s", *(f"p95.{name}" for name in CLASSES))
_CLASS_OF = {kind.name: kind.service_class for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a budget: what was allowed, what was found, and whether it was kept."""

    name: str
    allowed: float
    found: float
    kept: bool


def parse(words: Iterable[str]) -> dict[str, float]:
    """`name=number` each; a later one overrides. ValueError names what is wrong."""
    budget: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        if name not in _KNOWN:
            raise ValueError(f"no budget {name!r}; there are {', '.join(_KNOWN)}")
        try:
            budget[name] = float(number)
        except ValueError:
            raise ValueError(f"{word!r}: {name}= needs a number") from None
    return budget


def checked(budget: Mapping[str, float], tally: Tally) -> Sequence[Check]:
    """Every line of the budget; a class of which nothing was answered has kept to its own."""
    checks = []
    for name, allowed in budget.items():
        found = _found(name, tally)
        kept = found >= allowed if name == "tokens_per_s" else not found > allowed
        checks.append(Check(name, allowed, found, kept))
    return checks


def class_of(kind: str) -> str:
    """The service class of a kind, over whatever wire it went (`grpc query` is a `query`)."""
    return _CLASS_OF.get(kind.rpartition(" ")[2], CLASSES[0])


def _found(name: str, tally: Tally) -> float:
    if name.startswith("p95."):
        wanted = name.removeprefix("p95.")
        return quantile(tally.total(lambda _, kind: class_of(kind) == wanted), 0.95)
    whole = tally.total()
    if name == "tokens_per_s":
        return whole.tokens / max(1, len(tally.span))
    count = whole.failed if name == "errors" else whole.refused
    return count / max(1, whole.requests)
