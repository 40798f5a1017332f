"""Files behind an http or https address: a `MediaSource` that connects to global addresses only.

A host's name is resolved once; what it is resolved to is checked and then connected to, so that a
second answer of the resolver cannot lead elsewhere. No proxy, cookie or credential takes part, and
no connection is kept: one made for a host must not be used for another at the same address.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import httpx

from serving import __version__
from serving.errors import MediaUnreachable
from serving.media import MediaOptions, Wanted
from serving.media.addresses import Rules

__all__ = ["Fetched", "Resolver", "resolve"]

Resolver: TypeAlias = Callable[[str, int], Awaitable[list[str]]]

_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 0xFFFF


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order to try them, as this machine's resolver gives them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetched:
    """The `MediaSource` of addresses, for `options.fetch`.

    Certificates are checked against certifi's, the system's and those of `SSL_CERT_FILE`.
    """

    def __init__(self, options: MediaOptions, resolver: Resolver = resolve) -> None:
        self._options = options
        self._rules = Rules(options.allow)
        self._resolve = resolver
        self._tls: ssl.SSLContext | bool = _tls() if options.fetch else True

    async def read(self, source: str, wanted: Wanted) -> bytes:
        """The bytes at the address `source`."""
        if not self._options.fetch:
            raise MediaUnreachable(
                f"{wanted.field} is an address, and none is fetched here: send the {wanted.noun}"
                " as base64, or set media.fetch: true",
                wanted.field,
            )
        url = _url(source.strip(), wanted)
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._follow(url, wanted)
        except TimeoutError:
            within = f"within {self._options.timeout_s:g} seconds (media.timeout_s)"
            raise _unreachable(wanted, url, f"gave no {wanted.noun} {within}") from None

    async def _follow(self, url: httpx.URL, wanted: Wanted) -> bytes:
        for _ in range(self._options.redirects + 1):
            found = await self._get(url, wanted)
            if isinstance(found, bytes):
                return found
            try:
                url = _url(str(url.join(found)), wanted)
            except httpx.InvalidURL:
                raise _unreachable(wanted, url, "redirects to what is no address") from None
        most = f"more than {self._options.redirects} times (media.redirects)"
        raise _unreachable(wanted, url, f"is the end of no chain: it redirects {most}")

    async def _get(self, url: httpx.URL, wanted: Wanted) -> bytes | str:
        """The file at one address, or where it redirects to."""
        for address in await self._addresses(url, wanted):
            try:
                return await self._ask(url, address, wanted)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
            except httpx.TransportError:
                raise _unreachable(wanted, url, "broke the connection off") from None
        raise _unreachable(wanted, url, "takes no connection, or has no valid certificate")

    async def _addresses(self, url: httpx.URL, wanted: Wanted) -> list[str]:
        """What the host is resolved to, all of it checked."""
        try:
            found = await self._resolve(
                url.host, url.port or (443 if url.scheme == "https" else 80)
            )
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise _unreachable(wanted, url, "is the name of no host")
        if not all(self._rules.admits(url.host, address) for address in found):
            raise _unreachable(wanted, url, "is not on the public internet (media.allow)")
        return found

    async def _ask(self, url: httpx.URL, address: str, wanted: Wanted) -> bytes | str:
        """One request to `address`, which the server and its certificate see as one to the host."""
        seconds = self._options.timeout_s
        waits = dict.fromkeys(("read", "write", "pool"), seconds)
        request = httpx.Request(
            "GET",
            url.copy_with(host=address),
            headers={
                "host": url.netloc.decode(),
                "accept": "*/*",
                "accept-encoding": "identity",
                "user-agent": f"polyvec/{__version__}",
            },
            extensions={
                "sni_hostname": url.raw_host.decode(),
                "timeout": {"connect": self._options.connect_timeout_s, **waits},
            },
        )
        async with httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            try:
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    return response.headers["location"]
                return await _body(response, url, wanted)
            finally:
                await response.aclose()


def _tls() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


async def _body(response: httpx.Response, url: httpx.URL, wanted: Wanted) -> bytes:
    if response.status_code != 200:
        raise _unreachable(wanted, url, f"answers with status {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unreachable(wanted, url, "compresses its answer, which was not asked for")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > wanted.limit:
        raise wanted.too_large(int(length))
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > wanted.limit:
            raise wanted.too_large()
    return bytes(data)


def _url(source: str, wanted: Wanted) -> httpx.URL:
    """An http or https address with a host and without credentials."""
    try:
        url = httpx.URL(source)
    except httpx.InvalidURL:
        raise MediaUnreachable(
            f"{wanted.field} is no address that can be read", wanted.field
        ) from None
    if url.scheme not in _PORTS or not url.host or (url.port or 0) > _LAST_PORT:
        raise MediaUnreachable(
            f"{wanted.field} leads to what is neither an http nor an https address", wanted.field
        )
    if url.userinfo:
        raise MediaUnreachable(
            f"{wanted.field} has a user name or a password in its address", wanted.field
        )
    return url


def _unreachable(wanted: Wanted, url: httpx.URL, why: str) -> MediaUnreachable:
    return MediaUnreachable(f"{wanted.field} cannot be fetched: {url.host} {why}", wanted.field)
