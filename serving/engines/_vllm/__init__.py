"""What Polyvec puts into vLLM: model classes, a pooler, and how a request and its answer travel."""

from __future__ import annotations
