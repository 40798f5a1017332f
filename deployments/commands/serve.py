"""Start a Ray node and serve until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from rich.status import Status

from deployments.commands._checkpoints import add_models, checked, model_of
from deployments.commands._terminal import ERR, OUT
from deployments.config import AppConfig, load_config, parse_config
from deployments.local import Address, LocalNode
from deployments.loopback import refuse_open_door
from serving.errors import InvalidConfig
from serving.models.spec import ModelSpec

__all__ = ["arguments"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """A config or models, and where the door is."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file: polyvec check")
    add_models(parser)
    parser.add_argument("--host", help="the address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="the port to listen on (default 8000)")
    parser.add_argument("--grpc-port", type=int, help="the port for gRPC (default: none)")
    parser.add_argument(
        "--fused", action="store_true", help="gateway and engines in one process, for small models"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    config, address = _config(args)
    refuse_open_door(config, address.host)
    specs = [checked(model) for model in config.models]
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stopping(stop))
    with ERR.status("starting") as status:
        node = LocalNode(config, address, args.fused, say=_sayer(status, started))
        node.__enter__()
    try:
        if not stop.is_set():
            _announce(address, specs, config.tenants is not None, time.monotonic() - started)
            stop.wait()
    finally:
        node.say = _sayer(None, time.monotonic())
        node.__exit__(None, None, None)
    ERR.print("stopped")
    return 0


def _config(args: argparse.Namespace) -> tuple[AppConfig, Address]:
    config, http = load_config(args.config) if args.config else (AppConfig(), {})
    if args.model:
        models = [model_of(word).model_dump(exclude_defaults=True) for word in args.model]
        config = parse_config({**config.model_dump(exclude_defaults=True), "models": models})
    default = Address()
    host = args.host or str(http.get("host", default.host))
    port = args.port if args.port is not None else int(http.get("port", default.port))
    grpc_port = args.grpc_port if args.grpc_port is not None else http.get("grpc_port")
    for name, number in (("port", port), ("grpc-port", grpc_port)):
        if number is not None and not 0 < number < 65536:
            raise InvalidConfig(f"--{name} must be between 1 and 65535, not {number}")
    return config, Address(host, port, grpc_port)


def _stopping(stop: threading.Event) -> None:
    if stop.is_set():
        raise KeyboardInterrupt
    stop.set()


def _sayer(status: Status | None, started: float) -> Callable[[str], None]:
    """Progress for a person: a spinner on a terminal, a line each elsewhere."""

    def say(line: str) -> None:
        stamped = f"{time.monotonic() - started:4.1f} s  {line}"
        if status is not None and ERR.is_terminal:
            status.update(stamped)
        else:
            ERR.print(stamped, markup=False)

    return say


def _announce(address: Address, specs: Sequence[ModelSpec], with_keys: bool, took_s: float) -> None:
    names = ", ".join(f"{spec.id} ({spec.licence or 'licence unknown'})" for spec in specs)
    OUT.print(f"[green]ready[/green] in {took_s:.0f} s on {address.url}: {names}")
    body = orjson.dumps({"model": specs[0].id, "input": ["Hello, world!"]}).decode()
    key = '-H "authorization: Bearer $POLYVEC_API_KEY" ' if with_keys else ""
    OUT.print(
        f"try  curl {address.url}/v1/embeddings -H 'content-type: application/json' "
        f"{key}-d '{body}'",
        markup=False,
    )
    if address.grpc_port is not None:
        OUT.print(f"grpc {address.grpc}")
    OUT.print(f"docs {address.url}/docs     stop Ctrl-C")
