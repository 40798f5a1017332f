"""Token ids to vectors. One file an engine; the file's name is its name in a configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal, Protocol, TypeAlias, cast

from serving.folder import Folder
from serving.models.spec import ModelSpec
from serving.telemetry import SILENT, Telemetry
from serving.values import Prepared, Vectors

__all__ = ["ENGINES", "AdapterOptions", "DType", "Engine", "EngineOptions", "open_engine"]

ENGINES = Folder(__name__, __path__[0])

_log = logging.getLogger(__name__)

DType: TypeAlias = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class AdapterOptions:
    """How many of a model's `loadable` adapters an engine has at once, and of which rank at most.

    It loads at most `loads_per_minute`; what is asked for and not loaded waits for its turn.
    """

    resident: int
    loads_per_minute: int = 60
    rank: int = 64


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Numbers of a rollout that an engine honours.

    `batch_tokens` bounds one batch, padding included, and `queue_tokens` what may wait (None: the
    engine's choice for its hardware; an empty queue takes any job). `threads` is the number of
    compute threads on a CPU (None: the library's choice); `device` a torch device name or None for
    a GPU where there is one. `adapters` is for a model with loadable ones. `extra` is handed to the
    library behind the engine by its own names (vLLM: `tensor_parallel_size`, `quantization`,
    `gpu_memory_utilization` …).
    """

    dtype: DType = "auto"
    batch_tokens: int | None = None
    queue_tokens: int | None = None
    threads: int | None = None
    device: str | None = None
    adapters: AdapterOptions | None = None
    extra: Mapping[str, object] = field(default_factory=dict)


class Engine(Protocol):
    """A model that embeds. Engine modules have `load(spec, options, telemetry) -> Engine`.

    Every vector depends on its own input alone: batched equals single, in any order.
    """

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """Vectors of every input, in order.

        `deadline` is a `time.monotonic()` of this process: past it, or when the awaiting task is
        cancelled, inputs that are not yet in a batch never are. Raises `DeadlinePassed`,
        `Overloaded` (queue full; nothing was taken), `InputTooLarge`, `Unavailable` (engine dead).
        """
        ...

    async def check(self) -> None:
        """Return if the engine can answer; else raise `Unavailable` with the reason."""
        ...

    async def close(self) -> None:
        """Finish what is in a batch, refuse the rest with `Unavailable`, free the model."""
        ...


def open_engine(
    name: str,
    spec: ModelSpec,
    options: EngineOptions,
    telemetry: Telemetry = SILENT,
    residents: Callable[[Sequence[str]], None] = lambda names: None,
) -> Engine:
    """The engine of that name with the model loaded.

    `residents` hears which of the spec's loadable adapters are loaded, whenever that changes.

    `auto` is vLLM where it is installed, has a GPU and runs the model, and torch elsewhere.
    """
    if name == "auto":
        reason = ENGINES.load("vllm").unsuited(spec, options)
        name = "vllm" if reason is None else "torch"
        _log.info("%s runs in the engine %s%s", spec.id, name, f": {reason}" if reason else "")
    engine = ENGINES.load(name).load(spec, options, telemetry)
    if not spec.loadable:
        return cast(Engine, engine)
    # Loaded as engines are, by name: it knows this module, and this one need not know it.
    several = import_module("serving.engines._multiplexed")
    return cast(Engine, several.multiplexed(engine, spec, options, residents))
