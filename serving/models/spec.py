"""The facts of a model, read from its checkpoint: sizes, tasks, pooling, heads. Frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Dense", "ModelSpec", "Pooling", "PoolingMode", "TaskSpec"]

PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len", "last"]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A way of asking a model: its wire name, other names for it, a prompt prefix, an adapter."""

    name: str
    prompt: str = ""
    aliases: tuple[str, ...] = ()
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token states `[tokens, hidden]` become one vector.

    Several modes are concatenated in the order given. `include_prompt` false leaves the prompt's
    tokens out (`Prepared.skip`).
    """

    modes: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer after pooling: `folder` (relative to the checkpoint) holds its weights.

    `weights` is the file in that folder, `activation` the dotted path of a torch module class.
    """

    folder: str
    weights: str
    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model is and can do. Every size comes from the checkpoint's own files.

    `path` is the checkpoint's directory on this machine and `transformer` the folder in it with
    the backbone's config.json ("" for the directory itself). `dimensions` is the full width of a
    vector; `matryoshka` the widths it may be cut to, ascending and without the full one;
    `max_tokens` the context, special tokens included. `default_task` is what an omitted task means
    (None: no prompt). `created` is a Unix time in seconds.
    """

    id: str
    family: str
    path: str
    source: str
    dimensions: int
    max_tokens: int
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    licence: str | None = None
    created: int = 0
    transformer: str = ""
    lowercase: bool = False
    modalities: tuple[str, ...] = ("text",)
    tasks: tuple[TaskSpec, ...] = ()
    default_task: str | None = None
    matryoshka: tuple[int, ...] = ()
    default_dimensions: int | None = None
    pooling: Pooling = field(default_factory=Pooling)
    heads: tuple[Dense, ...] = ()
    normalize: bool = False
