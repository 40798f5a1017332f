"""`polyvec serve` before anything starts: which doors it opens, and to whom."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deployments.cli import main
from deployments.config import parse_config
from deployments.loopback import refuse_open_door
from serving.errors import InvalidConfig

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_tenants(host: str) -> None:
    refuse_open_door(parse_config({}), host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.0.9", "203.0.113.9", "fe80::1", "my.localhost", "host"]
)
def test_any_other_address_needs_tenants(host: str) -> None:
    with pytest.raises(InvalidConfig, match="is not loopback, and without a tenants file"):
        refuse_open_door(parse_config({}), host)
    refuse_open_door(parse_config({"tenants": "tenants.yaml"}), host)


def test_the_host_of_a_serve_config_is_refused_as_well(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("http_options: {host: 0.0.0.0}\napplications: [{args: {}}]\n")
    assert main(["serve", "--config", str(path)]) == 2
    assert "0.0.0.0 is not loopback" in " ".join(capsys.readouterr().err.split())


def test_a_port_that_is_taken_is_one_sentence(capsys: Captured) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in told
