"""What can be done to a cluster. Each returns when the part is whole again, with a note or ""."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.faults import ENGINE_POISON_TOKENS, POISON_TOKENS
from loadtests.faults.asker import Asker
from loadtests.faults.site import Site
from loadtests.mixes import Question
from loadtests.texts import texts

__all__ = ["FAULTS", "Fault"]

_REPLICA = "Replica:null"
_DISK_FULL_S = 8.0
_GCS_AWAY_S = 5.0
_DOSES, _DOSE_S = 3, 15.0  # each is repeated for so long

Strike = Callable[[Site, Asker], str]


@dataclass(frozen=True, slots=True)
class Fault:
    """`name`, what it is, and how it is done; `changes` to the configuration it is done to."""

    name: str
    what: str
    strike: Strike
    changes: Mapping[str, Any] = field(default_factory=dict)
    frail: bool = False
    small_disk: bool = False


def _replica(site: Site, asker: Asker) -> str:
    return _one_of(site, _REPLICA)


def _gateway(site: Site, asker: Asker) -> str:
    return _one_of(site, "Gateway")


def _preprocessor(site: Site, asker: Asker) -> str:
    return _one_of(site, "Preprocessor")


def _controller(site: Site, asker: Asker) -> str:
    return _one_of(site, "ServeController")


def _one_of(site: Site, part: str) -> str:
    before = site.pids(part)
    victim = min(before)
    site.kill(victim)
    site.until_whole(part, {victim}, len(before))
    return ""


def _node(site: Site, asker: Asker) -> str:
    parts = ("Gateway", _REPLICA)
    before = {part: site.pids(part) for part in parts}
    doomed = site.kill_node()
    site.add_node()
    for part in parts:
        site.until_whole(part, doomed, len(before[part]))
    gone = (f"{len(before[part] & doomed)} of {len(before[part])} {part}" for part in parts)
    return f"on the node were {', '.join(gone)}"


def _gcs(site: Site, asker: Asker) -> str:
    site.kill_gcs()
    time.sleep(_GCS_AWAY_S)
    site.start_gcs()
    site.until("a service that runs", lambda: site.status() == "RUNNING")
    return ""


def _hang(site: Site, asker: Asker) -> str:
    before = site.pids(_REPLICA)
    victim = min(before)
    os.kill(victim, signal.SIGSTOP)
    site.until_whole(_REPLICA, {victim}, len(before))
    return ""


def _spool(site: Site, asker: Asker) -> str:
    filler = site.spool / "filler"
    fill = ["dd", "if=/dev/zero", f"of={filler}", "bs=4096"]
    subprocess.run(fill, stderr=subprocess.DEVNULL, check=False)  # it ends when nothing is left
    time.sleep(_DISK_FULL_S)
    filler.unlink()
    return ""


def _redeploy(site: Site, asker: Asker) -> str:
    models = [model.model_dump() | {"batch_tokens": 8192} for model in site.config().models]
    site.deploy(site.config({"models": models}))
    return ""


def _config(site: Site, asker: Asker) -> str:
    site.deploy(site.config({"limits": {"tokens": 2**19}}))
    return ""


def _poison(site: Site, asker: Asker, tokens: int = POISON_TOKENS) -> str:
    living, died = site.pids(_REPLICA), set[int]()
    wanted = len(living)
    question = Question("poison", (next(texts(tokens, 0)),), "", "interactive")
    said = []
    for _ in range(_DOSES):
        asked = asker.ask(question, _DOSE_S)
        while not asked.done():
            now = site.pids(_REPLICA)
            died, living = died | (living - now), living | now
            time.sleep(0.1)
        said.append(asked.result())
    site.until_whole(_REPLICA, died, wanted)
    died |= living - site.pids(_REPLICA)
    attempts = sum(len(one.trouble) for one in said)
    told = ", ".join(sorted({one.refusal or "answered" for one in said}))
    return f"{len(died)} replicas died of {attempts} poisoned attempts, told at last: {told}"


def _engine(site: Site, asker: Asker) -> str:
    return _poison(site, asker, ENGINE_POISON_TOKENS)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("replica", "kill -9 of a replica of the engine", _replica, frail=True),
        Fault("gateway", "kill -9 of a gateway", _gateway),
        Fault(
            "preprocessor",
            "kill -9 of a preprocessor, which tokenizes every text",
            _preprocessor,
            {"preprocessor": {"text": "deployment", "replicas": {"min": 2, "max": 2}}},
        ),
        Fault("controller", "kill -9 of Serve's controller", _controller),
        Fault("node", "loss of a node with all that is on it", _node, frail=True),
        Fault("gcs", f"kill -9 of the GCS, back after {_GCS_AWAY_S:.0f} s from Redis", _gcs),
        Fault("hang", "SIGSTOP of a replica of the engine", _hang, frail=True),
        Fault("spool", f"a full disk for the spool, {_DISK_FULL_S:.0f} s", _spool, small_disk=True),
        Fault("redeploy", "every gateway and every replica replaced by new ones", _redeploy),
        Fault("config", "a setting changed, by which gateways are replaced", _config),
        Fault("poison", "an input that kills its replica, three times", _poison, frail=True),
        Fault("engine", "an input that kills its engine, three times", _engine, frail=True),
    )
}
"""By name, in the order in which they are listed."""
