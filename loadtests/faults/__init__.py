"""Faults on purpose: a part of a real cluster is killed, stopped or changed under load.

One machine, several Ray nodes, a GCS with Redis behind it, one client with `Idempotency-Key`s. At
the end every answer is held against the ledger, request by request.
"""

from __future__ import annotations

__all__ = ["ENGINE_POISON_TOKENS", "POISON_TOKENS"]

POISON_TOKENS = 251
"""An input of exactly so many tokens kills the process of a frail replica that embeds it."""

ENGINE_POISON_TOKENS = 241
"""And one of so many its engine alone: the process lives."""
