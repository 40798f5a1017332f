"""What waits in a queue: a job's ticket, a row for each of its inputs, and a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from serving.values import ServiceClass

__all__ = ["Batch", "Row", "Ticket"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A job's place in the queue. `rows` and `tokens` are those of it that still wait."""

    owner: T
    arrival: float
    deadline: float
    rows: int
    tokens: int
    service_class: ServiceClass
    tenant: str
    alive: bool = True


class Row(NamedTuple, Generic[T]):
    """One input: the one at `place` in its job, `length` tokens long.

    A tenant's rows go in the order of `due`, the tokens that each of its jobs has had by then, and
    of `number`, in which they came.
    """

    due: int
    number: int
    ticket: Ticket[T]
    place: int
    length: int


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Rows to run together, shortest first, and the owners whose deadline passed while waiting."""

    rows: Sequence[Row[T]] = ()
    late: Sequence[T] = ()

    @property
    def tokens(self) -> int:
        """Real tokens, without padding."""
        return sum(row.length for row in self.rows)
