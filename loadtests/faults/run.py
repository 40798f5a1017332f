"""One run: a cluster, a client, a fault, and the books at the end."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.faults.asker import Asker
from loadtests.faults.books import Asked, Verdict, judged, usual_s
from loadtests.faults.site import TENANT, Site
from loadtests.faults.strikes import Fault
from loadtests.mixes import KINDS, Facts, questions

__all__ = ["Options", "Outcome", "run"]

_PATIENCE_S = 120.0
_CONTEXT = 128  # fewer tokens than poison has
_SETTLE_S = 15.0
_POLL_S = 0.5
_DISK_BYTES = 2 * 2**20
# What a gateway answers between two syncs: `ledger.flush_s`, a sync under way, and the wait of both
# for a processor where every core is busy.
UNSYNCED_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a run goes: requests a second, and seconds of them before and after the fault."""

    rate: float = 40.0
    before_s: float = 8.0
    after_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found; `healed_s` is until every process was there again."""

    verdict: Verdict
    healed_s: float
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """See `Verdict.sound`."""
        return self.verdict.sound(UNSYNCED_S)


def run(fault: Fault, options: Options) -> Outcome:
    """Do it. Blocks for a minute or two."""
    site = Site(fault.changes, fault.frail)
    with _disk(site.spool, fault.small_disk), site:
        facts = Facts("null", _CONTEXT)
        small = [kind for kind in KINDS if kind.name in ("query", "passages")]
        asker = Asker(
            site.address.url,
            facts.id,
            TENANT,
            site.key.text,
            questions(facts, 0, small),
            options.rate,
            _PATIENCE_S,
        )
        with asker:
            time.sleep(options.before_s)
            began = time.monotonic()
            note = fault.strike(site, asker)
            struck = site.struck or began
            healed_s = time.monotonic() - struck
            time.sleep(options.after_s)
        requests = asker.requests
        _settle(site, requests)
        verdict = judged(requests, site.events(), struck, usual_s(requests, struck))
    refusals = {one.refusal for one in requests if one.refusal}
    return Outcome(verdict, healed_s, tuple(filter(None, (note, *sorted(refusals)))))


def _settle(site: Site, requests: list[Asked]) -> None:
    """Wait until all that was answered is in the ledger, or until nothing more comes."""
    wanted = {one.event for one in requests if one.answered is not None and one.tokens}
    last, since = -1, time.monotonic()
    while time.monotonic() - since < _SETTLE_S:
        found = {row.id for row in site.events()}
        if wanted <= found:
            return
        if len(found) != last:
            last, since = len(found), time.monotonic()
        time.sleep(_POLL_S)


@contextmanager
def _disk(folder: Path, small: bool) -> Iterator[None]:
    """A disk of its own for a folder, of two megabytes. Needs the right to mount."""
    if not small:
        yield
        return
    folder.mkdir(parents=True)
    size = f"size={_DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder.parent, ignore_errors=True)  # which could not be, with a disk in it
