"""The course of a run is read and followed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

# Locust patches the whole process when it is imported, so it is asked in one of its own.
_ASK = """
from loadtests.stages import Stage, parse, users_at
assert parse("8x30,64x1.5") == (Stage(8, 30.0), Stage(64, 1.5))
assert len(parse("steps")) == 6
two = parse("8x30,64x10")
assert [users_at(two, at) for at in (0, 29.9, 30, 39.9, 40)] == [8, 8, 64, 64, None]
try:
    parse("8for30")
except ValueError as wrong:
    assert "USERSxSECONDS" in str(wrong) and "soak" in str(wrong)
else:
    raise AssertionError
"""


@pytest.mark.skipif(find_spec("locust") is None, reason="the extra `load` is not installed")
def test_stages_follow_one_another_and_a_wrong_one_is_explained() -> None:
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
