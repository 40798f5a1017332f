"""Makes a process ready for transformers and vLLM before anything in it can import them.

vLLM's plugins come too late for that: vLLM itself imports transformers, and that torchvision (see
`serving.operators`). Python runs this file where its folder is in `PYTHONPATH`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

__all__: list[str] = []

_LIBRARIES = frozenset({"torchaudio", "torchcodec", "torchvision", "transformers"})
_HERE = Path(__file__).parent


class _Herald(MetaPathFinder):
    """Sees the first import of one of those libraries, and finds nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _LIBRARIES and self in sys.meta_path:
            sys.meta_path.remove(self)
            from serving.operators import declare

            declare()
        return None


def _run_the_hidden_one() -> None:
    """The `sitecustomize` that this one stands before, if there is any."""
    others = [entry for entry in sys.path if Path(entry).resolve() != _HERE.resolve()]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


sys.meta_path.insert(0, _Herald())
logging.getLogger("vllm").setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"))
_run_the_hidden_one()
