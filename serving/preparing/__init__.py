"""A job to token ids and usage. The only place where tokens are counted."""

from __future__ import annotations

from typing import Protocol

from serving.values import Job, Prepared

__all__ = ["Preparer"]


class Preparer(Protocol):
    """Tokenizes a job for one model."""

    async def prepare(self, job: Job) -> Prepared:
        """Token ids and the usage of the job.

        Never blocks the event loop for long. Raises `TokenLimitExceeded` for an over-long input
        unless `job.truncate`; a truncated input is counted by what the model sees.
        """
        ...
