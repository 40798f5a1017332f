"""Tells vLLM of our model classes: the entry point `vllm.general_plugins`, run in its processes."""

from __future__ import annotations

from serving.engines._vllm.backbones import BACKBONES
from serving.operators import declare

__all__ = ["register"]

_MODELS = "serving.engines._vllm.models"


def register() -> None:
    """Every class by its name; none is imported before vLLM builds it."""
    declare()
    from vllm import ModelRegistry  # here, because declare() comes first

    for backbone in BACKBONES.values():
        name = backbone.architecture
        ModelRegistry.register_model(name, f"{_MODELS}:{name}")
