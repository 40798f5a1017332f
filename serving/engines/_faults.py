"""What a foreign library's error says, for a sentence of ours."""

from __future__ import annotations

__all__ = ["first_line"]


def first_line(error: BaseException) -> str:
    """What an error says in one line, or its name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
