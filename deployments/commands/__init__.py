"""The commands of `polyvec`: a file here is a command of that name, and its docstring is its help.

It has one function: `arguments(parser)` adds what the command takes and sets the default `run`, a
function of the parsed arguments that gives the exit code. Errors of ours that it raises become a
sentence in `deployments/cli.py`. A command with verbs of its own, as `keys`, gives each its `run`.
"""

from __future__ import annotations

from serving.folder import Folder

__all__ = ["COMMANDS"]

COMMANDS = Folder(__name__, __path__[0])
