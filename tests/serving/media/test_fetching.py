"""Fetching: only from global addresses, resolved once, within bytes, seconds and redirects.

The servers are real and on loopback, which the tests allow by name or network where they mean to
reach them. Only the resolver of names is a stub.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import MediaTooLarge, MediaUnreachable
from serving.media import MediaOptions, Wanted
from serving.media.fetching import Fetched
from tests.serving.media.servers import Answer, certificate, serving

LOOPBACK = ("127.0.0.0/8", "::1")
OPEN = MediaOptions(fetch=True, allow=LOOPBACK)
WANTED = Wanted("input.2", "image", 1000, "media.image_bytes")


class Names:
    """A resolver whose answers are given: the n-th for the n-th question about a host."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self._answers:
            raise OSError("no such host")
        given = self._answers[host]
        return given.pop(0) if len(given) > 1 else given[0]


def fetch(source: str, options: MediaOptions = OPEN, names: Names | None = None) -> bytes:
    fetched = Fetched(options, names) if names else Fetched(options)
    return asyncio.run(fetched.read(source, WANTED))


def refused(source: str, options: MediaOptions = OPEN, names: Names | None = None) -> str:
    with pytest.raises(MediaUnreachable) as caught:
        fetch(source, options, names)
    assert (caught.value.status, caught.value.field) == (422, "input.2")
    assert caught.value.message.startswith("input.2 ")
    return caught.value.message


# Off and on


def test_nothing_is_fetched_unless_it_is_set() -> None:
    names = Names()
    message = refused("https://example.org/a.png", MediaOptions(), names)
    assert "media.fetch" in message and "base64" in message
    assert names.asked == []


def test_a_file_is_fetched() -> None:
    with serving({"/a.png?x=1": Answer((b"one", b"two"))}) as server:
        assert fetch(f" http://127.0.0.1:{server.port}/a.png?x=1#part ") == b"onetwo"
    [headers] = server.seen
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer"} & set(headers)


def test_a_file_is_fetched_over_ipv6() -> None:
    with serving({"/a": Answer((b"six",))}, "::1") as server:
        assert fetch(f"http://[::1]:{server.port}/a") == b"six"
    assert server.seen[0]["host"] == f"[::1]:{server.port}"


def test_a_name_is_the_host_although_its_address_is_connected_to() -> None:
    names = Names(pictures_test=[["127.0.0.1"]])
    with serving({"/": Answer((b"x",))}) as server:
        assert fetch(f"http://pictures.test:{server.port}/", names=names) == b"x"
    assert server.seen[0]["host"] == f"pictures.test:{server.port}"


def test_the_next_address_is_tried_where_one_takes_no_connection() -> None:
    with serving({"/": Answer((b"x",))}) as server:
        names = Names(two_test=[["127.0.0.2", "127.0.0.1"]])
        assert fetch(f"http://two.test:{server.port}/", names=names) == b"x"


# https


def test_the_certificate_is_the_names_although_its_address_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, "pictures.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    names = Names(pictures_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    with serving({"/": Answer((b"secret",))}, pem=pem) as server:
        assert fetch(f"https://pictures.test:{server.port}/", names=names) == b"secret"
        message = refused(f"https://other.test:{server.port}/", names=names)
    assert server.names == ["pictures.test", "other.test"]
    assert len(server.seen) == 1
    assert "other.test takes no connection, or has no valid certificate" in message


def test_an_unknown_certificate_is_not_trusted(tmp_path: Path) -> None:
    names = Names(pictures_test=[["127.0.0.1"]])
    with serving({"/": Answer((b"x",))}, pem=certificate(tmp_path, "pictures.test")) as server:
        refused(f"https://pictures.test:{server.port}/", names=names)
    assert server.seen == []


# Addresses that are not global


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "10.0.0.1",
    ],
)
def test_loopback_is_refused_however_it_is_written(host: str) -> None:
    with serving({"/": Answer((b"secret",))}) as server:
        message = refused(f"http://{host}:{server.port}/", MediaOptions(fetch=True))
    # httpx itself takes a dotted number with a leading nought for no address.
    assert "is not on the public internet" in message or host == "0177.0.0.1"
    assert server.seen == []


def test_a_name_of_a_private_address_is_refused_and_the_address_not_told() -> None:
    names = Names(inside_test=[["10.11.12.13"]])
    message = refused("http://inside.test/", MediaOptions(fetch=True), names)
    assert "inside.test" in message and "10.11" not in message


def test_a_name_with_one_private_address_is_refused() -> None:
    names = Names(both_test=[["8.8.8.8", "10.0.0.1"]])
    assert "public" in refused("http://both.test/", MediaOptions(fetch=True), names)


