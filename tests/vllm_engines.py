"""vLLM engines, one a model for the whole session: each takes half a minute to start."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest

from serving.engines import EngineOptions
from serving.engines.vllm import VllmEngine, load
from serving.models.spec import ModelSpec
from serving.telemetry import Telemetry
from serving.telemetry.prometheus import PrometheusBackend
from tests.vllm_forks import forking

__all__ = ["OPTIONS", "TELEMETRY", "close_all", "needs_vllm", "shared_engine"]

OPTIONS = EngineOptions(dtype="float32", threads=1, batch_tokens=128, extra={"max_num_seqs": 32})
"""A step is shorter than the longest inputs, so that these are computed in chunks."""

TELEMETRY = Telemetry(PrometheusBackend())
"""What all of them tell."""

_started: dict[str, VllmEngine] = {}


def needs_vllm() -> None:
    """Skip the test where vLLM is not installed."""
    if find_spec("vllm") is None:
        pytest.skip("vllm is not installed (the extra cpu or gpu)")


def shared_engine(spec: ModelSpec) -> VllmEngine:
    """The engine with that model, started for the first one who asks. Not for closing."""
    needs_vllm()
    if spec.id not in _started:
        with forking():
            _started[spec.id] = load(spec, OPTIONS, TELEMETRY)
    return _started[spec.id]


def close_all() -> None:
    """End every engine, all at once."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda engine: asyncio.run(engine.close()), _started.values()))
    _started.clear()
