"""What a plan allows: five numbers, and the buckets that a request of a model is counted in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from serving.errors import InvalidConfig

__all__ = ["LARGEST", "Bucket", "BucketName", "Limits"]

BucketName: TypeAlias = Literal["requests", "tokens", "images", "concurrency", "month"]

# Redis scripts count in doubles. Limit times the milliseconds of a minute stays below 2**53.
LARGEST = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit. `key` is what a tenant's use is kept under: the name, or `name:model`."""

    name: BucketName
    limit: int
    key: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may use; None is no limit and 0 is nothing at all.

    The three rates are per minute and let a minute's worth be used at once. The month is UTC's.
    `models` has numbers of a model's own: what an entry names replaces the plan's number for that
    model and is counted apart; what it leaves out is counted together with every other model.
    Raises `InvalidConfig` for a number that is negative or above `LARGEST`.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    images_per_minute: int | None = None
    concurrent_requests: int | None = None
    monthly_tokens: int | None = None
    models: Mapping[str, Limits] = field(default_factory=dict)
    _shared: tuple[Bucket, ...] = field(default=(), init=False, repr=False, compare=False)
    _own: Mapping[str, tuple[Bucket, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for key in _NAMES:
            value = getattr(self, key)
            if value is not None and not 0 <= value <= LARGEST:
                raise InvalidConfig(f"{key} is {value}; it is from 0 to {LARGEST}")
        object.__setattr__(self, "_shared", tuple(_buckets(self, "")))
        object.__setattr__(
            self, "_own", {model: self._of(model, own) for model, own in self.models.items()}
        )

    def buckets(self, model: str) -> tuple[Bucket, ...]:
        """What a request for `model` is counted in, in the order of `BucketName`."""
        return self._own.get(model, self._shared)

    def _of(self, model: str, own: Limits) -> tuple[Bucket, ...]:
        apart = {bucket.name: bucket for bucket in _buckets(own, f":{model}")}
        shared = {bucket.name: bucket for bucket in self._shared}
        merged = shared | apart
        return tuple(merged[name] for name in _NAMES.values() if name in merged)


_NAMES: dict[str, BucketName] = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "images_per_minute": "images",
    "concurrent_requests": "concurrency",
    "monthly_tokens": "month",
}


def _buckets(limits: Limits, suffix: str) -> list[Bucket]:
    numbers = {name: getattr(limits, key) for key, name in _NAMES.items()}
    return [
        Bucket(name, limit, name + suffix) for name, limit in numbers.items() if limit is not None
    ]
