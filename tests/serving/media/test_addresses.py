"""Which addresses are global, in all the ways to write one, and which a rollout allows."""

from __future__ import annotations

import pytest

from serving.errors import InvalidConfig
from serving.media.addresses import Rules


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.1.1",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "100::1",
        "5f00::1",
        "2001:db8::1",
        "3fff::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "2001:0:7f00:1::",
        "2a00::5efe:127.0.0.1",
        "2a00::200:5efe:10.0.0.1",
        "not an address",
    ],
)
def test_an_address_that_is_not_global_is_refused(address: str) -> None:
    assert not Rules(()).admits("example.org", address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700::1111",
        "2a00:1450:4001:80b::200e",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ],
)
def test_a_global_address_is_admitted(address: str) -> None:
    assert Rules(()).admits("example.org", address)


def test_a_network_may_be_allowed() -> None:
    rules = Rules(("10.0.0.0/8", "fd00::/8", "192.168.1.7"))
    for address in ("10.255.0.1", "::ffff:10.0.0.1", "fd12::1", "192.168.1.7"):
        assert rules.admits("x", address), address
    for address in ("11.0.0.1.2", "192.168.1.8", "fc00::1", "127.0.0.1"):
        assert not rules.admits("x", address), address


def test_a_host_may_be_allowed_by_its_name() -> None:
    rules = Rules(("Images.Internal",))
    assert rules.admits("images.internal.", "10.0.0.1")
    assert not rules.admits("other.images.internal", "10.0.0.1")
    assert not rules.admits("10.0.0.1", "10.0.0.1")


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "http://x", "", "a:80", "a b"])
def test_an_entry_that_is_neither_is_refused(entry: str) -> None:
    with pytest.raises(InvalidConfig, match=r"media\.allow"):
        Rules((entry,))
