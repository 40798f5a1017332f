"""A folder for `PYTHONPATH`: what it has is run at the start of vLLM's own processes."""

from __future__ import annotations
