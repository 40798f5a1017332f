"""The command line: serve, models, embed, check, env. Errors are sentences, never tracebacks."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from rich.console import Console
from rich.status import Status
from rich.table import Column, Table

from deployments.config import AppConfig, ModelConfig, load_config, parse_config
from deployments.local import Address, LocalNode, environment
from deployments.placement import place, wants_preprocessor
from serving import __version__
from serving.engines import EngineOptions, open_engine
from serving.errors import InvalidConfig, PolyvecError
from serving.models.catalog import DEFAULT, KNOWN, Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.values import Ask, Floats, Output, Text

__all__ = ["main"]

# Tables are cut to a terminal's width, never to the 80 columns that a pipe is taken for.
_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

USER_ERROR, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`; 0 done, 1 failed, 2 the user's error, 130 interrupted."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except PolyvecError as error:
        _err.print(f"[red]error[/red] {_plain(error.message)}")
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return 1


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="polyvec",
        description="A self-hosted embedding service with Jina's and OpenAI's API.",
    )
    parser.add_argument("--version", action="version", version=f"polyvec {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="start a Ray node and serve until Ctrl-C")
    serve.add_argument("--config", type=Path, metavar="FILE", help="a YAML file; see polyvec check")
    _add_models(serve)
    serve.add_argument("--host", help="the address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="the port to listen on (default 8000)")
    serve.add_argument(
        "--fused", action="store_true", help="gateway and engines in one process, for small models"
    )
    serve.set_defaults(run=_serve)

    models = commands.add_parser("models", help="a table of the models known or configured")
    models.add_argument("--config", type=Path, metavar="FILE", help="the models of this file")
    models.set_defaults(run=_models)

    embed = commands.add_parser("embed", help="embed texts in this process, without a server")
    embed.add_argument("text", nargs="+", metavar="TEXT", help="a text; - reads lines from stdin")
    _add_models(embed)
    embed.add_argument("--task", help="one of the model's tasks")
    embed.add_argument("--dimensions", type=int, help="a Matryoshka size of the model")
    embed.add_argument("--truncate", action="store_true", help="cut texts that are too long")
    embed.set_defaults(run=_embed)

    check = commands.add_parser("check", help="validate a config and show what goes where")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=_check)

    env = commands.add_parser("env", help="shell exports for serve run and serve deploy")
    env.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    env.add_argument("--port", type=int, default=8000, help="the port to listen on")
    env.set_defaults(run=_env)
    return parser


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ID[=SOURCE]",
        help=f"a known model, or a name for a folder, hub id or package:NAME (default {DEFAULT})",
    )


def _model(word: str) -> ModelConfig:
    name, _, source = word.partition("=")
    raw = {"id": name, "source": source} if source else {"id": name}
    return parse_config({"models": [raw]}).models[0]


def _config(args: argparse.Namespace) -> tuple[AppConfig, Address]:
    config, http = load_config(args.config) if args.config else (AppConfig(), {})
    if args.model:
        models = [_model(word).model_dump(exclude_defaults=True) for word in args.model]
        config = parse_config({**config.model_dump(exclude_defaults=True), "models": models})
    default = Address()
    host = args.host or str(http.get("host", default.host))
    port = args.port if args.port is not None else int(http.get("port", default.port))
    if not 0 < port < 65536:
        raise InvalidConfig(f"--port must be between 1 and 65535, not {port}")
    return config, Address(host, port)


def _serve(args: argparse.Namespace) -> int:
    started = time.monotonic()
    config, address = _config(args)
    specs = [_checked(model) for model in config.models]
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stopping(stop))
    with _err.status("starting") as status:
        node = LocalNode(config, address, args.fused, say=_sayer(status, started))
        node.__enter__()
    try:
        if not stop.is_set():
            _announce(address, specs, time.monotonic() - started)
            stop.wait()
    finally:
        node.say = _sayer(None, time.monotonic())
        node.__exit__(None, None, None)
    _err.print("stopped")
    return 0


def _stopping(stop: threading.Event) -> None:
    if stop.is_set():
        raise KeyboardInterrupt
    stop.set()


def _sayer(status: Status | None, started: float) -> Callable[[str], None]:
    """Progress for a person: a spinner on a terminal, a line each elsewhere."""

    def say(line: str) -> None:
        stamped = f"{time.monotonic() - started:4.1f} s  {line}"
        if status is not None and _err.is_terminal:
            status.update(stamped)
        else:
            _err.print(stamped, markup=False)

    return say


def _checked(model: ModelConfig) -> ModelSpec:
    """The model's spec; a checkpoint that cannot be had is a sentence before anything starts."""
    entry = model.entry()
    if not _is_here(entry):
        licence = entry.licence or "see its page"
        _err.print(
            f"{entry.id} is {entry.source} on the hub (licence: {licence}); "
            "what is not on this machine yet is fetched now",
            markup=False,
        )
    return load_spec(entry)


