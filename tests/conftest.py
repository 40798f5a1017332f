"""What every test is run under: no model hub, no usage report, no GPU test where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.operators import declare

# Before anything imports huggingface_hub or ray, which read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
declare()  # before anything imports transformers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` on a machine without one."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="this machine has no GPU"))
