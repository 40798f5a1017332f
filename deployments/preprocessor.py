"""Preparers with an address: tokenization for every model, away from the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from deployments.loopback import bind_as_asked
from serving.errors import PolyvecError
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.preparing import text
from serving.values import Job, Prepared

__all__ = ["Preprocessor"]


class Preprocessor:
    """Prepares jobs of the models of `entries`, by their ids."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        bind_as_asked()
        specs = [load_spec(entry, weights=False) for entry in entries]
        self._preparers = {spec.id: text.load(spec) for spec in specs}

    async def prepare(self, jobs: Sequence[Job]) -> list[Prepared | PolyvecError]:
        """A result or an error of ours for every job; one that fails, fails alone."""
        return list(await asyncio.gather(*map(self._one, jobs)))

    async def _one(self, job: Job) -> Prepared | PolyvecError:
        try:
            return await self._preparers[job.model].prepare(job)
        except PolyvecError as error:
            return error
