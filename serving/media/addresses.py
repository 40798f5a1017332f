"""Which network addresses may be fetched from: global ones, and those that a rollout allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from serving.errors import InvalidConfig

__all__ = ["Rules"]

_Address: TypeAlias = IPv4Address | IPv6Address
_Network: TypeAlias = IPv4Network | IPv6Network

# All that is handed out for global use is in here (IANA, IPv6 address space); 64:ff9b::/96 (RFC
# 6052) is what a resolver makes of an IPv4 address on a network that has none.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, section 2.5.5.1
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214: bits 64 to 95, then an IPv4 address
# Newer than the tables of Python 3.11: documentation (RFC 9637), and 6to4 relays (RFC 7526).
_NOT_GLOBAL: tuple[_Network, ...] = (IPv6Network("3fff::/20"), IPv4Network("192.88.99.0/24"))


class Rules:
    """`allow` of the settings: networks, single addresses and host names.

    Raises `InvalidConfig` for an entry that is none of them.
    """

    def __init__(self, allow: Sequence[str]) -> None:
        self._networks: list[_Network] = []
        self._hosts: set[str] = set()
        for entry in allow:
            network = _network(entry)
            if network is None:
                self._hosts.add(_name(entry))
            else:
                self._networks.append(network)

    def admits(self, host: str, address: str) -> bool:
        """Whether `address`, to which `host` was resolved, may be connected to."""
        if _name(host) in self._hosts:
            return True
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if self._allowed(found):
            return True
        return all(_is_global(one) or self._allowed(one) for one in _meant(found))

    def _allowed(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _name(host: str) -> str:
    return host.lower().rstrip(".")


def _network(entry: str) -> _Network | None:
    """The network or single address that an entry is, or None for a host name."""
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        if not entry.strip() or any(character in entry for character in "/:@ "):
            raise InvalidConfig(
                f"media.allow has {entry!r}, which is neither a network nor a host name"
            ) from None
        return None


def _meant(address: _Address) -> Iterator[_Address]:
    """The address, unless it only writes an IPv4 address; and every IPv4 address inside it."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
        return
    low = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64:
        yield low
        return
    yield address
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _COMPATIBLE or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        yield low


def _is_global(address: _Address) -> bool:
    if address.is_multicast or not address.is_global:
        return False
    if any(address in network for network in _NOT_GLOBAL):
        return False
    return address.version == 4 or (address in _GLOBAL_UNICAST and address not in _NAT64_LOCAL)
