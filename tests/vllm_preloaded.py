"""Imported by the process that vLLM's processes are forks of, before the first of them."""

from __future__ import annotations

from serving.operators import declare
from tests.vllm_forks import preload

declare()  # before anything imports transformers
preload()
