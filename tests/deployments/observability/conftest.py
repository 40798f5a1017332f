"""The names that there are without a service running: of our own table, of Serve and of vLLM."""

from __future__ import annotations

import re
import shutil

import pytest

from serving.telemetry.metrics import METRICS
from serving.telemetry.prometheus import PrometheusBackend
from tests.deployments.observability.expressions import HERE, Names, recorded, shown

_ABSENT = "is not installed (apt-get install --no-install-recommends prometheus)"


@pytest.fixture(scope="session")
def known() -> Names:
    """Every name that a rule or a panel may use, those that the rules record among them."""
    backend = PrometheusBackend()
    for metric in METRICS:
        backend.child(metric, ("x",) * len(metric.labels))(1)
    ours = re.sub(
        r"^(# \w+ )?polyvec_", r"\1ray_polyvec_", backend.exposition().decode(), flags=re.M
    )
    foreign = (HERE / "foreign.txt").read_text()
    return recorded(shown(ours) | shown(foreign))


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(f"promtool {_ABSENT}")
    return found


@pytest.fixture(scope="session")
def prometheus() -> str:
    """Prometheus itself."""
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip(f"prometheus {_ABSENT}")
    return found
