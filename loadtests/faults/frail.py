"""A replica that can be made to die: its no-op engine takes its time, and two inputs kill it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from deployments.replica import Replica
from loadtests.faults import ENGINE_POISON_TOKENS, POISON_TOKENS
from serving.engines import noop
from serving.engines._calls import Input, Results

__all__ = ["Frail"]

_BATCH_S = 0.03  # so that calls are under way, and several leave together, whenever it dies


class Frail(Replica):
    """See `Replica`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        noop._Hash = _Frail  # type: ignore[misc]  # of this process, which is a replica's
        super().__init__(*args, **kwargs)


class _Frail(noop._Hash):
    def __call__(self, inputs: Sequence[Input]) -> Results:
        time.sleep(_BATCH_S)
        if any(len(one.ids) == POISON_TOKENS for one in inputs):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(len(one.ids) == ENGINE_POISON_TOKENS for one in inputs):
            sys.exit("poisoned")  # ends the engine's thread
        return super().__call__(inputs)
