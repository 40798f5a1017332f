"""Who is told what the limits decide: metrics, logs. Nothing here counts or writes."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from serving.limits.decision import Source
from serving.limits.limit import BucketName

__all__ = ["DecidedBy", "Observer", "Unobserved", "Verdict"]

Verdict: TypeAlias = Literal["admitted", "refused", "shadowed"]
DecidedBy: TypeAlias = Source | Literal["cache"]


class Observer(Protocol):
    """Told at once, in the event loop; must return fast and raise nothing."""

    def decided(
        self, tenant: str, verdict: Verdict, bucket: BucketName | None, by: DecidedBy
    ) -> None:
        """A request was decided on; `bucket` is what refused it, or would have (`shadowed`)."""
        ...

    def store(self, up: bool, reason: str) -> None:
        """A store failed, each time it does, and why; or, once, it answers again."""
        ...

    def lost(self, tenant: str) -> None:
        """Something could not be given back, for the store was down."""
        ...


class Unobserved:
    """An observer that is not interested."""

    def decided(
        self, tenant: str, verdict: Verdict, bucket: BucketName | None, by: DecidedBy
    ) -> None:
        """See `Observer`."""

    def store(self, up: bool, reason: str) -> None:
        """See `Observer`."""

    def lost(self, tenant: str) -> None:
        """See `Observer`."""
