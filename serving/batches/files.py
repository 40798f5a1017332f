"""The files of batches: a folder each, with the lines that came and the results of every piece.

Every method blocks and raises `Unavailable` where the disk does not do its part. A result is
written under a name that no other attempt has, and is on the disk when `keep` returns.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from serving.batches.batch import BatchOptions, Piece
from serving.batches.pieces import cut
from serving.errors import Unavailable

__all__ = ["Files", "Kind", "new_id"]

Kind: TypeAlias = Literal["output", "errors"]

_INPUT = "input.jsonl"
_CHUNK = 1 << 18
_RETRY_S = 5.0
_OURS = re.compile(r"batch_[0-9a-f]{32}")


def new_id() -> str:
    """The id of a new batch, which nobody guesses; its folder has that name."""
    return f"batch_{secrets.token_hex(16)}"


class Files:
    """The folders of batches in `root`, which is made where there is none."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def begin(self, batch: str) -> BinaryIO:
        """The file that a new batch's lines are written to, until `finish`."""
        folder = self._root / batch
        with _translated():
            folder.mkdir()
            return (folder / _INPUT).open("wb")

    def write(self, file: BinaryIO, chunk: bytes) -> None:
        """Write on."""
        with _translated():
            file.write(chunk)

    def finish(self, batch: str, file: BinaryIO) -> None:
        """All lines are there: they are on the disk when this returns."""
        with _translated(), file:
            _settle(file)
            _sync(self._root / batch)
            _sync(self._root)

    def pieces(self, batch: str, options: BatchOptions) -> list[Piece]:
        """The batch's lines, cut; errors are those of `serving.batches.pieces.cut`."""
        with _translated(), (self._root / batch / _INPUT).open("rb") as file:
            lines = iter(lambda: file.readline(options.line_bytes + 1), b"")
            return list(cut(lines, options))

    def read(self, batch: str, piece: Piece) -> bytes:
        """The bytes of a piece's lines."""
        with _translated(), (self._root / batch / _INPUT).open("rb") as file:
            file.seek(piece.offset)
            return file.read(piece.size)

    def keep(self, batch: str, first: int, output: Sequence[bytes], errors: Sequence[bytes]) -> str:
        """Write what became of a piece; the name under which `chunks` finds it."""
        name = f"{first:08d}-{secrets.token_hex(4)}"
        folder = self._root / batch
        with _translated():
            for kind, lines in (("output", output), ("errors", errors)):
                if lines:
                    with (folder / f"{name}.{kind}").open("xb") as file:
                        file.writelines(lines)
                        _settle(file)
            _sync(folder)
        return name

    def chunks(self, batch: str, name: str, kind: Kind) -> Iterator[bytes]:
        """A result's bytes, a part at a time."""
        with _translated(), (self._root / batch / f"{name}.{kind}").open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def remove(self, batch: str) -> None:
        """Remove what there is of a batch."""
        shutil.rmtree(self._root / batch, ignore_errors=True)

    def orphans(self, known: set[str], before: float) -> list[str]:
        """Folders of no known batch that have not changed since: uploads that broke off."""
        found = []
        with _translated(), os.scandir(self._root) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    ours = _OURS.fullmatch(entry.name) and entry.name not in known
                    if ours and entry.stat().st_mtime < before:
                        found.append(entry.name)
        return found


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the files of batches cannot be used: {error}", _RETRY_S) from error


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
