"""What is wrong with a file that a person wrote, in sentences that name each key by its path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ValidationError

__all__ = ["complaints"]

_Location: TypeAlias = tuple[int | str, ...]
_Section: TypeAlias = type[BaseModel]

# Python's words, and those of the file.
_WORDS = (
    ("valid tuple", "list"),
    ("valid list", "list"),
    ("valid dictionary", "mapping"),
    ("tuple ", "a list "),
    (" after validation", ""),
)


def complaints(wrong: ValidationError, root: _Section, whole: str = "") -> str:
    """Every error of `wrong`, which came of validating a whole `root`.

    `whole` is what to call the file itself where it is wrong as such; nothing, if empty.
    """
    errors = wrong.errors()
    deep = {error["loc"][:n] for error in errors for n in range(len(error["loc"]))}
    # A list of which no entry could be read is not too short as well.
    told = [e for e in errors if e["type"] != "too_short" or e["loc"] not in deep]
    return "; ".join(_sentence(error, root, whole) for error in told)


def _sentence(error: Any, root: _Section, whole: str) -> str:  # pydantic's ErrorDetails
    location = error["loc"]
    path = ".".join(str(part) for part in location) or whole
    if error["type"] == "extra_forbidden":
        section = _section(location[:-1], root)
        message = f"unknown key{_meant(str(location[-1]), section) if section else ''}"
    elif error["type"] == "model_type" and (section := _section(location, root)):
        message = f"should be a mapping; {_keys(section)}"
    else:
        message = error["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        for theirs, ours in _WORDS:
            message = message.replace(theirs, ours)
    return f"{path}: {message}" if path else message


def _meant(key: str, section: _Section) -> str:
    close = difflib.get_close_matches(key, section.model_fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; {_keys(section)}"


def _keys(section: _Section) -> str:
    return f"the keys are {', '.join(section.model_fields)}"


def _section(location: _Location, root: _Section) -> _Section | None:
    """What may stand at that place, where it is a section."""
    section, parts = root, iter(location)
    for part in parts:
        field = section.model_fields.get(str(part))
        inner = _inner(field.annotation) if field else None
        if inner is None:
            return None
        section, many = inner
        if many:
            next(parts, None)  # the name or the place of one of them
    return section


def _inner(annotation: Any) -> tuple[_Section, bool] | None:  # a type as Python spells it
    """The section that a field holds, and whether it holds many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    many = annotation is not None and isinstance(get_origin(annotation), type)
    many = many and issubclass(get_origin(annotation), Mapping | Sequence)
    for argument in get_args(annotation):
        if found := _inner(argument):
            return found[0], many or found[1]
    return None
