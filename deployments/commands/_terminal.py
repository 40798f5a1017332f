"""The two streams that every command writes to."""

from __future__ import annotations

import sys

from rich.console import Console

__all__ = ["ERR", "OUT", "plain"]

# Tables are cut to a terminal's width, never to the 80 columns that a pipe is taken for.
OUT = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """`text` as it is, where markup is read."""
    return text.replace("[", "\\[")