def _is_here(entry: Entry) -> bool:
    """Whether the source is a package or a directory, so that nothing is fetched."""
    return entry.source.startswith("package:") or Path(entry.source).expanduser().is_dir()


def _announce(address: Address, specs: Sequence[ModelSpec], took_s: float) -> None:
    names = ", ".join(f"{spec.id} ({spec.licence or 'licence unknown'})" for spec in specs)
    _out.print(f"[green]ready[/green] in {took_s:.0f} s on {address.url}: {names}")
    body = orjson.dumps({"model": specs[0].id, "input": ["Hello, world!"]}).decode()
    _out.print(
        f"try  curl {address.url}/v1/embeddings -H 'content-type: application/json' -d '{body}'",
        markup=False,
    )
    _out.print(f"docs {address.url}/docs     stop Ctrl-C")


def _models(args: argparse.Namespace) -> int:
    if args.config:
        entries = [model.entry() for model in load_config(args.config)[0].models]
    else:
        entries = list(KNOWN)
    model = Column("model", no_wrap=True)
    table = Table(model, "inputs", "dimensions", "context", "tasks", "licence", "source", box=None)
    for entry in entries:
        table.add_row(*_row(entry))
    _out.print(table)
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    licence = entry.licence or ""
    if not _is_here(entry):
        tasks = ", ".join(task.name for task in entry.extra_tasks)
        return entry.id, "", "", "", tasks, licence, entry.source
    try:
        spec = load_spec(entry, weights=False)
    except PolyvecError as error:
        return entry.id, "", "", "", "", licence, _plain(error.message)
    tasks = ", ".join(task.name for task in spec.tasks) or "-"
    inputs = ", ".join(spec.modalities)
    context, licence = str(spec.max_tokens), spec.licence or ""
    return entry.id, inputs, _sizes(spec), context, tasks, licence, entry.source


def _sizes(spec: ModelSpec) -> str:
    if spec.least_dimensions is not None:
        return f"{spec.dimensions} down to {spec.least_dimensions}"
    return ", ".join(str(size) for size in (spec.dimensions, *reversed(spec.matryoshka)))


def _embed(args: argparse.Namespace) -> int:
    texts = [line.rstrip("\n") for line in sys.stdin] if args.text == ["-"] else args.text
    models = [_model(word) for word in args.model] or [ModelConfig(id=DEFAULT)]
    if len(models) > 1:
        raise InvalidConfig("--model: embed takes one model")
    ask = Ask(
        model=models[0].id,
        items=tuple(Text(text) for text in texts),
        task=args.task,
        output=Output(args.dimensions),
        truncate=args.truncate,
    )
    for index, row in enumerate(asyncio.run(_vectors(models[0], ask))):
        line = {"index": index, "embedding": row}
        sys.stdout.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
    return 0


async def _vectors(model: ModelConfig, ask: Ask) -> Floats:
    from serving.jobs import plan
    from serving.media import MediaOptions
    from serving.preparing import open_preparer

    spec = _checked(model)
    preparer = open_preparer(spec, MediaOptions())
    prepared = await preparer.prepare(plan(spec, ask, len(ask.items)))
    engine = open_engine(model.engine, spec, EngineOptions(dtype=model.dtype))
    try:
        return (await engine.embed(prepared, float("inf"))).array
    finally:
        await engine.close()


def _check(args: argparse.Namespace) -> int:
    config, http = load_config(args.file)
    specs = {model.id: _checked(model) for model in config.models}
    table = Table("deployment", "replicas", "cpus", "gpus", "engine", "serves", box=None)
    gateway = config.gateway
    table.add_row("Gateway", _span(gateway.replicas.min, gateway.replicas.max), f"{gateway.cpus:g}")
    pre = config.preprocessor
    if wants_preprocessor(config, specs):
        table.add_row("Preprocessor", _span(pre.replicas.min, pre.replicas.max), f"{pre.cpus:g}")
    for group in place(config, specs):
        model = group.model
        table.add_row(
            group.name,
            _span(model.replicas.min, model.replicas.max),
            f"{model.cpus_per_replica:g}",
            f"{model.gpus:g}",
            model.engine,
            group.task or "every task",
        )
    _out.print(f"{args.file} is valid; {len(config.models)} model(s)")
    if http:
        default = Address()
        _out.print(f"listens on {http.get('host', default.host)}:{http.get('port', default.port)}")
    _out.print(table)
    return 0


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _env(args: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    for name, value in environment(folder, Address(args.host, args.port)).items():
        print(f"export {name}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
