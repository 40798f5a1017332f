"""What every test is run under: no model hub, no usage report, no GPU test where there is none."""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from serving.operators import declare

# Before anything imports huggingface_hub or ray, which read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Two processes of tests share two cores: threads that wait for each other would spin on them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Views of checkpoints go there, and not into somebody's home; removed when the process ends.
_CACHE = tempfile.TemporaryDirectory(prefix="polyvec-", ignore_cleanup_errors=True)
os.environ.setdefault("POLYVEC_CACHE", _CACHE.name)
declare()  # before anything imports transformers
# Imports and the tests themselves are millions of objects, and searching them for cycles every 700
# allocations is a fifth of a run.
gc.set_threshold(20_000, 10, 50)


def pytest_collection_finish() -> None:
    """Search for cycles in what the tests make, and not again and again in the tests themselves."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """End the engines that tests shared, if any were started; leave the heap as it was."""
    engines = sys.modules.get("tests.vllm_engines")
    if engines is not None:
        engines.close_all()
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` on a machine without one; share out the rest among processes.

    A file is one process's, for the sake of its fixtures, and so are all tests that start a Ray,
    and all on shared vLLM engines. Those two come first, because they take longest; and what starts
    a Ray of its own comes before the shared node, of which every idle process costs a little.
    """
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="this machine has no GPU"))
    groups = {item: _group(item) for item in items}
    items.sort(key=lambda item: (_place(groups[item]), "node" in getattr(item, "fixturenames", ())))
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))


_FIRST = ("vllm", "ray")
_VLLM = re.compile(r"test_vllm|[-\[]vllm[-\]]")  # in a file's or test's name, or a parameter


def _place(group: str) -> int:
    return _FIRST.index(group) if group in _FIRST else len(_FIRST)


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("ray"):
        return "ray"
    return "vllm" if _VLLM.search(item.nodeid) else str(item.path)
