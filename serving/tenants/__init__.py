"""Who is asking: from a header's value to a tenant, and whether it may use a model and a task.

Knows no wire and no limits: what a plan's numbers do is `serving.limits`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serving.telemetry import SILENT, Telemetry
from serving.tenants.directory import LocalDirectory, TenantDirectory, TenantsState
from serving.tenants.file import FileDirectory
from serving.tenants.observing import observe
from serving.tenants.tenant import LOCAL, Tenant, allow

__all__ = [
    "LOCAL",
    "Tenant",
    "TenantDirectory",
    "TenantsState",
    "allow",
    "open_tenants",
]


def open_tenants(
    path: Path | None,
    names: Mapping[str, str] | None = None,
    interval_s: float = 2.0,
    telemetry: Telemetry = SILENT,
) -> TenantDirectory:
    """The tenants of a file, watched for changes; with None, the one local tenant.

    `names` gives a served model's id for each name that the file may call it by; `telemetry` is
    told how the file stands. `InvalidConfig` where the file cannot be read or is wrong. Close what
    is returned.
    """
    if path is None:
        return LocalDirectory()
    directory = FileDirectory(path, names, interval_s)
    observe(directory, telemetry)
    directory.start()
    return directory
