"""One answered request as the ledger keeps it, and the id under which it is billed once."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

__all__ = ["HOUR_S", "UsageEvent", "event_id"]

HOUR_S = 3600
_DIGITS = 32  # 128 bits: as many as a UUID has

# Not the module's own, which engines seed: after a start with the same seed, the ids of other
# requests would come again, and these be taken for repeats. Nor the kernel's, a call each.
_chance = random.Random()
os.register_at_fork(after_in_child=_chance.seed)


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What one request used. Events are only ever added: an event with a known `id` is a repeat.

    `task` is "" where the model has none; `modality` is what the request held: "text", "image" or
    "mixed". Tokens are those to be billed, so that a request that failed has none. `dimensions` is
    the width of the vectors, `status` the HTTP status. `time` is when the request was answered, in
    seconds since the epoch (UTC); the ledger keeps it, and `duration_s`, to the microsecond.
    """

    id: str
    tenant: str
    key_id: str
    model: str
    task: str
    modality: str
    text_tokens: int
    image_tokens: int
    items: int
    dimensions: int
    status: int
    duration_s: float
    time: float

    @property
    def time_us(self) -> int:
        """`time` in whole microseconds."""
        return round(self.time * 1_000_000)

    @property
    def hour(self) -> int:
        """The full hour (UTC) that `time` lies in, in seconds since the epoch."""
        return self.time_us // 1_000_000 // HOUR_S * HOUR_S

    @property
    def at(self) -> datetime:
        """`time` as an aware datetime in UTC."""
        seconds, microseconds = divmod(self.time_us, 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


def event_id(
    request: str,
    tenant: str,
    endpoint: str,
    idempotency_key: str | None = None,
    body: bytes = b"",
) -> str:
    """The id of a request's event: the same for a repeat under an `Idempotency-Key`, else new.

    With a key it is a hash of tenant, key, endpoint and `body`, so that the same request sent again
    is billed once; hand the body in, or one key would pay for any number of different requests.
    Give the key only where the request was answered: a failure's event would take the place of the
    repeat that succeeds. Without a key it is the request's id and a chance number, because callers
    choose the request's id and must not make two requests one by it.
    """
    if idempotency_key is None:
        return f"{request}-{_chance.getrandbits(64):016x}"
    digest = sha256(body)
    for part in (tenant, idempotency_key, endpoint):
        written = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(written), written))
    return f"idem-{digest.hexdigest()[:_DIGITS]}"
