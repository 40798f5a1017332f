"""transformers and peft on a CPU or a GPU, in batches by tokens: the reference of the others."""

from __future__ import annotations

from serving.engines import EngineOptions
from serving.engines._hardware import chosen_device, chosen_dtype
from serving.engines._network import Network
from serving.engines._threaded import ThreadedEngine
from serving.models.spec import ModelSpec
from serving.telemetry import SILENT, Telemetry

__all__ = ["load"]

_BATCH_TOKENS = {"cuda": 16384, "cpu": 4096}
_QUEUED_BATCHES = 64


def load(spec: ModelSpec, options: EngineOptions, telemetry: Telemetry = SILENT) -> ThreadedEngine:
    """The model, loaded and warm. `ModelUnavailable` where the checkpoint cannot be read."""
    device = chosen_device(options)
    batch_tokens = options.batch_tokens or _BATCH_TOKENS.get(device.type, 4096)
    return ThreadedEngine(
        spec,
        lambda: Network(spec, device, chosen_dtype(options, device), options.threads, telemetry),
        batch_tokens=batch_tokens,
        queue_tokens=options.queue_tokens or _QUEUED_BATCHES * batch_tokens,
        telemetry=telemetry,
    )
