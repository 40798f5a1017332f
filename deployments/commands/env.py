"""Shell exports for `serve run` and `serve deploy`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from deployments.local import Address, environment

__all__ = ["arguments"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where the door is."""
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="the port to listen on")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    for name, value in environment(folder, Address(args.host, args.port)).items():
        sys.stdout.write(f"export {name}={value}\n")
    return 0
