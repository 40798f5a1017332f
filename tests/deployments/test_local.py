"""What a local node is told before it starts, and what is told of one that did not."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from deployments.config import AppConfig
from deployments.local import Address, LocalNode, _why, environment
from deployments.loopback import haproxy_wrapper
from serving.errors import InvalidConfig


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address(), "http://127.0.0.1:8000"),
        (Address("0.0.0.0", 80), "http://127.0.0.1:80"),
        (Address("::1", 80), "http://[::1]:80"),
    ],
)
def test_the_address_as_a_client_on_this_machine_writes_it(address: Address, url: str) -> None:
    assert address.url == url


def test_two_nodes_share_no_file_and_no_port(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = environment(tmp_path / "a", Address())
    other = environment(tmp_path / "b", Address())
    own = [name for name in one if "_PORT" in name or ("HAPROXY" in name and "/" in one[name])]
    assert len(own) > 8
    assert [name for name in own if one[name] == other[name]] == []


def test_a_taken_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(InvalidConfig, match="address already in use"):
            LocalNode(AppConfig(), address).__enter__()


def test_the_sentence_of_ours_is_found_in_what_serve_says() -> None:
    told = """Deploying application polyvec failed
      ray.exceptions.RayTaskError: ...
    serving.errors.ModelUnavailable: m cannot be loaded: no such thing: really
    """
    assert _why(told) == "m cannot be loaded: no such thing: really"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "192.0.2.7"])
def test_only_haproxys_front_door_is_where_it_was_asked_to_be(host: str, tmp_path: Path) -> None:
    wrapper = haproxy_wrapper(tmp_path, host, 8000)
    wrapper.write_text(wrapper.read_text().replace("\nexec ", "\nexit 0 # "))
    config = tmp_path / "haproxy.cfg"
    config.write_text("    bind :9101\n    bind 127.0.0.1:8000\n  bind *:8404\n  server a:1\n")
    subprocess.run([wrapper, "-db", "-f", config], check=True)
    assert config.read_text().splitlines() == [
        "    bind 127.0.0.1:9101",
        f"    bind {host}:8000",
        "  bind 127.0.0.1:8404",
        "  server a:1",
    ]
