"""Traffic: tokens that arrive in each step, by service class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "TRACES",
    "Array",
    "Traffic",
    "constant",
    "diurnal",
    "flash",
    "ingest",
    "seldom",
    "trace",
]

Array: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = Callable[
    [Array], tuple[Array, Array]
]  # seconds -> interactive, bulk; of the mean

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Tokens offered in every step of `step_s` seconds. Requests of `request_tokens` come alone."""

    name: str
    step_s: float
    interactive: Array
    bulk: Array
    request_tokens: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.step_s * len(self.interactive)


def constant(seconds: Array) -> tuple[Array, Array]:
    """The same rate all the time."""
    return np.ones_like(seconds), np.zeros_like(seconds)


def diurnal(seconds: Array) -> tuple[Array, Array]:
    """A day: a sixth of the peak at four in the morning, the peak at four in the afternoon."""
    day = 0.5 - 0.5 * np.cos(2 * np.pi * (seconds / HOUR - 4) / 24)
    return (1 / 6 + 5 / 6 * day) / (7 / 12), np.zeros_like(seconds)


def flash(seconds: Array) -> tuple[Array, Array]:
    """Twenty times the rate for ten minutes, from one second to the next, half an hour in."""
    crowd = (seconds >= 0.5 * HOUR) & (seconds < 0.5 * HOUR + 600)
    return np.where(crowd, 20.0, 1.0), np.zeros_like(seconds)


def ingest(seconds: Array) -> tuple[Array, Array]:
    """A steady rate, and for an hour beside it three times as much in bulk."""
    running = (seconds >= 0.5 * HOUR) & (seconds < 1.5 * HOUR)
    return np.ones_like(seconds), np.where(running, 3.0, 0.0)


def seldom(seconds: Array) -> tuple[Array, Array]:
    """Five minutes of every two hours, and nobody in between."""
    return np.where((seconds + HOUR) % (2 * HOUR) < 300, 1.0, 0.0), np.zeros_like(seconds)


TRACES: dict[str, tuple[Shape, float]] = {
    "steady": (constant, 2 * HOUR),
    "diurnal": (diurnal, 24 * HOUR),
    "flash": (flash, 2 * HOUR),
    "ingest": (ingest, 2 * HOUR),
    "seldom": (seldom, 8 * HOUR),
}
"""Shape and seconds by name."""


def trace(
    name: str,
    rate: float,
    step_s: float,
    request_tokens: float,
    seed: int = 0,
    seconds: float | None = None,
) -> Traffic:
    """Traffic of that shape; `rate` is the mean of its interactive tokens per second, the flash
    crowd left out. Arrivals are Poisson: independent requests."""
    shape, usual = TRACES[name]
    steps = round((seconds or usual) / step_s)
    at = np.asarray((np.arange(steps) + 0.5) * step_s, np.float64)
    random = np.random.default_rng(seed)

    def arrivals(part: Array) -> Array:
        requests = random.poisson(part * rate * step_s / request_tokens)
        return np.asarray(requests * request_tokens, dtype=np.float64)

    interactive, bulk = shape(at)
    return Traffic(name, step_s, arrivals(interactive), arrivals(bulk), request_tokens)
