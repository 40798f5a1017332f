"""What has been embedded of a file, on disk: a kill loses at most what was being written.

Beside the output lie `NAME.part`, the vectors' bytes one row after another, and `NAME.progress`, a
JSON object a line: first what the run is, then how far it is. Vectors are on the disk before the
line that counts them; what lies beyond the last whole line is cut off.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from serving.errors import InvalidConfig

__all__ = ["Journal"]


class Journal:
    """The progress of one run, in a `with` block. `plan` says what the run is.

    `rows` are done, of `width` numbers each (0: none yet), and were billed as `tokens`. Entering
    raises `InvalidConfig` where the files are another run's, or another process has them.
    """

    def __init__(self, out: Path, plan: Mapping[str, object]) -> None:
        self.part = out.with_name(f"{out.name}.part")
        self._path = out.with_name(f"{out.name}.progress")
        self._plan = orjson.loads(orjson.dumps(dict(plan)))
        self.run = ""
        self.rows = self.width = self.tokens = 0
        self._lines: BinaryIO
        self._vectors: BinaryIO

    def __enter__(self) -> Journal:
        try:
            self._lines = self._path.open("a+b")
        except OSError as wrong:
            raise InvalidConfig(f"{self._path}: {wrong.strerror}") from None
        try:
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._recall()
            self._vectors = self.part.open("ab")
        except BlockingIOError:
            self._lines.close()
            raise InvalidConfig(f"another process is writing {self._path}") from None
        except BaseException:
            self._lines.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._vectors.close()
        self._lines.close()

    def add(self, vectors: npt.NDArray[Any], tokens: int) -> None:
        """These rows are done: `[rows, width]`, of any number type."""
        if self.width not in (0, vectors.shape[1]):
            raise InvalidConfig(f"vectors had {self.width} numbers and now have {vectors.shape[1]}")
        self._vectors.write(np.ascontiguousarray(vectors).tobytes())
        _sync(self._vectors)
        self.rows += len(vectors)
        self.width, self.tokens = vectors.shape[1], self.tokens + tokens
        self._note({"rows": self.rows, "width": self.width, "tokens": self.tokens})

    def done(self) -> None:
        """The output is whole: there is nothing to go on with."""
        self.part.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _recall(self) -> None:
        self._lines.seek(0)
        whole, _, torn = self._lines.read().rpartition(b"\n")
        lines = [orjson.loads(line) for line in whole.splitlines()]
        if not lines:
            self._lines.truncate(0)
            self.run = uuid.uuid4().hex
            self.part.unlink(missing_ok=True)
            self._note({"run": self.run, "plan": self._plan})
            return
        if torn:
            self._lines.truncate(len(whole) + 1)
        self.run = lines[0]["run"]
        self._refuse_another(lines[0]["plan"])
        if len(lines) > 1:
            last = lines[-1]
            self.rows, self.width, self.tokens = last["rows"], last["width"], last["tokens"]
        self._cut()

    def _cut(self) -> None:
        """Leave the rows that are counted."""
        size = self.rows * self.width * int(self._plan["itemsize"])
        with self.part.open("ab") as vectors:
            if vectors.tell() < size:
                raise InvalidConfig(f"{self.part} is shorter than {self._path} says; remove both")
            vectors.truncate(size)

    def _refuse_another(self, plan: Mapping[str, object]) -> None:
        changed = [name for name in self._plan if plan.get(name) != self._plan[name]]
        if changed:
            raise InvalidConfig(
                f"{self._path} is of another run: {', '.join(changed)} changed; "
                "remove it to begin again"
            )

    def _note(self, line: object) -> None:
        self._lines.write(orjson.dumps(line) + b"\n")
        _sync(self._lines)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
