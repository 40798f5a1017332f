"""A model's facts and a rollout's numbers to the arguments of vLLM's engine, by its own names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from serving.engines import AdapterOptions, EngineOptions
from serving.engines._vllm.backbones import Backbone
from serving.engines._vllm.packing import Facts
from serving.errors import InvalidConfig
from serving.models.spec import ModelSpec

__all__ = ["BATCH_TOKENS", "arguments"]

BATCH_TOKENS = {"cuda": 16384, "cpu": 4096}
"""Tokens in one step where nobody says how many."""

_OURS = frozenset({"model", "runner", "tokenizer", "trust_remote_code", "enable_log_requests"})
_ROWS = 256  # at most in one step


def arguments(
    spec: ModelSpec, options: EngineOptions, backbone: Backbone, device: str, dtype: str
) -> dict[str, Any]:
    """What `AsyncEngineArgs` is called with. `InvalidConfig` where `extra` has an unknown name.

    `dtype` is the number type's name. What the model needs cannot be set; all else in `extra` wins.
    """
    given = _known(options.extra)
    batch = options.batch_tokens or BATCH_TOKENS.get(device, BATCH_TOKENS["cuda"])
    step = batch if backbone.causal else max(batch, spec.max_tokens)
    found: dict[str, Any] = {
        "model": str(Path(spec.path) / spec.transformer),
        "served_model_name": spec.id,  # in its metrics
        "runner": "pooling",
        "trust_remote_code": False,
        "dtype": dtype,
        "max_model_len": spec.max_tokens,
        "max_num_seqs": min(_ROWS, step),
        "max_num_batched_tokens": step,
        "enable_chunked_prefill": backbone.causal,
        # Only a last token's state may do without the states before it.
        "enable_prefix_caching": backbone.causal and spec.pooling.modes == ("last",),
        "scheduling_policy": "priority",
        "enforce_eager": device == "cpu",
        "skip_tokenizer_init": spec.vision is None,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    found |= _adapted(spec, options, device) | _seeing(spec)
    found |= given
    found["hf_overrides"] = {
        **_mapping(given, "hf_overrides"),
        "architectures": [backbone.architecture],
        "is_causal": backbone.causal,
    }
    more = _mapping(given, "additional_config")
    found["additional_config"] = {**more, "polyvec": Facts.of(spec).packed()}
    _check(found, backbone, spec)
    return found


def _adapted(spec: ModelSpec, options: EngineOptions, device: str) -> dict[str, Any]:
    """All adapters stay on the device, so that a step may mix any of them; and room for loadable
    ones."""
    if not (spec.adapters or spec.loadable):
        return {}
    from vllm.config.lora import MaxLoRARanks

    own = [one.rank for one in spec.adapters]
    coming = options.adapters or AdapterOptions(len(spec.loadable))
    every = [*own, *[coming.rank] * coming.resident] if spec.loadable else own
    most = max(every)
    ranks = [rank for rank in get_args(MaxLoRARanks) if rank >= most]
    if not ranks:
        raise InvalidConfig(f"an adapter of {spec.id} has rank {most}, too large for vLLM")
    # On a CPU, vLLM 0.32 gives the last place's adapter to a row without one: it stays empty.
    places = len(every) + (device == "cpu")
    return {"enable_lora": True, "max_loras": places, "max_lora_rank": min(ranks)}


def _seeing(spec: ModelSpec) -> dict[str, Any]:
    """Images come sized as the model takes them, and seldom twice: none is kept."""
    vision = spec.vision
    if vision is None:
        return {}
    side = vision.patch * vision.merge
    size = {"shortest_edge": side * side, "longest_edge": vision.max_pixels}
    return {
        "limit_mm_per_prompt": {
            "image": max(spec.max_tokens // max(vision.min_pixels // side**2, 1), 1),
            "video": 0,
        },
        "mm_processor_kwargs": {"size": size},
        "mm_processor_cache_gb": 0,
    }


def _known(extra: Mapping[str, object]) -> dict[str, Any]:
    """The caller's own, once every name is one of vLLM's that is not ours to choose."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    names = {one.name for one in fields(AsyncEngineArgs)}
    for name in extra:
        if name in _OURS:
            raise InvalidConfig(f"engine option {name!r} is for Polyvec to set, not for a config")
        if name not in names:
            raise InvalidConfig(f"vLLM has no option {name!r}{_meant(name, names)}")
    return dict(extra)


def _meant(name: str, names: Collection[str]) -> str:
    close = get_close_matches(name, sorted(names))
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _mapping(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name) or {}
    if not isinstance(value, Mapping):
        raise InvalidConfig(f"engine option {name!r} is {value!r}; it may be a mapping")
    return value


def _check(found: Mapping[str, Any], backbone: Backbone, spec: ModelSpec) -> None:
    """Refuse what would make vectors wrong, or every request fail."""
    if not backbone.causal:
        for name in ("enable_chunked_prefill", "enable_prefix_caching"):
            if found[name]:
                message = f"{name} cannot be on for {spec.id}: its attention goes both ways"
                raise InvalidConfig(message)
        if found["max_num_batched_tokens"] < found["max_model_len"]:
            message = f"max_num_batched_tokens is below the {found['max_model_len']} tokens that"
            raise InvalidConfig(f"{message} {spec.id} takes, and it cannot take them in chunks")
