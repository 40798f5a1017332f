"""What engines tell of their batches, their queues and their adapters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from serving.engines import EngineOptions
from serving.engines._calls import Input, Results
from serving.engines._threaded import ThreadedEngine
from serving.engines.noop import load as load_noop
from serving.engines.torch import load as load_torch
from serving.errors import ModelUnavailable
from serving.models.spec import ModelSpec
from serving.telemetry import Telemetry
from serving.telemetry.prometheus import PrometheusBackend
from serving.values import Floats, Prepared, Usage
from tests.adapted import make
from tests.scraping import names, shown
from tests.serving.engines.harness import TEXTS, embed
from tests.vllm_engines import TELEMETRY, needs_vllm, shared_engine

DASHBOARD = Path(__file__).resolve().parents[3] / "deployments/observability/dashboard.json"
SPEC = ModelSpec("gated", "none", "", "", dimensions=2, max_tokens=100)


class Gate:
    """A model that says when it is asked, and waits until it may answer."""

    def __init__(self) -> None:
        self.entered, self.open = Event(), Event()

    def __call__(self, inputs: Sequence[Input]) -> Results:
        self.entered.set()
        assert self.open.wait(30)
        return Results(np.ones((len(inputs), 2), np.float32))

    def finish(self, means: Floats) -> Floats:
        return means


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(PrometheusBackend())


def ids_of(*lengths: int) -> list[list[int]]:
    return [[7] * length for length in lengths]


async def test_a_batch_is_told_with_its_tokens_its_inputs_and_its_padding(
    telemetry: Telemetry,
) -> None:
    gate = Gate()
    gate.open.set()
    engine = ThreadedEngine(
        SPEC, lambda: gate, batch_tokens=100, queue_tokens=100, telemetry=telemetry
    )
    await embed(engine, ids_of(9, 6, 5))
    await engine.close()
    found = shown(telemetry)
    assert found["polyvec_batch_tokens_sum", "gated"] == 20
    assert found["polyvec_batch_tokens_count", "gated"] == 1
    assert found["polyvec_batch_inputs_sum", "gated"] == 3
    assert found["polyvec_batch_padding_tokens_total", "gated"] == 3 * 9 - 20


async def test_the_queue_is_looked_at_with_its_age_and_its_tokens(telemetry: Telemetry) -> None:
    gate = Gate()
    engine = ThreadedEngine(
        SPEC, lambda: gate, batch_tokens=100, queue_tokens=100, telemetry=telemetry
    )
    assert shown(telemetry)["polyvec_queue_age_seconds", "gated"] == 0
    calls = [asyncio.ensure_future(embed(engine, ids_of(6)))]
    assert await asyncio.to_thread(gate.entered.wait, 30)
    calls += [asyncio.ensure_future(embed(engine, ids_of(n))) for n in (3, 5)]
    await asyncio.sleep(0)
    first, second = shown(telemetry), shown(telemetry)
    assert first["polyvec_queue_tokens", "gated"] == 8
    age = "polyvec_queue_age_seconds", "gated"
    assert 0 < first[age] < second[age]
    gate.open.set()
    await asyncio.gather(*calls)
    assert shown(telemetry)["polyvec_queue_tokens", "gated"] == 0
    await engine.close()


async def test_the_noop_engine_tells_too(telemetry: Telemetry) -> None:
    engine = load_noop(SPEC, EngineOptions(), telemetry)
    await embed(engine, ids_of(2, 2))
    await engine.close()
    assert shown(telemetry)["polyvec_batch_inputs_sum", "gated"] == 2


async def test_adapters_are_told_as_they_are_loaded(telemetry: Telemetry, tmp_path: Path) -> None:
    spec = make("qwen3", tmp_path)
    engine = load_torch(spec, EngineOptions(dtype="float32", threads=1), telemetry)
    await embed(engine, TEXTS, adapter=spec.adapters[0].name)
    await engine.close()
    found, count = shown(telemetry), len(spec.adapters)
    assert count > 1
    assert found["polyvec_adapter_loads_total", "loaded", "qwen3"] == count
    assert found["polyvec_adapters_resident", "qwen3"] == count
    assert found["polyvec_adapter_load_duration_seconds_count", "qwen3"] == count
    assert found["polyvec_batch_tokens_sum", "qwen3"] == sum(map(len, TEXTS))


def test_an_adapter_that_cannot_be_loaded_is_told(telemetry: Telemetry, tmp_path: Path) -> None:
    spec = make("qwen3", tmp_path)
    (Path(spec.adapters[1].path) / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelUnavailable):
        load_torch(spec, EngineOptions(dtype="float32", threads=1), telemetry)
    found = shown(telemetry)
    assert found["polyvec_adapter_loads_total", "failed", "qwen3"] == 1
    assert found["polyvec_adapters_resident", "qwen3"] == 1


@pytest.mark.slow
async def test_vllm_tells_the_same_and_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    needs_vllm()
    spec = make("qwen3", tmp_path_factory.mktemp("told"))
    engine = shared_engine(spec)
    before = shown(TELEMETRY)
    lengths = np.array([3, 6], np.int32)
    job = Prepared(np.arange(10, 19, dtype=np.int32), lengths, Usage(9), adapter=None)
    await engine.embed(job, asyncio.get_running_loop().time() + 60)
    found = shown(TELEMETRY)

    def more(*key: str) -> float:
        return found[key] - before.get(key, 0.0)

    assert more("polyvec_batch_tokens_sum", "qwen3") == 9
    assert more("polyvec_batch_inputs_sum", "qwen3") == 2
    assert found["polyvec_adapters_resident", "qwen3"] == len(spec.adapters)
    assert found["polyvec_queue_tokens", "qwen3"] == 0
    assert more("vllm_prompt_tokens_total", "0", "qwen3") == 9
    assert more("vllm_request_queue_time_seconds_count", "0", "qwen3") == 2
    assert not any("lora_requests_info" in key[0] for key in found)
    asked = set(re.findall(r"ray_(vllm_\w+)", DASHBOARD.read_text()))
    assert asked and asked <= names(TELEMETRY)  # what the dashboard asks of vLLM
