"""What every block of the configuration is: frozen, and strict about its keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Frozen", "one_of"]


class Frozen(BaseModel):
    """A block; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def one_of(value: str, choices: tuple[str, ...]) -> str:
    """The value; `ValueError` with the choices where it is none of them."""
    if value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    return value
