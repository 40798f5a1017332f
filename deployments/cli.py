"""The command line: a parser over the files in `deployments/commands/`, and the exit codes.

Errors are sentences, never tracebacks.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence

from deployments.commands import COMMANDS
from deployments.commands._terminal import ERR, plain
from serving import __version__
from serving.errors import PolyvecError

__all__ = ["main"]

USER_ERROR, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`; 0 done, 1 failed, 2 the user's error, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    args = _parser(words).parse_args(words)
    try:
        return int(args.run(args))
    except PolyvecError as error:
        ERR.print(f"[red]error[/red] {plain(error.message)}")
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="polyvec",
        description="A self-hosted embedding service with Jina's and OpenAI's API.",
    )
    parser.add_argument("--version", action="version", version=f"polyvec {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    # Only the command that is asked for is imported; all of them for their list.
    asked = [name for name in words[:1] if name in COMMANDS]
    for name in asked or COMMANDS.names():
        command = COMMANDS.load(name)
        said = inspect.getdoc(command) or ""
        command.arguments(
            commands.add_parser(
                name,
                help=said.partition("\n")[0],
                description=said,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
