"""The wires we speak: one file a dialect, each with `ROUTES`. The app mounts every file here."""

from __future__ import annotations

from serving.api.routes import Route
from serving.folder import Folder

__all__ = ["DIALECTS", "routes"]

DIALECTS = Folder(__name__, __path__[0])


def routes() -> tuple[Route, ...]:
    """Every route of every dialect."""
    return tuple(route for name in DIALECTS.names() for route in DIALECTS.load(name).ROUTES)
