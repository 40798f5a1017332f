"""A process can be made ready for libraries that were built for another torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from serving.operators import UNUSED, declare

TRY = """
from importlib.util import find_spec
from serving.operators import declare
declare()
declare()
import torchvision
print([find_spec(name) for name in ("torchaudio", "torchcodec")])
"""


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.skipif(torch.version.cuda is not None, reason="here every library loads as it is")
def test_torchvision_can_be_imported_and_what_is_unused_counts_as_absent() -> None:
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[None, None]", done.stderr


def test_declaring_twice_does_nothing_more() -> None:
    declare()
    before = [sys.modules.get(name) for name in UNUSED]
    declare()
    assert [sys.modules.get(name) for name in UNUSED] == before
