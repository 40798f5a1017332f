"""Rows of a file to embed: a text a line, or JSON objects, each with an id that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import orjson

from serving.errors import InvalidConfig
from serving.values import Image, Text

__all__ = ["Row", "RowId", "Rows", "Survey"]

RowId: TypeAlias = str | int
_JSON = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Row:
    """One input and its id: the object's own, else its number from 0."""

    id: RowId
    item: Text | Image


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file was found to be. `state` is its size and time, by which a change is known."""

    rows: int
    integers: bool
    state: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a file, read again each time: JSON objects where it is named .jsonl or .ndjson.

    An object has its text in the field `text`, or an image in `image`, and its id in `id`.
    """

    path: Path
    text: str = "text"
    id: str = "id"

    def __iter__(self) -> Iterator[Row]:
        """Every row in order. Raises `InvalidConfig` with the line that has none."""
        objects = self.path.suffix.lower() in _JSON
        number = 0
        for place, line in self._lines():
            if not objects:
                yield Row(number, Text(line))
            elif line.strip():
                yield self._row(line, number, place)
            else:
                continue
            number += 1

    def survey(self) -> Survey:
        """A first look at the whole file, so that a bad line is known before anything is asked."""
        try:
            known = self.path.stat()
        except OSError as wrong:
            raise InvalidConfig(f"{self.path}: {wrong.strerror}") from None
        count, integers = 0, True
        for row in self:
            count += 1
            integers = integers and type(row.id) is int
        if not count:
            raise InvalidConfig(f"{self.path} has no rows")
        return Survey(count, integers, (known.st_size, known.st_mtime_ns))

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            with self.path.open(encoding="utf-8", newline="\n") as file:
                for place, line in enumerate(file, 1):
                    yield place, line.rstrip("\r\n")
        except OSError as wrong:
            raise InvalidConfig(f"{self.path}: {wrong.strerror}") from None
        except UnicodeDecodeError as wrong:
            raise InvalidConfig(f"{self.path} is not UTF-8: {wrong}") from None

    def _row(self, line: str, number: int, place: int) -> Row:
        where = f"{self.path}, line {place}"
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as wrong:
            raise InvalidConfig(f"{where} is not JSON: {wrong}") from None
        if not isinstance(value, dict):
            raise InvalidConfig(f"{where} is not a JSON object")
        identifier = value.get(self.id, number)
        if type(identifier) not in (str, int):
            raise InvalidConfig(f"{where}: {self.id} must be a string or a whole number")
        text, image = value.get(self.text), value.get("image")
        if isinstance(text, str):
            return Row(identifier, Text(text))
        if isinstance(image, str):
            return Row(identifier, Image(image))
        raise InvalidConfig(f"{where} has no {self.text} that is a string, and no image")
