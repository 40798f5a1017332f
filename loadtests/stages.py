"""The course of a locust run: so many users for so long, one stage after another.

    locust -f loadtests/locustfile.py,loadtests/stages.py --stages 8x30,32x30,128x30

A stage is USERSxSECONDS. `steps` and `soak` are two that are often wanted.
"""

# mypy: disallow-subclassing-any=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
# Locust is annotated in part, and in the extra `load` only.

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from locust import LoadTestShape, events

__all__ = ["Stage", "Staged", "parse", "users_at"]

NAMED = {
    "steps": "8x30,16x30,32x30,64x30,128x30,256x30",
    "soak": "8x60,40x7200",
}
_SPAWN_RATE = 50.0


@dataclass(frozen=True, slots=True)
class Stage:
    """So many users for so many seconds."""

    users: int
    seconds: float


def parse(words: str) -> tuple[Stage, ...]:
    """`8x30,64x30` or a name; ValueError where it is neither."""
    stages = []
    for word in NAMED.get(words, words).split(","):
        users, _, seconds = word.partition("x")
        try:
            stages.append(Stage(int(users), float(seconds)))
        except ValueError:
            names = ", ".join(NAMED)
            raise ValueError(f"a stage is USERSxSECONDS, or {names}; not {word!r}") from None
    return tuple(stages)


def users_at(stages: tuple[Stage, ...], seconds: float) -> int | None:
    """How many there are after so many seconds; None at the end."""
    ends = accumulate(stage.seconds for stage in stages)
    return next((s.users for s, end in zip(stages, ends, strict=True) if seconds < end), None)


class Staged(LoadTestShape):
    """Locust asks it every second."""

    def tick(self) -> tuple[int, float] | None:
        """Users and how many may come a second, or None: the end."""
        options: Namespace | None = self.runner.environment.parsed_options if self.runner else None
        stages = parse(options.stages if options else "steps")
        users = users_at(stages, self.get_run_time())
        return None if users is None else (users, _SPAWN_RATE)


@events.init_command_line_parser.add_listener
def _arguments(parser: Any) -> None:
    names = ", ".join(NAMED)
    parser.add_argument("--stages", default="steps", help=f"USERSxSECONDS,… or {names}")
