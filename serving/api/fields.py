"""Reads the fields of one JSON object by all their names, and notes every problem found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeAlias

from serving.errors import InvalidInput, ModalityNotSupported, Refused

__all__ = ["Fields", "Ranks", "Refusal", "ranked", "refuse", "shortened"]

Ranks: TypeAlias = dict[str, tuple[str, int]]
Refusal: TypeAlias = tuple[type[Refused], str, str]

_MOST_PROBLEMS = 16
_LONGEST_ECHO = 80
_LONGEST_NAME = 256
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


def ranked(names: Mapping[str, tuple[str, ...]]) -> Ranks:
    """A field's names, the one that counts first, by field; to field and rank, by name."""
    return {name: (field, rank) for field in names for rank, name in enumerate(names[field])}


def shortened(value: object) -> object:
    """`value` as a problem may repeat it: never large, always serialisable."""
    if isinstance(value, str) and len(value) > _LONGEST_ECHO:
        return f"{value[:_LONGEST_ECHO]}… ({len(value)} characters)"
    if isinstance(value, list):
        return f"array of {len(value)}"
    if isinstance(value, dict):
        return f"object of {len(value)}"
    return value


def refuse(refusals: Iterable[Refusal], model: str) -> None:
    """Raise the first of what no model can do, in the name of that one."""
    for error, message, name in refusals:
        raise error(f"{model} {message}", name)


class Fields:
    """One request's fields: of a field's names that are present and not null, the first counts."""

    __slots__ = ("_chosen", "_problems", "refusals")

    def __init__(self, body: Mapping[str, object], ranks: Ranks) -> None:
        self._chosen = _chosen(body, ranks)
        self._problems: list[tuple[str, str, str, object]] = []
        self.refusals: list[Refusal] = []

    @property
    def present(self) -> Set[str]:
        """The fields that were given, by whatever name."""
        return self._chosen.keys()

    def first(self, field: str) -> tuple[str, object]:
        """The name that counts and its value; the field's own name and None where there is none."""
        found = self._chosen.get(field)
        return (field, None) if found is None else found[1:]

    def name(self, field: str) -> str | None:
        """A name of at most 256 characters, or None where absent."""
        found = self._chosen.get(field)
        if found is None:
            return None
        _, name, value = found
        if type(value) is not str:
            self.problem(name, "must be a string", "string_type", value)
        elif len(value) > _LONGEST_NAME:
            self.problem(name, f"has more than {_LONGEST_NAME} characters", "too_long", value)
        else:
            return value
        return None

    def needed_name(self, field: str) -> str:
        """A name that must be there and not be empty."""
        text = self.name(field)
        if text is None and field not in self._chosen:
            self.problem(field, "is missing", "missing")
        elif text == "":
            self.problem(field, "must not be empty", "too_short", text)
        return text or ""

    def choice(self, field: str, choices: Sequence[str], default: str) -> str:
        """One of the names in `choices`, `default` where absent."""
        name, value = self.first(field)
        if value is None:
            return default
        if type(value) is str and value in choices:
            return value
        self.problem(name, f"must be one of {', '.join(choices)}", "enum", value)
        return default

    def choices(
        self, field: str, choices: Sequence[str], default: tuple[str, ...]
    ) -> tuple[str, ...]:
        """One of the names in `choices`, or a list of them; `default` where absent."""
        name, value = self.first(field)
        if value is None:
            return default
        given = value if type(value) is list else [value]
        for one in given:
            if type(one) is not str or one not in choices:
                self.problem(name, f"must be one of {', '.join(choices)}", "enum", one)
                return default
        if not given:
            self.problem(name, "is an empty list; give one or leave it out", "too_short", value)
        return tuple(dict.fromkeys(given))

    def flag(self, field: str, default: bool) -> bool:
        """A boolean, `default` where absent."""
        found = self._chosen.get(field)
        if found is None:
            return default
        _, name, value = found
        if type(value) is bool:
            return value
        self.problem(name, "must be true or false", "bool_type", value)
        return default

    def integer(self, field: str, least: int) -> int | None:
        """A whole number of at least `least`, also as a string of digits; None where absent."""
        found = self._chosen.get(field)
        if found is None:
            return None
        _, name, value = found
        number = _whole(value)
        if number is None:
            self.problem(name, "must be a whole number", "int_type", value)
        elif number < least:
            self.problem(name, f"must be at least {least}", "greater_than_equal", value)
        return number

    def problem(self, name: str, message: str, kind: str, value: object = None) -> None:
        """Note that `name` is wrong; only the first problems are kept."""
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append((name, message, kind, shortened(value)))

    def refuse(self, name: str, message: str, error: type[Refused] = ModalityNotSupported) -> None:
        """Note what no model here can do; `message` follows the model's name, once it is known."""
        self.refusals.append((error, message, name))

    @property
    def hopeless(self) -> bool:
        """Whether so many problems are known that looking further is in vain."""
        return len(self._problems) >= _MOST_PROBLEMS

    def check(self) -> None:
        """Raise `InvalidInput` with every problem noted, if any."""
        if self._problems:
            shown = "; ".join(f"{name} {message}" for name, message, _, _ in self._problems[:3])
            raise InvalidInput(shown, self._problems[0][0], tuple(self._problems))


def _chosen(body: Mapping[str, object], ranks: Ranks) -> dict[str, tuple[int, str, object]]:
    """Rank, name and value by field. One pass over what was sent, not over all that may be."""
    chosen: dict[str, tuple[int, str, object]] = {}
    for name, value in body.items():
        known = ranks.get(name)
        if known is None or value is None:
            continue
        field, rank = known
        other = chosen.get(field)
        if other is None or rank < other[0]:
            chosen[field] = (rank, name, value)
    return chosen


def _whole(value: object) -> int | None:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and _INTEGER.fullmatch(value):
        return int(value)
    return None
