"""vLLM's pooling runner in this process: its engine core and workers are processes of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np
import torch

from serving.engines import EngineOptions
from serving.engines._calls import Part, Rest, admitted
from serving.engines._pooling import head
from serving.engines._vllm.arguments import BATCH_TOKENS
from serving.engines._vllm.backbones import BACKBONES, read_config, refusal
from serving.engines._vllm.core import Core
from serving.engines._vllm.inputs import Asked, asked, checked
from serving.errors import DeadlinePassed, InvalidConfig, Overloaded, Unavailable
from serving.models.spec import ModelSpec
from serving.values import Floats, Output, Prepared, Vectors
from serving.vectors.matryoshka import shorten, unit
from serving.vectors.sparse import strongest

__all__ = ["VllmEngine", "load"]

_QUEUED_BATCHES = 64
_LONGEST_RETRY_S = 60.0

_log = logging.getLogger(__name__)


def load(
    spec: ModelSpec, options: EngineOptions, stat_loggers: Sequence[Any] | None = None
) -> VllmEngine:
    """The model, loaded and warm. `InvalidConfig` where vLLM cannot run it or its options.

    `stat_loggers` are factories of vLLM's own, for its metrics.
    """
    if (reason := refusal(spec)) is not None:
        raise InvalidConfig(f"{reason}; the torch engine runs it")
    began = monotonic()
    engine = VllmEngine(spec, options, stat_loggers)
    _log.info("vLLM has loaded %s in %.0f s", spec.id, monotonic() - began)
    return engine


class VllmEngine:
    """An `Engine`; the constructor returns when the model is loaded."""

    def __init__(
        self, spec: ModelSpec, options: EngineOptions, stat_loggers: Sequence[Any] | None = None
    ) -> None:
        self._spec = spec
        self._config = read_config(spec)
        self._backbone = BACKBONES[str(self._config["model_type"])]
        self._adapters = frozenset(one.name for one in spec.adapters)
        self._head = head(spec.path, spec.heads, torch.device("cpu"))
        self._lock = Lock()
        self._tokens = self._served = 0
        self._busy_since = 0.0
        self._refusal: str | None = None
        self._jobs: set[asyncio.Task[Any]] = set()
        batch = options.batch_tokens or max(BATCH_TOKENS.values())
        self._bound = options.queue_tokens or _QUEUED_BATCHES * batch
        self._core = Core(spec, options, self._backbone, stat_loggers)

    @property
    def unfinished(self) -> int:
        """How many inputs the engine core has that are not answered."""
        return self._core.unfinished

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """See `Engine.embed`."""
        lengths = admitted(self._spec, self._adapters, prepared)
        self._refuse_if_unable()
        if not lengths:
            return self._answer(prepared, [], Rest(prepared, []), monotonic())
        if deadline <= monotonic():
            raise _late()
        with self._taken(sum(length or 1 for length in lengths)):
            work = self._job(prepared, lengths, deadline)
            return await asyncio.wrap_future(self._core.run(work))

    async def check(self) -> None:
        """See `Engine.check`."""
        self._refuse_if_unable()

    async def close(self) -> None:
        """See `Engine.close`. What is in the engine is given up: vLLM cannot say what has begun."""
        self._refusal = self._refusal or f"the engine of {self._spec.id} is closed"
        await asyncio.wrap_future(self._core.run(self._drop())) if self._core.runs else None
        await asyncio.to_thread(self._core.stop)
