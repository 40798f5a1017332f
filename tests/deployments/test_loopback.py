"""Nothing that we started listens beyond loopback."""

from __future__ import annotations

import ipaddress

import psutil
import pytest

from deployments.local import LocalNode

pytestmark = pytest.mark.ray


def listeners() -> list[tuple[str, int, str]]:
    """`(address, port, process)` of every listening socket of this process and its children."""
    found = []
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
            found += [
                (c.laddr.ip, c.laddr.port, process.name())
                for c in connections
                if c.status == psutil.CONN_LISTEN
            ]
        except psutil.Error:
            continue
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def test_every_socket_is_on_loopback(node: LocalNode) -> None:
    found = listeners()
    assert node.address.port in {port for _, port, _ in found}
    assert [one for one in found if not is_loopback(one[0])] == []
