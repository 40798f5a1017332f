"""Preparers with an address: texts tokenized and images decoded, away from the gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from deployments.loopback import bind_as_asked
from deployments.measuring import Observing, finish, telemetry_of
from deployments.pixels import left_here
from serving.errors import PolyvecError
from serving.media import MediaOptions
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.preparing import open_preparer
from serving.telemetry import traces
from serving.telemetry.carrying import Carrier, taken_up
from serving.values import Job, Prepared

__all__ = ["Preprocessor"]

log = logging.getLogger("polyvec.preprocessor")


class Preprocessor:
    """Prepares jobs of the models of `entries`, by their ids. Pixels stay in the object store."""

    def __init__(
        self, entries: Sequence[Entry], media: MediaOptions, observing: Observing | None = None
    ) -> None:
        bind_as_asked()
        specs = [load_spec(entry, weights=False) for entry in entries]
        names = [spec.id for spec in specs]
        self._telemetry = telemetry_of("preprocessor", names, observing or Observing())
        self._preparers = {spec.id: open_preparer(spec, media, self._telemetry) for spec in specs}

    async def prepare(
        self, items: Sequence[tuple[Job, Carrier | None]]
    ) -> list[Prepared | PolyvecError]:
        """A result or an error of ours for every job; one that fails, fails alone."""
        return list(await asyncio.gather(*(self._one(*item) for item in items)))

    async def _one(self, job: Job, carrier: Carrier | None) -> Prepared | PolyvecError:
        parent = taken_up(carrier)
        try:
            with traces.span("prepare", {"gen_ai.request.model": job.model}, parent):
                return await left_here(await self._preparers[job.model].prepare(job))
        except PolyvecError as error:
            return error
        except Exception:
            log.exception("a job could not be prepared")
            return PolyvecError("an internal error; the server's log has the details")

    async def __del__(self) -> None:
        telemetry = getattr(self, "_telemetry", None)
        if telemetry is not None:
            await finish(telemetry)