def test_an_allowed_name_may_be_anywhere() -> None:
    names = Names(inside_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    options = MediaOptions(fetch=True, allow=("inside.test",))
    with serving({"/": Answer((b"x",))}) as server:
        assert fetch(f"http://inside.test:{server.port}/", options, names) == b"x"
        refused(f"http://other.test:{server.port}/", options, names)


def test_a_name_is_resolved_once_so_that_a_second_answer_leads_nowhere() -> None:
    # The first answer is checked and connected to: nobody asks for the second one.
    names = Names(rebind_test=[["127.0.0.1"], ["127.0.0.2"]])
    options = MediaOptions(fetch=True, allow=("127.0.0.1",))
    with serving({"/": Answer((b"x",))}) as server:
        assert fetch(f"http://rebind.test:{server.port}/", options, names) == b"x"
    assert names.asked == ["rebind.test"]


def test_rebinding_to_loopback_between_redirects_is_refused() -> None:
    names = Names(rebind_test=[["127.0.0.1"], ["127.0.0.2"]])
    options = MediaOptions(fetch=True, allow=("127.0.0.1",))
    away = Answer(status=302, headers={"location": "/again"})
    with serving({"/": away, "/again": Answer((b"secret",))}) as server:
        assert "public" in refused(f"http://rebind.test:{server.port}/", options, names)
    assert names.asked == ["rebind.test", "rebind.test"]
    assert len(server.seen) == 1


# Redirects


def test_redirects_are_followed_up_to_the_limit() -> None:
    hops = {
        f"/{n}": Answer(status=code, headers={"location": f"{n + 1}", "set-cookie": "a=b"})
        for n, code in enumerate((301, 302, 303, 307))
    }
    with serving(hops | {"/4": Answer((b"end",))}) as server:
        base = f"http://127.0.0.1:{server.port}"
        assert fetch(f"{base}/1") == b"end"
        assert all("cookie" not in headers for headers in server.seen)
        assert "more than 3 times (media.redirects)" in refused(f"{base}/0")
        assert fetch(f"{base}/0", replace(OPEN, redirects=4)) == b"end"
        assert "more than 0 times" in refused(f"{base}/3", replace(OPEN, redirects=0))


def test_a_redirect_to_loopback_is_refused() -> None:
    with serving({"/secret": Answer((b"secret",))}) as inside:
        to = f"http://127.0.0.2:{inside.port}/secret"
        with serving({"/": Answer(status=302, headers={"location": to})}) as outside:
            options = MediaOptions(fetch=True, allow=("127.0.0.1",))
            assert "public" in refused(f"http://127.0.0.1:{outside.port}/", options)
    assert inside.seen == []


@pytest.mark.parametrize(
    "to",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://u:p@127.0.0.1/", "http://["],
)
def test_a_redirect_to_anything_else_is_refused(to: str) -> None:
    with serving({"/": Answer(status=302, headers={"location": to})}) as server:
        refused(f"http://127.0.0.1:{server.port}/")


# Addresses that are none


@pytest.mark.parametrize(
    "source",
    [
        "http://",
        "http:///x",
        "http://user@127.0.0.1/",
        "http://user:hush@127.0.0.1/",
        "http://[::1/",
        "http://a b/",
        "http://" + "a" * 300 + ".test/",
        "http://127.0.0.1:99999/",
        "https://①②⑦.⓪.⓪.①:1/",
    ],
)
def test_an_address_that_is_none_is_refused(source: str) -> None:
    assert "hush" not in refused(source)


def test_a_name_that_there_is_not_is_refused() -> None:
    assert "nowhere.test is the name of no host" in refused("http://nowhere.test/", names=Names())


# Bytes and seconds


def test_too_large_a_file_is_refused_from_its_header() -> None:
    with (
        serving({"/": Answer((), headers={"content-length": "1001"})}) as server,
        pytest.raises(MediaTooLarge, match="has 1001 bytes; an image may have 1000"),
    ):
        fetch(f"http://127.0.0.1:{server.port}/")


def test_too_large_a_stream_is_refused_while_it_comes() -> None:
    answers = {"/": Answer((bytes(600),) * 20_000), "/fits": Answer((bytes(500),) * 2)}
    with serving(answers) as server:
        assert len(fetch(f"http://127.0.0.1:{server.port}/fits")) == 1000
        with pytest.raises(MediaTooLarge, match="has more than 1000 bytes") as caught:
            fetch(f"http://127.0.0.1:{server.port}/")
    assert (caught.value.field, caught.value.status) == ("input.2", 413)


def test_a_compressed_answer_is_refused() -> None:
    with serving({"/": Answer((b"x",), headers={"content-encoding": "gzip"})}) as server:
        assert "compresses" in refused(f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500])
def test_any_other_status_is_refused(status: int) -> None:
    with serving({"/": Answer(status=status)}) as server:
        message = refused(f"http://127.0.0.1:{server.port}/")
    assert message == f"input.2 cannot be fetched: 127.0.0.1 answers with status {status}"


def test_a_server_that_goes_silent_is_given_up() -> None:
    release = threading.Event()
    silent = Answer((b"x",), headers={"content-length": "9"}, after=release.wait)
    with serving({"/": silent}) as server:
        message = refused(f"http://127.0.0.1:{server.port}/", replace(OPEN, timeout_s=0.2))
        release.set()
    assert "gave no image within 0.2 seconds (media.timeout_s)" in message


def test_a_resolver_that_goes_silent_is_given_up() -> None:
    async def silent(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(MediaUnreachable, match=r"within 0\.05 seconds"):
        asyncio.run(Fetched(replace(OPEN, timeout_s=0.05), silent).read("http://a.test/", WANTED))


def test_a_connection_that_breaks_off_is_refused() -> None:
    with serving({"/": Answer((b"x",), headers={"content-length": "9"})}) as server:
        assert "broke the connection off" in refused(f"http://127.0.0.1:{server.port}/")


def test_no_proxy_of_the_environment_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as proxy, serving({"/": Answer((b"x",))}) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert fetch(f"http://127.0.0.1:{server.port}/") == b"x"
    assert proxy.seen == []
