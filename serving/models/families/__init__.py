"""One file an architecture: how to read a checkpoint of it into a `ModelSpec`."""

from __future__ import annotations

from typing import Protocol

from serving.folder import Folder
from serving.models.catalog import Entry
from serving.models.checkpoints import Checkpoint
from serving.models.spec import ModelSpec

__all__ = ["FAMILIES", "ModelFamily"]

FAMILIES = Folder(__name__, __path__[0])


class ModelFamily(Protocol):
    """An architecture. Family modules have functions of these shapes."""

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's files are of this family."""
        ...

    def read(self, checkpoint: Checkpoint, entry: Entry) -> ModelSpec:
        """The facts in the checkpoint's files; `ModelUnavailable` names the file and the reason."""
        ...
