"""Whether three counts of the same tokens agree: what was answered, the ledger, the counters. Pure.

A count is tokens by tenant, model, task and the modality of the *token* ("text" or "image"), which
is how counters are labelled; a ledger's rows hold both kinds and are taken apart by `counted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from serving.metering.events import UsageEvent
from serving.metering.questions import UsageRow

__all__ = ["Count", "Difference", "Label", "counted", "reconcile"]

# Tenant, model, task, modality of the tokens.
Label: TypeAlias = tuple[str, str, str, str]
Count: TypeAlias = Mapping[Label, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where counts disagree, and what each of them says; one that knows nothing says 0."""

    tenant: str
    model: str
    task: str
    modality: str
    counts: Mapping[str, int]

    def __str__(self) -> str:
        says = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"{self.tenant} {self.model} {self.task or '-'} {self.modality} tokens: {says}"


def counted(usage: Iterable[UsageEvent | UsageRow]) -> dict[Label, int]:
    """The count of events, or of rows by tenant, model and task at least; nothing for no tokens.

    Repeats are not looked for: give each event once, as a ledger holds them.
    """
    count: dict[Label, int] = {}
    for entry in usage:
        sums = entry.totals if isinstance(entry, UsageRow) else entry
        name = (entry.tenant or "", entry.model or "", entry.task or "")
        for modality, tokens in (("text", sums.text_tokens), ("image", sums.image_tokens)):
            if tokens:
                count[*name, modality] = count.get((*name, modality), 0) + tokens
    return count


def reconcile(counts: Mapping[str, Count]) -> list[Difference]:
    """Every label on which the named counts are not all the same, in order; empty: they agree."""
    labels = sorted({label for count in counts.values() for label in count})
    found = []
    for label in labels:
        said = {name: count.get(label, 0) for name, count in counts.items()}
        if len(set(said.values())) > 1:
            found.append(Difference(*label, said))
    return found
