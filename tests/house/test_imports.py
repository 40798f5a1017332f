"""Imports run downhill, every foreign library has one room, and nothing imports itself."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house.source import Module, imports, modules, parse, resolve

# A module imports only from a lower floor or from its own room. A room is a file or a folder right
# under a package; `serving` itself (its version) is below everything.
SERVING = {
    "": 0,
    "errors": 0,
    "values": 0,
    "protos": 0,
    "batching": 1,
    "coalescing": 1,
    "complaints": 1,
    "folder": 1,
    "operators": 1,
    "telemetry": 1,
    "encodings": 2,
    "vectors": 2,
    "client": 3,
    "media": 3,
    "models": 3,
    "jobs": 4,
    "limits": 4,
    "engines": 5,
    "metering": 5,
    "preparing": 5,
    "tenants": 5,
    "calls": 6,
    "accounts": 7,
    "service": 8,
    "batches": 9,
    "ranking": 9,
    "api": 10,
}
# All of it stands above `serving`. The command line starts the graph: it is the top of the house.
DEPLOYMENTS = {
    "": 0,
    "install": 0,
    "observability": 0,
    "smoke": 0,
    "config": 1,
    "flights": 1,
    "pixels": 1,
    "suspects": 1,
    "measuring": 2,
    "autoscaling": 2,
    "loopback": 2,
    "placement": 2,
    "accounts": 2,
    "remote": 2,
    "preprocessor": 3,
    "replica": 3,
    "grpc": 3,
    "gateway": 4,
    "app": 5,
    "local": 6,
    "commands": 7,
    "cli": 8,
}
ABOVE = 20
FLOORS = {("serving", room): floor for room, floor in SERVING.items()} | {
    ("deployments", room): floor + ABOVE for room, floor in DEPLOYMENTS.items()
}

# A foreign library is imported in its rooms and nowhere else.
FENCES = {
    "PIL": ("serving.media",),
    "fastapi": ("serving.api",),
    "fsspec": ("serving.models",),
    "google": ("serving.api.grpc", "serving.client", "serving.protos"),
    "grpc": ("serving.api.grpc", "serving.client", "serving.protos"),
    "grpc_health": ("serving.api.grpc", "deployments.grpc"),
    "grpc_reflection": ("serving.api.grpc",),
    "grpc_tools": ("serving.protos",),
    "huggingface_hub": ("serving.models",),
    "opentelemetry": ("serving.telemetry",),
    "peft": ("serving.engines",),
    "prometheus_client": ("serving.telemetry", "deployments.commands._counters"),
    "psycopg": ("serving.limits.stores", "serving.metering.sinks"),
    "ray": ("deployments",),
    "redis": ("serving.limits.stores", "serving.metering.sinks"),
    "pyarrow": ("serving.client",),
    "pypdfium2": ("serving.media",),
    "safetensors": ("serving.engines", "serving.models"),
    "starlette": ("serving.api",),
    "tokenizers": ("serving.preparing",),
    "torch": ("serving.engines", "serving.operators"),
    "transformers": ("serving.engines", "serving.preparing"),
    "vllm": ("serving.engines",),
}
HOUSE = ("serving", "deployments")


def room(name: str) -> tuple[str, str]:
    """`serving.models.spec` is of the room `("serving", "models")`."""
    package, _, rest = name.partition(".")
    return package, rest.partition(".")[0]


def uphill(module: Module, names: frozenset[str]) -> list[str]:
    """What a module imports that does not lie below it, as sentences."""
    here = room(module.name)
    wrong = []
    for found in imports(module):
        target = resolve(found, names)
        there = room(target)
        if there[0] not in (*HOUSE, "tests", "loadtests") or there == here:
            continue
        if FLOORS.get(there, 99) >= FLOORS.get(here, -1):
            floors = f"floor {FLOORS.get(here)} imports floor {FLOORS.get(there)}"
            wrong.append(f"{module.path}:{found.line}: {module.name} imports {target} ({floors})")
    return list(dict.fromkeys(wrong))


def beyond_fences(module: Module) -> list[str]:
    """Foreign libraries imported outside their rooms, as sentences."""
    wrong = []
    for found in imports(module):
        library = found.name.partition(".")[0]
        rooms = FENCES.get(library)
        if rooms and not any(f"{module.name}.".startswith(f"{place}.") for place in rooms):
            wrong.append(f"{module.path}:{found.line}: {library} belongs to {', '.join(rooms)}")
    return wrong


def cycle(house: Iterable[Module]) -> list[str]:
    """A cycle of imports, or an empty list."""
    every = list(house)
    names = frozenset(module.name for module in every)
    graph = {
        module.name: {resolve(found, names) for found in imports(module)} & names
        for module in every
    }
    try:
        TopologicalSorter({name: needs - {name} for name, needs in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_has_a_floor() -> None:
    without = sorted({room(m.name) for m in modules(*HOUSE)} - set(FLOORS))
    assert not without, f"give {without} a floor in {__file__}"


def test_imports_run_downhill() -> None:
    house = modules(*HOUSE)
    names = frozenset(module.name for module in house)
    wrong = [line for module in house for line in uphill(module, names)]
    assert not wrong, "a module imports only from a lower floor or its own room:\n" + "\n".join(
        wrong
    )


def test_foreign_libraries_stay_in_their_rooms() -> None:
    wrong = [line for module in modules(*HOUSE) for line in beyond_fences(module)]
    assert not wrong, "a foreign library has one room:\n" + "\n".join(wrong)


def test_nothing_imports_itself_in_a_circle() -> None:
    found = cycle(modules())
    assert not found, "a cycle of imports: " + " -> ".join(found)


def test_the_installer_needs_nothing_but_python() -> None:
    import sys

    [installer] = [m for m in modules("deployments") if m.name == "deployments.install"]
    foreign = {found.name.partition(".")[0] for found in imports(installer)}
    assert foreign <= {*sys.stdlib_module_names, "__future__"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("serving.errors", "from serving.values import Job"),
        ("serving.errors", "def f() -> None:\n    from serving.values import Job"),
        ("serving.engines.torch", "from serving.preparing import text"),
        ("serving.values", "from . import service"),
        ("serving.service", "import deployments.config"),
        ("deployments.config", "from deployments.app import build"),
        ("deployments.app", "from deployments import cli"),
        ("serving.jobs", "from loadtests.texts import WORDS"),
    ],
)
def test_an_uphill_import_is_seen(name: str, text: str) -> None:
    names = frozenset(module.name for module in modules(*HOUSE)) | {"deployments.cli"}
    assert uphill(parse(name, text), names)


def test_a_downhill_import_is_allowed() -> None:
    text = "import serving.errors\nfrom serving.models import spec\nfrom serving import __version__"
    assert not uphill(parse("serving.service", text), frozenset({"serving.models.spec"}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("serving.vectors.pooling", "import torch.nn as nn"),
        ("serving.service", "from ray import serve"),
        ("serving.enginesque", "import torch"),
        ("deployments.gateway", "from fastapi import FastAPI"),
    ],
)
def test_a_library_over_the_fence_is_seen(name: str, text: str) -> None:
    assert beyond_fences(parse(name, text))


def test_a_circle_is_seen() -> None:
    one, two = parse("a.one", "from a.two import f"), parse("a.two", "import a.one")
    assert set(cycle([one, two])) == {"a.one", "a.two"}
