"""Lines of a file cut into pieces, and a piece into halves. Pure; blank lines are no lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from serving.batches.batch import BatchOptions, Piece
from serving.errors import BodyTooLarge, InvalidInput

__all__ = ["cut", "halved", "lines_of"]


def cut(lines: Iterable[bytes], options: BatchOptions) -> Iterator[Piece]:
    """The pieces of a file's lines, their line ends included.

    Raises `InvalidInput` for more lines than a batch may have, or none, and `BodyTooLarge` for a
    line that has more bytes than `line_bytes`.
    """
    piece, count = Piece(1, 0, 0, 0), 0
    for line in lines:
        if len(line) > options.line_bytes:
            raise BodyTooLarge(
                f"line {count + 1} is larger than the {options.line_bytes} bytes of a line"
            )
        if not line.strip():
            piece = replace(piece, size=piece.size + len(line))
            continue
        count += 1
        if count > options.lines:
            raise InvalidInput(f"there are more than the {options.lines} lines of a batch", "input")
        full = piece.lines == options.piece_lines or piece.size + len(line) > options.piece_bytes
        if piece.lines and full:
            yield piece
            piece = Piece(count, 0, piece.offset + piece.size, 0)
        piece = replace(piece, lines=piece.lines + 1, size=piece.size + len(line))
    if not count:
        raise InvalidInput("there is no line in it; give at least one", "input")
    yield piece


def lines_of(raw: bytes) -> list[bytes]:
    """The lines of a piece, without their ends."""
    return [line for line in raw.split(b"\n") if line.strip()]


def halved(piece: Piece, raw: bytes) -> tuple[Piece, Piece]:
    """Two pieces of the lines of one, which has at least two."""
    first = piece.lines // 2
    seen = size = 0
    while seen < first:
        end = raw.index(b"\n", size) + 1
        seen += bool(raw[size:end].strip())
        size = end
    return (
        Piece(piece.first, first, piece.offset, size),
        Piece(piece.first + first, piece.lines - first, piece.offset + size, piece.size - size),
    )
