"""Any sentence-transformers checkpoint, read by its own files as sentence-transformers reads them.

Covered: a Transformer, a Pooling, then Dense, Normalize and Dropout modules; prompts, Matryoshka
widths, the formats of every release from 2 to 6; and a bare transformers checkpoint. Not covered:
other modules, residual Dense layers, weighted-mean pooling, chat-template inputs, remote code.
Reading imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serving.errors import InvalidConfig, ModelUnavailable
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint, Facts
from serving.models.families._tasks import from_prompts, with_extras
from serving.models.spec import Dense, ModelSpec, Pooling, PoolingMode, TaskSpec

__all__ = ["read", "recognises"]

_MODULES = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")
# In the order in which sentence-transformers concatenates its booleans.
_FLAGS: dict[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MODES: dict[str, PoolingMode] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "lasttoken": "last",
}
_WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
# Their positions start at pad_token_id + 1, so 514 of them are 512 tokens.
_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
# transformers writes 1e30 for a tokenizer without a limit.
_NO_LIMIT = 10**9
_SENTENCE_BERT = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether there is a modules.json, or a config.json to put a pooling on."""
    return checkpoint.has("modules.json") or checkpoint.has("config.json")


def read(checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
    """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
    folder, modules = _modules(checkpoint)
    config = checkpoint.json(_in(folder, "config.json"))
    backbone = _sentence_bert(checkpoint, folder)
    _refuse_other_inputs(backbone)
    pooling = _pooling(checkpoint, modules, config)
    width = _width(config) * len(pooling.modes)
    heads = _heads(checkpoint, modules, width)
    dimensions = heads[-1].outputs if heads else width
    own = checkpoint.json("config_sentence_transformers.json", optional=True)
    tasks = with_extras(from_prompts(own.inner("prompts")), entry.extra_tasks)
    cut = own.whole("truncate_dim")
    return ModelSpec(
        id=entry.id,
        aliases=entry.aliases,
        family="sentence_transformers",
        path=str(checkpoint.path),
        source=checkpoint.source,
        revision=checkpoint.revision,
        licence=checkpoint.licence() or entry.licence,
        created=int((checkpoint.path / folder / "config.json").stat().st_mtime),
        transformer=folder,
        lowercase=bool(backbone.flag("do_lower_case")),
        dimensions=dimensions,
        max_tokens=_max_tokens(checkpoint, folder, config, backbone, entry),
        tasks=tasks,
        default_task=_default_task(own, tasks),
        matryoshka=_matryoshka(own, config, entry, dimensions),
        default_dimensions=cut if cut is not None and 0 < cut < dimensions else None,
        pooling=pooling,
        heads=heads,
        normalize=any(kind == "Normalize" for kind, _ in modules),
        # The mean over a part of the tokens is what it would be alone, unless some are left out.
        late_chunking=pooling == Pooling(("mean",)),
    )


def _in(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _modules(checkpoint: Checkpoint) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The backbone's folder, and the kind and folder of every module after it."""
    if not checkpoint.has("modules.json"):
        return "", ()
    listed = checkpoint.objects("modules.json")
    kinds = [(module.text("type") or "").rpartition(".") for module in listed]
    for package, _, kind in kinds:
        if kind not in _MODULES or not package.startswith("sentence_transformers."):
            raise checkpoint.fault(
                f"has a module {package}.{kind} in modules.json; there are {', '.join(_MODULES)}"
            )
    names = [kind for _, _, kind in kinds]
    rest = [name for name in names[2:] if name != "Dropout"]
    if names[:2] != ["Transformer", "Pooling"] or {"Transformer", "Pooling"} & set(rest):
        raise checkpoint.fault(
            f"has the modules {', '.join(names)}; supported is a Transformer, then a Pooling"
        )
    if "Normalize" in rest[: rest.count("Dense")]:
        raise checkpoint.fault("has a Normalize before a Dense in modules.json; supported is after")
    folders = [_inside(checkpoint, module.text("path") or "") for module in listed]
    return folders[0], tuple(zip(names[1:], folders[1:], strict=True))


def _inside(checkpoint: Checkpoint, folder: str) -> str:
    """A module's folder, which may not lead out of the checkpoint."""
    if folder.startswith("/") or ".." in folder.split("/"):
        raise checkpoint.fault(f"has a module at {folder!r} in modules.json, which is outside it")
    return folder.rstrip("/")


def _sentence_bert(checkpoint: Checkpoint, folder: str) -> Facts:
    """The backbone's own settings; empty in a bare checkpoint."""
    found = (name for name in _SENTENCE_BERT if checkpoint.has(_in(folder, name)))
    return checkpoint.json(_in(folder, next(found, _SENTENCE_BERT[0])), optional=True)


def _refuse_other_inputs(backbone: Facts) -> None:
    """Backbones that take chat messages, or give something other than hidden states."""
    task = backbone.text("transformer_task") or "feature-extraction"
    if task != "feature-extraction":
        raise ModelUnavailable(f"transformer_task {task!r} in {backbone.name} is not supported")
    if "modality_config" in backbone and "text" not in backbone.inner("modality_config"):
        raise ModelUnavailable(f"modality_config in {backbone.name} has no text")


def _pooling(checkpoint: Checkpoint, modules: Iterable[tuple[str, str]], config: Facts) -> Pooling:
    """1_Pooling/config.json, as booleans or as `pooling_mode`."""
    folder = next((folder for kind, folder in modules if kind == "Pooling"), None)
    if folder is None:
        return Pooling((_bare_mode(config),))
    facts = checkpoint.json(_in(folder, "config.json"))
    include_prompt = facts.flag("include_prompt")
    return Pooling(
        tuple(_mode(facts, name) for name in _mode_names(facts)),
        include_prompt=include_prompt is not False,
    )


def _bare_mode(config: Facts) -> PoolingMode:
    """As upstream chooses: the last token of a causal language model, else the mean."""
    architectures = config.values.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    causal = first.endswith("ForCausalLM") and config.flag("is_causal") is not False
    return "last" if causal else "mean"


def _mode_names(facts: Facts) -> list[str]:
    """The modes in the order of concatenation; the mean where nothing is chosen."""
    mode = facts.values.get("pooling_mode")
    if isinstance(mode, list):
        return [str(one) for one in mode] or ["mean"]
    if mode is not None:
        return [str(mode)]
    return [name for flag, name in _FLAGS.items() if facts.flag(flag)] or ["mean"]


def _mode(facts: Facts, name: str) -> PoolingMode:
    if name not in _MODES:
        raise ModelUnavailable(
            f"pooling {name!r} in {facts.name} is not supported; there are {', '.join(_MODES)}"
        )
    return _MODES[name]


def _heads(
    checkpoint: Checkpoint, modules: Iterable[tuple[str, str]], width: int
) -> tuple[Dense, ...]:
    """The Dense layers, each as wide as what comes before it."""
    heads: list[Dense] = []
    for kind, folder in modules:
        if kind == "Dense":
            heads.append(_dense(checkpoint, folder, width))
            width = heads[-1].outputs
    return tuple(heads)


def _dense(checkpoint: Checkpoint, folder: str, width: int) -> Dense:
    facts = checkpoint.json(_in(folder, "config.json"))
    inputs, outputs = facts.whole("in_features"), facts.whole("out_features")
    if inputs is None or outputs is None:
        raise ModelUnavailable(f"{facts.name} does not say in_features and out_features")
    if inputs != width:
        raise ModelUnavailable(f"{facts.name} takes {inputs} features; what precedes gives {width}")
    for key in ("module_input_name", "module_output_name"):
        if (facts.text(key) or "sentence_embedding") != "sentence_embedding":
            raise ModelUnavailable(f"{key} {facts.text(key)!r} in {facts.name} is not supported")
    if facts.flag("use_residual"):
        raise ModelUnavailable(f"use_residual in {facts.name} is not supported")
    return Dense(
        folder=folder,
        weights=checkpoint.weight_file(folder),
        inputs=inputs,
        outputs=outputs,
        bias=facts.flag("bias") is not False,
        activation=facts.text("activation_function") or "torch.nn.modules.activation.Tanh",
    )


def _text_config(config: Facts) -> Facts:
    """The backbone's facts: those of `text_config` in a checkpoint of several modalities."""
    return config.inner("text_config") if "text_config" in config else config


def _first(facts: Facts, keys: Sequence[str]) -> int | None:
    return next((facts.whole(key) for key in keys if key in facts), None)


def _width(config: Facts) -> int:
    """The hidden size, under the name that the architecture gives it."""
    width = _first(config, _WIDTHS) or _first(_text_config(config), _WIDTHS)
    if not width:
        raise ModelUnavailable(f"{config.name} does not say the hidden size ({', '.join(_WIDTHS)})")
    return width


def _positions(config: Facts) -> int | None:
    """The longest input that has positions; None where there is no such limit."""
    inner = _text_config(config)
    # T5 has n_positions too, but no such limit: its positions are relative.
    keys = ("max_position_embeddings", *(("n_positions",) if "n_embd" in inner else ()))
    positions = _first(config, keys) or _first(inner, keys)
    if positions is None or positions < 1:
        return None
    if inner.text("model_type") in _AFTER_PADDING:
        padding = inner.whole("pad_token_id")
        return positions - (1 if padding is None else padding) - 1
    return positions


def _max_tokens(
    checkpoint: Checkpoint, folder: str, config: Facts, backbone: Facts, entry: Entry
) -> int:
    """The context: as configured, as the checkpoint says, and never beyond the positions."""
    positions = _positions(config)
    if entry.max_tokens is not None:
        if positions is not None and entry.max_tokens > positions:
            raise InvalidConfig(
                f"max_tokens of {entry.id} is {entry.max_tokens}; it has {positions} positions"
            )
        return entry.max_tokens
    said = backbone.whole("max_seq_length") or _processor_limit(backbone)
    if said is None:
        tokenizer = checkpoint.json(_in(folder, "tokenizer_config.json"), optional=True)
        said = tokenizer.whole("model_max_length")
    limits = [one for one in (said, positions) if one is not None and one < _NO_LIMIT]
    if not limits:
        raise ModelUnavailable(
            f"no file of {checkpoint.source} says how long its inputs may be; set max_tokens"
        )
    return min(limits)


def _processor_limit(backbone: Facts) -> int | None:
    for key in ("processor_kwargs", "tokenizer_args"):
        limit = backbone.inner(key).whole("model_max_length")
        if limit is not None:
            return limit
    return None


def _default_task(own: Facts, tasks: Sequence[TaskSpec]) -> str | None:
    """What an omitted task means. A name without a prompt is an empty prompt to upstream."""
    name = own.text("default_prompt_name")
    if name is None or name in (task.name for task in tasks):
        return name
    if name in ("query", "document"):
        return None
    raise ModelUnavailable(f"default_prompt_name {name!r} in {own.name} is not one of its prompts")


def _matryoshka(own: Facts, config: Facts, entry: Entry, dimensions: int) -> tuple[int, ...]:
    """The widths that a vector may be cut to, ascending, without the full one."""
    widths = entry.matryoshka
    if widths is None:
        key = "matryoshka_dimensions"
        widths = own.numbers(key) or config.numbers(key)
        widths += (own.whole("truncate_dim") or dimensions,)
    return tuple(sorted({width for width in widths if 0 < width < dimensions}))
